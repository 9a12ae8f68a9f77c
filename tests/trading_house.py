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
from streamapp.domain.identifiers import magic_of
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer
from streamapp.local.ports import free_port
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.fact import FactMessage
from streamapp.messages.terminal import HelloReply, JournalRow, SubmitReply, SubmitRequest
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import AccountSettings, KafkaSettings, LocalSettings, NatsSettings, Settings
from tests.kafka.workers import until

PARTITIONS = 2
ACCOUNTS = {f"acc-{number}": AccountSettings(login=number) for number in range(1, 4)}


class FakeTerminal:
    """A terminal of one account over NATS: it records and answers, and nothing else.

    Attributes:
        epoch: The journal's.
        rows: The journal.
        submits: How often each order was submitted.
    """

    def __init__(self, client: Client, account: str) -> None:
        self._client = client
        self._account = account
        self._subscriptions: list[Any] = []
        self.epoch = "e1"
        self.rows: dict[str, JournalRow] = {}
        self.submits: Counter[str] = Counter()
        self.epochs: list[tuple[str, str]] = []

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
        reply = HelloReply(account=self._account, epoch=self.epoch, clock=now, connection="ready")
        await message.respond(reply.encode())

    async def _submit(self, message: Msg) -> None:
        request, now = SubmitRequest.decode(message.data), datetime.now(UTC)
        self.submits[request.order_id] += 1
        self.epochs.append((request.order_id, request.epoch))
        row = self.rows.setdefault(request.order_id, self._row(request, now))
        await message.respond(SubmitReply(state=row.state, epoch=self.epoch, clock=now, row=row).encode())

    def _row(self, request: SubmitRequest, now: datetime) -> JournalRow:
        fresh = "recorded" if now < request.not_after else "refused"
        return JournalRow(
            order_id=request.order_id,
            hash=request.hash,
            state="doubt" if request.epoch != self.epoch else fresh,
            attempt=request.attempt,
            magic=magic_of(request.order_id),
            not_after=request.not_after,
            recorded_at=now,
        )


class TradingHouse:
    """The settings, the terminals, and at most one worker at a time."""

    def __init__(self, settings: Settings, client: Client, producer: ClientProducer, folder: Path) -> None:
        self.settings = settings
        self.client = client
        self.producer = producer
        self.terminals = {account: FakeTerminal(client, account) for account in settings.accounts}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        self._sequence = 0

    # --- the worker

    def start(self, **environment: str) -> None:
        settings = self.settings
        command = [sys.executable, "-m", "faust", "-A", "streamapp.trading", "--datadir", str(self._folder / "trading")]
        command += ["worker", "-l", "info", "--web-host", "127.0.0.1", "--web-port", str(self._port)]
        own = {
            "STREAMAPP_DEPLOYMENT": settings.deployment,
            "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_KAFKA__SESSION_TIMEOUT_S": "30",
            "STREAMAPP_NATS__URL": settings.nats_url,
            "STREAMAPP_CLICKHOUSE__URL": f"http://127.0.0.1:{free_port()}",
            "STREAMAPP_LOCAL__DATA": str(self._folder),
            "STREAMAPP_ACCOUNTS": json.dumps({name: {"login": a.login} for name, a in settings.accounts.items()}),
            "STREAMAPP_BROKER__CHECK_INTERVAL_S": "0.3",
        }
        with (self._folder / "trading.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | own | environment, stdout=log, stderr=log)

    async def started(self, **environment: str) -> None:
        self.start(**environment)
        await until(self.is_ready, f"a ready worker; see {self._folder / 'trading.log'}", 90)

    async def health(self) -> tuple[int, dict[str, Any]]:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self._port}/health") as answer,
            ):
                return answer.status, await answer.json()
        except (aiohttp.ClientError, OSError):
            return 0, {}

    async def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the worker ended: {self._process.returncode}"
        return (await self.health())[0] == 200

    async def died(self) -> int:
        """Return the exit code once the worker is gone."""
        assert self._process is not None
        process = self._process
        found: tuple[int] = await until(lambda: process.poll() and (process.returncode,), "the worker's end")
        return found[0]

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    # --- the world

    async def signal(self, signal_id: str, account: str = "acc-1", **changes: Any) -> None:
        """Say an approved signal on Kafka as mirror does; the same call again is another message of the same signal."""
        self._sequence += 1
        said = {"signal_id": signal_id, "status": "approved", "account": account, "symbol": "EURUSD", "side": "buy"}
        payload = json.dumps(said | {"order_type": "market", "volume": "0.1"} | changes).encode()
        headers = {
            topics.NATS_SEQUENCE: str(self._sequence).encode(),
            topics.NATS_TIME: datetime.now(UTC).isoformat().encode(),
        }
        await self.producer.send(topics.SIGNALS_APPROVED, account.encode(), payload, headers=headers)

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

    async def decisions(self, prefix: str) -> dict[str, list[DecisionMessage]]:
        """Return the decisions on signals whose id begins with ``prefix``, by signal."""
        found: dict[str, list[DecisionMessage]] = {}
        for value in await self.read(topics.UPDATES):
            if b'"signal/1"' in value and (decision := DecisionMessage.decode(value)).signal_id.startswith(prefix):
                found.setdefault(decision.signal_id, []).append(decision)
        return found

    async def facts(self) -> dict[str, list[FactMessage]]:
        """Return the distinct facts of each order."""
        found: dict[str, dict[str, FactMessage]] = {}
        for value in await self.read(topics.ARCHIVE):
            fact = FactMessage.decode(value)
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

        await until(gone, "the old topics' end")
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
