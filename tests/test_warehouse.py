"""The warehouse as a process: a real Kafka, a real engine, and kills."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from streamapp import topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.domain.identifiers import partition_of
from streamapp.kafka.admin import create_topics
from streamapp.kafka.exits import SOFTWARE
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local import clickhouse as engine
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.messages.envelope import Message
from streamapp.settings import ClickHouseSettings, KafkaSettings, LocalSettings, Settings
from tests.clickhouse import samples

PARTITIONS = 4
SESSION_S = 10
ACCOUNTS = [f"account-{number}" for number in range(6)]


async def until(holds: Callable[[], Awaitable[Any]], what: str, within_s: float = 60.0) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := await holds():
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


def _offset() -> int:
    # Settings allow 50000 at most; ephemeral ports go a little higher.
    return next(offset for offset in iter(lambda: free_port() - 6071, None) if 0 < offset <= 50000)


class Stack:
    """A warehouse worker, its engine and its topics."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.folder = folder
        self.spec: ProcessSpec = engine.prepare(folder / "clickhouse", free_port())
        self.engine: RunningProcess | None = None
        self.worker: subprocess.Popen[bytes] | None = None
        self.second: subprocess.Popen[bytes] | None = None
        self.second_port = free_port()
        self.settings = Settings(
            deployment=f"warehouse-{os.urandom(4).hex()}",
            kafka=KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS, session_timeout_s=SESSION_S),
            clickhouse=ClickHouseSettings(url=self.spec.address, timeout_s=5),
            local=LocalSettings(data=folder, port_offset=_offset()),
        )
        self.offset = 0

    def start_engine(self) -> None:
        self.engine = RunningProcess(self.spec, self.folder / "logs")
        self.engine.wait_ready()

    def kill_engine(self) -> None:
        assert self.engine is not None
        self.engine.kill()

    def start_worker(self, crash_at: str = "", *, second: bool = False) -> None:
        settings = self.settings
        environment = os.environ | {
            "STREAMAPP_DEPLOYMENT": settings.deployment,
            "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_KAFKA__SESSION_TIMEOUT_S": str(SESSION_S),
            "STREAMAPP_CLICKHOUSE__URL": settings.clickhouse_url,
            "STREAMAPP_CLICKHOUSE__TIMEOUT_S": "5",
            "STREAMAPP_CLICKHOUSE__BATCH_ROWS": "50",
            "STREAMAPP_LOCAL__DATA": str(self.folder),
            "STREAMAPP_LOCAL__PORT_OFFSET": str(settings.local.port_offset),
        }
        if crash_at:
            environment["STREAMAPP_CRASH_AT"] = crash_at
        command = [sys.executable, "-m", "faust", "-A", "streamapp.warehouse", "worker", "-l", "info"]
        if second:
            environment["STREAMAPP_LOCAL__DATA"] = str(self.folder / "second")
            command += ["--web-port", str(self.second_port)]
        with (self.folder / ("second.log" if second else "worker.log")).open("ab") as log:
            started = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        if second:
            self.second = started
        else:
            self.worker = started

    async def health(self, port: int | None = None) -> tuple[int, dict[str, Any]]:
        try:
            url = f"http://127.0.0.1:{port or self.settings.ports.warehouse}/health"
            timeout = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return answer.status, dict(await answer.json())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, {}

    def supervise(self) -> None:
        """Start the worker again where it ended itself, as it does when a busy machine lets it stand still."""
        assert self.worker is not None
        if self.worker.poll() == SOFTWARE:
            self.start_worker()
        assert self.worker.poll() is None, (self.folder / "worker.log").read_text()[-3000:]

    async def healthy(self) -> bool:
        self.supervise()
        return (await self.health())[0] == 200

    async def count(self, table: str, where: str = "true") -> int:
        client = ClickHouse.of(self.settings)
        try:
            return int((await client.query(f"SELECT count() AS n FROM {table} FINAL WHERE {where}"))[0]["n"])
        finally:
            await client.close()

    def stop(self) -> None:
        for worker in (self.worker, self.second):
            if worker is not None:
                worker.kill()
                worker.wait()
        if self.engine is not None:
            self.engine.stop()


async def send(bootstrap: str, messages: list[Message], *, raw: dict[str, bytes] | None = None) -> None:
    async with ClientProducer(bootstrap, "test") as producer:
        records = []
        for message in messages:
            account = getattr(message, "account")  # noqa: B009
            topic = samples.record(message).topic
            key = account.encode()
            records.append(Record(topic, key, message.encode(), partition=partition_of(account, PARTITIONS)))
        records += [Record(topic, b"x", value, partition=0) for topic, value in (raw or {}).items()]
        await producer.send_all(records, timeout_s=30)


