"""Side by side between accounts, one after another within an account, acknowledged in offset order.

A partition holds many accounts. Each event goes to the lane of its account, so that one account with a slow terminal
does not stand in the way of the others; offsets are acknowledged from the head of a bounded window only, so that a
crash loses no event (Faust commits past an unfinished event when acknowledgements come out of order: reference faust
§3.1).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from streamapp.errors import Ambiguous
from streamapp.kafka.exits import leave

Event = Any
Acknowledge = Callable[[Event], Awaitable[object]]
Handler = Callable[[Event], Awaitable[object]]
GroupHandler = Callable[[list[Event]], Awaitable[object]]

WINDOW = 256
"""Unfinished events of one partition: what comes again after a crash, at most."""
DEADLINE_S = 5.0
"""For one task. What may take longer is not awaited but reported."""
DRAIN_S = 30.0
"""A lane is empty after this long, whatever happens: half of what a rebalance waits before Kafka goes on without us."""
GROUP = 100
"""Events handed over together at most: writing 100 rows and records at once takes some tens of milliseconds."""


def end_worker(error: BaseException) -> None:
    """End the process because of ``error``; nothing unfinished is acknowledged, so all of it comes again."""
    leave("an event could not be handled", cause=error)


@asynccontextmanager
async def back_within(deadline_s: float | None, what: str) -> AsyncIterator[None]:
    """Call a handler of ``what`` in here; None: it may take for ever.

    Raises:
        Ambiguous: It was not back in time. A TimeoutError of its own passes as it is.
    """
    try:
        async with asyncio.timeout(deadline_s) as deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        raise Ambiguous(
            f"the handler of {what} was not back within {deadline_s} s: how far it got is not known"
        ) from error


@dataclass(eq=False, slots=True)
class _Work:
    event: Event  # the strong reference that keeps current_event alive
    handler: Handler | GroupHandler
    grouped: bool
    context: contextvars.Context
    done: bool = False


@dataclass(eq=False, slots=True)
class _Lane:
    waiting: deque[_Work] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


class Lanes:
    """The lanes of one partition, made at the top of its agent.

    ::

        async def broker(stream):
            lanes = Lanes(stream.ack)
            async for event in stream.noack().events():
                await lanes.put(event.message.key, event, handle)

    Guarantees:
        - Events of one key are handled in their order and never at the same time; those of different keys side by side.
        - An event is acknowledged after its handler returned, and after every event before it.
        - A handler that raises, or is not back by its deadline, ends the process: nothing after it is acknowledged.
        - A rebalance or shutdown finds the lanes empty within ``DRAIN_S``, because a lane holds no more than that many
          deadlines.
        - Within a handler ``current_event`` is its event (of a group the first one), so tables know their partition.

    Args:
        acknowledge: ``stream.ack``.
        window: Unfinished events at most; ``put`` waits beyond.
        deadline_s: For each call of a handler.
        on_failure: What to do about a failed handler; only tests have something else than ending the process in mind.
    """

    def __init__(
        self,
        acknowledge: Acknowledge,
        *,
        window: int = WINDOW,
        deadline_s: float = DEADLINE_S,
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self._acknowledge = acknowledge
        self._limit = window
        self._deadline_s = deadline_s
        self._on_failure = on_failure
        self._tasks_limit = max(2, int(DRAIN_S / deadline_s))
        self._window: deque[_Work] = deque()
        self._lanes: dict[bytes | None, _Lane] = {}
        self._moved = asyncio.Event()
        self._acknowledging = False
        self._failure: BaseException | None = None

    def __len__(self) -> int:
        """Return the number of unacknowledged events."""
        return len(self._window)

    async def put(self, key: bytes | None, event: Event, handler: Handler) -> None:
        """Let ``handler`` handle ``event`` after those of its key; waits only while the window or the lane is full.

        Raises:
            Whatever an earlier handler failed with, should the process still be there.
        """
        await self._put(key, _Work(event, handler, False, contextvars.copy_context()), self._tasks_limit)

    async def put_grouped(self, key: bytes | None, event: Event, handler: GroupHandler) -> None:
        """The same, but all events that wait in the lane for this ``handler`` are handed to it as one list.

        For group commit: what arrived while the last group was being written is written together. Never waits for a
            group to fill.
        """
        await self._put(key, _Work(event, handler, True, contextvars.copy_context()), self._tasks_limit * GROUP)

    async def drain(self) -> None:
        """Return when every event put so far is acknowledged."""
        while self._window:
            await self._wait()
        self._check()

    async def _put(self, key: bytes | None, work: _Work, lane_limit: int) -> None:
        self._check()
        while len(self._window) >= self._limit or self._length(key) >= lane_limit:
            await self._wait()
        self._window.append(work)
        lane = self._lanes.setdefault(key, _Lane())
        lane.waiting.append(work)
        if lane.task is None:
            self._start(key, lane)

    def _length(self, key: bytes | None) -> int:
        lane = self._lanes.get(key)
        return 0 if lane is None else len(lane.waiting)

    async def _wait(self) -> None:
        self._check()
        self._moved.clear()
        await self._moved.wait()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _start(self, key: bytes | None, lane: _Lane) -> None:
        group = _next_group(lane.waiting)
        # A task of its own in the context of its event; it starts from the loop, never from within the last one.
        lane.task = asyncio.get_running_loop().create_task(self._handle(group), context=group[0].context)
        lane.task.add_done_callback(lambda task: self._finished(key, lane, task))

    async def _handle(self, group: list[_Work]) -> None:
        first = group[0]
        async with back_within(self._deadline_s, f"{len(group)} event(s)"):
            await first.handler([work.event for work in group] if first.grouped else first.event)
        for work in group:
            work.done = True
        await self._acknowledge_head()

    async def _acknowledge_head(self) -> None:
        if self._acknowledging:  # the one who is at it comes by again
            return
        self._acknowledging = True
        try:
            while self._window and self._window[0].done and self._failure is None:
                await self._acknowledge(self._window[0].event)
                self._window.popleft()
        finally:
            self._acknowledging = False
        self._moved.set()

    def _finished(self, key: bytes | None, lane: _Lane, task: asyncio.Task[None]) -> None:
        lane.task = None
        if task.cancelled():  # the loop is shutting down: nothing more is handled, nothing is acknowledged
            return
        if (error := task.exception()) is not None:
            self._fail(error)
        elif self._failure is None and lane.waiting:
            self._start(key, lane)
        elif not lane.waiting:
            self._lanes.pop(key, None)
        self._moved.set()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._on_failure(error)


def _next_group(waiting: deque[_Work]) -> list[_Work]:
    group = [waiting.popleft()]
    first = group[0]
    while first.grouped and waiting and waiting[0].handler == first.handler and len(group) < GROUP:
        group.append(waiting.popleft())
    return group
