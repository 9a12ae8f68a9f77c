"""How the records of a changelog get into local copies: in bulk at a recovery, fetch by fetch at a standby.

Faust brings each record through its consumer, two queues and an event of its own, some 9,000 a second; what it has
not applied when it resumes its flow it throws away, which leaves a standby with a hole that nothing shows. So a
consumer of our own, which is in no group, reads the partitions from where their local copies end, and gives the store
whole fetches, each applied before the next one is asked for. Faust's part is the rest: it knows which partitions are
ours, and where the log ended when the recovery began; it finds nothing left to read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.tables.manager import TableManager
from faust.tables.recovery import Recovery

from streamapp.kafka.abort import abort
from streamapp.kafka.security import Cluster

logger = logging.getLogger(__name__)

MOST_RECORDS = 1000
"""Of one partition between two turns of the event loop: some 15 ms."""
FETCH_BYTES = 4 << 20
"""What Kafka may return of one partition at once."""
POLL_MS = 500
"""How long one fetch of the log may wait: only at its end, or while a broker is slow."""
RETRY_S = 5.0
"""After a standby could not read."""

Records = Sequence[Any]


class LogConsumer:
    """Partitions of a changelog, read by a consumer that is in no group.

    Args:
        cluster: Where Kafka is.
        starts: The offset to begin at, by partition.
    """

    def __init__(self, cluster: Cluster, starts: Mapping[Any, int]) -> None:
        self._starts = {TopicPartition(*tp): offset for tp, offset in starts.items()}
        self._consumer = AIOKafkaConsumer(
            enable_auto_commit=False,
            auto_offset_reset="none",  # a local copy that reaches further than the log is an error, not a new beginning
            max_partition_fetch_bytes=FETCH_BYTES,
            **cluster.client_options(),
        )

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            KafkaError, OSError: Kafka is away, or does not let us in.
        """
        try:
            await self._consumer.start()
            self._consumer.assign(list(self._starts))
            first = await self._consumer.beginning_offsets(list(self._starts))
            for tp, offset in self._starts.items():
                self._consumer.seek(tp, max(offset, first[tp]))
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def read(self, *of: Any) -> Mapping[Any, Records]:
        """Return the next records, in their order; nothing if there are none within ``POLL_MS``."""
        found = await self._consumer.getmany(*of, timeout_ms=POLL_MS, max_records=MOST_RECORDS)
        return dict(found)

    async def position(self, tp: Any) -> int:
        """Return the offset that is read next: that of the next record, or a larger one where none is in between."""
        return int(await self._consumer.position(TopicPartition(*tp)))

    async def end(self, tp: Any) -> int:
        """Return where a partition ends now."""
        return int((await self._consumer.end_offsets([TopicPartition(*tp)]))[TopicPartition(*tp)])


class Copies(Protocol):
    """The local copies of a table (:class:`tables.changelog.FencedStore`)."""

    def take_in(self, partition: int, records: Iterable[Any]) -> None:
        """Apply records of a partition, which follow what was applied before."""
        ...


class BulkRecovery(Recovery):
    """Faust's recovery, which is given a log that was read already."""

    async def on_rebalance(self, assigned: Any, revoked: Any, newly_assigned: Any, generation_id: int = 0) -> None:
        """Begin with what the local copies hold, whatever an earlier recovery that was cut off has read."""
        if generation_id == self.app.consumer_generation_id:  # otherwise the next rebalance has begun
            self.active_offsets.clear()
        await super().on_rebalance(assigned, revoked, newly_assigned, generation_id)

    def add_standby(self, table: Any, tp: Any) -> None:
        """Leave it to the table, which follows its standbys itself (:class:`Standby`)."""

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ARG002  Faust's signature
        """Wait as long as it takes: Faust gives a step the time of one request, and takes its end for a shutdown."""
        await super()._wait(coro)

    async def _build_offsets(self, consumer: Any, tps: Any, destination: Any, title: str) -> None:
        await super()._build_offsets(consumer, tps, destination, title)
        if title == "active":
            await self._read_logs(destination)

    async def _read_logs(self, offsets: MutableMapping[Any, int]) -> None:
        """Read every log to where it ended, into the local copies; ``offsets`` say how far each has come."""
        ends = self.active_highwaters
        starts = {tp: offset + 1 for tp, offset in offsets.items() if offset < ends[tp]}
        if not starts:
            return
        left = {TopicPartition(*tp): tp for tp in starts}
        async with LogConsumer(self.app.cluster, starts) as log:
            while left:
                for place, records in (await log.read(*left)).items():
                    tp = left[place]
                    # What was written since is left to who watches for other writers: the first commit.
                    within = [record for record in records if record.offset <= ends[tp]]
                    self.tp_to_table[tp].take_in(tp.partition, within)
                    offsets[tp] = within[-1].offset if within else ends[tp]
                    await asyncio.sleep(0)
                for place, tp in list(left.items()):
                    if await log.position(place) > ends[tp]:  # the last offsets may be without a record
                        offsets[tp] = ends[tp]
                        del left[place]


class BulkTables(TableManager):
    """Faust's tables with that recovery."""

    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        """The recovery of all tables."""
        if self._recovery is None:
            self._recovery = BulkRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class Standby:
    """Keeps local copies of partitions that another worker owns, a fetch behind it.

    A copy is a true prefix of the log at any moment, as an owner's is: whoever takes over reads on from there.
    """

    def __init__(self, copies: Copies, cluster: Cluster) -> None:
        self._copies = copies
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None

    def follow(self, starts: Callable[[], Mapping[Any, int]]) -> None:
        """Begin to follow the partitions of ``starts``, from the offsets that it says; unless it does so already."""
        if self._task is None and starts():
            self._task = asyncio.get_running_loop().create_task(self._follow(starts))
            self._task.add_done_callback(_check)

    async def stop(self) -> None:
        """Apply nothing any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, starts: Callable[[], Mapping[Any, int]]) -> None:
        while True:
            try:
                async with LogConsumer(self._cluster, starts()) as log:
                    while True:
                        for tp, records in (await log.read()).items():
                            self._copies.take_in(tp.partition, records)
                            await asyncio.sleep(0)
            except (KafkaError, OSError) as error:  # no reason to end a worker that trades
                logger.warning("the changelogs that this worker stands by for are not followed now: %r", error)
                await asyncio.sleep(RETRY_S)


def _check(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        abort("the changelogs that this worker stands by for can't be followed", cause=error)
