"""Warehouse: from Kafka to ClickHouse, in batches, acknowledged when ClickHouse has them and never before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from agents.dead_letters import dead_record
from agents.rounds import Rounds
from agents.window import Batches
from streamapp import crashpoints
from streamapp.clickhouse.rows import Record
from streamapp.clickhouse.writer import Inserts, Writer
from streamapp.clock import Clock
from streamapp.kafka.producer import Producer
from streamapp.messages.dead_letter import DeadLetter
from streamapp.metrics import SinkMetrics
from streamapp.settings import Settings


class Warehouse:
    """One agent of the warehouse: run :meth:`run` for each partition's stream of each topic.

    What all partitions of all topics have is one insert for each table: to ClickHouse 24 small ones cost 24 times as
    much.

    ClickHouse away: the batch waits and nothing is acknowledged. A rebalance does not wait for it: the batch is
    dropped, and comes again to whoever owns the partition then.

    Args:
        clickhouse: Where the rows go.
        settings: Sizes of the batches, and the role, which says which tables we write.
        producer: For dead letters.
        clock: The time.
        metrics: What is counted.
    """

    def __init__(
        self,
        clickhouse: Inserts,
        settings: Settings,
        *,
        producer: Producer,
        clock: Clock,
        metrics: SinkMetrics,
    ) -> None:
        self._settings = settings.clickhouse
        self._producer = producer
        self._clock = clock
        self._metrics = metrics
        self._writer = Writer(
            _Timed(clickhouse, metrics),
            settings.role,
            self._bury,
            self._count,
            most_rows=settings.clickhouse.batch_rows,
        )
        self._rounds = Rounds(self._writer.write)
        self._oldest_s: dict[tuple[str, int], float] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """What ClickHouse says while inserts wait for it; empty when all is well."""
        return self._writer.troubles

    async def run(self, stream: Any) -> None:
        """Write the records of a stream of one partition, until it ends."""
        batches = Batches(
            stream.ack,
            self.store,
            limit=self._settings.batch_rows,
            linger_s=self._settings.flush_interval_s,
            aligned=True,
            deadline_s=None,
        )
        await batches.take_all(stream)

    async def store(self, events: Sequence[Any]) -> None:
        """Store the records of these events; returns when each is in ClickHouse or a dead letter."""
        first = events[0].message
        place = (first.topic, first.partition)
        self._oldest_s[place] = first.timestamp
        try:
            await self._rounds.store([_record(event.message) for event in events])
        finally:
            self._oldest_s.pop(place, None)
        crashpoints.reach("warehouse.after_insert")

    def measure_lag(self) -> None:
        """Bring the gauge of undelivered records' age up to date; called when somebody looks at the metrics."""
        now_s = self._clock().timestamp()
        self._metrics.lag_seconds.clear()
        ages: dict[str, float] = {}
        for (topic, _), since_s in self._oldest_s.items():
            ages[topic] = max(ages.get(topic, 0.0), now_s - since_s)
        for topic, age_s in ages.items():
            self._metrics.lag_seconds.labels(topic).set(age_s)

    def _count(self, table: str, rows: int) -> None:
        self._metrics.rows.labels(table).inc(rows)

    async def _bury(self, record: Record, reason: str, detail: str) -> None:
        letter = DeadLetter(record.value, reason, detail, record.topic, "", record.offset, self._clock())
        await self._producer.send_all([dead_record(letter, record.key, record.partition)])
        self._metrics.dead_letters.labels(record.topic, reason).inc()


class _Timed:
    """The client, with each insert's duration observed."""

    def __init__(self, clickhouse: Inserts, metrics: SinkMetrics) -> None:
        self._clickhouse = clickhouse
        self._metrics = metrics

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, token: str) -> None:
        started_s = time.monotonic()
        await self._clickhouse.insert(table, columns, rows, token=token)
        self._metrics.insert_seconds.labels(table).observe(time.monotonic() - started_s)


def _record(message: Any) -> Record:
    return Record(message.topic, message.partition, message.offset, message.key, message.value or b"")
