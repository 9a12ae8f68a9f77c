"""The mirror process: one connection, one lease, a mirror for each stream, and what it reports about itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from datetime import UTC, datetime
from typing import Any, NoReturn

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from streamapp import health, subjects
from streamapp.errors import StreamappError
from streamapp.kafka.security import Cluster
from streamapp.mirror.consumer import StreamMirror
from streamapp.mirror.gauges import Gauges
from streamapp.mirror.kafka import KafkaWriter
from streamapp.mirror.lease import Lease
from streamapp.mirror.routing import RoutingRules
from streamapp.nats.connection import ConnectionState, connect
from streamapp.nats.streams import verify
from streamapp.processes.stopping import within_grace
from streamapp.settings import Settings
from streamapp.tracing import Spans

logger = logging.getLogger(__name__)

LAG_S = 2.0
"""Between two measurements of lag and age."""
RETRY_S = 2.0
"""Between two tries at what must be there before anything can begin."""
LAST_GROUP = 0.5
"""Of the time that a stop may take: for the last group. The rest is for giving the lease back and leaving NATS."""

_NATS_ERRORS = (nats.errors.Error, TimeoutError, OSError)
_CONTIGUOUS = {subjects.EXECUTION_IN.name: True, subjects.ACCOUNT_SNAPSHOTS.name: False}
"""The streams that are mirrored, by our names."""
SNAPSHOT_LINGER_S = 0.5
"""How long snapshots wait for each other: those of many accounts are one write to Kafka then, and each is as old as the
terminal's interval anyway."""


