"""(c) Happy paths of market orders: open, protect, close in parts, close by, each allowed filling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamapp.conformance.account import EXECUTED, ConformanceAccount
from streamapp.conformance.caller import Said
from streamapp.conformance.run import Run
from streamapp.conformance.surface import check_types
from streamapp.conformance.wire import ShownStruct
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import SYMBOL_FILLING_FOK, SYMBOL_FILLING_IOC, SYMBOL_ORDER_CLOSEBY

DONE = mt5.TRADE_RETCODE_DONE
RESULT = "§2.4: 10009 done, 10008 placed, 10010 partial [DOC]"
LINKS = "§2.6: order O, deal.order=O, position.identifier=O, reason 3 [BOOK]"
NO_CHANGES = "§2.1: no change is 10025 [DOC]"

Scenario = Callable[[Run, ConformanceAccount], None]


def retcode(said: Said) -> Any:
    """The return code of a result, or why there is none."""
    return said.result.retcode if isinstance(said.result, ShownStruct) else list(said.error or said.raised or ())


def executed(run: Run, name: str, said: Said) -> ShownStruct | None:
    """Checks that an order was executed or placed; gives its result."""
    code = retcode(said)
    run.equal(name, RESULT, "executed", "executed" if code in EXECUTED else code)
    return said.result if code in EXECUTED else None


def open_position(
    run: Run, account: ConformanceAccount, name: str, side: int, volume: float, **fields: Any
) -> ShownStruct | None:
    """Opens a position and waits until it is shown."""
    result = executed(run, name, account.deal(side, volume, **fields))
    if result is None:
        return None
    position: ShownStruct | None = account.wait(lambda: account.position(result.order))
    run.equal(f"{name}: position", LINKS, expected=True, observed=position is not None)
    return position


def close_position(
    run: Run, account: ConformanceAccount, name: str, position: ShownStruct, volume: float | None = None
) -> None:
    """Closes a position, or a part, and waits until that is shown."""
    left = position.volume - (volume or position.volume)
    executed(run, name, account.close(position, volume))

    def shown() -> bool:
        now = account.position(position.identifier)
        return (now is None) if left <= 0 else now is not None and abs(now.volume - left) < 1e-8

    run.equal(f"{name}: volume left", LINKS, expected=True, observed=bool(account.wait(shown)))


def buy_and_close(run: Run, account: ConformanceAccount) -> None:
    """The smallest buy, and everything that links its rows."""
    said = account.deal(0, account.lot())
    result = executed(run, "buy", said)
    if result is None:
        return
    check_types(run, result, "OrderSendResult")
    check_types(run, result.request, "TradeRequest")
    run.equal(
        "buy: request echo",
        "§1.4: result.request is the parsed request [BIN]",
        expected=True,
        observed=result.request.symbol == account.symbol,
    )
    position = account.wait(lambda: account.position(result.order))
    check_types(run, position, "TradePosition")
    deals = account.wait(lambda: account.read("history_deals_get", position=result.order)) or ()
    check_types(run, deals[0] if deals else None, "TradeDeal")
    orders = account.wait(lambda: account.read("history_orders_get", ticket=result.order)) or ()
    check_types(run, orders[0] if orders else None, "TradeOrder")
    if position and deals and orders:
        links = [position.identifier, deals[0].order, deals[0].position_id, orders[0].ticket]
        run.equal("buy: links", LINKS, [True] * 4, [number == result.order for number in links])
        run.equal("buy: states", "§2.6: filled, entry in, reason expert [BOOK]", [mt5.ORDER_STATE_FILLED, 0, 3],
                  [orders[0].state, deals[0].entry, position.reason])  # fmt: skip
        magic = result.request.magic
        run.equal("buy: magic", "§2.6: magic goes from order to deal to position [DOC]", [True] * 3,
                  [row.magic == magic for row in (orders[0], deals[0], position)])  # fmt: skip
        close_position(run, account, "close", position)


def sell_and_close(run: Run, account: ConformanceAccount) -> None:
    """The smallest sell."""
    position = open_position(run, account, "sell", 1, account.lot())
    if position:
        run.equal("sell: type", LINKS, mt5.POSITION_TYPE_SELL, position.type)
        close_position(run, account, "close of a sell", position)


def partial_close(run: Run, account: ConformanceAccount) -> None:
    """Closes a position in two parts."""
    volume = account.two_lots()
    if volume is None:
        run.skipped("partial close", LINKS, "the volume step does not allow it")
        return
    position = open_position(run, account, "buy two lots", 0, volume)
    if position:
        close_position(run, account, "partial close", position, account.lot())
        rest = account.position(position.identifier)
        if rest:
            same = [position.ticket, position.identifier] == [rest.ticket, rest.identifier]
            claim = "§2.6: a partial close keeps ticket and identifier [DOC]"
            run.equal("partial close: ticket", claim, expected=True, observed=same)
            close_position(run, account, "close of the rest", rest)


def protect(run: Run, account: ConformanceAccount) -> None:
    """Sets, repeats and removes stop-loss and take-profit."""
    position = open_position(run, account, "buy to protect", 0, account.lot())
    if position is None:
        return
    levels = {"sl": account.far(0), "tp": account.far(1)}
    base = {"action": mt5.TRADE_ACTION_SLTP, "symbol": account.symbol, "position": position.ticket}
    said = account.send({**base, **levels})
    run.equal("set SL and TP", RESULT, DONE, retcode(said))
    if isinstance(said.result, ShownStruct):
        numbers = [said.result.deal, said.result.order, said.result.volume, said.result.price]
        run.equal("set SL and TP: numbers", "§1.5: SLTP's result has no numbers [OBS]", [0, 0, 0.0, 0.0], numbers)

    def shown(sl: float, tp: float) -> bool:
        now = account.position(position.identifier)
        return now is not None and abs(now.sl - sl) < 1e-9 and abs(now.tp - tp) < 1e-9

    run.equal("set SL and TP: shown", RESULT, expected=True, observed=bool(account.wait(lambda: shown(**levels))))
    run.equal(
        "set the same SL and TP", NO_CHANGES, mt5.TRADE_RETCODE_NO_CHANGES, retcode(account.send({**base, **levels}))
    )
    run.equal("remove SL and TP", "§2.1: an omitted level is removed [DOC]", DONE, retcode(account.send(base)))
    run.equal("remove SL and TP: shown", RESULT, expected=True, observed=bool(account.wait(lambda: shown(0.0, 0.0))))
    close_position(run, account, "close of the protected", position)


def close_by(run: Run, account: ConformanceAccount) -> None:
    """Closes two opposite positions by each other; turns the position round where there is only one."""
    claim = "§2.1: one CLOSE_BY order, two deals with entry OUT_BY [DOC]"
    if not account.hedging:
        run.skipped("close by", claim, "a netting account has one position a symbol")
        _reverse(run, account)
        return
    if not account.info().order_mode & SYMBOL_ORDER_CLOSEBY:
        run.skipped("close by", claim, "the symbol's order_mode has no CLOSEBY")
        return
    if account.read("account_info").fifo_close:
        run.skipped("close by", claim, "the account closes first in, first out, and has no opposite positions")
        return
    first = open_position(run, account, "buy to close by", 0, account.lot())
    second = open_position(run, account, "sell to close by", 1, account.lot())
    if first is None or second is None:
        return
    magic = next(account.magics)
    said = account.send({"action": mt5.TRADE_ACTION_CLOSE_BY, "position": first.ticket, "position_by": second.ticket,
                         "symbol": account.symbol, "magic": magic})  # fmt: skip
    run.equal("close by", claim, DONE, retcode(said))
    gone = account.wait(lambda: not account.position(first.identifier) and not account.position(second.identifier))
    run.equal("close by: both are gone", claim, expected=True, observed=bool(gone))

    def booked() -> list[int]:
        rows = [row for t in (first, second) for row in account.read("history_deals_get", position=t.identifier)]
        return [row.entry for row in rows if row.entry == mt5.DEAL_ENTRY_OUT_BY]

    entries = account.wait(lambda: len(found := booked()) >= 2 and found) or []
    run.equal("close by: deals", claim, [mt5.DEAL_ENTRY_OUT_BY] * 2, entries)


def _reverse(run: Run, account: ConformanceAccount) -> None:
    volume = account.two_lots()
    position = open_position(run, account, "buy to reverse", 0, account.lot())
    if position is None or volume is None:
        return
    claim = "§2.6: netting: a reversal is one deal INOUT, and the position takes the reversing order's ticket [DOC]"
    result = executed(run, "reverse", account.deal(1, volume))
    turned = account.wait(
        lambda: (now := account.position(0)) is not None and now.type == mt5.POSITION_TYPE_SELL and now
    )
    run.equal("reverse: side", claim, expected=True, observed=bool(turned))
    if turned and result:
        run.equal("reverse: ticket", f"{claim} [UNV]", [True, True],
                  [turned.ticket == result.order, turned.identifier == position.identifier])  # fmt: skip
        deals = account.wait(
            lambda: [d for d in account.read("history_deals_get", *account.span()) if d.order == result.order]
        )
        run.equal("reverse: entry", claim, [mt5.DEAL_ENTRY_INOUT], [deal.entry for deal in deals or ()])
        close_position(run, account, "close of the reversed", turned)


FILLINGS = {
    "FOK": (mt5.ORDER_FILLING_FOK, SYMBOL_FILLING_FOK),
    "IOC": (mt5.ORDER_FILLING_IOC, SYMBOL_FILLING_IOC),
    "RETURN": (mt5.ORDER_FILLING_RETURN, 0),
}


def fillings(run: Run, account: ConformanceAccount) -> None:
    """Each filling mode that the flags permit executes, each other is refused with 10030."""
    claim = "§2.2: filling by execution mode and flags, two number spaces [DOC]"
    info = account.info()
    exemode = info.trade_exemode
    for name, (filling, flag) in FILLINGS.items():
        always = exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT
        returns = filling == mt5.ORDER_FILLING_RETURN and exemode == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE
        request = account.market(0, account.lot(), type_filling=filling)
        if not (always or returns or info.filling_mode & flag):
            said = account.caller.call("order_check", request)
            run.equal(f"filling {name} is refused", claim, mt5.TRADE_RETCODE_INVALID_FILL, retcode(said))
            continue
        position = open_position(run, account, f"filling {name}", 0, account.lot(), type_filling=filling)
        if position:
            close_position(run, account, f"filling {name}: close", position)


def check(run: Run, account: ConformanceAccount) -> None:
    """order_check of a good request."""
    claim = "§1.5: order_check of a good request gives 0 and 'Done' [OBS]"
    said = account.caller.call("order_check", account.market(0, account.lot()))
    check_types(run, said.result, "OrderCheckResult")
    told = [said.result.retcode, said.result.comment] if isinstance(said.result, ShownStruct) else None
    run.equal("order_check", claim, [0, "Done"], told)
    as_bool = account.caller.call("order_check", {**account.market(0, account.lot()), "action": True})
    run.equal("order_check with a bool", "§1.4: a bool is an int [BIN]", 0, retcode(as_bool))
    typo = account.caller.call("order_check", {**account.market(0, account.lot()), "stop_loss": 1})
    run.equal("order_check with an unknown key", "§1.4: unknown keys are ignored [BIN]", 0, retcode(typo))


SCENARIOS: dict[str, Scenario] = {
    "order_check": check,
    "buy and close": buy_and_close,
    "sell and close": sell_and_close,
    "partial close": partial_close,
    "protect": protect,
    "close by": close_by,
    "fillings": fillings,
}
