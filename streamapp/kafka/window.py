"""Acknowledging in offset order: Faust commits past an unfinished event otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)

WINDOW = 256
"""Unfinished events of one partition: what is redelivered after a crash, at most."""

Event = Any
Acknowledge = Callable[[Event], Awaitable[object]]


class Unfinished:
    """An event in a window, finished when each of its ``parts`` is. Holds the event, which keeps Faust's own alive."""

    __slots__ = ("_window", "event", "parts")

    def __init__(self, window: AckWindow, event: Event) -> None:
        self._window = window
        self.event = event
        self.parts = 1

    async def finish(self) -> None:
        """Finish one part; with the last one the event is acknowledged as soon as every event before it is."""
        self.parts -= 1
        if self.parts <= 0:
            await self._window.acknowledge()


class AckWindow:
    """The unfinished events of one stream of one partition.

    Guarantees: an event is acknowledged after it was finished, and after every event before it.

    Args:
        acknowledge: ``stream.ack``.
        limit: Unfinished events at most; :meth:`add` waits beyond.
    """

    def __init__(self, acknowledge: Acknowledge, limit: int = WINDOW) -> None:
        self._acknowledge = acknowledge
        self._limit = limit
        self._events: deque[Unfinished] = deque()
        self._moved = asyncio.Event()
        self._acknowledging = False

    def __len__(self) -> int:
        """Return the number of unacknowledged events."""
        return len(self._events)

    async def add(self, event: Event) -> Unfinished:
        """Take in the next event; waits only while the window is full."""
        while len(self._events) >= self._limit:
            await self._wait()
        unfinished = Unfinished(self, event)
        self._events.append(unfinished)
        return unfinished

    async def drain(self) -> None:
        """Return when every event added so far is acknowledged."""
        while self._events:
            await self._wait()

    async def acknowledge(self) -> None:
        """Acknowledge every finished event that no unfinished one is before."""
        if self._acknowledging:  # whoever is at it comes by again
            return
        self._acknowledging = True
        try:
            while self._events and self._events[0].parts <= 0:
                await self._acknowledge(self._events[0].event)
                self._events.popleft()
        finally:
            self._acknowledging = False
        self._moved.set()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()


async def take_all(stream: Any, take: Callable[[Event, Unfinished], Awaitable[object]]) -> None:
    """Hand every event of a stream of one partition to ``take``, which sees to it that it is finished: an agent's body.

    Ends with the stream, or when Faust takes the partition away. Faust cancels the agent where it stands then; waiting
    for its stream it ends in peace, waiting for room in the window it would be called a crash.
    """
    window = AckWindow(stream.ack)
    try:
        async for event in stream.noack().events():
            await take(event, await window.add(event))
    except asyncio.CancelledError:
        logger.info("the partition was taken away: what is unfinished is redelivered to its next owner")
