from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamapp.terminal.calls import NotConnectedError
from streamapp.terminal.worker import QUIET_S, Worker
from tests.terminal.tables import Tables, order, row


@dataclass
class Broker(Tables):
    """A broker that limits the lots of a symbol in one direction, or not."""

    limit: float = 0.0
    known: dict[str, tuple[int, bool]] = field(default_factory=dict)
    margin_mode: int = 2

    def terminal_info(self) -> Any:
        return row("TerminalInfo", connected=True, trade_allowed=True)

    def account_info(self) -> Any:
        return row("AccountInfo", login=42, trade_allowed=True, trade_expert=True, margin_mode=self.margin_mode)

    def symbol_info(self, name: str) -> Any:
        return row("SymbolInfo", name=name, select=True, bid=1.1, trade_contract_size=1e5, volume_limit=self.limit)

    def symbol_info_tick(self, name: str) -> Any:
        at, _ = self.known.get(name, (0, True))
        return row("Tick", bid=1.1, ask=1.2, time=at, time_msc=at * 1000)

    def symbols_get(self) -> Any:
        return tuple(row("SymbolInfo", name=name, time=at, select=shown) for name, (at, shown) in self.known.items())

    def symbol_select(self, name: str, _: bool) -> bool:
        if name in self.known:
            self.known[name] = (self.known[name][0], True)
        return name in self.known

    def order_calc_profit(self, *_: Any) -> float:
        return 1.0

    def positions_get(self, symbol: str = "") -> Any:
        return self._answered("positions_get", [row for row in self.positions if symbol in ("", row.symbol)])

    def orders_get(self, ticket: int = 0, symbol: str = "") -> Any:
        return self._answered("orders_get", [row for row in self.orders if symbol in ("", row.symbol)])


def worker_at(broker: Broker) -> Worker:
    worker = Worker(broker)
    worker.calls = broker.calls()
    return worker


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
    assert worker_at(broker).do_prepare("EURUSD")["held"] == pytest.approx([1.5, 6.1])


def test_nothing_is_counted_where_the_broker_sets_no_limit() -> None:
    broker = Broker(positions=BOUGHT, orders=WORKING)
    assert worker_at(broker).do_prepare("EURUSD")["held"] is None
    assert not {"positions_get", "orders_get"} & set(broker.asked)


def test_an_order_that_opens_on_a_netting_account_is_shown_the_symbols_position() -> None:
    held = row("TradePosition", ticket=1, type=0, volume=0.3, sl=1.07, tp=1.1)
    netting = Broker(margin_mode=0, positions=[held, *OTHERS])
    assert worker_at(netting).do_prepare("EURUSD")["netted"] == {"type": 0, "volume": 0.3, "sl": 1.07, "tp": 1.1}
    assert worker_at(netting).do_prepare("USDJPY")["netted"] is None
    assert worker_at(Broker(positions=[held])).do_prepare("EURUSD")["netted"] is None
    with pytest.raises(NotConnectedError):  # it is not known whether it has levels
        worker_at(Broker(margin_mode=0, silent={"positions_get"})).do_prepare("EURUSD")


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
    pulse = worker.do_pulse(wanted)
    assert (pulse["tick"], pulse["selected"]) == (None, selected)
    broker.known[selected[0]] = (50, True)
    assert worker.do_pulse(wanted)["tick"]["time"] == 50


def test_a_market_watch_that_has_symbols_is_left_as_it_is() -> None:
    broker = Broker(known={"EURUSD": (0, True), "XAUUSD": (0, False)})
    assert worker_at(broker).do_pulse(["XAUUSD"])["selected"] == []
    assert broker.known["XAUUSD"] == (0, False)


def test_the_clock_is_read_from_a_symbol_that_trades_when_the_newest_one_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    broker = Broker(known={"EURUSD": (7200, True), "BTCUSD": (7100, True)})  # its server's clock went back just now
    worker = worker_at(broker)
    assert worker.do_pulse()["tick"]["time"] == 7200
    for seconds in range(1, 2 * int(QUIET_S) + 3):
        now_s[0] += 1
        broker.known["BTCUSD"] = (3600 + seconds, True)
        tick = worker.do_pulse()["tick"]
    assert tick["time"] == broker.known["BTCUSD"][0]
