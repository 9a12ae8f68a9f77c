"""Reading a Kafka topic as a stream, however long it is, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from streamapp.domain.identifiers import partition_of
from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.security import Cluster
from streamapp.settings import Settings

SILENT_S = 30.0
"""How long Kafka may give nothing of what it says is there."""
_POLL_MS = 500
NOWHERE: Mapping[int, int] = MappingProxyType({})

Progress = Callable[[int, int], None]
"""Called with the number of records read so far, and of those there are."""


class TopicReader:
    """A topic's records, read up to the end that it has when :meth:`read` is called; the next call reads on from there.

    Args:
        settings: Where Kafka is.
        topic: Our name of it.
        account: Only the records of this account; None: all.
        partition: Only this partition; None: all.
        progress: Told how far it is.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        *,
        account: str | None = None,
        partition: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._cluster = Cluster.of(settings)
        self._topic = settings.kafka.prefixed(topic)
        self._key = None if account is None else account.encode()
        count = settings.kafka.partitions
        only = partition if account is None else partition_of(account, count)
        numbers = range(count) if only is None else [only]
        self._parts = [TopicPartition(self._topic, number) for number in numbers]
        self._progress = progress
        self._done = 0

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            Transient: Kafka is away.
            ConfigurationError: there is no such topic, or Kafka does not let us in.
        """
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False, auto_offset_reset="earliest", **self._cluster.client_options()
        )
        try:
            await self._consumer.start()
            known = await self._consumer.topics()
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            raise await self._cluster.explained(error) from error
        if self._topic not in known:
            await self._consumer.stop()
            raise ConfigurationError(
                f"expected topic {self._topic} in Kafka at {self._cluster.bootstrap}: run `streamapp init`"
            )
        self._consumer.assign(self._parts)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def begin(self, *, at: Mapping[int, int] = NOWHERE, last: int | None = None) -> int:
        """Read from these offsets on, by partition; of another one only the ``last`` records, all of them if None.

        Returns:
            How many records are passed over.

        Raises:
            Transient: Kafka is away.
        """
        try:
            async with asyncio.timeout(SILENT_S):
                ends = await self._consumer.end_offsets(self._parts)
                firsts = await self._consumer.beginning_offsets(self._parts)
        except (KafkaError, TimeoutError) as error:
            raise await self._cluster.explained(error) from error
        passed = 0
        for part in self._parts:
            newest = firsts[part] if last is None else ends[part] - last
            wanted = max(at.get(part.partition, newest), firsts[part])
            self._consumer.seek(part, min(wanted, ends[part]))
            passed += min(wanted, ends[part]) - firsts[part]
        return passed

    async def read(self) -> AsyncIterator[ConsumerRecord]:
        """Yield what is there and was not read yet, partition by partition in order; records without a value are none.

        Raises:
            Transient: Kafka is away, or gives nothing of what it says is there.
        """
        try:
            async with asyncio.timeout(SILENT_S):
                ends = await self._consumer.end_offsets(self._parts)
                at = {part: await self._consumer.position(part) for part in self._parts}
            total = self._done + sum(ends[part] - at[part] for part in self._parts)
            left = {part: end for part, end in ends.items() if end > at[part]}
            silent_s = 0.0
            while left:
                batches = await self._consumer.getmany(*left, timeout_ms=_POLL_MS)
                for records in batches.values():
                    self._done += len(records)
                    for record in records:
                        if record.value is not None and self._key in {None, record.key}:
                            yield record
                left = {part: end for part, end in left.items() if await self._consumer.position(part) < end}
                silent_s = 0.0 if batches else silent_s + _POLL_MS / 1000
                if silent_s >= SILENT_S:
                    raise Transient(f"{self._topic}: expected records up to {left}, got none for {SILENT_S:g} s")
                if self._progress is not None:
                    self._progress(min(self._done, total), total)
        except (KafkaError, TimeoutError) as error:
            raise await self._cluster.explained(error) from error


def place_of(record: ConsumerRecord) -> str:
    """Return where a record stands, in words."""
    return f"partition {record.partition}, offset {record.offset}"
