"""A module that shows the tables which a test puts there, as structs of the original's types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamapp.simulator.module.structs import STRUCTS
from streamapp.simulator.wire import FIELDS
from streamapp.terminal.worker.mt5_client import Mt5Client


def row(kind: str, **values: Any) -> Any:
    """Return a struct of a type, with zeros in what is not named."""
    texts = {"symbol": "EURUSD", "comment": "", "external_id": ""}
    return STRUCTS[kind](values.pop(name, texts.get(name, 0)) for name, _ in FIELDS[kind])


def deal(ticket: int, time: int, **values: Any) -> Any:
    return row("TradeDeal", **{"ticket": ticket, "order": ticket, "time": time, "position_id": ticket} | values)


def order(ticket: int, **values: Any) -> Any:
    return row("TradeOrder", ticket=ticket, **values)


FAILED = (-1, "Terminal: Call failed")


@dataclass
class Tables:
    """Stands for the module: four tables, and what was asked of them."""

    deals: list[Any] = field(default_factory=list)
    done: list[Any] = field(default_factory=list)
    orders: list[Any] = field(default_factory=list)
    positions: list[Any] = field(default_factory=list)
    total: int | None = None
    asked: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    error: tuple[int, str] = (1, "Success")

    def calls(self) -> Mt5Client:
        calls = Mt5Client(self)
        calls.broken = None
        return calls

    def last_error(self) -> tuple[int, str]:
        return self.error

    def _answered(self, function: str, rows: list[Any]) -> Any:
        self.asked.append(function)
        if function in self.silent:
            self.error = FAILED
            return None
        self.error = (1, "Success")
        return tuple(rows)

    def positions_get(self) -> Any:
        return self._answered("positions_get", self.positions)

    def orders_get(self, ticket: int = 0) -> Any:
        return self._answered("orders_get", [row for row in self.orders if ticket in (0, row.ticket)])

    def history_deals_total(self, since: int, until: int) -> Any:
        rows = self._answered("history_deals_total", [row for row in self.deals if since <= row.time <= until])
        return rows if rows is None else len(rows) if self.total is None else self.total

    def history_deals_get(self, since: int, until: int) -> Any:
        return self._answered("history_deals_get", [row for row in self.deals if since <= row.time <= until])

    def history_orders_get(self, since: int = 0, until: int = 0, *, ticket: int = 0) -> Any:
        found = [row for row in self.done if row.ticket == ticket or (not ticket and since <= row.time_done <= until)]
        return self._answered("history_orders_get", found)
