from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from streamapp.terminal.history import History
from streamapp.terminal.worker import Worker
from tests.terminal.tables import Tables, deal, order, row


@dataclass
class Broker(Tables):
    """A broker that limits the lots of a symbol in one direction, or not."""

    limit: float = 0.0

    def terminal_info(self) -> Any:
        return row("TerminalInfo", connected=True, trade_allowed=True)

    def account_info(self) -> Any:
        return row("AccountInfo", login=42, trade_allowed=True, trade_expert=True)

    def symbol_info(self, name: str) -> Any:
        return row("SymbolInfo", name=name, select=True, bid=1.1, trade_contract_size=1e5, volume_limit=self.limit)

    def symbol_info_tick(self, _: str) -> Any:
        return row("Tick", bid=1.1, ask=1.2)

    def order_calc_profit(self, *_: Any) -> float:
        return 1.0

    def positions_get(self, symbol: str = "") -> Any:
        return self._answered("positions_get", [row for row in self.positions if symbol in ("", row.symbol)])

    def orders_get(self, ticket: int = 0, symbol: str = "") -> Any:
        return self._answered("orders_get", [row for row in self.orders if symbol in ("", row.symbol)])


def worker_at(broker: Broker) -> Worker:
    worker = Worker(broker)
    worker.calls = broker.calls()
    worker.history = History(worker.calls)
    return worker


@dataclass
class Sending(Broker):
    """A broker that takes every order, shows its deal at once, and may lose its connection or its account then."""

    connected: bool = True
    login: int = 42
    breaks_at: str = ""
    error: tuple[int, str] = (1, "Success")
    deals: list[Any] = field(default_factory=lambda: [deal(7, 1000, order=5, type=0, volume=0.1)])

    def last_error(self) -> Any:
        return self.error

    def _break(self, function: str) -> bool:
        if function == self.breaks_at:
            self.error = (-10002, "IPC recv failed")
        return function == self.breaks_at

    def terminal_info(self) -> Any:
        return row("TerminalInfo", connected=self.connected)

    def account_info(self) -> Any:
        return None if self._break("account_info") else row("AccountInfo", login=self.login, server="S")

    def order_send(self, _: dict[str, Any]) -> Any:
        return row("OrderSendResult", retcode=10009, order=5, comment="")

    def history_deals_get(self, since: int = 0, until: int = 0, *, position: int = 0) -> Any:
        if self._break("history_deals_get"):
            return None
        rows = [row for row in self.deals if row.position_id == position or since <= row.time <= until]
        return self._answered("history_deals_get", rows)


LOOK = {"hedging": False, "since": 900, "until": 2000}


def sent(broker: Sending, look: dict[str, Any] | None = LOOK) -> dict[str, Any]:
    worker = worker_at(broker)
    worker._owner = (42, "S")
    answer = worker.answer("send", {"request": {}, "not_after": time.time() + 60, "look": look})
    assert answer["value"]["result"]["order"] == 5
    assert answer["error"][0] == 1  # the answer is judged by order_send's own
    return answer


def test_the_answer_of_an_order_brings_its_deals_along() -> None:
    assert [row["ticket"] for row in sent(Sending())["value"]["deals"]] == [7]
    assert sent(Sending(), look=None)["value"]["deals"] is None
    assert sent(Sending(deals=[]))["value"]["deals"] == []


def test_deals_are_left_for_later_if_the_terminal_is_away_after_they_were_read() -> None:
    assert sent(Sending(connected=False))["value"]["deals"] is None
    answer = sent(Sending(login=43))["value"]
    assert (answer["deals"], answer["elsewhere"]) == (None, "43 on S")


@pytest.mark.parametrize("function", ["history_deals_get", "account_info"])
def test_a_look_for_deals_that_breaks_leaves_the_answer_as_it_is(function: str) -> None:
    answer = sent(Sending(breaks_at=function))
    assert answer["value"]["deals"] is None
    assert (answer["failure"], answer["broken"]) == (None, (-10002, "IPC recv failed"))


def test_a_look_reads_permissions_and_account_after_all_parts() -> None:
    broker = Sending(positions=[], deals=[])
    calls = worker_at(broker)
    calls._reference = "EURUSD"
    deals = {"wide_from": 1, "near_from": 1, "settled_until": 1, "until": 2000, "wide": True}
    value = calls.answer("look", {"parts": {"deals": deals, "positions": {}}})["value"]
    assert {name: part["value"] for name, part in value["parts"].items()} == {
        "deals": {"read": True, "deals": [], "more": False, "digest": hash(frozenset())},
        "positions": [],
    }
    assert (value["terminal"]["connected"], value["account"]["login"], value["tick"]["bid"]) == (True, 42, 1.1)


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
