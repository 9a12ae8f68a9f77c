"""The log behind a durable table: its port, and the Faust table that fences rows with the offsets their writer expects.

How it works, and why (design: submission "Zombies"; measured: reference kafka §5):

1. The owner of a changelog partition is its only writer, so it knows the offset that its next record will get. It
   writes that offset in front of the row (8 bytes).
2. Kafka's acknowledgement says which offset the record did get. Another one means that somebody else wrote: the process
   ends there, before anything is acted on, and leaves a mark by which the next start drops its local copy of that
   partition.
3. Only then the row goes into RocksDB, together with its offset and in one batch. So the local copy never holds a row
   that Kafka does not, and never claims an offset whose row it lacks.
4. Recovery skips every record that is not where its writer expected it. Of two writers the first in the log wins, and
   whoever loses is told before it acts. Compaction knows nothing of this and might keep the skipped record of a key, so
   the surviving row of such a key is sent again before any work starts.

Rows are never deleted: a tombstone has no place for the offset. A row that is over says so.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

import faust
from faust.streams import current_event
from rocksdict import WriteBatch

from streamapp.errors import Definite, Transient
from streamapp.kafka.exits import leave
from streamapp.kafka.producer import MAX_RECORD_BYTES
from streamapp.kafka.receipts import settle

EXPECTED = struct.Struct(">q")
"""The expected offset in front of each value."""

STORE_OPTIONS = {"block_cache_size": 16 << 20, "write_buffer_size": 8 << 20, "max_open_files": 256}
"""Per partition. Faust's own are 2 GiB of cache and three memtables of 64 MiB, and fail where files are unlimited."""

RESEND_TIMEOUT_S = 60.0
"""For all surviving rows of one recovery; nothing works before them, and a leader may be changing."""
RESEND_SLICE = 1000


