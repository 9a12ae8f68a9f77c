"""The Changelog port: one contract for the fake and for the fenced table, on a real Kafka with a real RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from streamapp.errors import Definite, Transient
from streamapp.kafka.admin import create_topics
from streamapp.kafka.application import build_app
from streamapp.kafka.producer import MAX_RECORD_BYTES
from streamapp.kafka.receipts import settle
from streamapp.local.ports import free_port
from streamapp.topics import TopicSpec
from tables.changelog import Changelog
from tables.memory import MemoryChangelog

PARTITIONS = 2


class Ear:
    """Waits for the recovery."""

    def __init__(self) -> None:
        self.owned = asyncio.Event()
        self.partitions: list[int] = []

    def revoked(self, partitions: Any) -> None:
        self.owned.clear()

    def replayed(self, partition: int, rows: Any) -> None:
        pass

    def recovered(self, partitions: Any) -> None:
        self.partitions = list(partitions)
        self.owned.set()


@asynccontextmanager
async def fenced(bootstrap: str, data: Path) -> AsyncIterator[Changelog]:
    name = f"app-{uuid4().hex[:8]}"
    specs = [TopicSpec(f"{name}-in"), TopicSpec(f"{name}-rows-changelog", {"cleanup.policy": "compact"})]
    await create_topics(bootstrap, specs, partitions=PARTITIONS, replication_factor=1)
    app = build_app(
        name, bootstrap=bootstrap, data_dir=data, partitions=PARTITIONS, replication_factor=1, web_port=free_port()
    )
    app.agent(app.raw_topic(f"{name}-in"), isolated_partitions=True)(_nothing)
    table, ear = app.Table("rows"), Ear()
    table.attach(ear)
    await app.start()
    try:
        await asyncio.wait_for(ear.owned.wait(), 60)
        assert ear.partitions == list(range(PARTITIONS))
        yield table
    finally:
        await app.stop()


async def _nothing(stream: Any) -> None:
    async for _ in stream.noack().events():
        pass


@pytest.fixture(params=["memory", "kafka"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Changelog]:
    if request.param == "memory":
        memory = MemoryChangelog(partitions=PARTITIONS)
        memory.event_partition = None
        memory.attach(Ear())
        yield memory
    else:
        async with fenced(request.getfixturevalue("kafka_bootstrap"), tmp_path) as table:
            yield table


async def test_a_changelog_keeps_what_it_acknowledged_and_nothing_else(log: Changelog) -> None:
    assert log.here() is None
    assert log.read(0, b"k") is None
    receipt = log.append(0, b"k", b"1")
    assert log.read(0, b"k") is None, "a row on its way is not durable"
    await settle([receipt])
    assert log.read(0, b"k") == log.read(None, b"k") == b"1"
    assert log.read(1, b"k") is None

    await settle([log.append(1, b"k%d" % (number % 10), b"%d" % number) for number in range(1000)])
    assert dict(log.scan(1)) == {b"k%d" % digit: b"%d" % (990 + digit) for digit in range(10)}
    rows = log.scan(1)
    first = next(rows)
    await settle([log.append(1, b"k9", b"later")])
    assert dict([first, *rows])[b"k9"] == b"999", "an iteration sees the rows as they were when it began"

    with pytest.raises(Transient, match="expected to own partition 5"):
        log.append(5, b"k", b"1")
    with pytest.raises(Transient, match="expected to own partition 5"):
        log.read(5, b"k")
    with pytest.raises(Definite, match="expected 900000 at most"):
        log.append(0, b"k", b"x" * MAX_RECORD_BYTES)
    assert log.read(0, b"k") == b"1"
