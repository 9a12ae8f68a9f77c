"""(c) Requests that are well formed and must be refused, with their return codes."""

from __future__ import annotations

from typing import Any

from streamapp.conformance.account import EXECUTED, ConformanceAccount
from streamapp.conformance.pending import pending_filling, pending_request
from streamapp.conformance.run import Run
from streamapp.conformance.scenarios import close_position, open_position, retcode
from streamapp.conformance.wire import ShownStruct
from streamapp.mt5 import constants as mt5

# A ticket that no server has given yet: far above today's, below 2**63.
NO_TICKET = 9_000_000_000_000
VOLUME, PRICE, STOPS = "§2.3: volume 10014 [DOC]", "§2.3: price 10015 [DOC]", "§2.3: stops 10016 [DOC]"
ORDER_OF_CHECKS = "§5.8: order of the checks, and who refuses [UNV]"

Refusal = tuple[str, str, int, dict[str, Any]]
"""Name, claim, return code, request."""


def _of_market(account: ConformanceAccount) -> list[Refusal]:
    info = account.info()
    market = account.market(0, account.lot())
    invalid, unknown = mt5.TRADE_RETCODE_INVALID, "NOSUCHSYMBOL"
    refused: list[Refusal] = [
        ("action 0", "§1.4: an omitted action is 0: 10013 [DOC]", invalid, {**market, "action": 0}),
        ("unknown symbol", "§5.8: unknown symbol 10013 [UNV]", invalid, {**market, "symbol": unknown}),
        ("volume 0", VOLUME, mt5.TRADE_RETCODE_INVALID_VOLUME, {**market, "volume": 0.0}),
        ("volume too small", VOLUME, mt5.TRADE_RETCODE_INVALID_VOLUME, {**market, "volume": info.volume_min / 2}),
        ("volume too large", VOLUME, mt5.TRADE_RETCODE_INVALID_VOLUME, {**market, "volume": info.volume_max * 10}),
        ("volume between steps", VOLUME, mt5.TRADE_RETCODE_INVALID_VOLUME,
         {**market, "volume": info.volume_min + info.volume_step / 2}),
        ("stop-loss above a buy", STOPS, mt5.TRADE_RETCODE_INVALID_STOPS, {**market, "sl": account.far(1)}),
        ("take-profit below a buy", STOPS, mt5.TRADE_RETCODE_INVALID_STOPS, {**market, "tp": account.far(0)}),
        ("a pending type in a deal", "§2.1: a deal is a buy or a sell [DOC]", invalid,
         {**market, "type": mt5.ORDER_TYPE_BUY_LIMIT, "price": account.far(0)}),
        ("filling 9", "§2.2: filling 10030 [DOC]", mt5.TRADE_RETCODE_INVALID_FILL, {**market, "type_filling": 9}),
    ]  # fmt: skip
    if info.trade_exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
        refused.append(("no price", PRICE, mt5.TRADE_RETCODE_INVALID_PRICE, {**market, "price": 0.0}))
        off = {**market, "price": account.far(0), "deviation": 1}
        refused.append(("a price off the market", "§2.1: 10004 or 10015 [UNV]", mt5.TRADE_RETCODE_REQUOTE, off))
    if account.hedging:
        refused.append(("close of nothing", "§2.4: 10036 [DOC]", mt5.TRADE_RETCODE_POSITION_CLOSED,
                        {**market, "type": 1, "position": NO_TICKET}))  # fmt: skip
    return refused


