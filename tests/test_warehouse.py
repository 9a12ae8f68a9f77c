"""The warehouse as a process: a real Kafka, a real engine, and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
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
from streamapp.kafka.exits import CONFIGURATION, SOFTWARE
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local import clickhouse as engine
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.messages.envelope import Message
from streamapp.settings import ClickHouseSettings, KafkaSettings, LocalSettings, Settings
from tests.clickhouse import samples
from tests.kit.waiting import eventually

PARTITIONS = 8
SESSION_S = 10
ACCOUNTS = [f"account-{number}" for number in range(24)]
FACTS = 4  # of a commit
CATCH_UP_S = 300
KEYS = {
    "facts": ("order_id", "fact_id"),
    "orders": ("order_id",),
    "order_events": ("order_id", "rev"),
    "executions": ("fill_id",),
}
FIRST, SECOND = "first", "second"


class Stack:
    """A warehouse worker, its engine and its topics."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.folder = folder
        self.spec: ProcessSpec = engine.prepare(folder / "clickhouse", free_port())
        self.engine: RunningProcess | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.second_port = free_port()
        self.settings = Settings(
            deployment=f"warehouse-{os.urandom(4).hex()}",
            kafka=KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS, session_timeout_s=SESSION_S),
            clickhouse=ClickHouseSettings(url=self.spec.address, timeout_s=5),
            local=LocalSettings(data=folder, port_offset=free_port() - 6071),
        )
        self.offset = 0

    def start_engine(self) -> None:
        self.engine = RunningProcess(self.spec, self.folder / "logs")
        self.engine.wait_ready()

    def kill_engine(self) -> None:
        assert self.engine is not None
        self.engine.kill()

    def start_worker(self, name: str = FIRST, crash_at: str = "") -> None:
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
        if name == SECOND:
            environment["STREAMAPP_LOCAL__DATA"] = str(self.folder / "second")
            command += ["--web-port", str(self.second_port)]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def kill_worker(self, name: str) -> None:
        self.workers[name].kill()
        self.workers[name].wait()

    async def health(self, port: int | None = None) -> tuple[int, dict[str, Any]]:
        try:
            url = f"http://127.0.0.1:{port or self.settings.ports.warehouse}/health"
            timeout = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return answer.status, dict(await answer.json())
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0, {}

    def supervise(self) -> None:
        """Start a worker again that ended itself: at a crash point, or when a busy machine let it stand still."""
        for name, worker in list(self.workers.items()):
            if worker.poll() in {SOFTWARE, -signal.SIGKILL}:
                self.start_worker(name)
            assert self.workers[name].poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]

    async def healthy(self) -> bool:
        self.supervise()
        return (await self.health())[0] == 200

    async def query(self, sql: str) -> list[dict[str, Any]]:
        client = ClickHouse.of(self.settings)
        try:
            return await client.query(sql)
        finally:
            await client.close()

    async def count(self, table: str, where: str = "true") -> int:
        return int((await self.query(f"SELECT count() AS n FROM {table} FINAL WHERE {where}"))[0]["n"])

    async def keys(self, table: str) -> set[tuple[Any, ...]]:
        rows = await self.query(f"SELECT {', '.join(KEYS[table])} FROM {table} FINAL")
        return {tuple(row.values()) for row in rows}

    def stop(self) -> None:
        for name in self.workers:
            self.kill_worker(name)
        if self.engine is not None:
            self.engine.stop()


async def send(bootstrap: str, commits: list[tuple[str, bytes]], *, raw: bytes | None = None) -> None:
    async with ClientProducer(bootstrap, "test") as producer:
        records = [
            Record(topics.ARCHIVE, account.encode(), commit, partition=partition_of(account, PARTITIONS))
            for account, commit in commits
        ]
        if raw is not None:
            records.append(Record(topics.ARCHIVE, b"x", raw, partition=0))
        await producer.send_all(records, timeout_s=60)


