from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from streamapp.terminal.worker.process import Worker
from tests.terminal.tables import Tables, order, row


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
