"""(c) Pending orders: place, modify, remove, of each type and lifetime that the symbol allows."""

from __future__ import annotations

from typing import Any

from streamapp.conformance.account import ConformanceAccount
from streamapp.conformance.run import Run
from streamapp.conformance.scenarios import DONE, NO_CHANGES, RESULT, retcode
from streamapp.conformance.surface import check_types
from streamapp.conformance.wire import ShownStruct
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import SYMBOL_ORDER_LIMIT, SYMBOL_ORDER_STOP, SYMBOL_ORDER_STOP_LIMIT

# Type, its bit of order_mode, the side of the market on which its price is (0 below), and that of the limit behind it.
KINDS = {
    "buy limit": (mt5.ORDER_TYPE_BUY_LIMIT, SYMBOL_ORDER_LIMIT, 0),
    "sell limit": (mt5.ORDER_TYPE_SELL_LIMIT, SYMBOL_ORDER_LIMIT, 1),
    "buy stop": (mt5.ORDER_TYPE_BUY_STOP, SYMBOL_ORDER_STOP, 1),
    "sell stop": (mt5.ORDER_TYPE_SELL_STOP, SYMBOL_ORDER_STOP, 0),
    "buy stop limit": (mt5.ORDER_TYPE_BUY_STOP_LIMIT, SYMBOL_ORDER_STOP_LIMIT, 1),
    "sell stop limit": (mt5.ORDER_TYPE_SELL_STOP_LIMIT, SYMBOL_ORDER_STOP_LIMIT, 0),
}
PENDING = "§1.5: a pending order's result has its ticket, no deal, price 0 [OBS]"
SHOWN = "§2.5: a placed order is in orders_get, a removed one in the history as cancelled [BOOK]"


def pending_filling(account: ConformanceAccount) -> int | None:
    """A filling mode with which this broker takes pending orders, by order_check and never by sending."""
    for filling in (mt5.ORDER_FILLING_RETURN, account.filling(), mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC):
        said = account.caller.call("order_check", pending_request(account, mt5.ORDER_TYPE_BUY_LIMIT, 0, filling))
        if retcode(said) == 0:
            return filling
    return None


def pending_request(account: ConformanceAccount, kind: int, side: int, filling: int, **fields: Any) -> dict[str, Any]:
    """A pending order far from the market."""
    request = {
        "action": mt5.TRADE_ACTION_PENDING, "symbol": account.symbol, "volume": account.lot(), "type": kind,
        "price": account.far(side, 2), "type_filling": filling, "type_time": mt5.ORDER_TIME_GTC,
        "magic": next(account.magics), "comment": "conformance", **fields,
    }  # fmt: skip
    if kind in (mt5.ORDER_TYPE_BUY_STOP_LIMIT, mt5.ORDER_TYPE_SELL_STOP_LIMIT):
        # The limit comes into force at `price` and is on the better side of it: on the market's side.
        request["stoplimit"] = account.far(side, 1)
    return request


def pendings(run: Run, account: ConformanceAccount) -> None:
    """Each type: placed, changed, not changed, removed, and removed once more."""
    filling = pending_filling(account)
    if filling is None:
        run.failed("pending orders", "§2.1: filling of pending orders varies by broker [OBS]", "no filling is accepted")
        return
    run.measured("filling of pending orders", "§2.1: filling of pending orders varies by broker [OBS]", filling)
    mode = account.info().order_mode
    for name, (kind, bit, side) in KINDS.items():
        if mode & bit:
            _life(run, account, name, pending_request(account, kind, side, filling))
        else:
            run.skipped(name, PENDING, "the symbol's order_mode has no such order")
    _lifetimes(run, account, filling)


def _place(run: Run, account: ConformanceAccount, name: str, request: dict[str, Any]) -> int:
    said = account.send(request)
    run.equal(name, RESULT, DONE, retcode(said))
    if not isinstance(said.result, ShownStruct) or said.result.retcode != DONE:
        return 0
    result = said.result
    run.equal(f"{name}: numbers", PENDING, [True, 0, 0.0], [result.order > 0, result.deal, result.price])
    shown = account.wait(lambda: account.read("orders_get", ticket=result.order))
    run.equal(f"{name}: shown", SHOWN, [request["type"], mt5.ORDER_STATE_PLACED],
              [shown[0].type, shown[0].state] if shown else None)  # fmt: skip
    return int(result.order)


def _life(run: Run, account: ConformanceAccount, name: str, request: dict[str, Any]) -> None:
    ticket = _place(run, account, name, request)
    if not ticket:
        return
    check_types(run, account.read("orders_get", ticket=ticket)[0], "TradeOrder")
    side = 0 if request["price"] < account.tick().bid else 1
    change = {"action": mt5.TRADE_ACTION_MODIFY, "order": ticket, "symbol": account.symbol,
              "price": account.far(side, 3), "type_time": mt5.ORDER_TIME_GTC}  # fmt: skip
    if "stoplimit" in request:
        change["stoplimit"] = account.far(side, 2)
    run.equal(f"{name}: modify", RESULT, DONE, retcode(account.send(change)))
    moved = account.wait(
        lambda: [o for o in account.read("orders_get", ticket=ticket) if o.price_open == change["price"]]
    )
    run.equal(f"{name}: modified", SHOWN, expected=True, observed=bool(moved))
    run.equal(f"{name}: modify to the same", NO_CHANGES, mt5.TRADE_RETCODE_NO_CHANGES, retcode(account.send(change)))
    _remove(run, account, name, ticket)


def _remove(run: Run, account: ConformanceAccount, name: str, ticket: int) -> None:
    removal = {"action": mt5.TRADE_ACTION_REMOVE, "order": ticket}
    run.equal(f"{name}: remove", RESULT, DONE, retcode(account.send(removal)))
    ended = account.wait(lambda: not account.read("orders_get", ticket=ticket) and _ended(account, ticket))
    run.equal(f"{name}: removed", SHOWN, [mt5.ORDER_STATE_CANCELED], [ended.state] if ended else None)
    claim = "§2.1: removing an order that is gone: 10013 or 10035 by build [UNV]"
    run.equal(f"{name}: remove again", claim, mt5.TRADE_RETCODE_INVALID_ORDER, retcode(account.send(removal)))


def _ended(account: ConformanceAccount, ticket: int) -> ShownStruct | None:
    found = account.read("history_orders_get", ticket=ticket)
    return found[0] if found else None


def _lifetimes(run: Run, account: ConformanceAccount, filling: int) -> None:
    allowed, tomorrow = account.info().expiration_mode, int(account.tick().time) // 60 * 60 + 86_400
    for name, kind, bit, fields in (
        ("for the day", mt5.ORDER_TIME_DAY, 2, {}),
        ("until a time", mt5.ORDER_TIME_SPECIFIED, 4, {"expiration": tomorrow}),
        ("until a day", mt5.ORDER_TIME_SPECIFIED_DAY, 8, {"expiration": tomorrow}),
    ):
        if not allowed & bit:
            run.skipped(name, PENDING, "the symbol's expiration_mode has no such lifetime")
            continue
        request = pending_request(account, mt5.ORDER_TYPE_BUY_LIMIT, 0, filling, type_time=kind, **fields)
        ticket = _place(run, account, name, request)
        if ticket:
            run.equal(f"{name}: lifetime", "§2.2: type_time as asked [DOC]", kind,
                      account.read("orders_get", ticket=ticket)[0].type_time)  # fmt: skip
            _remove(run, account, name, ticket)
