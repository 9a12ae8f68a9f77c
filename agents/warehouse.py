"""Warehouse: from Kafka to ClickHouse, in batches, acknowledged when ClickHouse has them and never before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from agents.batching import BatchProcessor
from streamapp import crashpoints
from streamapp.clickhouse.rows import Refusal, SourceRecord
from streamapp.clickhouse.writer import Inserts, Writer
from streamapp.clock import Clock
from streamapp.kafka.producer import Producer, dead_letter_record
from streamapp.messages.dead_letter import DeadLetter
from streamapp.metrics import SinkMetrics
from streamapp.settings import Settings


class Warehouse:
    """The agent of the warehouse's topics: run :meth:`run` for each partition's stream of each topic.

    What all partitions of all topics have is one insert for each table: to ClickHouse 24 small ones cost 24 times as
    much.

    ClickHouse away: the batch waits and nothing is acknowledged. A rebalance does not wait for it: the batch is
    dropped, and redelivered to whoever owns the partition then.

    Args:
        clickhouse: Where the rows go.
        settings: How large inserts are and how long they wait for company, and the role: which tables we write.
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
        self._topic_prefix = settings.kafka.topic_prefix
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
        self._batches = BatchProcessor(self.store, linger_s=settings.clickhouse.flush_interval_s)
        self._oldest_s: dict[str, float] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """What ClickHouse says while inserts wait for it; empty when all is well."""
        return self._writer.troubles

    async def run(self, stream: Any) -> None:
        """Write the records of a stream of one partition, until it ends."""
        await self._batches.run(stream)

    async def store(self, events: Sequence[Any]) -> None:
        """Store the records of these events; returns when each is in ClickHouse or a dead letter."""
        records = [self._record(event.message) for event in events]
        for record, event in zip(records, events, strict=True):
            topic, since_s = record.topic, event.message.timestamp
            self._oldest_s[topic] = min(since_s, self._oldest_s.get(topic, since_s))
        try:
            await self._writer.write(records)
        finally:
            self._oldest_s.clear()
        crashpoints.reach("warehouse.after_insert")

    def measure_lag(self) -> None:
        """Bring the gauge of undelivered records' age up to date; called when somebody looks at the metrics."""
        now_s = self._clock().timestamp()
        self._metrics.lag_seconds.clear()
        for topic, since_s in self._oldest_s.items():
            self._metrics.lag_seconds.labels(topic).set(now_s - since_s)

    def _record(self, message: Any) -> SourceRecord:
        topic = message.topic.removeprefix(self._topic_prefix)
        return SourceRecord(topic, message.partition, message.offset, message.key, message.value or b"")

    def _count(self, table: str, rows: int) -> None:
        self._metrics.rows.labels(table).inc(rows)

    async def _bury(self, refusal: Refusal) -> None:
        record = refusal.entry.record
        letter = DeadLetter(
            refusal.entry.payload, refusal.reason, refusal.detail, record.topic, "", record.offset, self._clock()
        )
        await self._producer.send_all([dead_letter_record(letter, record.key, record.partition)])
        self._metrics.dead_letters.labels(record.topic, refusal.reason).inc()


class _Timed:
    """The client, with each insert's duration observed."""

    def __init__(self, clickhouse: Inserts, metrics: SinkMetrics) -> None:
        self._clickhouse = clickhouse
        self._metrics = metrics

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        started_s = time.monotonic()
        await self._clickhouse.insert(table, columns, rows)
        self._metrics.insert_seconds.labels(table).observe(time.monotonic() - started_s)
