from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamapp.terminal.pipe import frames
from streamapp.terminal.pipe.answers import Answered, DealsSeen, Looked, Prepared, QuoteSeen, SendResult
from streamapp.terminal.pipe.calls import DealWindow, Look, Prepare, ReadDeals, ReadPosition, Send
from streamapp.terminal.pipe.structs import TradePosition
from streamapp.terminal.worker.market import QUIET_S
from streamapp.terminal.worker.process import Worker
from tests.terminal import tables
from tests.terminal.scripted import struct
from tests.terminal.tables import Tables, deal, order, row


@dataclass
class Broker(Tables):
    """A broker that limits the lots of a symbol in one direction, or not."""

    limit: float = 0.0
    known: dict[str, tuple[int, bool]] = field(default_factory=dict)
    margin_mode: int = 2
    connected: bool = True

    def _one(self, function: str, struct: Any) -> Any:
        answered = self._answered(function, [struct])
        return None if answered is None else answered[0]

    def terminal_info(self) -> Any:
        return self._one("terminal_info", row("TerminalInfo", connected=self.connected, trade_allowed=True))

    def account_info(self) -> Any:
        owner = row("AccountInfo", login=42, trade_allowed=True, trade_expert=True, margin_mode=self.margin_mode)
        return self._one("account_info", owner)

    def symbol_info(self, name: str) -> Any:
        spec = row("SymbolInfo", name=name, select=True, bid=1.1, trade_contract_size=1e5, volume_limit=self.limit)
        return self._one("symbol_info", spec)

    def symbol_info_tick(self, name: str) -> Any:
        at, _ = self.known.get(name, (0, True))
        return self._one("symbol_info_tick", row("Tick", bid=1.1, ask=1.2, time=at, time_msc=at * 1000))

    def symbols_get(self) -> Any:
        return tuple(row("SymbolInfo", name=name, time=at, select=shown) for name, (at, shown) in self.known.items())

    def symbol_select(self, name: str, _: bool) -> bool:
        if name in self.known:
            self.known[name] = (self.known[name][0], True)
        return name in self.known

    def order_calc_profit(self, *_: Any) -> float:
        return 1.0

    def positions_get(self, symbol: str = "", ticket: int = 0) -> Any:
        rows = [row for row in self.positions if symbol in ("", row.symbol) and ticket in (0, row.ticket)]
        return self._answered("positions_get", rows)

    def history_deals_get(self, since: int = 0, until: int = 0, *, position: int = 0) -> Any:
        rows = [row for row in self.deals if row.position_id == position or since <= row.time <= until]
        return self._answered("history_deals_get", rows)

    def orders_get(self, ticket: int = 0, symbol: str = "") -> Any:
        return self._answered("orders_get", [row for row in self.orders if symbol in ("", row.symbol)])


def worker_at(broker: Broker) -> Worker:
    worker = Worker(broker)
    worker.calls.broken = None
    return worker


@dataclass
class Sending(Broker):
    """A broker that takes every order, shows its deal at once, and may lose its connection or its account then."""

    login: int = 42
    breaks_at: str = ""
    deals: list[Any] = field(default_factory=lambda: [deal(7, 1000, order=5, type=0, volume=0.1)])

    def _break(self, function: str) -> bool:
        if function == self.breaks_at:
            self.error = (-10002, "IPC recv failed")
        return function == self.breaks_at

    def account_info(self) -> Any:
        return None if self._break("account_info") else row("AccountInfo", login=self.login, server="S")

    def order_send(self, _: dict[str, Any]) -> Any:
        return row("OrderSendResult", retcode=10009, order=5, comment="")

    def history_deals_get(self, since: int = 0, until: int = 0, *, position: int = 0) -> Any:
        if self._break("history_deals_get"):
            return None
        return super().history_deals_get(since, until, position=position)


WINDOW = DealWindow(hedging=False, since=900, until=2000)


def sent(broker: Sending, deals: DealWindow | None = WINDOW) -> Answered[SendResult]:
    worker = worker_at(broker)
    worker._owner = (42, "S")
    answer = worker.answer(Send({}, time.time() + 60, deals))
    assert answer.value.order == 5
    assert answer.error[0] == 1  # the answer is judged by order_send's own
    return answer


def test_the_answer_of_an_order_brings_its_deals_along() -> None:
    assert [row.ticket for row in sent(Sending()).value.deals or ()] == [7]
    assert sent(Sending(), deals=None).value.deals is None
    assert sent(Sending(deals=[])).value.deals == ()


def test_deals_of_an_order_that_show_are_its_own_also_where_the_terminal_is_away_by_then() -> None:
    assert [row.ticket for row in sent(Sending(connected=False)).value.deals or ()] == [7]