class Listener(Protocol):
    """What a durable table is told by its changelog."""

    def revoked(self, partitions: Iterable[int]) -> None:
        """Somebody else owns ``partitions`` from now on; called first in every rebalance, maybe with none."""
        ...

    def replayed(self, partition: int, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Recovery has written ``rows`` into the local copy."""
        ...

    def recovered(self, partitions: Iterable[int]) -> None:
        """The rows of ``partitions``, all that this worker owns, are complete, and may be read and written."""
        ...


class Changelog(Protocol):
    """Rows as bytes, partitioned, each durable once its receipt is there.

    Implemented by :class:`FencedTable` (Kafka and RocksDB) and :class:`tables.memory.MemoryChangelog`.
    """

    name: str

    def attach(self, listener: Listener) -> None:
        """Tell ``listener`` from now on."""
        ...

    def here(self) -> int | None:
        """Return the partition of the event that is being handled, None outside of events."""
        ...

    def append(self, partition: int, key: bytes, value: bytes) -> asyncio.Future[Any]:
        """Put a row on its way, in order, and return the receipt that is done when it is durable and readable.

        Raises:
            Transient: This worker does not own the partition (any more).
            Definite: The row is too large.
        """
        ...

    def read(self, partition: int | None, key: bytes) -> bytes | None:
        """Return the durable row of ``key`` in ``partition``, or in any that this worker owns if that is None.

        Raises:
            Transient: This worker does not own the partition, or is not recovered: "no row" would be a lie.
        """
        ...

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over all durable rows of a partition, as they were when the iteration began."""
        ...


class _Deaf:
    """The listener of a log that no table was put on."""

    def revoked(self, partitions: Iterable[int]) -> None: ...

    def replayed(self, partition: int, rows: Iterable[tuple[bytes, bytes]]) -> None: ...

    def recovered(self, partitions: Iterable[int]) -> None: ...


class FencedTable(faust.Table):
    """A Faust table that is written through ``append`` only; the table class of every app of ours."""

    def __init__(self, app: Any, *, name: str, partitions: int | None = None, **options: Any) -> None:
        options |= {"key_type": bytes, "value_type": bytes, "options": {**STORE_OPTIONS, "driver": "rocksdict"}}
        super().__init__(app, name=name, partitions=partitions or app.conf.topic_partitions, **options)
        self._listener: Listener = _Deaf()
        self._next: dict[int, int] | None = (
            None  # by partition that is ours and recovered; None between two assignments
        )
        self._overwritten: defaultdict[int, set[bytes]] = defaultdict(set)

    def attach(self, listener: Listener) -> None:
        """See :class:`Changelog`."""
        self._listener = listener

    def here(self) -> int | None:
        """See :class:`Changelog`."""
        event = current_event()
        return None if event is None else int(event.message.partition)

    # --- writing

    def append(self, partition: int, key: bytes, value: bytes) -> asyncio.Future[Any]:
        """See :class:`Changelog`. The offset is counted in the same step as the record enters the one send queue."""
        self.app.pulse.check()
        self._check_size(key, value)
        following = self._recovered(partition)
        expected = following[partition]
        receipt: asyncio.Future[Any] = self.changelog_topic.send_soon(
            key=key,
            value=EXPECTED.pack(expected) + value,
            partition=partition,
            key_serializer="raw",
            value_serializer="raw",
            callback=self._on_changelog_sent,
        )
        following[partition] = expected + 1
        return receipt

    def _check_size(self, key: bytes, value: bytes) -> None:
        if len(key) + len(value) > MAX_RECORD_BYTES:
            raise Definite(
                f"a row of table {self.name} has {len(key) + len(value)} bytes, expected {MAX_RECORD_BYTES} at most: "
                "nothing was written"
            )

    def _recovered(self, partition: int | None) -> dict[int, int]:
        """Return the expected offsets, or raise Transient: between assignments and at shutdown nothing is known."""
        event = current_event()
        stale = event is not None and event.message.generation_id != self.app.consumer_generation_id
        following = self._next
        if following is None or stale or not (partition is None or partition in following):
            raise Transient(
                f"expected to own partition {partition} of table {self.name}, but it was reassigned or is not "
                "recovered yet: let this end the worker, the event comes again to whoever owns it"
            )
        return following

    def _on_changelog_sent(self, receipt: Any) -> None:
        try:
            self._confirm(receipt.result(), receipt.message)
        except Exception as error:  # noqa: BLE001  Faust would only log it and store the offset all the same
            leave(f"table {self.name}: an acknowledged row could not be kept", cause=error)

    def _confirm(self, metadata: Any, message: Any) -> None:
        (expected,) = EXPECTED.unpack_from(message.value)
        if metadata.offset != expected:
            self._mark(metadata.partition)
            leave(
                f"partition {metadata.partition} of the changelog of table {self.name} has another writer: "
                f"expected offset {expected}, got {metadata.offset}. Nothing was acted on; the next start reads it anew"
            )
        self._keep(metadata.partition, [(message.key, message.value[EXPECTED.size :])], metadata.offset)

    def _keep(self, partition: int, rows: Iterable[tuple[bytes, bytes]], offset: int) -> None:
        """Write rows and the offset they reach in one batch: the local copy is always a true prefix of the log."""
        db = self.data._dbs.get(partition)
        if db is None:  # revoked in between: the next owner, and we if we come back, read it from Kafka
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in rows:
            batch.put(key, value)
        batch.put(self.data.offset_key, str(offset).encode())
        db.write(batch)

    # --- reading

    def read(self, partition: int | None, key: bytes) -> bytes | None:
        """See :class:`Changelog`."""
        owned = self._recovered(partition)
        candidates = owned if partition is None else (partition,)
        return next((value for each in candidates if (value := self.data._dbs[each].get(key)) is not None), None)

    def scan(self, partition: int) -> Iterator[tuple[bytes, bytes]]:
        """See :class:`Changelog`."""
        db = self.data._dbs.get(partition)
        if db is not None:
            yield from ((key, value) for key, value in db.items() if key != self.data.offset_key)

    # --- recovery

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        """Stop writing, and drop the local copy of every new partition that carries a mark, before it is opened."""
        self._next = None
        lost = self._mine(revoked)
        for partition in lost:
            self._overwritten.pop(partition, None)
        self._listener.revoked(lost)
        for partition in self._mine(newly_assigned):
            self._drop_marked(partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Keep the records that are where their writers expected them, and remember the keys of the others."""
        kept: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)
        reached: dict[int, int] = {}
        for event in batch:
            message = event.message
            if _in_place(message):
                kept[message.partition][message.key] = message.value[EXPECTED.size :]
                reached[message.partition] = message.offset
                self._overwritten[message.partition].discard(message.key)
            else:
                self._skip(message)
        for partition, rows in kept.items():
            self.data._db_for_partition(partition)
            self._keep(partition, rows.items(), reached[partition])
            self._listener.replayed(partition, rows.items())

    def _skip(self, message: Any) -> None:
        self.log.warning(
            "skipped the record at %s/%s of %s: its writer expected another offset",
            message.partition,
            message.offset,
            self.name,
        )
        # Until the surviving row is sent again only the whole log shows that it must be: a crash in between starts from
        # the beginning.
        self._mark(message.partition)
        self._overwritten[message.partition].add(message.key)

    async def on_recovery_completed(self, active_tps: Any, standby_tps: Any) -> None:
        """Take up the offsets where recovery ended, send the surviving rows, then let work start."""
        try:
            highwaters = self.app.tables.recovery.active_highwaters
            owned = {tp.partition: highwaters[tp] + 1 for tp in active_tps}
            self._next = owned
            for partition in owned:
                await self._send_survivors(partition)
            self._listener.recovered(sorted(owned))
        except Exception as error:  # noqa: BLE001  Faust would swallow it and start to work
            leave(f"table {self.name} could not be recovered", cause=error)
        await super().on_recovery_completed(active_tps, standby_tps)

    async def _send_survivors(self, partition: int) -> None:
        keys = sorted(self._overwritten.get(partition, ()))
        for start in range(0, len(keys), RESEND_SLICE):
            rows = ((key, self.read(partition, key)) for key in keys[start : start + RESEND_SLICE])
            receipts = [self.append(partition, key, value) for key, value in rows if value is not None]
            await settle(receipts, timeout_s=RESEND_TIMEOUT_S)
        self._overwritten.pop(partition, None)
        self._mark_path(partition).unlink(missing_ok=True)

    async def on_stop(self) -> None:
        """Read and write nothing more: at a crash lanes may still be at work while the local copy is being closed."""
        self._next = None
        self._listener.revoked(())
        await super().on_stop()

    # --- the mark

    def _mark(self, partition: int) -> None:
        self._mark_path(partition).touch()

    def _mark_path(self, partition: int) -> Path:
        path: Path = self.data.partition_path(partition)
        return path.with_suffix(".drop")

    def _drop_marked(self, partition: int) -> None:
        if self._mark_path(partition).exists():
            self.log.warning(
                "partition %s of %s is read anew: its local copy may hold a row that lost", partition, self.name
            )
            shutil.rmtree(self.data.partition_path(partition), ignore_errors=True)
            self._mark_path(partition).unlink()

    def _mine(self, tps: Iterable[Any]) -> list[int]:
        return sorted(tp.partition for tp in tps if tp.topic == self.changelog_topic_name)

    # --- what a dict could do

    def on_key_set(self, key: Any, value: Any) -> NoReturn:  # noqa: ARG002
        """Refuse ``table[key] = value``: it is not awaited, and lost when Kafka refuses it."""
        raise TypeError(f"table {self.name} is written with `await put(...)` only")

    def on_key_del(self, key: Any) -> NoReturn:  # noqa: ARG002
        """Refuse to delete: a tombstone can't carry the offset its writer expects."""
        raise TypeError(f"rows of table {self.name} can't be deleted: put one that says it is over")

    def on_clear(self) -> NoReturn:
        """Refuse as well."""
        raise TypeError(f"table {self.name} can't be cleared")


def _in_place(message: Any) -> bool:
    value = message.value
    return value is not None and len(value) >= EXPECTED.size and EXPECTED.unpack_from(value)[0] == message.offset
