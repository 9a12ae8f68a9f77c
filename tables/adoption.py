"""``streamapp init --adopt-changelog``: taking over a changelog whose records are not where their writer expected them.

A topic that was mirrored to another cluster or restored from a backup has the right rows at other offsets. Recovery
would skip them all, so it refuses (:mod:`tables.changelog`). Adoption writes the newest row of every key once more,
fenced with the offset that it gets here; recovery finds those in place.

Between its first and its last batch a partition says so in a row of its own, so that an adoption that was interrupted
is never taken for a finished one, and is finished by the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, product
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import live_members
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.security import Cluster
from streamapp.settings import Settings
from streamapp.topics import TABLES, app_id, changelog, trading_part
from tables.recovery import LogConsumer
from tables.store import ADOPTION, BEGUN, COMMIT_BYTES, DONE, EXPECTED, KeyValue, fenced, in_place, is_foreign, size_of


@dataclass
class PartitionLog:
    """What a partition of the changelog says when it is read to its end."""

    end: int
    settled: bool = False
    astray_bytes: int = 0
    newest: dict[bytes, tuple[bytes, bool]] = field(default_factory=dict)  # the row, and whether it is in place

    def add(self, record: Any) -> None:
        """Take in the next record."""
        there = in_place(record)
        if there:
            self.settled, self.astray_bytes = True, 0
        else:
            self.astray_bytes += len(record.key or b"") + len(record.value or b"")
        # Neither a tombstone nor anything too short for an offset was ever written by us.
        if record.key is not None and record.value is not None and len(record.value) >= EXPECTED.size:
            self.newest[record.key] = (record.value[EXPECTED.size :], there)

    @property
    def is_foreign(self) -> bool:
        """Whether it was copied, or written by somebody else."""
        adoption, there = self.newest.get(ADOPTION, (None, False))
        return is_foreign(settled=self.settled, astray_bytes=self.astray_bytes, adoption=adoption if there else None)

    def batches(self) -> Iterator[list[KeyValue]]:
        """Yield what is to be written, the first batch with the row that says begun, the last with the one for done."""
        astray = ((key, value) for key, (value, there) in self.newest.items() if not there and key != ADOPTION)
        *whole, last = in_batches(chain([(ADOPTION, BEGUN)], astray))
        yield from whole
        yield [*last, (ADOPTION, DONE)]


def in_batches(rows: Iterable[KeyValue]) -> Iterator[list[KeyValue]]:
    """Yield ``rows`` in batches that each fit into a commit."""
    batch, size = list[KeyValue](), 0
    for row in rows:
        row_size = size_of([row])
        if batch and size + row_size > COMMIT_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield batch


async def adopt_changelog(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> int:
    """Take over the desk's changelog, and return how many rows were written again; may be repeated.

    A partition whose records are where their writer expected them is left as it is, also if a zombie left a few others
    in it: what those say was never acted on. In the others the newest record of a key counts, wherever it stands.
    Holds the rows of one partition in memory. Local copies below ``local.data`` are read anew at the next start.

    Args:
        settings: The deployment, and where Kafka and the local copies are.
        progress: Called with a sentence for each partition.

    Raises:
        ConfigurationError: A trading worker is running, or somebody else writes the changelog: nothing may.
        Definite, Transient, Ambiguous: Kafka refused a batch, or did not answer. The next call finishes what was begun.
    """
    cluster, group = Cluster.of(settings), app_id(settings.kafka_deployment, trading_part(settings.kafka.store))
    rows = 0
    try:
        await refuse_live_members(cluster, group, settings.kafka.session_timeout_s)
        async with BatchProducer(cluster, f"{group}-adoption") as producer:
            for table, partition in product(TABLES, range(settings.kafka.partitions)):
                tp = TopicPartition(changelog(settings.kafka_deployment, table, settings.kafka.store), partition)
                rows += await _adopt(settings, producer, tp, progress)
    except (KafkaError, OSError) as error:
        explained = await cluster.explained(error)
        raise type(explained)(f"{explained}: adopt the changelog again") from error
    return rows


async def refuse_live_members(cluster: Cluster, group: str, session_s: float) -> None:
    """Raise ConfigurationError if a worker of a consumer group is running."""
    if count := await live_members(cluster, group):
        raise ConfigurationError(
            f"the consumer group {group} has {count} live members: stop every trading worker first (one that was "
            f"stopped counts for up to {session_s:g} s)"
        )


async def _adopt(
    settings: Settings, producer: BatchProducer, tp: TopicPartition, progress: Callable[[str], None]
) -> int:
    log = await read_log(Cluster.of(settings), tp)
    if not log.is_foreign:
        progress(f"partition {tp.partition} of {tp.topic}: nothing to adopt")
        return 0
    # First: a local copy that reached further than this log does would stand in the way of its recovery.
    for copy in settings.local.data.glob(f"trading*/v*/tables*/*-{tp.partition}.db"):
        copy.with_suffix(".drop").touch()
    following = log.end
    for batch in log.batches():
        offset = await producer.send(tp.topic, tp.partition, fenced(batch, following))
        if offset != following:
            raise ConfigurationError(
                f"somebody else writes partition {tp.partition} of {tp.topic}: expected offset {following}, got "
                f"{offset}. Stop it, then adopt the changelog again"
            )
        following += len(batch)
    rows = sum(not there and key != ADOPTION for key, (_, there) in log.newest.items())
    progress(f"partition {tp.partition} of {tp.topic}: {rows} rows adopted")
    return rows


async def read_log(cluster: Cluster, tp: TopicPartition) -> PartitionLog:
    """Return what a partition says, read to its end."""
    async with LogConsumer(cluster, {tp: 0}) as consumer:
        log = PartitionLog(end=await consumer.end(tp))
        while await consumer.position(tp) < log.end:
            for records in (await consumer.read()).values():
                for record in records:
                    log.add(record)
        return log