def test_deals_are_left_for_later_if_another_account_is_logged_in_after_they_were_read() -> None:
    answer = sent(Sending(login=43)).value
    assert (answer.deals, answer.logged_in_as) == (None, "43 on S")


@pytest.mark.parametrize("function", ["history_deals_get", "account_info"])
def test_a_look_for_deals_that_breaks_leaves_the_answer_as_it_is(function: str) -> None:
    answer = sent(Sending(breaks_at=function))
    assert answer.value.deals is None
    assert (answer.failure, answer.broken) == (None, (-10002, "IPC recv failed"))


def test_a_look_reads_permissions_and_account_after_all_parts() -> None:
    broker = Sending(positions=[], orders=[row("TradeOrder", ticket=5)], deals=[])
    worker = worker_at(broker)
    worker.market._reference = "EURUSD"
    deals = ReadDeals(wide_from=1, near_from=1, settled_until=1, until=2000, wide=True)
    seen = worker.answer(Look(deals=deals, positions=True, orders=True)).value
    assert seen.deals is not None
    assert seen.deals.value == DealsSeen(read=True, digest=hash(frozenset()))
    assert seen.positions is not None
    assert seen.orders is not None
    assert [order.ticket for order in seen.orders.value.rows or ()] == [5]
    assert seen.positions.value.rows == ()
    assert (seen.terminal and seen.terminal.connected, seen.account and seen.account.login) == (True, 42)
    assert seen.tick is not None
    assert seen.tick.bid == 1.1


def time_of(look: Looked) -> int | None:
    return None if look.tick is None else look.tick.time


BOUGHT = [row("TradePosition", ticket=1, type=0, volume=0.3), row("TradePosition", ticket=2, type=0, volume=0.2)]
SOLD = [row("TradePosition", ticket=3, type=1, volume=0.1)]
OTHERS = [row("TradePosition", ticket=4, type=0, volume=9.0, symbol="GBPUSD")]
WORKING = [
    order(5, type=2, volume_current=1.0),
    order(6, type=7, volume_current=2.0),
    order(7, type=5, volume_current=4.0),
    order(8, type=8, volume_current=8.0),  # a close-by has no direction
]


def test_what_is_held_is_counted_by_direction_with_what_works() -> None:
    broker = Broker(limit=10.0, positions=BOUGHT + SOLD + OTHERS, orders=WORKING)
    assert worker_at(broker).market.prepare(Prepare("EURUSD")).held == pytest.approx([1.5, 6.1])


def test_nothing_is_counted_where_the_broker_sets_no_limit() -> None:
    broker = Broker(positions=BOUGHT, orders=WORKING)
    assert worker_at(broker).market.prepare(Prepare("EURUSD")).held is None
    assert not {"positions_get", "orders_get"} & set(broker.asked)


def test_an_order_that_opens_on_a_netting_account_is_shown_the_symbols_position() -> None:
    held = row("TradePosition", ticket=1, type=0, volume=0.3, sl=1.07, tp=1.1)
    netting = Broker(margin_mode=0, positions=[held, *OTHERS])
    assert worker_at(netting).market.prepare(Prepare("EURUSD")).netted == struct(TradePosition, held._asdict())
    assert worker_at(netting).market.prepare(Prepare("USDJPY")).netted is None
    assert worker_at(Broker(positions=[held])).market.prepare(Prepare("EURUSD")).netted is None
    silent = Broker(margin_mode=0, silent={"positions_get"})  # it is not known whether it has levels
    assert worker_at(silent).market.prepare(Prepare("EURUSD")).unread == failed("positions_get")


def failed(function: str) -> str:
    return f"{function}: Terminal: Call failed (-1)"


HELD = row("TradePosition", ticket=1, identifier=1, type=0, volume=0.3)
CLOSING = ["symbol_info", "terminal_info", "account_info", "positions_get", "history_deals_get", "symbol_info_tick"]


def test_an_order_that_closes_is_shown_its_position_by_one_call_of_each_function() -> None:
    broker = Broker(limit=10.0, positions=[HELD], deals=[deal(7, 1000, position_id=1)])
    seen = worker_at(broker).market.prepare(Prepare("EURUSD", 1))
    assert (seen.position, seen.unread) == (struct(TradePosition, HELD._asdict()), "")
    assert [row.ticket for row in seen.deals] == [7]
    assert broker.asked == CLOSING


