"""Which filling modes a symbol allows an order (reference mt5 §2.2): by its flags, until the broker denies them."""

from __future__ import annotations

from collections.abc import Collection

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import FillPolicy
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import FILL_POLICIES, SYMBOL_FILLING_FOK, SYMBOL_FILLING_IOC
from streamapp.terminal.account.request import RefusedError
from streamapp.terminal.pipe.structs import SymbolInfo

MODES = {policy: mode for mode, policy in FILL_POLICIES.items()}
# In the order in which they are preferred.
FLAGS = ((SYMBOL_FILLING_IOC, mt5.ORDER_FILLING_IOC), (SYMBOL_FILLING_FOK, mt5.ORDER_FILLING_FOK))
BY_QUOTE = (mt5.SYMBOL_TRADE_EXECUTION_REQUEST, mt5.SYMBOL_TRADE_EXECUTION_INSTANT)
"""Executions at a price that the broker quoted: every filling mode is allowed, whatever is flagged."""


def fillings(wanted: OrderParameters, symbol: SymbolInfo, denied: Collection[int] = frozenset()) -> tuple[int, ...]:
    """Return the filling modes to choose from: one, or several where only ``order_check`` can tell.

    Args:
        wanted: The order.
        symbol: Its symbol.
        denied: Modes that the broker refused to this order (10030), whatever the symbol's flags say.

    Raises:
        RefusedError: the symbol does not allow the policy that was asked for, or all were denied.
    """
    flags = symbol.filling_mode
    allowed = (_of_deals if wanted.order_type == "market" else _of_pendings)(symbol)
    if denied:
        return _not_denied(wanted, allowed, denied)
    if wanted.fill_policy == "any":
        if wanted.order_type != "market" and symbol.trade_exemode == mt5.SYMBOL_TRADE_EXECUTION_MARKET:
            return allowed if flags else (mt5.ORDER_FILLING_RETURN, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC)
        return allowed[:1] or (mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC, mt5.ORDER_FILLING_RETURN)
    mode = MODES[wanted.fill_policy]
    if mode not in allowed and (flags or mode == mt5.ORDER_FILLING_RETURN):
        raise RefusedError(
            "invalid", f"expected a fill policy that {wanted.symbol} allows, got {wanted.fill_policy} (flags {flags})"
        )
    return (mode,)


def _not_denied(wanted: OrderParameters, allowed: tuple[int, ...], denied: Collection[int]) -> tuple[int, ...]:
    """Return the next mode: first those that are flagged, then those that are not, for the flags were wrong."""
    asked = MODES.values() if wanted.fill_policy == "any" else (MODES[wanted.fill_policy],)
    left = [mode for mode in dict.fromkeys((*allowed, *MODES.values())) if mode in asked and mode not in denied]
    if not left:
        raise RefusedError("invalid", f"expected a filling mode that {wanted.symbol} takes, its broker denied them all")
    return (left[0],)


def allowed_policies(symbol: SymbolInfo) -> tuple[FillPolicy, ...]:
    """Return the fill policies that a symbol is known to allow market orders, beside ``any``."""
    allowed = _of_deals(symbol)
    return tuple(policy for policy, mode in MODES.items() if mode in allowed)


def _flagged(symbol: SymbolInfo) -> tuple[int, ...]:
    return tuple(mode for flag, mode in FLAGS if symbol.filling_mode & flag)


def _of_deals(symbol: SymbolInfo) -> tuple[int, ...]:
    flagged, execution = _flagged(symbol), symbol.trade_exemode
    if execution in BY_QUOTE:
        return (*flagged, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC, mt5.ORDER_FILLING_RETURN)
    return (*flagged, mt5.ORDER_FILLING_RETURN) if execution == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE else flagged


def _of_pendings(symbol: SymbolInfo) -> tuple[int, ...]:
    """Return RETURN first: a pending works until all of it is filled. Some brokers take only what is flagged."""
    if symbol.trade_exemode in BY_QUOTE:
        return (mt5.ORDER_FILLING_RETURN, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC)
    return (mt5.ORDER_FILLING_RETURN, *_flagged(symbol))
