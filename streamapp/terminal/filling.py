"""Which filling modes a symbol allows an order (reference mt5 §2.2): never found out by sending."""

from __future__ import annotations

from typing import Any

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import FillPolicy
from streamapp.terminal.request import FILLING_FOK, FILLING_IOC, FILLING_RETURN, RefusedError

FLAG_FOK, FLAG_IOC = 1, 2  # symbol_info().filling_mode: another number space than ORDER_FILLING_*
POLICIES: dict[FillPolicy, int] = {"fok": FILLING_FOK, "ioc": FILLING_IOC, "return": FILLING_RETURN}
EXECUTION_REQUEST, EXECUTION_INSTANT, EXECUTION_MARKET, EXECUTION_EXCHANGE = range(4)


def fillings(wanted: OrderParameters, symbol: dict[str, Any]) -> tuple[int, ...]:
    """Return the filling modes to choose from: one, or several where only ``order_check`` can tell.

    Raises:
        RefusedError: the symbol does not allow the policy that was asked for.
    """
    flags = symbol["filling_mode"]
    allowed = (_of_deals if wanted.order_type == "market" else _of_pendings)(symbol)
    if wanted.fill_policy == "any":
        if wanted.order_type != "market" and symbol["trade_exemode"] == EXECUTION_MARKET:
            return allowed if flags else (FILLING_RETURN, FILLING_FOK, FILLING_IOC)
        return allowed[:1] or (FILLING_FOK, FILLING_IOC, FILLING_RETURN)
    mode = POLICIES[wanted.fill_policy]
    if mode not in allowed and (flags or mode == FILLING_RETURN):
        raise RefusedError(
            "invalid", f"expected a fill policy that {wanted.symbol} allows, got {wanted.fill_policy} (flags {flags})"
        )
    return (mode,)


def allowed_policies(symbol: dict[str, Any]) -> tuple[FillPolicy, ...]:
    """Return the fill policies that a symbol is known to allow market orders, beside ``any``."""
    allowed = _of_deals(symbol)
    return tuple(policy for policy, mode in POLICIES.items() if mode in allowed)


def _flagged(symbol: dict[str, Any]) -> tuple[int, ...]:
    modes = ((FLAG_IOC, FILLING_IOC), (FLAG_FOK, FILLING_FOK))
    return tuple(mode for flag, mode in modes if symbol["filling_mode"] & flag)


def _of_deals(symbol: dict[str, Any]) -> tuple[int, ...]:
    flagged, execution = _flagged(symbol), symbol["trade_exemode"]
    if execution in (EXECUTION_REQUEST, EXECUTION_INSTANT):
        return (*flagged, FILLING_FOK, FILLING_IOC, FILLING_RETURN)
    return (*flagged, FILLING_RETURN) if execution == EXECUTION_EXCHANGE else flagged


def _of_pendings(symbol: dict[str, Any]) -> tuple[int, ...]:
    """Return RETURN first: a pending works until all of it is filled. Some brokers take only what is flagged."""
    if symbol["trade_exemode"] in (EXECUTION_REQUEST, EXECUTION_INSTANT):
        return (FILLING_RETURN, FILLING_FOK, FILLING_IOC)
    return (FILLING_RETURN, *_flagged(symbol))
