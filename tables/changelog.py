"""The store on a Faust table, which writes a commit as one fenced batch of the changelog.

How it works, and why (design: desk "The store", submission "Zombies"):

1. The owner of a changelog partition is its only writer, so it knows the offset that each of its records will get. It
   writes that offset in front of the row (8 bytes).
2. The rows of a commit are one record batch, which Kafka appends wholly or not at all. What other callers want to
   commit to the partition while a batch is in flight goes into the next one, together.
3. Kafka's acknowledgement says which offset the batch did get. Another one means that somebody else wrote: the process
   ends there, before anything is acted on, and leaves a mark by which the next start drops its local copy of that
   partition and reads the whole log.
4. Only then all rows go into RocksDB, together with the last offset and in one batch, and the callers are told. So the
   local copy never holds a row that Kafka does not, never a part of a commit, and never claims an offset whose row it
   lacks.
5. Recovery skips every record that is not where its writer expected it. Of two writers the first in the log wins, and
   whoever loses is told before it acts. Compaction knows nothing of this and might keep the skipped record of a key, so
   the surviving row of such a key is committed again before any work starts.
6. A zombie leaves a batch or two out of place. A changelog that was mirrored or restored from a backup has nothing
   else, and skipping it would be forgetting everything: such a partition is not recovered, the process ends with exit
   code 78 (:mod:`tables.adoption` takes the changelog over).

A row is ended by an empty value behind the offset, and never by a tombstone, which has no place for one. The local copy
drops the key, and so does whoever reads the log later; the log keeps the offset for as long as it is.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import faust
from faust.types import TP
from rocksdict import WriteBatch

from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.abort import CONFIGURATION, abort
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.receipts import ACK_TIMEOUT_S
from tables.recovery import Standby
from tables.store import (
    ADOPTION,
    BEGUN,
    COMMIT_BYTES,
    ENDED,
    EXPECTED,
    REBUILDING,
    KeyValue,
    Listener,
    check_size,
    fenced,
    in_place,
    is_foreign,
    not_ours,
)

STORE_OPTIONS = {"block_cache_size": 16 << 20, "write_buffer_size": 8 << 20, "max_open_files": 256}
"""Per partition. Faust's own are 2 GiB of cache and three memtables of 64 MiB, and fail where files are unlimited."""


@dataclass(frozen=True)
class _Commit:
    rows: tuple[KeyValue, ...]
    size: int
    done: asyncio.Future[None]

    def finish(self, error: Exception | None = None) -> None:
        if self.done.done():  # the caller was cancelled
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(type(error)(*error.args))


class _Committer:
    """Joins the commits of one partition: one batch in flight, and in the next one whatever was wanted meanwhile.

    Args:
        partition: Which.
        following: The offset of the next record.
        write: Makes rows durable and readable, given the offset of the first; raises Definite or ends the process.
    """

    def __init__(
        self, partition: int, following: int, write: Callable[[int, int, Sequence[KeyValue]], Awaitable[None]]
    ) -> None:
        self._partition = partition
        self._following = following
        self._write = write
        self._waiting: deque[_Commit] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._closed = False

    async def commit(self, rows: Mapping[bytes, bytes]) -> None:
        """See :class:`Store`."""
        size = check_size(rows)
        if self._closed:
            raise not_ours(self._partition)
        if not rows:
            return
        loop = asyncio.get_running_loop()
        commit = _Commit(tuple(rows.items()), size, loop.create_future())
        self._waiting.append(commit)
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        await commit.done

    async def close(self) -> None:
        """Refuse what waits and what comes, and return when the batch in flight is acknowledged.

        So nothing of ours can get into the log after the next owner has looked where it ends.
        """
        self._closed = True
        while self._waiting:
            self._waiting.popleft().finish(not_ours(self._partition))
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        try:
            while self._waiting:
                await self._send_batch(self._join())
        except Exception as error:  # noqa: BLE001  callers must not be left waiting by a committer that is gone
            abort(f"partition {self._partition} of the store can't be written any more", cause=error)
        finally:
            self._sending = None

    def _join(self) -> list[_Commit]:
        joined = [self._waiting.popleft()]
        size = joined[0].size
        while self._waiting and size + self._waiting[0].size <= COMMIT_BYTES:
            joined.append(self._waiting.popleft())
            size += joined[-1].size
        return joined

    async def _send_batch(self, joined: list[_Commit]) -> None:
        rows = [row for commit in joined for row in commit.rows]
        refused: Definite | None = None
        try:
            await self._write(self._partition, self._following, rows)
            self._following += len(rows)
        except Definite as error:
            refused = error
        for commit in joined:
            commit.finish(refused)


