"""A real NATS of a test's own beside the shared Kafka, with mirrors in it that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from nats.aio.client import Client

from streamapp import topics
from streamapp.kafka.admin import create_topics
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import KafkaSettings, NatsSettings, Role, Settings
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats

PARTITIONS = 8
MIRROR_PORT = 6072
DEADLINE_S = 40.0


async def becomes(true: Callable[[], Any]) -> Any:
    """Return the first true value of ``true``, asked in a thread: it may block, and what goes on here goes on."""
    return await eventually(lambda: asyncio.to_thread(true), within_s=DEADLINE_S)


class MirrorProcess:
    """``python -m streamapp.mirror``."""

    def __init__(self, settings: Settings, log: Path, **environment: str) -> None:
        # Settings know offsets up to 50,000 only, and a system may give higher ports.
        offset = next(at for at in iter(lambda: free_port() - MIRROR_PORT, None) if 0 <= at <= 50_000)
        self.port = MIRROR_PORT + offset
        self._arguments = {
            **os.environ,
            "STREAMAPP_NATS__URL": settings.nats_url,
            "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_KAFKA__SEND_TIMEOUT_S": str(settings.kafka.send_timeout_s),
            "STREAMAPP_LOCAL__PORT_OFFSET": str(offset),
            "STREAMAPP_DEPLOYMENT": settings.deployment,
            "STREAMAPP_ROLE": settings.role,
            **environment,
        }
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> MirrorProcess:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "streamapp.mirror", env=self._arguments, stdout=log, stderr=log
            )
        return self

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def exit_code(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            await self.exit_code()

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b"{}"

    def health(self) -> dict[str, Any]:
        code, body = self._get("/health")
        return {"code": code, **json.loads(body)}

    def metrics(self) -> str:
        return self._get("/metrics")[1].decode()

    async def ready(self, status: str = "ok") -> MirrorProcess:
        await becomes(lambda: self.health().get("status") == status)
        return self


@dataclass
class World:
    settings: Settings
    client: Client
    folder: Path
    start: dict[TopicPartition, int]
    mirrors: list[MirrorProcess] = field(default_factory=list)

    def mirror(self, **environment: str) -> MirrorProcess:
        self.mirrors.append(MirrorProcess(self.settings, self.folder / "mirror.log", **environment))
        return self.mirrors[-1]

    async def records(self, count: int, *names: str) -> list[ConsumerRecord]:
        """Return what came into the topics since the world began, as soon as it is ``count`` records."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.settings.kafka_bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            places = [place for place in self.start if place.topic in names]
            consumer.assign(places)
            for place in places:
                consumer.seek(place, self.start[place])
            found: list[ConsumerRecord] = []
            async with asyncio.timeout(DEADLINE_S):
                while len(found) < count:
                    for batch in (await consumer.getmany(timeout_ms=100)).values():
                        found += batch
            return found
        finally:
            await consumer.stop()

    async def all_records(self) -> list[ConsumerRecord]:
        """Return what came into any topic since the world began, to its end."""
        ends = await _ends(self.settings.kafka_bootstrap)
        count = sum(ends[place] - first for place, first in self.start.items())
        return await self.records(count, *(spec.name for spec in topics.TOPICS))

    async def pending(self, stream: str = "EXECUTION_IN") -> int:
        info = await self.client.jetstream().consumer_info(stream, f"{self.settings.deployment}-mirror")
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def all_mirrored(self, last: int, stream: str = "EXECUTION_IN") -> None:
        """Return when the stream's message ``last`` and all before it are acknowledged."""

        async def acknowledged() -> bool:
            return await self._floor(stream) >= last

        await eventually(acknowledged, f"message {last} of {stream} is acknowledged", DEADLINE_S)

    async def _floor(self, stream: str) -> int:
        info = await self.client.jetstream().consumer_info(stream, f"{self.settings.deployment}-mirror")
        return info.ack_floor.stream_seq if info.ack_floor else 0


@asynccontextmanager
async def world(
    folder: Path,
    kafka_bootstrap: str,
    *,
    role: Role = "both",
    send_timeout_s: float = 5.0,
    nats: ProcessSpec | None = None,
) -> AsyncIterator[World]:
    """Give a world; with ``nats``, in the server that the test itself runs."""
    spec = nats or own_nats(folder)
    settings = Settings(
        deployment=f"d{uuid.uuid4().hex[:8]}",
        role=role,
        nats=NatsSettings(url=spec.address),
        kafka=KafkaSettings(bootstrap=kafka_bootstrap, partitions=PARTITIONS, send_timeout_s=send_timeout_s),
    )
    with contextlib.nullcontext() if nats else running(spec, folder):
        client = await connect(settings, "test")
        made: World | None = None
        try:
            await ensure(client.jetstream(), settings, create=True)
            await create_topics(kafka_bootstrap, topics.TOPICS, partitions=PARTITIONS, replication_factor=1)
            made = World(settings, client, folder, await _ends(kafka_bootstrap))
            yield made
        finally:
            for mirror in made.mirrors if made is not None else ():
                await mirror.kill()
            await client.close()


async def _ends(bootstrap: str) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        places = [TopicPartition(spec.name, number) for spec in topics.TOPICS for number in range(PARTITIONS)]
        ends: dict[TopicPartition, int] = await consumer.end_offsets(places)
        return ends
    finally:
        await consumer.stop()


def signal_for(account: str, number: int, /, **fields: Any) -> bytes:
    return json.dumps({"signal_id": f"s-{number:06d}", "account": account, "n": number, **fields}).encode()


def first_sights(records: Sequence[ConsumerRecord]) -> dict[bytes, list[int]]:
    """Return the numbers of each account's signals by their first sight in the partition."""
    seen: dict[bytes, dict[int, None]] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        seen.setdefault(record.key, {}).setdefault(json.loads(record.value)["n"])
    return {account: list(numbers) for account, numbers in seen.items()}