def _of_pendings(account: ConformanceAccount, filling: int) -> list[Refusal]:
    limit = pending_request(account, mt5.ORDER_TYPE_BUY_LIMIT, 0, filling)
    stop = pending_request(account, mt5.ORDER_TYPE_BUY_STOP, 1, filling)
    past = int(account.tick().time) - 3600
    grid = account.info().trade_tick_size or account.info().point
    return [
        ("buy limit above the market", PRICE, mt5.TRADE_RETCODE_INVALID_PRICE, {**limit, "price": account.far(1)}),
        ("buy stop below the market", PRICE, mt5.TRADE_RETCODE_INVALID_PRICE, {**stop, "price": account.far(0)}),
        ("price off the grid", PRICE, mt5.TRADE_RETCODE_INVALID_PRICE, {**limit, "price": limit["price"] + grid / 3}),
        ("price 0", PRICE, mt5.TRADE_RETCODE_INVALID_PRICE, {**limit, "price": 0.0}),
        ("an expiration in the past", "§2.2: 10022 [DOC]", mt5.TRADE_RETCODE_INVALID_EXPIRATION,
         {**limit, "type_time": mt5.ORDER_TIME_SPECIFIED, "expiration": past}),
        ("lifetime 9", "§2.2: 10022 [DOC]", mt5.TRADE_RETCODE_INVALID_EXPIRATION, {**limit, "type_time": 9}),
        ("stop-loss above a buy limit", STOPS, mt5.TRADE_RETCODE_INVALID_STOPS, {**limit, "sl": account.far(1)}),
        ("a market type as pending", "§2.1: types 2 to 7 [DOC]", mt5.TRADE_RETCODE_INVALID, {**limit, "type": 0}),
    ]  # fmt: skip


def _of_tickets() -> list[Refusal]:
    return [
        ("remove of nothing", ORDER_OF_CHECKS, mt5.TRADE_RETCODE_INVALID_ORDER,
         {"action": mt5.TRADE_ACTION_REMOVE, "order": NO_TICKET}),
        ("modify of nothing", ORDER_OF_CHECKS, mt5.TRADE_RETCODE_INVALID_ORDER,
         {"action": mt5.TRADE_ACTION_MODIFY, "order": NO_TICKET, "price": 1.0}),
    ]  # fmt: skip


def refusals(run: Run, account: ConformanceAccount) -> None:
    """Each request is refused, with its code; whether it had a request id is measured."""
    filling = pending_filling(account)
    cases = _of_market(account) + (_of_pendings(account, filling) if filling is not None else []) + _of_tickets()
    ids: dict[bool, set[int]] = {True: set(), False: set()}
    for case in cases:
        result = _refused(run, account, case)
        if result is not None:
            ids[result.request_id != 0].add(result.retcode)
    _nan(run, account)
    _close_too_much(run, account, ids)
    claim = "§2.4: request_id is 0 where the terminal itself refuses [OBS], which it does is [UNV]"
    run.measured("refusals with a request_id", claim, sorted(ids[True]))
    run.measured("refusals without a request_id", claim, sorted(ids[False]))


def _refused(run: Run, account: ConformanceAccount, case: Refusal) -> ShownStruct | None:
    name, claim, code, request = case
    said = account.send(request)
    run.equal(f"refused: {name}", claim, code, retcode(said))
    if not isinstance(said.result, ShownStruct):
        return None
    if said.result.retcode in EXECUTED:
        run.failed(f"refused: {name}", claim, f"it was executed, order {said.result.order}: it will be closed")
    elif said.result.request_id == 0:
        result = said.result
        numbers = [result.deal, result.order, result.volume, result.price, result.bid, result.ask]
        run.equal(f"refused: {name}: numbers", "§1.5: a refusal of the terminal has no number at all [OBS]",
                  [0, 0, 0.0, 0.0, 0.0, 0.0], numbers)  # fmt: skip
    return said.result


def _nan(run: Run, account: ConformanceAccount) -> None:
    """By order_check only: what a server makes of NaN is not to be tried."""
    for name in ("nan", "inf"):
        said = account.caller.call("order_check", account.market(0, float(name)))
        run.equal(f"order_check of volume {name}", "§1.4: not checked by the client [UNV]",
                  mt5.TRADE_RETCODE_INVALID_VOLUME, retcode(said))  # fmt: skip


def _close_too_much(run: Run, account: ConformanceAccount, ids: dict[bool, set[int]]) -> None:
    claim, volume = "§2.3: a close of more than the position is 10038 [DOC]", account.two_lots()
    if not account.hedging or volume is None:
        run.skipped("refused: close of too much", claim, "on netting accounts it turns the position round")
        return
    position = open_position(run, account, "buy to close too much", 0, account.lot())
    if position is None:
        return
    said = account.send(account.market(1, volume, position=position.ticket))
    run.equal("refused: close of too much", claim, mt5.TRADE_RETCODE_INVALID_CLOSE_VOLUME, retcode(said))
    if isinstance(said.result, ShownStruct):
        ids[said.result.request_id != 0].add(said.result.retcode)
    close_position(run, account, "close of the right volume", position)
