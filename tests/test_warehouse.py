"""The warehouse as a process: a real Kafka, a real engine, and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
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
from streamapp.clickhouse.rows import MODELS
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import time_text
from streamapp.kafka.abort import CONFIGURATION, SOFTWARE
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local import clickhouse as engine
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.messages.envelope import Message
from streamapp.messages.log import BrokerLogPlace, encode_entries
from streamapp.settings import ClickHouseSettings, KafkaSettings, LocalSettings, Settings
from streamapp.warehouse import FETCH_WAIT_MS
from tests.clickhouse import samples
from tests.kit.waiting import eventually
from tests.messages.golden import golden

PARTITIONS = 8
SESSION_S = 10
ACCOUNTS = [f"account-{number}" for number in range(24)]
FACTS = 4  # of a commit
CATCH_UP_S = 300
KEYS = {
    "facts": ("fact/1", "order_id", "account", "fact_id"),
    "orders": ("order/1", "order_id", "account"),
    "order_events": ("order/1", "order_id", "account", "rev"),
    "executions": ("fill/1", "account", "fill_id"),
    "positions": ("position/1", "account", "symbol", "position_id"),
    "accounts": ("account/1", "account"),
    "account_operations": ("account_operation/1", "account", "deal"),
    "account_history": ("account_history/1", "account", "at"),
    "position_history": ("position_history/1", "account", "position_id", "at"),
    "breaks": ("break/1", "account", "break_id"),
    "commands": ("command_result/1", "request_id", "stream_seq"),
    "signals": ("signal/1", "account", "signal_id", "stream_seq"),
    "broker_log": ("log/1", "account", "epoch", "seq"),
}
"""The schema of each table's rows, and what makes one of them."""
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
        _, *names = KEYS[table]
        rows = await self.query(f"SELECT {', '.join(names)} FROM {table} FINAL")
        return {tuple(map(_text, row.values())) for row in rows}

    def stop(self) -> None:
        for name in self.workers:
            self.kill_worker(name)
        if self.engine is not None:
            self.engine.stop()


async def send(
    bootstrap: str, values: list[tuple[str, bytes]], *, raw: bytes | None = None, topic: str = topics.ARCHIVE
) -> None:
    async with ClientProducer(bootstrap, "test") as producer:
        records = [
            Record(topic, account.encode(), value, partition=partition_of(account, PARTITIONS))
            for account, value in values
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


def others(name: str, count: int) -> list[tuple[str, bytes]]:
    """Commits with a message of each schema that no story has: the golden ones, each with a place of its own."""
    commits = []
    for number in range(count):
        account, at = ACCOUNTS[number % len(ACCOUNTS)], time_text(samples.AT + timedelta(seconds=number))
        own: dict[str, dict[str, Any]] = {
            "positions": {"position_id": number + 1},
            "accounts": {"at": at},
            "account_operations": {"deal": number + 1},
            "account_history": {"at": at},
            "position_history": {"position_id": number + 1, "at": at},
            "breaks": {"break_id": f"{account}:deal:{name}-{number}"},
            "commands": {"request_id": f"{name}-{number}"},
            "signals": {"signal_id": f"{name}-{number}"},
        }
        made = [
            MODELS[table].model_validate(golden(KEYS[table][0].replace("/", "-"))[0] | {"account": account} | changes)
            for table, changes in own.items()
        ]
        commits.append((account, samples.commit(*made, number=number)))
    return commits


def broker_log(batches: int, entries: int = 3) -> list[tuple[str, bytes]]:
    """Batches of each account's broker log."""
    values = []
    for account in ACCOUNTS:
        for first in range(1, batches * entries, entries):
            written = [samples.log_entry(first + n).model_copy(update={"account": account}) for n in range(entries)]
            place = BrokerLogPlace(account=account, epoch="e-1", first_seq=first)
            values.append((account, encode_entries(place, [entry.encode() for entry in written])))
    return values


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


async def test_each_row_comes_by_itself_and_no_wait_on_its_way_is_longer_than_three_seconds(stack: Stack) -> None:
    """How long it takes says how busy the machine is; what it waits for says whether it comes, and when on a quiet one.

    Of a commit that just misses a fetch there are two waits for one, and then the one for company in a batch.
    """
    assert 2 * FETCH_WAIT_MS / 1000 + stack.settings.clickhouse.flush_interval_s <= 3
    stack.start_worker()
    await eventually(stack.healthy, "the worker is ready")
    await eventually(lambda: _committed(stack), "it has caught up")
    for number in range(4):
        await send(stack.settings.kafka_bootstrap, story(f"e{number}", 1))
        await eventually(partial(stack.count, "executions", f"fill_id = 'e{number}:0'"), "its row, and nothing follows")


@pytest.mark.timeout(3 * CATCH_UP_S)
async def test_a_group_that_catches_up_among_kills_has_every_row_of_the_archive(stack: Stack) -> None:
    """Counted against the topics themselves: a new consumer group stores all of both, whoever is killed meanwhile."""
    bootstrap = stack.settings.kafka_bootstrap
    await send(bootstrap, [*story("d", 2500), *others("d", 200)])
    await send(bootstrap, broker_log(10), topic=topics.BROKER_LOG)
    kept = await values_of(bootstrap, topics.ARCHIVE) | await values_of(bootstrap, topics.BROKER_LOG)
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
    for table, expected in rows_asked_for(kept).items():
        assert expected, table
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


def rows_asked_for(kept: set[bytes]) -> dict[str, set[tuple[str, ...]]]:
    """Return the keys of the rows that commits and batches of the broker log ask for, by table."""
    asked: dict[str, set[tuple[str, ...]]] = {table: set() for table in KEYS}
    for value in kept:
        if not value.startswith(b"{"):
            continue
        record = json.loads(value)
        messages = [each["message"] for each in record.get("messages", ())]
        for said in (*messages, *record.get("facts", ()), *record.get("entries", ())):
            for table, (schema, *names) in KEYS.items():
                if said["schema"] == schema:
                    asked[table].add(tuple(_text(said[name]) for name in names))
    return asked


def _text(value: Any) -> str:
    """Return a key's part as text; a moment as messages have it."""
    return time_text(value) if isinstance(value, datetime) else str(value)


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