async def lag(stack: Stack) -> int:
    """Return how many records of its topics the group has not committed."""
    group = topics.app_id(stack.settings.deployment, "warehouse")
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.settings.kafka_bootstrap)
    await admin.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.settings.kafka_bootstrap)
    await consumer.start()
    try:
        done = await admin.list_consumer_group_offsets(group)
        names = (topics.ARCHIVE, topics.BROKER_LOG)
        tps = [TopicPartition(name, number) for name in names for number in range(PARTITIONS)]
        ends = await consumer.end_offsets(tps)
        return sum(ends[tp] - (max(0, done[tp].offset) if tp in done else 0) for tp in tps)
    finally:
        await consumer.stop()
        await admin.close()


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


def story(name: str, orders: int) -> list[tuple[str, bytes]]:
    """Two commits an order, each with an account: four facts, a revision of the order, and with the second a fill."""
    commits = []
    for number in range(orders):
        account = ACCOUNTS[number % len(ACCOUNTS)]
        order_id = f"{name}-{number}"
        for rev in (1, 2):
            made: list[Message] = [
                samples.fact(8 * number + 4 * rev + n, order_id).model_copy(update={"account": account})
                for n in range(FACTS)
            ]
            made.append(samples.order(order_id, rev, account=account))
            if rev == 2:
                made.append(samples.fill(number, fill_id=f"{name}:{number}", order_id=order_id, account=account))
            commits.append((account, samples.commit(*made, number=2 * (number // len(ACCOUNTS)) + rev)))
    return commits


async def test_killed_workers_and_engines_lose_nothing_and_double_nothing(stack: Stack) -> None:
    bootstrap = stack.settings.kafka_bootstrap
    stack.start_worker(crash_at="warehouse.after_insert:1")
    await send(bootstrap, story("a", 100), raw=b"nobody can use this")
    await eventually(lambda: _ended(stack), "the crash point is reached")
    stack.start_worker()
    await eventually(stack.healthy, "the worker is back")

    stack.kill_engine()
    await send(bootstrap, story("b", 100))
    status, health = await eventually(lambda: _unwell(stack), "health says that ClickHouse is away")
    assert (status, health["status"]) == (503, "waiting")
    assert any("ClickHouse" in reason for reason in health["reasons"])
    assert await lag(stack) > 0
    stack.start_engine()

    await eventually(lambda: _committed(stack), "everything is acknowledged")
    tables = {table: await stack.count(table) for table in ("orders", "order_events", "executions", "facts")}
    assert tables == {"orders": 200, "order_events": 400, "executions": 200, "facts": 1600}
    await eventually(stack.healthy, "health says that all is well again")
    assert await values_of(bootstrap, topics.DEAD_LETTERS) == {b"nobody can use this"}


async def test_a_rebalance_does_not_wait_for_clickhouse(stack: Stack) -> None:
    """A worker whose ClickHouse is away still gives its partitions up, and leaves when it is told to."""
    stack.start_worker()
    await eventually(stack.healthy, "the worker is ready")
    stack.kill_engine()
    await send(stack.settings.kafka_bootstrap, story("c", 48))
    await eventually(lambda: _unwell(stack), "health says that ClickHouse is away")
    stack.start_worker(SECOND)
    await eventually(lambda: _unwell(stack, stack.second_port), "the second worker got partitions")
    await eventually(lambda: _waiting(stack), "the first worker goes on waiting with what it still has")
    stack.workers[FIRST].terminate()
    await eventually(lambda: _ended(stack), "the worker leaves")
    assert await lag(stack) > 0
    stack.start_engine()
    stack.start_worker()
    await eventually(lambda: _committed(stack), "everything is acknowledged")
    assert await stack.count("executions", "startsWith(fill_id, 'c:')") == 48


async def test_a_row_is_there_within_three_seconds_of_its_commit_when_little_happens(stack: Stack) -> None:
    stack.start_worker()
    await eventually(stack.healthy, "the worker is ready")
    await eventually(lambda: _committed(stack), "it has caught up")
    delays_s = []
    for number in range(4):
        sent_s = time.monotonic()
        await send(stack.settings.kafka_bootstrap, story(f"e{number}", 1))
        await eventually(partial(stack.count, "executions", f"fill_id = 'e{number}:0'"), "its row is there")
        delays_s.append(time.monotonic() - sent_s)
    assert min(delays_s) < 3.0, delays_s  # one busy moment of the machine is no fault of ours


@pytest.mark.timeout(3 * CATCH_UP_S)
async def test_a_group_that_catches_up_among_kills_has_every_row_of_the_archive(stack: Stack) -> None:
    """Counted against the archive itself: a new consumer group stores all of it, whoever is killed meanwhile."""
    bootstrap = stack.settings.kafka_bootstrap
    await send(bootstrap, story("d", 2500))
    archive = await values_of(bootstrap, topics.ARCHIVE)
    for name in (FIRST, SECOND):
        stack.start_worker(name)

    async def stored(rows: int) -> bool:
        stack.supervise()
        return await stack.count("facts", "startsWith(order_id, 'd-')") >= rows

    await eventually(lambda: stored(1), "the first rows are there", CATCH_UP_S)
    stack.kill_worker(FIRST)
    stack.start_worker(FIRST)
    await eventually(lambda: stored(4000), "some rows are there", CATCH_UP_S)
    stack.kill_engine()
    stack.start_engine()
    await eventually(lambda: stored(8000), "more rows are there", CATCH_UP_S)
    stack.kill_worker(SECOND)
    stack.start_worker(SECOND, crash_at="warehouse.after_insert:1")
    await eventually(lambda: _committed(stack), "everything is acknowledged", CATCH_UP_S)
    for table, expected in kept_by(archive).items():
        found = await stack.keys(table)
        assert (len(found), expected - found, found - expected) == (len(expected), set(), set()), table


async def test_it_does_not_start_beside_state_of_an_earlier_version_and_says_what_to_do(
    kafka_of_this_module: str, tmp_path: Path
) -> None:
    """Its archive is in another form: each record of it would be a dead letter."""
    stack = Stack(kafka_of_this_module, tmp_path)
    left = topics.TopicSpec(topics.changelog(stack.settings.deployment, "orders"))
    await create_topics(kafka_of_this_module, [left], partitions=1, replication_factor=1)
    stack.start_worker()
    try:
        await eventually(lambda: _ended(stack), "the worker ends")
    finally:
        stack.stop()
    assert stack.workers[FIRST].returncode == CONFIGURATION
    said = (tmp_path / f"{FIRST}.log").read_text()
    assert f"finds state of an earlier one: topic {left.name}, finish with the version that wrote it" in said


async def _ended(stack: Stack) -> bool:
    return stack.workers[FIRST].poll() is not None


async def _unwell(stack: Stack, port: int | None = None) -> tuple[int, dict[str, Any]] | None:
    stack.supervise()
    status, health = await stack.health(port)
    return (status, health) if status == 503 and health["status"] == "waiting" else None


async def _waiting(stack: Stack) -> bool:
    return (await stack.health())[1].get("status") == "waiting"


async def _committed(stack: Stack) -> bool:
    stack.supervise()
    return await lag(stack) == 0


def kept_by(archive: set[bytes]) -> dict[str, set[tuple[Any, ...]]]:
    """Return the keys of the rows that the archive's commits ask for, by table."""
    kept: dict[str, set[tuple[Any, ...]]] = {table: set() for table in KEYS}
    for value in archive:
        if not value.startswith(b"{"):
            continue
        commit = json.loads(value)
        messages = [each["message"] for each in commit["messages"]]
        orders = [message for message in messages if message["schema"] == "order/1"]
        fills = [message for message in messages if message["schema"] == "fill/1"]
        made = {"facts": commit["facts"], "orders": orders, "order_events": orders, "executions": fills}
        for table, keys in KEYS.items():
            kept[table] |= {tuple(each[key] for key in keys) for each in made[table]}
    return kept


async def values_of(bootstrap: str, topic: str) -> set[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        tps = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        found = set()
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found |= {record.value for record in batch}
        return found
    finally:
        await consumer.stop()
