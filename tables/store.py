"""The store of the desk: its port, and how a row stands in its changelog (written in :mod:`tables.changelog`)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from streamapp.errors import Definite, Transient

EXPECTED = struct.Struct(">q")
"""The expected offset in front of each value."""

COMMIT_BYTES = 512 << 10
"""Of one commit, and of one batch of joined commits: as :func:`size_of` counts. Half of what Kafka takes by default."""
ROW_BYTES = 40
"""What a row costs on the wire at most beyond its key and value: the expected offset, and Kafka's lengths."""

MOST_ASTRAY_BYTES = 4 * COMMIT_BYTES
"""Keys and values out of place after the last record in place, in one partition. A zombie and whoever found out about
it leave one batch each; twice that is still an incident, more is a changelog that somebody else writes or wrote."""

ADOPTION = b"\0adoption"
"""The key of a row that says how far :func:`tables.adoption.adopt_changelog` is: begun or done."""
REBUILDING = b"\0rebuilding"
"""The key of a row that says how far :func:`tables.rebuilding.write_store` is, likewise."""
BEGUN, DONE = b"begun", b"done"

ENDED = b""
"""The value that ends a row: the log keeps its offset and nothing else, and the local copy drops the key. A tombstone
would have no place for the offset that its writer expects."""

KeyValue = tuple[bytes, bytes]
"""A row, or a record."""


class Listener(Protocol):
    """What is told of rebalances by a store."""

    def revoked(self, partitions: Iterable[int]) -> None:
        """None of ``partitions`` may be read or written from now on; called first in every rebalance, maybe with none.

        They are all that this worker owned, also those that come back to it in the same rebalance. What is remembered
        of them is to be forgotten, and nothing that was begun before may commit after.
        """
        ...

    def recovered(self, partitions: Iterable[int]) -> None:
        """The rows of ``partitions``, all that this worker owns now, are complete, and may be read and written."""
        ...


class Store(Protocol):
    """Rows as bytes, in partitions that this worker owns alone.

    Implemented by :class:`FencedStore` (Kafka and RocksDB) and :class:`tables.memory.MemoryStore`.

    Guarantees:
        - A commit is durable wholly or not at all, and is read by nobody before it is durable.
        - Commits of a partition become durable in the order in which they were asked for.
        - A commit that was not confirmed is either never seen again, or seen wholly after the next recovery.
    """

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that may be read and written now; empty from a revocation to the end of the recovery."""
        ...

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        """Return the durable row of ``key``, None if there is none.

        Raises:
            Transient: The partition is not ours, or not recovered: "no row" would be a lie.
        """
        ...

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """Return the partition and the durable row of ``key``, whichever of this worker's partitions has it.

        Raises:
            Transient: Nothing is recovered yet: "no row" would be a lie.
        """
        ...

    async def commit(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """Make ``rows`` durable together and return when all replicas have them and ``get`` returns them.

        An empty value ends its row: from then on there is none (:data:`ENDED`).

        Cancelling the caller does not call the commit back. One that is in flight when the partition is revoked ends as
        ever: it returns once its acknowledgement was the right one.

        Raises:
            Definite: The rows are too large together (:data:`COMMIT_BYTES`), or were refused. Nothing was written.
            Transient: The partition is not ours (any more). Nothing was written.
            Ambiguous: No acknowledgement in time; whether the rows are there shows after the next recovery, and nothing
                may be done that rests on them. :class:`FencedStore` ends the process instead.
        """
        ...

    def scan(self, partition: int, prefix: bytes, after: bytes = b"") -> Iterator[KeyValue]:
        """Iterate over the durable rows whose key begins with ``prefix``, by key, as they are at this call.

        ``after``: only over those whose key is greater.

        Costs the rows that it yields, whatever else the partition holds.

        Raises:
            Transient: As of ``get``; from the iterator too, if the partition is revoked meanwhile.
        """
        ...

    def attach(self, listener: Listener) -> None:
        """Tell ``listener`` of rebalances, after those that were attached before it."""
        ...


def size_of(rows: Iterable[KeyValue]) -> int:
    """Return the bytes that count against :data:`COMMIT_BYTES`: keys, values, and :data:`ROW_BYTES` for each row."""
    return sum(len(key) + len(value) + ROW_BYTES for key, value in rows)


def check_size(rows: Mapping[bytes, bytes]) -> int:
    """Return the size of a commit.

    Raises:
        Definite: It is too large.
    """
    size = size_of(rows.items())
    if size > COMMIT_BYTES:
        raise Definite(f"a commit of {len(rows)} rows has {size} bytes, expected {COMMIT_BYTES} at most: not written")
    return size


def not_ours(partition: int | None) -> Transient:
    """Return what is raised for a partition that may not be read or written; None for all of them."""
    what = "its partitions" if partition is None else f"partition {partition}"
    return Transient(f"expected to own {what} of the store, but it was reassigned or is not recovered yet")


def fenced(rows: Iterable[KeyValue], offset: int) -> list[KeyValue]:
    """Return ``rows`` as records, each value with the offset that it will have if the first one gets ``offset``."""
    return [(key, EXPECTED.pack(offset + place) + value) for place, (key, value) in enumerate(rows)]


def in_place(record: Any) -> bool:
    """Return whether a record (or message) of the changelog is at the offset that its writer expected."""
    value = record.value
    return value is not None and len(value) >= EXPECTED.size and EXPECTED.unpack_from(value)[0] == record.offset


def is_foreign(*, settled: bool, astray_bytes: int, adoption: bytes | None) -> bool:
    """Return whether the changelog of a partition was copied or written by somebody else.

    The first record of a log of ours is in place, and no key loses all its records in place: whoever sees one out of
    place writes the surviving row again, long before compaction may remove anything.

    Args:
        settled: Whether any record of the log is in place.
        astray_bytes: Keys and values out of place after the last record in place.
        adoption: The newest row under :data:`ADOPTION`, None if there is none.
    """
    return adoption == BEGUN or astray_bytes > MOST_ASTRAY_BYTES or (astray_bytes > 0 and not settled)
