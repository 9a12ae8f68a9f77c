"""A trading worker as a process, on a Kafka and NATS of its own, with fake terminals that the test plays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamapp import subjects, topics
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer
from streamapp.kafka.security import Cluster
from streamapp.local.ports import free_port
from streamapp.messages.commit import CommitMessage
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.terminal import HelloReply, SubmitReply, SubmitRequest
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import AccountSettings, KafkaSettings, LocalSettings, NatsSettings, Settings
from tables.adoption import read_log
from tests.kit.terminals import MemoryJournal
from tests.kit.waiting import eventually

PARTITIONS = 2
SIGNAL = {"status": "approved", "symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": "0.1"}
BREAKS = b'{"signal_id": "a record on which a rule breaks"}'
"""See :mod:`tests.kit.broken_trading`."""
ACCOUNTS = {f"acc-{number}": AccountSettings(login=number) for number in range(1, 4)}


class FakeTerminal(MemoryJournal):
    """A terminal of one account over NATS: it records and answers, and nothing else.

    Attributes:
        submits: How often each order was submitted.
        deaf: It does not answer submits.
        released_seq: Up to which its journal has forgotten its reports; there is none after.
    """

    def __init__(self, client: Client, account: str) -> None:
        super().__init__()
        self._client = client
        self._account = account
        self._subscriptions: list[Any] = []
        self.submits: Counter[str] = Counter()
        self.epochs: list[tuple[str, str]] = []
        self.deaf = False
        self.released_seq = 0

    async def start(self) -> None:
        for operation, answer in (("hello", self._hello), ("submit", self._submit)):
            subject = subjects.terminal(self._account, operation)
            self._subscriptions.append(await self._client.subscribe(subject, cb=answer))
        await self._client.flush()

    async def stop(self) -> None:
        while self._subscriptions:
            await self._subscriptions.pop().unsubscribe()
        await self._client.flush()

    async def _hello(self, message: Msg) -> None:
        now = datetime.now(UTC)
        reply = HelloReply(
            account=self._account,
            epoch=self.epoch,
            clock=now,
            connection="ready",
            last_seq=self.released_seq,
            released_seq=self.released_seq,
        )
        await message.respond(reply.encode())

    async def _submit(self, message: Msg) -> None:
        request, now = SubmitRequest.decode(message.data), datetime.now(UTC)
        self.submits[request.order_id] += 1
        self.epochs.append((request.order_id, request.epoch))
        if self.deaf:
            return
        row = self.record(request, now)
        await message.respond(SubmitReply(state=row.state, epoch=self.epoch, clock=now, row=row).encode())


class TradingHouse:
    """The settings, the terminals, and at most one worker at a time."""

    def __init__(self, settings: Settings, client: Client, producer: ClientProducer, folder: Path) -> None:
        self.settings = settings
        self.client = client
        self.producer = producer
        self.terminals = {account: FakeTerminal(client, account) for account in settings.accounts}
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._sequence = 0

    def order_id(self, signal_id: str, account: str = "acc-1") -> str:
        """Return the id of a signal's order."""
        return order_id_for(self.settings.deployment, account, signal_id)

    @property
    def url(self) -> str:
        """Where the worker's views are."""
        return f"http://127.0.0.1:{self._port}"

    # --- the worker

    def start(self, app: str = "streamapp.trading", **environment: str) -> None:
        settings = self.settings
        command = [sys.executable, "-m", "faust", "-A", app, "--datadir", str(self.folder / "trading")]
        command += ["worker", "-l", "info", "--web-host", "127.0.0.1", "--web-port", str(self._port)]
        own = {
            "STREAMAPP_DEPLOYMENT": settings.deployment,
            "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_KAFKA__SESSION_TIMEOUT_S": "30",
            "STREAMAPP_NATS__URL": settings.nats_url,
            "STREAMAPP_CLICKHOUSE__URL": f"http://127.0.0.1:{free_port()}",
            "STREAMAPP_LOCAL__DATA": str(self.folder),
            "STREAMAPP_ACCOUNTS": json.dumps({name: {"login": a.login} for name, a in settings.accounts.items()}),
            "STREAMAPP_BROKER__CHECK_INTERVAL_S": "0.3",
            "STREAMAPP_ROLE": settings.role,
            "STREAMAPP_EXECUTION__RECONCILE_FIRST": "false",  # its terminals only record
        }
        with (self.folder / "trading.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | own | environment, stdout=log, stderr=log)

    async def started(self, app: str = "streamapp.trading", **environment: str) -> None:
        self.start(app, **environment)
        await eventually(self.is_ready, f"a ready worker; see {self.folder / 'trading.log'}", 90)

    async def health(self) -> tuple[int, dict[str, Any]]:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/health") as answer:
                return answer.status, await answer.json()
        except (aiohttp.ClientError, OSError):
            return 0, {}

    async def complains(self, words: str) -> bool:
        """Return whether a reason of ``/health`` holds the words."""
        return any(words in reason for reason in (await self.health())[1].get("reasons", []))

    async def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the worker ended: {self._process.returncode}"
        return (await self.health())[0] == 200

    async def died(self) -> int:
        """Return the exit code once the worker is gone."""
        assert self._process is not None
        process = self._process
        found: tuple[int] = await eventually(lambda: process.poll() and (process.returncode,), "the worker's end")
        return found[0]

    async def stopped(self) -> int:
        """Ask the worker to stop, and return its exit code."""
        assert self._process is not None
        process = self._process
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None, "the worker's end")
        return process.returncode

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    # --- the world

    async def signal(self, signal_id: str, account: str = "acc-1", **changes: Any) -> None:
        """Say an approved signal on Kafka as mirror does; the same call again is another message of the same signal."""
        said = {"signal_id": signal_id, "account": account} | SIGNAL | changes
        await self.record(topics.SIGNALS_APPROVED, "signal", json.dumps(said).encode(), account)

    async def record(self, topic: str, family: str, payload: bytes, account: str = "acc-1", subject: str = "") -> None:
        """Say anything on Kafka as mirror does."""
        self._sequence += 1
        headers = {
            topics.FAMILY: family.encode(),
            topics.ACCOUNT: account.encode(),
            topics.NATS_SEQUENCE: str(self._sequence).encode(),
            topics.NATS_TIME: datetime.now(UTC).isoformat().encode(),
        } | ({topics.NATS_SUBJECT: subject.encode()} if subject else {})
        await self.producer.send(topic, account.encode(), payload, headers=headers)

    async def read(self, topic: str) -> list[bytes]:
        """Return everything on a topic."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        await consumer.start()
        try:
            places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            values: list[bytes] = []
            while any([await consumer.position(place) < ends[place] for place in places]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    values += [record.value for record in records]
            return values
        finally:
            await consumer.stop()

    async def stored(self, key: bytes, store: str | None = None) -> bytes | None:
        """Return a row of acc-1 as the changelog has it."""
        tp = TopicPartition(
            topics.changelog(self.settings.deployment, topics.TABLES[0], store), partition_of("acc-1", PARTITIONS)
        )
        log = await read_log(Cluster.of(self.settings), tp)
        return log.newest[key][0] if key in log.newest else None

    async def commits(self) -> list[CommitMessage]:
        """Return the archive."""
        return [CommitMessage.decode(value) for value in await self.read(topics.ARCHIVE)]

    async def decisions(self, prefix: str) -> dict[str, list[DecisionMessage]]:
        """Return the decisions on signals whose id begins with ``prefix``, by signal."""
        found: dict[str, list[DecisionMessage]] = {}
        for commit in await self.commits():
            for archived in commit.messages:
                if archived.message["schema"] == "signal/1":
                    decision = DecisionMessage.model_validate(archived.message)
                    if decision.signal_id.startswith(prefix):
                        found.setdefault(decision.signal_id, []).append(decision)
        return found

    async def facts(self) -> dict[str, list[FactMessage]]:
        """Return the distinct facts of each order."""
        found: dict[str, dict[str, FactMessage]] = {}
        for commit in await self.commits():
            for fact in commit.facts:
                found.setdefault(fact.order_id or "", {}).setdefault(fact.fact_id, fact)
        return {order_id: list(facts.values()) for order_id, facts in found.items()}


async def _forget_topics(bootstrap: str) -> None:
    """Delete what an earlier test left: a new worker would read it from the beginning."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        old = {spec.name for spec in topics.TOPICS} & set(await admin.list_topics())
        if old:
            await admin.delete_topics(sorted(old))

        async def gone() -> bool:
            return not old & set(await admin.list_topics())

        await eventually(gone, "the old topics' end")
    finally:
        await admin.close()


@asynccontextmanager
async def trading_house(bootstrap: str, nats_url: str, folder: Path, **options: Any) -> AsyncIterator[TradingHouse]:
    """Yield a house whose topics and streams are there, with nobody in it yet."""
    settings = Settings(
        deployment=f"t{folder.name}".replace(".", "-")[:40],
        kafka=KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS),
        nats=NatsSettings(url=nats_url),
        local=LocalSettings(data=folder),
        accounts=ACCOUNTS,
        **options,
    )
    await _forget_topics(bootstrap)
    specs = [*topics.TOPICS, *topics.changelogs(settings.deployment)]
    await create_topics(bootstrap, specs, partitions=PARTITIONS, replication_factor=1)
    client = await connect(settings, "test")
    await ensure(client.jetstream(), settings, create=True)
    async with ClientProducer(bootstrap, "test") as producer:
        house = TradingHouse(settings, client, producer, folder)
        try:
            yield house
        finally:
            house.kill()
            await client.close()
            await asyncio.sleep(0)