@pytest.mark.parametrize("function", CLOSING)
def test_a_read_that_fails_before_an_order_is_told_by_name_and_nothing_is_made_of_it(function: str) -> None:
    worker = worker_at(Broker(positions=[HELD], silent={function}))
    answer = worker.answer(Prepare("EURUSD", 1))
    assert answer.value == Prepared(unread=failed(function))
    assert (answer.failure, answer.away, answer.broken) == (None, None, None)


@pytest.mark.parametrize("function", ["positions_get", "orders_get"])
def test_what_is_held_is_not_guessed_where_it_can_not_be_read(function: str) -> None:
    worker = worker_at(Broker(limit=10.0, positions=BOUGHT, silent={function}))
    assert worker.market.prepare(Prepare("EURUSD")).unread == failed(function)


def test_a_symbol_is_unknown_only_by_the_modules_own_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(silent={"symbol_info"})
    assert worker_at(broker).market.quote("EURUSD").unread == failed("symbol_info")
    monkeypatch.setattr(tables, "FAILED", (-4, "Terminal: Not found"))
    assert worker_at(broker).market.quote("EURUSD") == QuoteSeen(None, None)
    seen = worker_at(broker).market.prepare(Prepare("EURUSD"))
    assert (seen.symbol, seen.unread) == (None, "")


def test_a_terminal_without_a_connection_may_have_no_account_to_show() -> None:
    broker = Broker(connected=False, silent={"account_info"})
    for seen in (worker_at(broker).market.prepare(Prepare("EURUSD")), worker_at(broker).look(Look())):
        assert (seen.account, seen.unread) == (None, "")


@pytest.mark.parametrize("function", ["terminal_info", "account_info"])
def test_a_look_names_the_read_that_kept_it_from_seeing_whose_account_it_is(function: str) -> None:
    worker = worker_at(Broker(silent={function}))
    assert worker.look(Look()).unread == failed(function)
    assert worker.answer(ReadPosition(1)).away == failed(function)


def test_the_error_of_a_table_that_can_not_be_read_is_its_own() -> None:
    answer = worker_at(Broker(silent={"positions_get"}, margin_mode=0)).answer(ReadPosition(1))
    assert answer.error == tables.FAILED


@pytest.mark.parametrize(
    ("wanted", "selected"),
    [(["XAUUSD"], ["XAUUSD"]), ([], ["EURUSD", "GBPUSD", "USDJPY"]), (["nothing", "XAUUSD"], ["XAUUSD"])],
)
def test_an_empty_market_watch_gets_what_is_wanted_or_the_brokers_first_symbols(
    wanted: list[str], selected: list[str]
) -> None:
    names = ("EURUSD", "GBPUSD", "USDJPY", "XAUUSD")
    broker = Broker(known=dict.fromkeys(names, (0, False)))
    worker = worker_at(broker)
    pulse = worker.look(Look(symbols=tuple(wanted)))
    assert (pulse.tick, list(pulse.selected)) == (None, selected)
    broker.known[selected[0]] = (50, True)
    assert time_of(worker.look(Look(symbols=tuple(wanted)))) == 50


def test_a_market_watch_is_left_as_it_is_if_something_there_is_quoted_and_gets_only_what_is_wanted_if_not() -> None:
    broker = Broker(known={"EURUSD": (50, True), "GBPUSD": (0, False), "XAUUSD": (0, False)})
    assert worker_at(broker).look(Look(symbols=("XAUUSD",))).selected == ()
    broker.known["EURUSD"] = (0, True)
    worker = worker_at(broker)
    assert worker.look(Look()).selected == ()
    for _ in range(2):
        assert worker.look(Look(symbols=("XAUUSD",))).selected == ("XAUUSD",)
    assert broker.known["GBPUSD"] == (0, False)


def test_the_clock_is_read_from_a_symbol_that_trades_when_the_newest_one_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    broker = Broker(known={"EURUSD": (7200, True), "BTCUSD": (7100, True)})  # its server's clock went back just now
    worker = worker_at(broker)
    assert time_of(worker.look(Look())) == 7200
    for seconds in range(1, 2 * int(QUIET_S) + 3):
        now_s[0] += 1
        broker.known["BTCUSD"] = (3600 + seconds, True)
        shown = time_of(worker.look(Look()))
    assert shown == broker.known["BTCUSD"][0]


@pytest.mark.parametrize(
    "frame", [b"", b"Prepare {}", b"order_send {}", b'Send {"request": {"lots": 1}, "not_after": 1e12}']
)
def test_what_is_no_call_is_answered_so_and_nothing_is_done(frame: bytes) -> None:
    broker = Sending()
    answer = frames.decode_answer(Prepare("EURUSD"), worker_at(broker).exchange(frame)[4:])
    assert answer.found is None
    assert "asked for nothing that it knows" in str(answer.failure)
    assert broker.asked == []
