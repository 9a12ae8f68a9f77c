"""``GET /events``: what the house says, as server-sent events; and what was missed, for whoever comes back.

One subscription of the worker serves all who listen, and there is none while nobody does. Each listener has a bounded
queue: who reads too slowly is cut off, comes back with the id of the last event that it had, and is told the rest.

Events:
    hello: First of all; ``{"resumed": ..., "missed": ..., "at": ...}``. Not resumed: ask for everything anew.
    said: ``{"subject": ..., "message": ...}``, the message as it was published.
    beat: ``{"at": ...}``, the worker's time, after :data:`BEAT_S` of silence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, cast

from aiohttp import web

from streamapp.domain.vocabulary import time_text
from streamapp.errors import Transient
from streamapp.nats.feed import Heard, Place
from streamapp.web.access import MAY_STAY
from streamapp.web.responses import refusal

logger = logging.getLogger(__name__)

BEAT_S = 5.0
"""Between two looks whether a listener is still there, and still may listen."""
WRITE_S = 10.0
"""A browser that takes nothing for so long is gone, or frozen."""
MOST_WAITING = 2000
"""Events that wait for one listener: some 1.5 MB."""
MOST_MISSED = 2000
"""Events that are told again; whoever missed more asks for everything anew."""
MOST_LISTENERS = 100
RETRY_MS = 1000


class LiveFeed(Protocol):
    """What is said; :class:`streamapp.nats.feed.NatsFeed`, which see for its methods."""

    async def end(self) -> Place: ...  # noqa: D102

    def following(self, place: Place) -> AbstractAsyncContextManager[AsyncIterator[Heard]]: ...  # noqa: D102

    async def between(self, place: Place, end: Place, most: int) -> list[Heard] | None: ...  # noqa: D102


class EventListener:
    """One who listens: what waits for it, and from which place on."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.is_over = False
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()

    def put(self, frame: bytes) -> None:
        """Let an event wait; one too many, and the listener is cut off."""
        if len(self._waiting) >= MOST_WAITING:
            logger.info("a listener of /events reads too slowly and is cut off; it may come back")
            self.end()
        elif not self.is_over:
            self._waiting.append(frame)
            self._news.set()

    def end(self) -> None:
        """Tell it nothing more."""
        self.is_over = True
        self._waiting.clear()
        self._news.set()

    async def take(self) -> bytes:
        """Return all that waits; nothing after :data:`BEAT_S`, or when it is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await self._news.wait()
        self._news.clear()
        frames = b"".join(self._waiting)
        self._waiting.clear()
        return frames


class Hub:
    """The one subscription and all who listen to it.

    Args:
        feed: What is said.
    """

    def __init__(self, feed: LiveFeed) -> None:
        self._feed = feed
        self._listeners: set[EventListener] = set()
        self._place: Place | None = None
        self._task: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is asked of NATS."""
        return self._task is None

    @property
    def is_full(self) -> bool:
        """Whether there are as many listeners as may be."""
        return len(self._listeners) >= MOST_LISTENERS

    async def join(self) -> EventListener:
        """Return a listener that hears all from its place on; :meth:`leave` is to follow.

        Raises:
            Transient: NATS is away.
        """
        async with self._starting:
            if self._task is None:
                self._place = await self._feed.end()
                self._task = asyncio.get_running_loop().create_task(self._follow(self._place))
                self._task.add_done_callback(self._ended)
            assert self._place is not None
            listener = EventListener(self._place)
            self._listeners.add(listener)
            return listener

    async def missed(self, place: Place, listener: EventListener) -> list[bytes] | None:
        """Return the events between a place and a listener's own; None if they can't be told any more."""
        said = await self._feed.between(place, listener.place, MOST_MISSED)
        if said is None:
            return None
        frames = []
        for each in said:
            place = place.after(each)
            frames.append(_frame(place, each))
        return frames

    def leave(self, listener: EventListener) -> None:
        """Forget a listener; the last one ends the subscription."""
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End all listeners."""
        task = self._task
        for listener in list(self._listeners):
            listener.end()
            self.leave(listener)
        if task is not None:
            await asyncio.wait([task])

    async def _follow(self, place: Place) -> None:
        async with self._feed.following(place) as messages:
            async for said in messages:
                self._place = place = place.after(said)
                frame = _frame(place, said)
                for listener in self._listeners:
                    listener.put(frame)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or self._task is not task:
            return
        if isinstance(error, Transient):
            logger.info("/events: %s; whoever listens comes back", error)
        elif error is not None:
            logger.error("/events broke", exc_info=error)
        self._task = None
        for listener in self._listeners:
            listener.end()
        self._listeners = set()


class EventView:
    """The handler.

    Args:
        hub: All who listen.
        clock: Returns the time, in UTC.
    """

    def __init__(self, hub: Hub, clock: Callable[[], datetime]) -> None:
        self._hub = hub
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer for as long as somebody listens. ``after``, or ``Last-Event-ID``: what the listener has already."""
        text = request.headers.get("Last-Event-ID") or request.query.get("after")
        place = None if text is None else Place.read(text)
        if text is not None and place is None:
            return refusal(400, "bad_query", f"after: expected the id of an event, got {text!r:.80}")
        if self._hub.is_full:
            return refusal(503, "full", f"expected {MOST_LISTENERS} listeners at most; ask another worker")
        try:
            listener = await self._hub.join()
        except Transient as error:
            return refusal(503, "no_events", str(error), {"Retry-After": "1"})
        try:
            missed = None if place is None else await self._hub.missed(place, listener)
        except Transient as error:
            self._hub.leave(listener)
            return refusal(503, "no_events", str(error), {"Retry-After": "1"})
        except BaseException:
            self._hub.leave(listener)
            raise
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        try:
            await response.prepare(request)
            await self._tell(request, response, listener, place, missed)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()  # nobody waits there for a polite end
        finally:
            self._hub.leave(listener)
        return response

    async def _tell(
        self,
        request: web.Request,
        response: web.StreamResponse,
        listener: EventListener,
        place: Place | None,
        missed: list[bytes] | None,
    ) -> None:
        is_resumed = missed is not None
        at = place if place is not None and is_resumed else listener.place
        hello = {"resumed": is_resumed, "missed": len(missed or ()), "at": time_text(self._clock())}
        head = f"retry: {RETRY_MS}\nid: {at}\nevent: hello\ndata: {json.dumps(hello)}\n\n"
        await _write(response, head.encode() + b"".join(missed or ()))
        may_stay = cast(Callable[[], bool], request[MAY_STAY])
        last_look = asyncio.get_running_loop().time()
        while not listener.is_over:
            frames = await listener.take()
            if (now := asyncio.get_running_loop().time()) - last_look >= BEAT_S:
                last_look = now
                if not may_stay():
                    return
            if not frames and not listener.is_over:
                frames = f"event: beat\ndata: {json.dumps({'at': time_text(self._clock())})}\n\n".encode()
            if frames:
                await _write(response, frames)


async def _write(response: web.StreamResponse, frames: bytes) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(frames)


def _frame(place: Place, said: Heard) -> bytes:
    # In JSON a line's end is white space, wherever it may stand; in an event it would be the end of a field.
    message = said.payload.replace(b"\r", b" ").replace(b"\n", b" ")
    subject: Any = json.dumps(said.subject)
    return f'id: {place}\nevent: said\ndata: {{"subject":{subject},"message":'.encode() + message + b"}\n\n"