async def lag(stack: Stack) -> int:
    """Return how many records of the three topics the group has not committed."""
    group = topics.app_id(stack.settings.deployment, "warehouse")
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.settings.kafka_bootstrap)
    await admin.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.settings.kafka_bootstrap)
    await consumer.start()
    try:
        done = await admin.list_consumer_group_offsets(group)
        names = (topics.UPDATES, topics.ARCHIVE, topics.BROKER_LOG)
        tps = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(tps)
        return sum(ends[tp] - (max(0, done[tp].offset) if tp in done else 0) for tp in tps)
    finally:
        await consumer.stop()
        await admin.close()


@pytest.fixture(scope="module")
def kafka_of_this_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Kafka of our own: the topics' names are fixed, and others may use them in the shared one."""
    from streamapp.local import kafka

    folder = tmp_path_factory.mktemp("warehouse-kafka")
    spec = kafka.prepare(folder / "kafka", free_port(), free_port())
    process = RunningProcess(spec, folder / "logs")
    process.wait_ready()
    yield spec.address
    process.stop()


@pytest.fixture
async def stack(kafka_of_this_module: str, tmp_path: Path) -> AsyncIterator[Stack]:
    bootstrap = kafka_of_this_module
    await create_topics(bootstrap, topics.TOPICS, partitions=PARTITIONS, replication_factor=1)
    stack = Stack(bootstrap, tmp_path)
    stack.start_engine()
    await migrate(stack.settings)
    try:
        yield stack
    finally:
        stack.stop()


def story(name: str, orders: int) -> list[Message]:
    messages: list[Message] = []
    for number in range(orders):
        account = ACCOUNTS[number % len(ACCOUNTS)]
        order_id = f"{name}-{number}"
        messages += [samples.order(order_id, rev, account=account) for rev in (1, 2)]
        messages.append(samples.fill(number, fill_id=f"{name}:{number}", order_id=order_id, account=account))
        messages.append(samples.fact(number + 1, order_id).model_copy(update={"account": account}))
    return messages


async def test_killed_workers_and_engines_lose_nothing_and_double_nothing(stack: Stack) -> None:
    bootstrap = stack.settings.kafka_bootstrap
    stack.start_worker(crash_at="warehouse.after_insert:3")
    await send(bootstrap, story("a", 100), raw={topics.UPDATES: b"nobody can use this"})
    assert stack.worker is not None
    await until(lambda: _ended(stack), "the crash point is reached")
    stack.start_worker()
    await until(stack.healthy, "the worker is back")

    stack.kill_engine()
    await send(bootstrap, story("b", 100))
    status, health = await until(lambda: _unwell(stack), "health says that ClickHouse is away")
    assert (status, health["status"]) == (503, "waiting")
    assert any("ClickHouse" in reason for reason in health["reasons"])
    assert await lag(stack) > 0
    stack.start_engine()

    await until(lambda: _committed(stack), "everything is acknowledged")
    tables = {table: await stack.count(table) for table in ("orders", "order_events", "executions", "facts")}
    assert tables == {"orders": 200, "order_events": 400, "executions": 200, "facts": 200}
    assert await stack.healthy()
    assert await dead_letters(bootstrap) == {b"nobody can use this"}


async def test_a_rebalance_does_not_wait_for_clickhouse(stack: Stack) -> None:
    """A worker whose ClickHouse is away still gives its partitions up, and leaves when it is told to."""
    stack.start_worker()
    await until(stack.healthy, "the worker is ready")
    stack.kill_engine()
    await send(stack.settings.kafka_bootstrap, story("c", 20))
    await until(lambda: _unwell(stack), "health says that ClickHouse is away")
    stack.start_worker(second=True)
    await until(lambda: _unwell(stack, stack.second_port), "the second worker got partitions", within_s=30)
    await until(lambda: _waiting(stack), "the first worker goes on waiting with what it still has", within_s=30)
    assert stack.worker is not None
    stack.worker.terminate()
    await until(lambda: _ended(stack), "the worker leaves", within_s=30)
    assert await lag(stack) > 0
    stack.start_engine()
    stack.start_worker()
    await until(lambda: _committed(stack), "everything is acknowledged")
    assert await stack.count("executions", "startsWith(fill_id, 'c:')") == 20


async def _ended(stack: Stack) -> bool:
    return stack.worker is not None and stack.worker.poll() is not None


async def _unwell(stack: Stack, port: int | None = None) -> tuple[int, dict[str, Any]] | None:
    stack.supervise()
    status, health = await stack.health(port)
    return (status, health) if status == 503 and health["status"] == "waiting" else None


async def _waiting(stack: Stack) -> bool:
    return (await stack.health())[1].get("status") == "waiting"


async def _committed(stack: Stack) -> bool:
    stack.supervise()
    return await lag(stack) == 0


async def dead_letters(bootstrap: str) -> set[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        tps = [TopicPartition(topics.DEAD_LETTERS, number) for number in range(PARTITIONS)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        found = set()
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found |= {record.value for record in batch}
        return found
    finally:
        await consumer.stop()
