"""What runs beside the agents of the trading worker for as long as its app does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from mode import Service

from agents.broker import Broker
from agents.desk import Desk
from agents.pruning import Pruner
from streamapp.clock import utc_now
from streamapp.kafka.abort import abort
from streamapp.kafka.producer import ClientProducer
from streamapp.settings import Settings
from streamapp.tracing import Spans
from streamapp.wiring.messaging import Messaging
from streamapp.wiring.readiness import Readiness
from streamapp.wiring.warmup import warm_up
from tables.store import Store


class Words(Service):
    """The producer of the outbox, completion and dead letters: one of its own, so that no commit waits behind words."""

    def __init__(self, producer: ClientProducer, stop: Callable[[], Any], **options: Any) -> None:
        super().__init__(**options)
        self._producer = producer
        self._close = stop

    async def on_start(self) -> None:
        """Connect."""
        await self._producer.__aenter__()

    async def on_stop(self) -> None:
        """Expect no more answers, and close."""
        self._close()
        await self._producer.__aexit__(None, None, None)


class LastSpans(Service):
    """Sends the last spans when the app stops; first to start, so that it stops last."""

    def __init__(self, spans: Spans, **options: Any) -> None:
        super().__init__(**options)
        self._spans = spans

    async def on_stop(self) -> None:
        """Wait for them, for a moment."""
        await asyncio.to_thread(self._spans.close)


class Opening(Service):
    """Opens the desk after each recovery: no lane starts before NATS, the producers and the outbox's words are there.

    Faust lets events through as soon as a recovery has ended, ready or not.
    """

    def __init__(
        self,
        store: Store,
        desk: Desk,
        messaging: Messaging,
        drops: Iterable[Callable[[frozenset[int]], None]],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._desk = desk
        self._messaging = messaging
        self._drops = (*drops, desk.revoked)
        self._task: asyncio.Task[None] | None = None
        store.attach(self)

    def revoked(self, partitions: Iterable[int]) -> None:
        """See :class:`tables.store.Listener`."""
        lost = frozenset(partitions)
        if self._task is not None:
            self._task.cancel()
        for drop in self._drops:
            drop(lost)

    def recovered(self, partitions: Iterable[int]) -> None:
        """See :class:`tables.store.Listener`."""
        self._task = asyncio.get_running_loop().create_task(self._open(list(partitions)))
        self._task.add_done_callback(_check)

    async def _open(self, partitions: list[int]) -> None:
        await self._messaging.available()
        await self._desk.recover(partitions)
        self._desk.ready.set()

    async def on_stop(self) -> None:
        """Open nothing more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


class Timers(Service):
    """Ticks every ``broker.check_interval_s`` for as long as the app runs. Any unexpected error ends the worker."""

    def __init__(
        self,
        broker: Broker,
        desk: Desk,
        *,
        readiness: Readiness,
        settings: Settings,
        measure: Callable[[], None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._broker = broker
        self._desk = desk
        self._readiness = readiness
        self._settings = settings
        self._measure = measure

    async def on_stop(self) -> None:
        """Ask the terminals nothing more."""
        await self._broker.close()

    @Service.task
    async def _tick(self) -> None:
        while not self.should_stop:
            await self._once()
            await self.sleep(self._settings.broker.check_interval_s)

    async def _once(self) -> None:
        if not self._desk.ready.is_set():
            await self._broker.greet()
            return
        if not self._readiness.warmed_up:
            warm_up(self._settings, utc_now)
            self._readiness.warmed_up = True
        await self._broker.tick(self._desk.accounts(self._settings.accounts))
        self._measure()


class Pruning(Service):
    """Lets what is over leave the store, a slice at a time. Any unexpected error ends the worker."""

    def __init__(self, pruner: Pruner, **options: Any) -> None:
        super().__init__(**options)
        self._pruner = pruner

    @Service.task
    async def _prune(self) -> None:
        while not self.should_stop:
            await self.sleep(self._pruner.step())


def _check(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        abort("the worker could not be opened", cause=error)