class Mirror:
    """Carries NATS into Kafka until it is told to stop.

    It stays up while Kafka or NATS is away, unhealthy, and goes on by itself. A second one waits until the first is
    gone.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        named = settings.nats.prefixed
        self._contiguous = {named(name): contiguous for name, contiguous in _CONTIGUOUS.items()}
        self._durable = named(subjects.mirror_durable(settings.deployment))
        self._gauges = Gauges(tuple(self._contiguous))
        self._spans = Spans.of(settings, "mirror")
        self._waiting_for = "starting"
        self._lease: Lease | None = None
        self._stopping = asyncio.Event()
        self.port = settings.ports.mirror

    def stop(self) -> None:
        """Finish the groups at hand, acknowledge them, give the lease back and end."""
        self._stopping.set()

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return how it is (see :mod:`streamapp.health`); standing by is healthy."""
        if self._waiting_for or self._lease is None:
            return False, {"status": "starting", "reasons": [self._waiting_for, *self._gauges.connection.reasons]}
        active = self._lease.is_held
        reasons = self._gauges.reasons() if active else self._gauges.connection.reasons
        if active and self._gauges.is_starting:
            status = "starting"
        else:
            status = "unhealthy" if reasons else "ok" if active else "standby"
        details = {"mirror": self._lease.holder, "oldest_s": self._gauges.oldest_s, "lost": self._gauges.lost}
        return not reasons, {"status": status, "reasons": reasons, **details}

    async def run(self) -> None:
        """Run until ``stop``.

        Raises:
            OSError: The port of /health is in use.
        """
        server = await health.serve(self.port, self.health, self._metrics, host=self._settings.web.bind)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            client = await self._until_stopped(self._connected())
            if client is not None:
                async with _drained(client):
                    await self._carry(client)
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)

    def _metrics(self) -> str:
        return self._gauges.text(active=self._lease is not None and self._lease.is_held)

    def _record_state(self, state: ConnectionState) -> None:
        self._gauges.connection = state

    async def _until_stopped(self, work: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        for left in (task, stop):
            if not left.done():
                left.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
        return None if task.cancelled() else task.result()

    async def _connected(self) -> Client:
        """Return the connection once everything is there; until then /health says what is missing."""
        client: Client | None = None
        try:
            while True:
                try:
                    client = client or await connect(self._settings, "mirror", on_state=self._record_state)
                    await verify(client.jetstream(), self._settings)
                except StreamappError as error:
                    if self._waiting_for != str(error):
                        logger.warning("waiting: %s", error)
                    self._waiting_for = str(error)
                    await asyncio.sleep(RETRY_S)
                else:
                    self._waiting_for = ""
                    return client
        except asyncio.CancelledError:
            if client is not None:
                await client.close()
            raise

    async def _carry(self, client: Client) -> None:
        js = client.jetstream()
        bucket = self._settings.nats.prefixed(subjects.lease_bucket(self._settings.deployment))
        mirrors: list[StreamMirror] = []
        self._lease = Lease(
            js, bucket, lambda: {mirror.stream: mirror.mirrored for mirror in mirrors if mirror.mirrored is not None}
        )
        mirrors += [self._stream_mirror(client, stream, self._lease) for stream in self._contiguous]
        running = [asyncio.create_task(mirror.run(), name=mirror.stream) for mirror in mirrors]
        beside = [
            asyncio.create_task(self._lease.keep()),
            *(asyncio.create_task(self._watch_lag(js, mirror)) for mirror in mirrors),
        ]
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((*running, *beside, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for mirror in mirrors:
                mirror.stop()
            _, late = await asyncio.wait(running, timeout=self._settings.stop_grace_s * LAST_GROUP)
            for unfinished in late:
                name = unfinished.get_name()
                logger.warning("%s: its last group was not acknowledged by Kafka and is read again", name)
            for task in (*late, *beside, stop):
                task.cancel()
            outcomes = await asyncio.gather(*running, *beside, stop, return_exceptions=True)
            await self._lease.release()
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    def _stream_mirror(self, client: Client, stream: str, lease: Lease) -> StreamMirror:
        settings = self._settings
        return StreamMirror(
            client,
            stream,
            self._durable,
            is_contiguous=self._contiguous[stream],
            linger_s=0.0 if self._contiguous[stream] else SNAPSHOT_LINGER_S,
            writer=lambda: KafkaWriter(
                Cluster.of(settings), f"{settings.kafka_deployment}-mirror", timeout_s=settings.kafka.send_timeout_s
            ),
            rules=RoutingRules.of(settings),
            lease=lease,
            gauges=self._gauges,
            spans=self._spans,
        )

    async def _watch_lag(self, js: JetStreamContext, mirror: StreamMirror) -> NoReturn:
        """Measure the lag of a stream for ever, whether we are active or not."""
        while True:
            with contextlib.suppress(*_NATS_ERRORS):
                await self._measure_lag(js, mirror)
            await asyncio.sleep(LAG_S)

    async def _measure_lag(self, js: JetStreamContext, mirror: StreamMirror) -> None:
        info = await js.consumer_info(mirror.stream, self._durable)
        first_seq = (await js.stream_info(mirror.stream)).state.first_seq
        pending = (info.num_pending or 0) + (info.num_ack_pending or 0)
        floor = info.ack_floor.stream_seq if info.ack_floor else 0
        self._gauges.lag(mirror.stream, pending, await self._oldest_s(js, mirror, floor) if pending else 0.0)
        if self._lease is not None and self._lease.is_held:
            mirror.record_expired(first_seq)

    async def _oldest_s(self, js: JetStreamContext, mirror: StreamMirror, floor: int) -> float:
        try:
            message = await js.get_msg(mirror.stream, seq=floor + 1)
        except NotFoundError:  # replaced by a newer one of its subject, or expired this moment
            return 0.0
        assert message.time is not None
        return max(0.0, (datetime.now(UTC) - message.time).total_seconds())


@contextlib.asynccontextmanager
async def _drained(client: Client) -> AsyncIterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(*_NATS_ERRORS):
            await (client.drain() if client.is_connected else client.close())


async def run(settings: Settings) -> None:
    """Run a mirror until SIGTERM or SIGINT."""
    mirror = Mirror(settings)
    began_s = time.monotonic()
    with contextlib.ExitStack() as grace:

        def stop() -> None:
            grace.enter_context(within_grace(settings.stop_grace_s, "what Kafka did not acknowledge is read again"))
            mirror.stop()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop)
        await mirror.run()
    logger.info("stopped after %.0f s, with everything acknowledged that Kafka has", time.monotonic() - began_s)
