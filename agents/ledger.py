"""Ledger: folds the archive into the tables orders and positions, and tells the world (design: order-status).

For each group of facts of one account:

1. fold them all, in the archive's order;
2. put each row once, as it is after the group, all with one await;
3. send every revision, fill, error and position in order, with one await; then the caller acknowledges.

A fact that comes again has its row put again (it may never have reached Kafka) and what it made told again, refolded
from the row: the same bytes under the same ids, of which the sinks drop the second.
"""

from __future__ import annotations

import logging
from typing import Any

from agents.dead_letters import dead_record
from agents.folding import DEALS, Entry, Group, Told, groups_of
from agents.incoming import Incoming
from agents.telling import Teller
from streamapp.crashpoints import reach
from streamapp.domain.anomalies import is_allowed
from streamapp.domain.facts import Fact
from streamapp.domain.status import status_of
from streamapp.errors import Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.kafka.receipts import settle
from streamapp.messages.fact import FactMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.orders import OrderRow, order_key
from tables.positions import PositionRow, position_key
from tables.recent import RecentRows

logger = logging.getLogger(__name__)


class Ledger:
    """The ledger's work on one account's facts at a time; it alone writes orders and positions.

    Args:
        orders: Table ``orders``.
        positions: Table ``positions``.
        producer: Where updates and dead letters go.
        settings: The deployment's name, and the role: a connector tells fills and errors only, as orders and positions
            are their owner's.
        metrics: Counters.
    """

    def __init__(
        self,
        orders: DurableTable[OrderRow],
        positions: DurableTable[PositionRow],
        producer: Producer,
        settings: Settings,
        metrics: TradingMetrics,
    ) -> None:
        self._orders = orders
        self._positions = positions
        self._recent_orders = RecentRows(orders)
        self._recent_positions = RecentRows(positions)
        self._producer = producer
        self._teller = Teller(settings.deployment, tells_all=settings.role != "connector")
        self._metrics = metrics

    async def handle(self, events: list[Any]) -> None:
        """Fold facts of one account in the archive's order and tell what they made; all is durable on return.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker; everything comes again.
        """
        entries, letters = self._read_all(events)
        if letters:
            await self._producer.send_all(letters)
        for group in groups_of(entries):
            await self._commit(group)

    def _read_all(self, events: list[Any]) -> tuple[list[Entry], list[Record]]:
        entries, letters = [], []
        for event in events:
            incoming = Incoming.of(event)
            try:
                fact = _read(incoming)
                entries.append(Entry(incoming, event.message.offset, incoming.payload.decode(), fact))
            except Unusable as error:
                letters.append(dead_record(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition))
                self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()
        return entries, letters

    async def _commit(self, entries: list[Entry]) -> None:
        account, partition = entries[0].fact.account, entries[0].incoming.partition
        group = Group(
            entries,
            lambda order_id: self._order(order_id, account, partition),
            lambda position_id: self._position(account, position_id, partition),
        )
        orders = [(order_key(change.after.order_id), change.after) for change in group.changes]
        positions = [(position_key(row.account, row.position_id), row) for row in group.positions]
        await settle(
            [
                *(self._orders.begin(key, row, partition=partition) for key, row in orders),
                *(self._positions.begin(key, row, partition=partition) for key, row in positions),
            ]
        )
        reach("ledger.after_put")
        await self._producer.send_all(self._teller.records(group.told))
        reach("ledger.after_emit")
        self._count(group)

    def _order(self, order_id: str, account: str, partition: int) -> OrderRow:
        row = self._recent_orders.get(order_key(order_id), partition)
        return OrderRow(order_id=order_id, account=account, offset=-1) if row is None else row

    def _position(self, account: str, position_id: int, partition: int) -> PositionRow:
        row = self._recent_positions.get(position_key(account, position_id), partition)
        return PositionRow(account=account, position_id=position_id, offset=-1) if row is None else row

    def _count(self, group: Group) -> None:
        for before, after, new in group.changes:
            for fact in new:
                self._metrics.facts.labels(fact.fact).inc()
            for anomaly in set(after.anomalies) - set(before.anomalies):
                self._alarm(anomaly, f"order {after.order_id} of account {after.account}: {after.status}")
        for told in group.told:
            self._watch(told)

    def _watch(self, told: Told) -> None:
        for rev, fact, before, state in told.revisions:
            was, now = None if before is None else status_of(before), status_of(state)
            if not is_allowed(was, now, busted=fact.fact in {"FillBusted", "FillCorrected", "Modified"}):
                self._alarm("unexpected_change", f"order {fact.order_id} rev {rev}: {was} to {now} by {fact.fact_id}")

    def _alarm(self, name: str, text: str) -> None:
        logger.warning("%s: %s", name, text)
        self._metrics.alarms.labels(name).inc()


def _read(incoming: Incoming) -> Fact:
    fact = FactMessage.decode(incoming.payload)
    if incoming.key != fact.account.encode():
        raise Unusable("wrong_key", f"expected the account as key, {fact.account!r:.80}, got {incoming.key!r:.80}")
    if fact.order_id is None and not isinstance(fact.body, DEALS):
        raise Unusable("no_order", f"order_id: expected one for {fact.fact}, got null")
    return fact
