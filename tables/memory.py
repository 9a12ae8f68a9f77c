"""The changelog without Kafka: what unit tests of agents put their tables on."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from streamapp.errors import Definite, Transient
from streamapp.kafka.producer import MAX_RECORD_BYTES
from tables.changelog import Listener
from tables.durable import DurableTable

RowT = TypeVar("RowT", bound=BaseModel)


class MemoryChangelog:
    """A Changelog in a dict, with the faults that matter.

    Attributes:
        event_partition: The partition that stands for the event's; None plays code outside of events.
        refuse: Set to an exception and the next rows fail with it.
        silent: Set to True and the next rows are never acknowledged.
        appended: Every acknowledged row as (partition, key, value), in order.
    """

    def __init__(self, name: str = "memory", *, partitions: int = 1) -> None:
        self.name = name
        self.event_partition: int | None = 0
        self.refuse: BaseException | None = None
        self.silent = False
        self.appended: list[tuple[int, bytes, bytes]] = []
        self._owned = set(range(partitions))
        self._rows: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self._listener: Listener | None = None

    def attach(self, listener: Listener) -> None:
        """Tell ``listener``, and say when there is a loop that everything is recovered."""
        self._listener = listener

    def here(self) -> int | None:
        """Return ``event_partition``."""
        return self.event_partition

    def append(self, partition: int, key: bytes, value: bytes) -> asyncio.Future[Any]:
        """Keep the row and acknowledge it on the loop's next turn, or fail or stay silent as told."""
        self._check(partition)
        if len(key) + len(value) > MAX_RECORD_BYTES:
            raise Definite(
                f"a row of table {self.name} has {len(key) + len(value)} bytes, expected {MAX_RECORD_BYTES} at most"
            )
        loop = asyncio.get_running_loop()
        receipt: asyncio.Future[Any] = loop.create_future()
        if self.refuse is not None:
            receipt.set_exception(self.refuse)
        elif not self.silent:
            loop.call_soon(self._acknowledge, receipt, partition, key, value)
        return receipt

    def _acknowledge(self, receipt: asyncio.Future[Any], partition: int, key: bytes, value: bytes) -> None:
        self.appended.append((partition, key, value))
        self._rows[partition][key] = value
        receipt.set_result(len(self.appended) - 1)

    def _check(self, partition: int | None) -> None:
        if partition is not None and partition not in self._owned:
            raise Transient(f"expected to own partition {partition} of table {self.name}")

    def read(self, partition: int | None, key: bytes) -> bytes | None:
        """Look in one partition, or in all owned ones."""
        self._check(partition)
        candidates = self._owned if partition is None else (partition,)
        return next((self._rows[owned][key] for owned in candidates if key in self._rows[owned]), None)

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over a copy."""
        yield from dict(self._rows[partition]).items()

    def recover(self, partitions: Iterable[int] | None = None) -> None:
        """Play the end of a recovery that left us ``partitions`` (by default the ones we have) and took the others."""
        owned = self._owned if partitions is None else set(partitions)
        lost, self._owned = self._owned - owned, set(owned)
        assert self._listener is not None
        self._listener.revoked(sorted(lost))
        self._listener.recovered(sorted(owned))


def memory_table(name: str, model: type[RowT], *, partitions: int = 1) -> tuple[DurableTable[RowT], MemoryChangelog]:
    """Return a table for a unit test, recovered and empty, and its changelog to play faults with."""
    log = MemoryChangelog(name, partitions=partitions)
    table = DurableTable(log, model)
    log.recover()
    return table, log
