"""What is waiting, handled at once: batches for the sinks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from agents.lanes import Acknowledge, back_within, end_worker

logger = logging.getLogger(__name__)

Event = Any
BatchHandler = Callable[[list[Event]], Awaitable[object]]

LIMIT = 500
"""Events of a batch at most, and as many again may wait while one is being handled."""
LINGER_S = 0.0
"""How long a batch waits for company: not at all, what came in while the last one was handled is company enough."""
DEADLINE_S = 25.0
"""For one batch; below half the rebalance timeout, in which a rebalance wants it finished."""


class Batches:
    """Hands events over in batches, one at a time, and acknowledges each batch in order when it is done.

    ::

        async def sink(stream):
            batches = Batches(stream.ack, insert, limit=1000, linger_s=0.2)
            async for event in stream.noack().events():
                await batches.put(event)

    Guarantees:
        - Batches and the events in them keep their order; the next one starts after the last one was acknowledged.
        - An event is acknowledged only after the handler returned for the whole batch.
        - A handler that raises, or is not back by its deadline, ends the process: the whole batch comes again.

    Args:
        acknowledge: ``stream.ack``.
        handler: Gets a list of 1 to ``limit`` events. It must be ready to see any of them again.
        limit: Events of one batch at most.
        linger_s: How long the first event waits for others at most. For sinks that suffer from small batches.
        aligned: The wait ends at whole multiples of ``linger_s``, so that the batches of all partitions come together.
        deadline_s: For each call of the handler; None for a sink that may wait for ever, and then uses ``take_all``.
        on_failure: As of :class:`agents.lanes.Lanes`.
    """

    def __init__(
        self,
        acknowledge: Acknowledge,
        handler: BatchHandler,
        *,
        limit: int = LIMIT,
        linger_s: float = LINGER_S,
        aligned: bool = False,
        deadline_s: float | None = DEADLINE_S,
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self._acknowledge = acknowledge
        self._handler = handler
        self._limit = limit
        self._linger_s = linger_s
        self._aligned = aligned
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._waiting: deque[Event] = deque()
        self._handling = 0
        self._arrived = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        """Return the number of unacknowledged events."""
        return len(self._waiting) + self._handling

    async def put(self, event: Event) -> None:
        """Add an event to the next batch; waits only while that one is full already.

        Raises:
            Whatever an earlier batch failed with, should the process still be there.
        """
        self._check()
        while len(self._waiting) >= self._limit:
            await self._wait()
        self._waiting.append(event)
        self._arrived.set()
        if self._task is None:
            self._start()

    def _start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._finished)

    async def drain(self) -> None:
        """Return when every event put so far is acknowledged."""
        while len(self):
            await self._wait()
        self._check()

    async def take_all(self, stream: Any) -> None:
        """Put every event of a stream of one partition, until Faust takes the partition away; then abandon the rest.

        Faust cancels the agent where it stands. Waiting for its stream it ends in peace; waiting for a full batch here
        it would be called a crash, so the cancellation ends the loop, which is what it is for.
        """
        try:
            async for event in stream.noack().events():
                await self.put(event)
        except asyncio.CancelledError:
            logger.info("the partition was taken away while a batch waited: all of it comes again to its next owner")
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop now and acknowledge nothing more: the partition has another owner, to whom all of it comes again."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    async def _wait(self) -> None:
        self._check()
        self._moved.clear()
        await self._moved.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _run(self) -> None:
        while self._waiting:
            if self._linger_s:
                await self._linger()
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            self._handling = len(batch)
            self._moved.set()
            await self._handle(batch)
            for event in batch:
                await self._acknowledge(event)
            self._handling = 0
            self._moved.set()

    async def _linger(self) -> None:
        passed_s = asyncio.get_running_loop().time() % self._linger_s if self._aligned else 0.0
        try:
            async with asyncio.timeout(self._linger_s - passed_s):
                while len(self._waiting) < self._limit:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return

    async def _handle(self, batch: list[Event]) -> None:
        async with back_within(self._deadline_s, f"a batch of {len(batch)}"):
            await self._handler(batch)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._on_failure(error)
        elif not task.cancelled() and self._waiting:  # put between the task's last look and here
            self._start()
        self._moved.set()