class FencedStore(faust.Table):
    """The store on a Faust table, which is written through ``commit`` only; the table class of every app of ours."""

    def __init__(self, app: Any, *, name: str, partitions: int | None = None, **options: Any) -> None:
        options |= {"key_type": bytes, "value_type": bytes, "options": {**STORE_OPTIONS, "driver": "rocksdict"}}
        super().__init__(app, name=name, partitions=partitions or app.conf.topic_partitions, **options)
        self._producer = BatchProducer(app.cluster, f"{app.conf.id}-{name}")
        self._listeners: list[Listener] = []
        self._committers: dict[int, _Committer] = {}
        self._open: frozenset[int] | None = None  # None from a revocation to the end of the recovery
        self._assigned = False  # False from a revocation to the next assignment
        self._overwritten: defaultdict[int, set[bytes]] = defaultdict(set)
        self._astray: Counter[int] = Counter()
        self._standby = Standby(self, app.cluster)
        app.on_partitions_revoked.connect(self._release)

    def attach(self, listener: Listener) -> None:
        """See :class:`Store`."""
        self._listeners.append(listener)

    @property
    def owned(self) -> frozenset[int]:
        """See :class:`Store`."""
        return self._open or frozenset()

    # --- reading

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        """See :class:`Store`."""
        return self._db(partition).get(key)  # type: ignore[no-any-return]

    def find(self, key: bytes) -> tuple[int, bytes] | None:
        """See :class:`Store`."""
        if self._open is None:
            raise not_ours(None)
        rows = ((partition, self.data._dbs[partition].get(key)) for partition in self._open)
        return next(((partition, value) for partition, value in rows if value is not None), None)

    def scan(self, partition: int, prefix: bytes, after: bytes = b"") -> Iterator[KeyValue]:
        """See :class:`Store`."""
        db = self._db(partition)
        return self._guarded(partition, db, db.items(from_key=max(prefix, after)), prefix, after)

    def _guarded(
        self, partition: int, db: Any, rows: Iterator[KeyValue], prefix: bytes, after: bytes
    ) -> Iterator[KeyValue]:
        own = (self.data.offset_key, ADOPTION, REBUILDING, after)
        for key, value in rows:
            if not key.startswith(prefix):
                return
            if self._db(partition) is not db:
                raise not_ours(partition)
            if key not in own:
                yield key, value

    def _db(self, partition: int) -> Any:
        if partition not in self.owned:
            raise not_ours(partition)
        return self.data._dbs[partition]

    # --- writing

    async def commit(self, partition: int, rows: Mapping[bytes, bytes]) -> None:
        """See :class:`Store`."""
        if partition not in self.owned:
            check_size(rows)
            raise not_ours(partition)
        await self._committers[partition].commit(rows)

    async def _write(self, partition: int, expected: int, rows: Sequence[KeyValue]) -> None:
        """Append ``rows`` as one batch, and store them when it is where it belongs; otherwise end the process."""
        self.app.pulse.check()
        try:
            offset = await self._producer.send(self.changelog_topic_name, partition, fenced(rows, expected))
        except Definite:
            await self._check_unwritten(partition, expected)
            raise
        except Ambiguous as error:
            abort(f"nobody knows what became of a commit to partition {partition} of table {self.name}", cause=error)
        if offset != expected:
            self._mark(partition)
            abort(
                f"partition {partition} of the changelog of table {self.name} has another writer: expected offset "
                f"{expected}, got {offset}. Nothing was acted on; the next start reads it anew"
            )
        self._persist(partition, rows, offset + len(rows) - 1)

    async def _check_unwritten(self, partition: int, expected: int) -> None:
        """End the process unless the log still ends where it did: a refusal may follow a try that was written."""
        tp = TP(self.changelog_topic_name, partition)
        async with asyncio.timeout(ACK_TIMEOUT_S):
            ends = await self.app.consumer.highwaters(tp)
        if ends[tp] != expected:
            abort(
                f"a commit to partition {partition} of table {self.name} was refused, but its changelog ends at "
                f"{ends[tp]}, expected {expected}: it may have been written all the same"
            )

    def _persist(self, partition: int, rows: Iterable[KeyValue], offset: int) -> None:
        """Write rows and the offset they reach in one batch: the local copy is always a true prefix of the log."""
        db = self.data._dbs.get(partition)
        if db is None:  # closed in between: the next owner, and we if we come back, read them from Kafka
            return
        batch = WriteBatch(raw_mode=True)
        for key, value in rows:
            if value == ENDED:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.data.offset_key, str(offset).encode())
        db.write(batch)

    # --- from a revocation to the end of the recovery

    async def _release(self, *_: Any, **__: Any) -> None:
        """Give up all partitions: refuse what is not in flight, and wait for what is."""
        owned, self._open, self._assigned = self.owned, None, False
        committers, self._committers = self._committers, {}
        for listener in self._listeners:
            listener.revoked(sorted(owned))
        await asyncio.gather(self._standby.stop(), *(committer.close() for committer in committers.values()))

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        """Drop the local copy of every new partition that carries a mark, before it is opened."""
        if self._assigned:  # Faust did not announce this rebalance
            await self._release()
        self._astray.clear()  # recovery reads on from the last record in place, and counts them again
        for partition in self._mine(revoked):
            self._overwritten.pop(partition, None)
        for partition in self._mine(newly_assigned):
            self._drop_marked(partition)
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)
        self._assigned = True

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Take in what Faust has read itself, see :meth:`take_in`."""
        for partition, events in groupby(batch, lambda event: event.message.partition):
            self.take_in(partition, (event.message for event in events))

    def take_in(self, partition: int, records: Iterable[Any]) -> None:
        """Store the records that are where their writers expected them, and remember the keys of the others.

        Args:
            partition: Whose they are.
            records: In their order; they follow what was taken in before.
        """
        rows: dict[bytes, bytes] = {}
        reached, overwritten = None, self._overwritten[partition]
        for record in records:
            if in_place(record):
                key = record.key
                rows[key] = record.value[EXPECTED.size :]
                reached = record.offset
                if overwritten:
                    overwritten.discard(key)
                    self._astray[partition] = 0
            else:
                self._skip(partition, record)
        if reached is not None:
            self._persist(partition, rows.items(), reached)

    def _skip(self, partition: int, record: Any) -> None:
        key = record.key or b""
        if not self._overwritten[partition]:
            self.log.warning(
                "skipping records of partition %s of %s from offset %s: their writer expected other offsets",
                partition,
                self.name,
                record.offset,
            )
            # Until the surviving rows are committed again only the whole log shows that they must be: a crash in
            # between starts from the beginning.
            self._mark(partition)
        self._astray[partition] += len(key) + len(record.value or b"")
        self._overwritten[partition].add(key)

    async def on_recovery_completed(self, active_tps: Any, standby_tps: Any) -> None:
        """Go on where the log ends, commit the surviving rows again, then let work start.

        Faust also comes here when a stop or another rebalance interrupted the reading. The local copy is then a part of
        the log only: to work with it would be to forget, and to commit its rows again would undo later ones.
        """
        recovery = self.app.tables.recovery
        if recovery.should_stop or recovery.signal_recovery_start.is_set():
            self.log.info("the reading of %s was interrupted: nothing is taken up", self.changelog_topic_name)
            return
        try:
            await self._take_up({tp.partition: recovery.active_highwaters[tp] + 1 for tp in active_tps})
            if self._assigned:
                self._standby.follow(self._standby_starts)
        except Exception as error:  # noqa: BLE001  Faust would swallow it and start to work
            abort(f"table {self.name} could not be recovered", cause=error)
        await super().on_recovery_completed(active_tps, standby_tps)

    def _standby_starts(self) -> dict[TP, int]:
        """Return where to read on in each partition that this worker stands by for; opens their local copies."""
        standbys = [tp for tp in self.app.assignor.assigned_standbys() if tp.topic == self.changelog_topic_name]
        reached = {tp: self.persisted_offset(tp) for tp in standbys}
        return {tp: 0 if offset is None else offset + 1 for tp, offset in reached.items()}

    async def _take_up(self, ends: Mapping[int, int]) -> None:
        if not self._assigned:  # revoked while Faust finished this recovery: the next assignment has one of its own
            return
        for partition in ends:
            self._check_origin(partition)
        committers = {partition: _Committer(partition, end, self._write) for partition, end in ends.items()}
        self._committers = committers
        # All rows are read now: by the time a commit begins the partition may be given up, and its copy closed.
        surviving = {partition: self._surviving(partition) for partition in ends}
        try:
            await asyncio.gather(*(self._commit_survivors(committers[each], each, surviving[each]) for each in ends))
        except Transient:  # the next rebalance has begun, and ends with another recovery
            return
        if self._committers is committers:
            self._open = frozenset(ends)
            for listener in self._listeners:
                listener.recovered(sorted(ends))

    def _check_origin(self, partition: int) -> None:
        db = self.data._dbs[partition]
        if db.get(REBUILDING) == BEGUN:
            abort(
                f"partition {partition} of {self.changelog_topic_name} was begun by `streamapp rebuild` and not "
                "finished: rebuild into another name, and set kafka.store to that",
                code=CONFIGURATION,
            )
        if is_foreign(
            settled=db.get(self.data.offset_key) is not None,
            astray_bytes=self._astray[partition],
            adoption=db.get(ADOPTION),
        ):
            abort(
                f"partition {partition} of {self.changelog_topic_name} was copied from another cluster or a backup, or "
                "is written by somebody else: its records are not where their writer expected them. If nothing else "
                "writes it, `streamapp init --adopt-changelog` takes it over, once, with no trading worker running",
                code=CONFIGURATION,
            )

    def _surviving(self, partition: int) -> list[KeyValue]:
        db = self.data._dbs[partition]
        rows = ((key, db.get(key)) for key in sorted(self._overwritten.get(partition, ())))
        return [(key, value) for key, value in rows if value is not None]

    async def _commit_survivors(self, committer: _Committer, partition: int, rows: Iterable[KeyValue]) -> None:
        await asyncio.gather(*(committer.commit({key: value}) for key, value in rows))
        self._overwritten.pop(partition, None)
        self._mark_path(partition).unlink(missing_ok=True)

    async def on_start(self) -> None:
        """Connect the producer of the commits."""
        await self.add_runtime_dependency(self._producer)
        await super().on_start()

    async def on_stop(self) -> None:
        """Read and write nothing more, and wait for what is in flight while the local copy is still open."""
        await self._release()
        await super().on_stop()

    # --- the mark

    def _mark(self, partition: int) -> None:
        self._mark_path(partition).touch()

    def _mark_path(self, partition: int) -> Path:
        path: Path = self.data.partition_path(partition)
        return path.with_suffix(".drop")

    def _drop_marked(self, partition: int) -> None:
        if self._mark_path(partition).exists():
            self.log.warning("partition %s of %s is read anew: it has had another writer", partition, self.name)
            shutil.rmtree(self.data.partition_path(partition), ignore_errors=True)
            self._mark_path(partition).unlink()

    def _mine(self, tps: Iterable[Any]) -> list[int]:
        return sorted(tp.partition for tp in tps if tp.topic == self.changelog_topic_name)

    # --- what a Faust table could do

    def send_changelog(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse Faust's own way of writing: it is not awaited, and lost when Kafka refuses it."""
        raise TypeError(f"table {self.name} is written with `await commit(...)` only")

    def _on_changelog_sent(self, fut: Any) -> NoReturn:  # noqa: ARG002
        self.send_changelog()

    def on_key_set(self, key: Any, value: Any) -> NoReturn:  # noqa: ARG002
        """Refuse ``table[key] = value``."""
        self.send_changelog()

    def on_key_del(self, key: Any) -> NoReturn:  # noqa: ARG002
        """Refuse to delete: a tombstone can't carry the offset its writer expects."""
        raise TypeError(f"rows of table {self.name} can't be deleted: commit an empty one, which ends it")

    def on_clear(self) -> NoReturn:
        """Refuse as well."""
        raise TypeError(f"table {self.name} can't be cleared")
