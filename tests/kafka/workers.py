"""Worker processes of the tests' tiny app, and what they wrote to Kafka."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streamapp.kafka.admin import create_topics
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.partition import partition_of
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local.ports import free_port
from streamapp.topics import TopicSpec
from tests.kit.waiting import eventually

PARTITIONS = 4


class Worker:
    """One ``faust worker`` process with a data folder and a port of its own."""

    def __init__(self, group: Group, name: str, options: dict[str, str]) -> None:
        self.group = group
        self.data = group.folder / name
        self.port = free_port()
        self.log = group.folder / f"{name}.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.data.mkdir(exist_ok=True)
        environment = os.environ | {
            "TEST_APP": self.group.name,
            "TEST_BOOTSTRAP": self.group.bootstrap,
            "TEST_PARTITIONS": str(PARTITIONS),
            "TEST_DATA": str(self.data),
            "TEST_PORT": str(self.port),
            **self._options,
        }
        command = [sys.executable, "-m", "faust", "-A", "tests.kafka.worker_app", "worker", "-l", "info"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    async def ended(self) -> int:
        await eventually(lambda: self.code() is not None, f"{self.log} ends")
        code = self.code()
        assert code is not None
        return code

    async def state(self) -> dict[str, Any]:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/state/") as answer:
                return dict(await answer.json())
        except (aiohttp.ClientError, OSError, ValueError):
            return {}

    async def ready(self) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            assert self.code() is None, f"the worker ended:\n{self.log.read_text()[-3000:]}"
            state = await self.state()
            return state if state.get("recovered") and state.get("actives") else None

        return dict(await eventually(look, f"{self.log} is ready"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass
class Group:
    """The topics of one test, and its workers."""

    bootstrap: str
    folder: Path
    producer: ClientProducer
    name: str
    workers: list[Worker] = field(default_factory=list)

    @property
    def changelog(self) -> str:
        return f"{self.name}-desk-changelog"

    def worker(self, name: str = "w1", **options: str) -> Worker:
        worker = Worker(self, name, {f"TEST_{key.upper()}": value for key, value in options.items()})
        self.workers.append(worker)
        return worker

    async def order(self, account: str, do: str, key: str, **rest: Any) -> None:
        value = json.dumps({"do": do, "key": key, **rest}).encode()
        await self.producer.send(f"{self.name}-in", account.encode(), value)

    def partition(self, account: str) -> int:
        return partition_of(account.encode(), PARTITIONS)

    async def read(self, topic: str) -> list[Any]:
        """Return every record of ``topic``, up to its end now."""
        return await read(self.bootstrap, topic, PARTITIONS)

    async def outcomes(self) -> list[dict[str, Any]]:
        return [json.loads(record.value) for record in await self.read(f"{self.name}-out")]

    async def outcome(self, key: str, **expected: Any) -> dict[str, Any]:
        """Return the outcome of ``key``, as soon as one with what is ``expected`` is there."""

        async def look() -> dict[str, Any] | None:
            wanted = {"key": key, **expected}
            return next((out for out in await self.outcomes() if wanted.items() <= out.items()), None)

        return dict(await eventually(look, f"an outcome of {key} with {expected}"))

    async def committed(self) -> dict[int, int]:
        """Return the committed offset of each partition of the in topic, 0 for none."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(self.name)
        finally:
            await admin.close()
        return {
            partition: max(0, offsets[tp].offset)
            if (tp := TopicPartition(f"{self.name}-in", partition)) in offsets
            else 0
            for partition in range(PARTITIONS)
        }


async def read(bootstrap: str, topic: str, partitions: int) -> list[Any]:
    """Return every record of ``topic``, up to its end now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        tps = [TopicPartition(topic, partition) for partition in range(partitions)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        records: list[Any] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                records += batch
        return records
    finally:
        await consumer.stop()


@asynccontextmanager
async def new_group(bootstrap: str, folder: Path, **changelog: str) -> AsyncIterator[Group]:
    name = f"app-{uuid4().hex[:8]}-trading"
    specs = [TopicSpec(f"{name}-in"), TopicSpec(f"{name}-out")]
    specs.append(TopicSpec(f"{name}-desk-changelog", {"cleanup.policy": "compact"} | changelog))
    await create_topics(bootstrap, specs, partitions=PARTITIONS, replication_factor=1)
    async with ClientProducer(bootstrap, "test") as producer:
        group = Group(bootstrap, folder, producer, name)
        try:
            yield group
        finally:
            for worker in group.workers:
                worker.stop()


def in_place(record: Any) -> bool:
    """Return whether a changelog record is at the offset that its writer expected."""
    return bool(struct.unpack_from(">q", record.value)[0] == record.offset)


def foreign(topic: str, partition: int, key: str, value: bytes) -> Record:
    return Record(topic, key.encode(), value, partition=partition)


def send_only(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let Kafka be gone once so many batches were sent."""
    send, sent = BatchProducer.send, 0

    async def send_some(self: BatchProducer, *batch: Any) -> int:
        nonlocal sent
        sent += 1
        if sent > most:
            raise ConnectionError("gone")
        return await send(self, *batch)

    monkeypatch.setattr(BatchProducer, "send", send_some)
