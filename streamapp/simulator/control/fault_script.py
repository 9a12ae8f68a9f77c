"""Faults as JSON: what each field and parameter may be.

Whoever sets a fault hears of a mistake at once, not the market in the middle of an order.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import Any

from streamapp.simulator.server.faults import FOR_EVER_MS, KINDS, THIRD_PARTY, Fault
from streamapp.simulator.server.market import Market
from streamapp.simulator.server.third_party import ACTIONS
from streamapp.simulator.wire import COMMANDS

_FIELDS = {"kind", "account", "on", "nth", "probability", "times", "for_ms", "params"}
# Whole numbers, and amounts. What else there is are words.
_WHOLE = (
    "ms", "after_ms", "after_login_ms", "steps", "extra", "retcode", "code", "length", "position", "order", "deal",
    "orders", "positions", "hist_orders", "hist_deals", "history_orders", "history_deals", "magic",
)  # fmt: skip
_AMOUNTS = ("price", "volume", "share", "sl", "tp", "ratio")
_REWRITINGS = ("truncate", "append", "replace", "empty")
# Years in milliseconds; no price and no volume is that large either.
_MOST = 1 << 50
_LARGEST_AMOUNT = Decimal(10**9)


def set_faults(market: Market, rows: list[dict[str, Any]]) -> list[Fault]:
    """Set faults, all or none, and return them; what somebody else does without waiting for a call is done at once.

    Raises:
        ValueError: A kind, field, parameter or account that does not exist; the message says what does.
    """
    faults = [_read(market, row) for row in rows]
    for fault in faults:
        if fault.kind in THIRD_PARTY and not fault.scripted:
            market.third_party.act(fault.kind, fault.params, market.faults.accounts_of(fault))
            fault.hits += 1
        else:
            market.faults.set(fault)
    return faults


def _read(market: Market, row: dict[str, Any]) -> Fault:
    if not isinstance(row, dict):
        raise ValueError(f"expected a fault to be an object, got {row!r}"[:200])  # noqa: TRY004  # as all others
    if unknown := set(row) - _FIELDS:
        raise ValueError(f"expected fields {sorted(_FIELDS)} in a fault, got also {sorted(unknown)}")
    if row.get("kind") not in KINDS:
        raise ValueError(f"expected kind to be one of {sorted(KINDS)}, got {row.get('kind')!r}")
    account, on = row.get("account"), str(row.get("on", "order_send"))
    found = market.books.find(account) if account is not None else None
    if account is not None and found is None:
        raise ValueError(f"expected account to be one of {sorted(market.books.accounts)}, got {account!r}")
    if on not in COMMANDS:
        raise ValueError(f"expected on to be one of {sorted(COMMANDS)}, got {on!r}")
    params = _params(str(row["kind"]), row.get("params", {}))
    nth = int(row["nth"]) if "nth" in row else None
    until = market.clock.utc_ms() + int(row["for_ms"]) if "for_ms" in row else FOR_EVER_MS
    number = market.faults.next_number()
    return Fault(
        number=number,
        kind=str(row["kind"]),
        account=found.name if found else None,
        on=on,
        nth=nth,
        probability=float(row["probability"]) if "probability" in row else None,
        times=int(row["times"]) if "times" in row else (1 if nth is not None else None),
        until_ms=until,
        params=params,
        draws=market.faults.draws(number),
        ends_ms=until,
    )


def _params(kind: str, given: Any) -> dict[str, Any]:
    params = _checked(given)
    action = params.get("action", ACTIONS[0])
    if kind == "foreign_activity" and action not in ACTIONS:
        raise ValueError(f"expected params.action of foreign_activity to be one of {ACTIONS}, got {action!r}")
    if action == "correct" and "price" not in params:
        raise ValueError(f"expected params.price, the price to correct a deal to, got {params}")
    if action == "relabel" and not {"magic", "comment"} & params.keys():
        raise ValueError(f"expected params.magic or params.comment, what a deal is to be called, got {params}")
    if action == "split" and not Decimal(str(params.get("ratio", 0))):
        raise ValueError(f"expected params.ratio, how many there are for one, got {params}")
    return params


def _checked(params: Any) -> dict[str, Any]:
    """Return the params of a fault, as they are, or raise the ValueError that says what is wrong with one."""
    if not isinstance(params, dict):
        raise ValueError(f"expected params to be an object, got {params!r}"[:200])  # noqa: TRY004  # as all others
    for name in _WHOLE:
        value = params.get(name, 0)
        if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > _MOST:
            raise ValueError(f"expected params.{name} to be a number, got {value!r}"[:200])
    for name in _AMOUNTS:
        _check_amount(name, params.get(name, 0))
    if params.get("how", "empty") not in _REWRITINGS:
        raise ValueError(f"expected params.how to be one of {_REWRITINGS}, got {params['how']!r}"[:200])
    return dict(params)


def _check_amount(name: str, value: Any) -> None:
    try:
        amount = Decimal(str(value))
        good = 0 <= amount < _LARGEST_AMOUNT and (name != "share" or amount <= 1)
    except InvalidOperation:
        good = False
    if not good:
        raise ValueError(f"expected params.{name} to be a positive number or its text, got {value!r}"[:200])
