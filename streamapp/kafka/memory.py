"""The fake of the Producer port, for unit tests of agents: it remembers, and can refuse or stay silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

from streamapp.kafka.partition import partition_of
from streamapp.kafka.producer import Record, _Sends


class Sent(NamedTuple):
    """A record's metadata, named as aiokafka names them."""

    topic: str
    partition: int
    offset: int


class MemoryProducer(_Sends):
    """A Producer without Kafka.

    Attributes:
        records: Everything acknowledged so far, in order.
        refuse: Set to an exception and the next records fail with it.
        silent: Set to True and the next records are never acknowledged.
    """

    def __init__(self, partitions: int = 8) -> None:
        self.records: list[Record] = []
        self.refuse: BaseException | None = None
        self.silent = False
        self._partitions = partitions
        self._offsets: Counter[tuple[str, int]] = Counter()

    def begin(self, record: Record) -> asyncio.Future[Any]:
        """Acknowledge ``record`` on the loop's next turn, or fail or stay silent as told."""
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Any] = loop.create_future()
        if self.refuse is not None:
            receipt.set_exception(self.refuse)
        elif not self.silent:
            self.records.append(record)
            loop.call_soon(receipt.set_result, self._metadata(record))
        return receipt

    def on(self, topic: str) -> list[Record]:
        """Return the records sent to ``topic``."""
        return [record for record in self.records if record.topic == topic]

    def _metadata(self, record: Record) -> Sent:
        partition = record.partition
        if partition is None:
            partition = partition_of(record.key, self._partitions) if record.key is not None else 0
        offset = self._offsets[record.topic, partition]
        self._offsets[record.topic, partition] += 1
        return Sent(record.topic, partition, offset)
