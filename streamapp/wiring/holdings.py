"""The tables of the trading worker and what is kept in memory about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from streamapp.domain.vocabulary import FINAL_STATUSES
from tables import accounts, orders, pins, positions, signals, submissions
from tables.accounts import AccountRow
from tables.durable import DurableTable
from tables.orders import OrderIndex, OrderRow, order_key
from tables.pins import PinRow
from tables.positions import PositionRow
from tables.signals import SignalRow
from tables.submissions import SubmissionIndex, SubmissionRow


@dataclass(frozen=True)
class Holdings:
    """All tables (:data:`streamapp.topics.TABLES`) and the indexes that agents, timers and views share."""

    signals: DurableTable[SignalRow]
    submissions: DurableTable[SubmissionRow]
    orders: DurableTable[OrderRow]
    positions: DurableTable[PositionRow]
    accounts: DurableTable[AccountRow]
    pins: DurableTable[PinRow]
    waiting: SubmissionIndex
    open_orders: OrderIndex

    @property
    def tables(self) -> tuple[DurableTable[Any], ...]:
        """Every table."""
        return (self.signals, self.submissions, self.orders, self.positions, self.accounts, self.pins)

    def order_status(self, order_id: str) -> str | None:
        """Return the ledger's word on an order of the event's partition, None if it is not known."""
        row = self.orders.get(order_key(order_id))
        return None if row is None else row.status


class _Settled:
    """Takes orders that are over out of the index of submissions: nobody will have to look at them again."""

    def __init__(self, waiting: SubmissionIndex) -> None:
        self._waiting = waiting

    def added(self, key: bytes, row: OrderRow, partition: int) -> None:  # noqa: ARG002  an Index's signature
        if row.status in FINAL_STATUSES:
            self._waiting.settled(key.decode())

    def dropped(self, partition: int) -> None: ...


def open_holdings(app: Any) -> Holdings:
    """Return the tables, registered on ``app``; called once, while its composition root is imported."""
    holdings = Holdings(
        signals=DurableTable.of(app, signals.NAME, SignalRow),
        submissions=DurableTable.of(app, submissions.NAME, SubmissionRow),
        orders=DurableTable.of(app, orders.NAME, OrderRow),
        positions=DurableTable.of(app, positions.NAME, PositionRow),
        accounts=DurableTable.of(app, accounts.NAME, AccountRow),
        pins=DurableTable.of(app, pins.NAME, PinRow),
        waiting=SubmissionIndex(),
        open_orders=OrderIndex(),
    )
    holdings.submissions.watch(holdings.waiting)
    holdings.orders.watch(holdings.open_orders)
    holdings.orders.watch(_Settled(holdings.waiting))
    return holdings
