"""What is waiting, handled at once: batches for a sink, of all the partitions that it reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from streamapp.kafka.abort import end_worker
from streamapp.kafka.window import Acknowledge

logger = logging.getLogger(__name__)

Event = Any
BatchHandler = Callable[[Sequence[Event]], Awaitable[object]]

LIMIT = 500
"""Events of one partition in a batch at most, and as many again may wait: some 2 MB each, for commits of 4 kB."""


class BatchProcessor:
    """Hands the events of many streams over in batches, one at a time, and acknowledges each batch when it is done.

    One batch holds what all partitions have, because a sink pays for each batch and not for each event.

    Guarantees:
        - The events of a partition keep their order, in a batch and between batches.
        - An event is acknowledged, in its partition's order, only after the handler returned for the whole batch.
        - Nothing of a partition that was taken away is acknowledged: all of it is redelivered to its next owner.
        - A handler that raises ends the process: the whole batch is redelivered. It may take for ever, and is cancelled
          only when every partition was taken away.

    Args:
        handler: Gets a list of events, those of a partition in order. It must be ready to see any of them again.
        limit: Events of one partition in a batch at most; as many again may wait.
        linger_s: How long the first event of a batch waits for others, unless a partition reaches its limit.
        on_failure: As of :class:`agents.lanes.Lanes`.
    """

    def __init__(
        self,
        handler: BatchHandler,
        *,
        linger_s: float,
        limit: int = LIMIT,
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self._handler = handler
        self._linger_s = linger_s
        self._limit = limit
        self._on_failure = on_failure
        self._partitions: list[_Partition] = []
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def run(self, stream: Any) -> None:
        """Process a stream of one partition until it ends or Faust takes the partition away.

        Faust cancels the agent where it stands. Waiting for its stream it ends in peace; waiting for room here it would
        be called a crash, so the cancellation ends the loop, which is what it is for.
        """
        partition = _Partition(stream.ack, self._limit)
        self._partitions.append(partition)
        try:
            async for event in stream.noack().events():
                await self._put(partition, event)
        except asyncio.CancelledError:
            logger.info("the partition was taken away while a batch waited: all of it is redelivered to its next owner")
        finally:
            self._abandon(partition)

    async def _put(self, partition: _Partition, event: Event) -> None:
        await partition.waiting.put(event)
        self._arrived.set()
        if partition.waiting.full():
            self._full.set()
        if self._task is None:
            self._task = asyncio.create_task(self._process())
            self._task.add_done_callback(self._ended)

    def _abandon(self, partition: _Partition) -> None:
        self._partitions.remove(partition)
        partition.is_ours = False
        if not self._partitions and self._task is not None:
            self._task.cancel()
            self._task = None  # whoever comes before it has ended begins another

    async def _process(self) -> None:
        while True:
            await self._arrived.wait()
            await self._linger()
            self._arrived.clear()
            self._full.clear()
            batches = [(partition, partition.next_batch()) for partition in self._partitions]
            if events := [event for _, batch in batches for event in batch]:
                await self._handler(events)
            for partition, batch in batches:
                await partition.acknowledge(batch)

    async def _linger(self) -> None:
        try:
            async with asyncio.timeout(self._linger_s):
                await self._full.wait()
        except TimeoutError:
            return

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)


class _Partition:
    """The events of one stream that wait for the next batch."""

    def __init__(self, acknowledge: Acknowledge, limit: int) -> None:
        self.waiting: asyncio.Queue[Event] = asyncio.Queue(limit)
        self.is_ours = True
        self._acknowledge = acknowledge

    def next_batch(self) -> list[Event]:
        return [self.waiting.get_nowait() for _ in range(self.waiting.qsize())]

    async def acknowledge(self, batch: list[Event]) -> None:
        for event in batch:
            if not self.is_ours:
                return
            await self._acknowledge(event)
