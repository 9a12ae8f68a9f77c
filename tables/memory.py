"""The store without Kafka: what unit tests of the desk put their rows into."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from streamapp.errors import Ambiguous
from streamapp.kafka.receipts import ACK_TIMEOUT_S
from tables.store import ENDED, KeyValue, Listener, check_size, not_ours


class MemoryStore:
    """A :class:`tables.store.Store` in dicts, with the faults that matter.

    Attributes:
        refuse: Set to an exception and the next commits raise it; nothing is written.
        silent: Set to True and the next commits are not acknowledged: nothing is written, and they raise Ambiguous
            after ``ack_timeout_s``.
        commits: Every acknowledged commit as (partition, rows), in order.
    """

    def __init__(self, *, partitions: int = 1, ack_timeout_s: float = ACK_TIMEOUT_S) -> None:
        self.refuse: Exception | None = None
        self.silent = False
        self.commits: list[tuple[int, dict[bytes, bytes]]] = []
        self._ack_timeout_s = ack_timeout_s
        self._partitions = frozenset(range(partitions))
        self._open: frozenset[int] | None = self._partitions
        self._rows: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: list[Listener] = []

    @property
    def owned(self) -> frozenset[int]:
        """All partitions at first; then as ``revoke`` and ``recover`` played it."""
        return self._open or frozenset()

    def attach(self, listener: Listener) -> None:
        """Tell ``listener`` of what ``revoke`` and ``recover`` play from now on."""
        self._listeners.append(listener)

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        """See :class:`tables.store.Store`."""
        self._check(partition)
        return self._rows[partition].get(key)

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """See :class:`tables.store.Store`."""
        if self._open is None:
            raise not_ours(None)
        return next(((each, self._rows[each][key]) for each in sorted(self._open) if key in self._rows[each]), None)

    def scan(self, partition: int, prefix: bytes, after: bytes = b"") -> Iterator[KeyValue]:
        """See :class:`tables.store.Store`."""
        self._check(partition)
        known = self._rows[partition].items()
        rows = sorted((key, value) for key, value in known if key.startswith(prefix) and key > after)
        return self._guarded(partition, rows)

    def _guarded(self, partition: int, rows: Iterable[KeyValue]) -> Iterator[KeyValue]:
        for row in rows:
            self._check(partition)
            yield row

    async def commit(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Keep the rows on a later turn of the loop, or fail or stay silent as told."""
        check_size(rows)
        self._check(partition)
        written = dict(rows)
        async with self._turns[partition]:
            await asyncio.sleep(0)
            self._check(partition)
            if self.silent:
                await asyncio.sleep(self._ack_timeout_s)
                raise Ambiguous(f"no acknowledgement within {self._ack_timeout_s} s")
            if self.refuse is not None:
                raise self.refuse
            if written:
                self.commits.append((partition, written))
                rows = self._rows[partition]
                rows |= written
                for key in [key for key, value in written.items() if value == ENDED]:
                    del rows[key]

    def _check(self, partition: int) -> None:
        if partition not in self.owned:
            raise not_ours(partition)

    def revoke(self) -> None:
        """Play the beginning of a rebalance: nothing may be read or written until ``recover``."""
        owned, self._open = self.owned, None
        for listener in self._listeners:
            listener.revoked(sorted(owned))

    def recover(self, partitions: Iterable[int] | None = None) -> None:
        """Play a whole rebalance, or the rest of one, that leaves us ``partitions``; by default all of them."""
        if self._open is not None:
            self.revoke()
        self._open = self._partitions if partitions is None else frozenset(partitions)
        for listener in self._listeners:
            listener.recovered(sorted(self._open))
