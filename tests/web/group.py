"""Workers of one process that ask each other over real HTTP, over tables in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from streamapp.clickhouse.plots import Period
from streamapp.desk.policy import Policy
from streamapp.desk.state import Comparing
from streamapp.domain.facts import Body, Fact, Filled, OrderCreated, SubmitClaimed, make_fact
from streamapp.domain.fold import fold
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.domain.orders import Deal, OrderState
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.errors import Transient, Unusable
from streamapp.letters.letter import KeptLetter
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.source import load_sources
from streamapp.nats.commands import NatsCommands
from streamapp.nats.feed import NatsFeed
from streamapp.nats.signals import NatsSignals
from streamapp.settings import (
    AccountSettings,
    ExecutionSettings,
    GuardSettings,
    KafkaSettings,
    NatsSettings,
    Settings,
    WebSettings,
)
from streamapp.tokens import Tokens
from streamapp.web.access import Access
from streamapp.web.answers import Answers
from streamapp.web.events import Hub
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from streamapp.web.letters import Letters
from streamapp.web.local import Local
from streamapp.web.peers import HttpPeers
from streamapp.web.registration import serve
from streamapp.web.signals import SignalView
from streamapp.web.views import Views
from tables.accounts import AccountRow, StandingAlarm
from tables.breaks import BreakRow
from tables.memory import MemoryStore
from tables.orders import OrderIndex, OrderRow, order_key
from tables.positions import DealRecord, PositionRow, position_key

PARTITIONS = 4
ACCOUNTS = [f"account-{number}" for number in range(8)]
POLICY = Policy.of(
    Settings(
        kafka=KafkaSettings(partitions=PARTITIONS),
        guards=GuardSettings(max_daily_loss=Decimal(1000)),
        accounts={name: AccountSettings(login=number) for number, name in enumerate(ACCOUNTS, start=1)},
    )
)
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Rows:
    """ClickHouse as the answers see it; ``away`` makes it silent."""

    def __init__(self) -> None:
        self.orders: dict[str, dict[str, Any]] = {}
        self.told_facts: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.log: list[dict[str, Any]] = []
        self.signals: list[dict[str, Any]] = []
        self.plots: dict[str, dict[str, Any]] = {}
        self.away = False

    async def order(self, order_id: str) -> dict[str, Any] | None:
        self._check()
        return self.orders.get(order_id)

    async def facts(self, order_id: str, *, limit: int = 1000) -> list[dict[str, Any]]:
        self._check()
        return self.told_facts

    async def closed_orders(self, **wanted: Any) -> list[dict[str, Any]]:
        self._check()
        self.asked.append(wanted)
        status = wanted["status"]
        return [order for order in self.orders.values() if status is None or order["status"] == status]

    async def account(self, account: str) -> dict[str, Any] | None:
        self._check()
        return None

    async def position(self, account: str, symbol: str, position_id: int) -> dict[str, Any] | None:
        self._check()
        return {"schema": "position/1", "account": account, "symbol": symbol, "position_id": position_id}

    async def broker_log(self, order_id: str, *, limit: int = 200) -> list[dict[str, Any]]:
        self._check()
        return [each for each in self.log if each["order_id"] == order_id][:limit]

    async def decisions(self, signal_id: str, account: str, *, limit: int = 20) -> list[dict[str, Any]]:
        self._check()
        return [each for each in self.signals if each["signal_id"] == signal_id and each["account"] == account][:limit]

    async def plot(self, name: str, period: Period) -> dict[str, Any]:
        self._check()
        self.asked.append({"plot": name, "period": period})
        return self.plots[name]

    def _check(self) -> None:
        if self.away:
            raise Transient("ClickHouse is away")


class NoLetters:
    """A topic of dead letters that has none, and takes no decision."""

    is_cut = False

    async def newest(self) -> list[KeptLetter]:
        return []

    def shown(self, letter: KeptLetter) -> dict[str, Any]:
        raise AssertionError("there is none to show")

    async def redrive(self, identifier: str, *, by: str, reason: str) -> KeptLetter:
        raise Unusable("unknown_letter", f"there is no dead letter {identifier}")

    acknowledge = redrive


@dataclass
class Worker:
    """One worker: its tables, its server, and which partitions it owns.

    Attributes:
        asked_from: Where its callers seem to be; None: where they are, on this machine.
    """

    group: Group
    partitions: set[int]
    url: URL = field(default=URL())
    well: bool = True
    asked_from: str | None = None

    def __post_init__(self) -> None:
        self.store = MemoryStore(partitions=PARTITIONS)
        self.recovered = asyncio.Event()
        self.index = OrderIndex()
        self.accounts: dict[str, AccountMessage] = {}
        self.compared: dict[str, Comparing] = {}
        self.positions, self.facts, self.breaks = OpenPositions(), RecentFacts(), StandingBreaks()
        self.alarms = StandingAlarms()
        self.local = Local(
            self.store,
            self,
            positions=self.positions,
            facts=self.facts,
            breaks=self.breaks,
            alarms=self.alarms,
            policy=POLICY,
            clock_skew=lambda _: timedelta(seconds=0.2),
        )
        self.peers = HttpPeers(self)  # type: ignore[arg-type]  # we are our own assignment
        answers = Answers(self.local, self.peers, self.group.rows, PARTITIONS)
        tokens_file = self.group.tokens_file
        self.access = Access(None if tokens_file is None else Tokens(tokens_file), self.group.clock)
        self.app = web.Application(middlewares=[self._moved()])
        views = Views(self.local, answers, health=self._health, ready=self._health, metrics=lambda: "figures 1\n")
        self.hub = Hub(NatsFeed(lambda: self.group.nats, NatsSettings()))
        commands = NatsCommands(lambda: self.group.nats, NatsSettings(publish_timeout_s=2))
        self.web_signals: list[tuple[str, str]] = []
        self.signals = SignalView(
            NatsSignals(lambda: self.group.nats, NatsSettings(publish_timeout_s=2)),
            load_sources(self.group.web.sources, self.group.execution),
            self.access,
            self.group.web,
            self.group.clock,
            count=lambda *counted: self.web_signals.append(counted),
        )
        serve(
            self.app,
            views,
            commands=commands,
            signals=self.signals,
            letters=self.group.letters,
            hub=self.hub,
            access=self.access,
        )

    def _moved(self) -> Any:
        @web.middleware
        async def moved(request: web.Request, handler: Any) -> Any:
            return await handler(request if self.asked_from is None else request.clone(remote=self.asked_from))

        return moved

    def _health(self) -> tuple[int, dict[str, Any]]:
        if self.well:
            return 200, {"status": "ok", "reasons": []}
        return 503, {"status": "starting", "reasons": ["<cold>"]}

    def recover(self) -> None:
        self.store.recover(self.partitions)
        self.recovered.set()

    def states(self) -> dict[str, AccountMessage]:
        return self.accounts

    def comparings(self) -> dict[str, Comparing]:
        return self.compared

    # What streamapp.kafka.assignment.Assignment says.

    def here(self) -> URL:
        return self.url

    def workers(self) -> frozenset[URL]:
        return frozenset(worker.url for worker in self.group.workers)

    def owner(self, topic: str, partition: int) -> URL | None:
        return next((worker.url for worker in self.group.workers if partition in worker.partitions), None)


class Group:
    """Two workers and the ClickHouse beside them.

    Attributes:
        nats: The connection that commands go out on, None before there is one.
    """

    def __init__(
        self,
        tokens_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        web: WebSettings | None = None,
        execution: ExecutionSettings | None = None,
        letters: Letters | None = None,
    ) -> None:
        self.tokens_file, self.clock, self.letters = tokens_file, clock, letters or NoLetters()
        self.web, self.execution = web or WebSettings(), execution or ExecutionSettings()
        self.nats: Any = None
        self.rows = Rows()
        self.workers = [Worker(self, {0, 1}), Worker(self, {2, 3})]
        self.servers: list[TestServer] = []

    def owner_of(self, account: str) -> Worker:
        partition = partition_of(account, PARTITIONS)
        return next(worker for worker in self.workers if partition in worker.partitions)

    async def put_order(self, row: OrderRow, recent: int | None = None) -> None:
        partition = partition_of(row.account, PARTITIONS)
        worker = self.owner_of(row.account)
        await worker.store.commit(partition, {order_key(row.order_id): row.encode()})
        worker.index.put(row, partition)
        facts = facts_of(row.order_id, row.account, claims=len(row.state.attempts))
        worker.facts.said(facts if recent is None else facts[:recent])

    async def put_position(self, account: str, position_id: int, *sides: str) -> None:
        deals = [DealRecord(fact_id=f"{n}", number=n, deal=deal(n, side)) for n, side in enumerate(sides)]
        row = PositionRow(account=account, position_id=position_id).extended(deals)
        worker, partition = self.owner_of(account), partition_of(account, PARTITIONS)
        await worker.store.commit(partition, {position_key(account, position_id): row.encode()})
        worker.positions.put(row, partition)

    def put_snapshot(self, snapshot: SnapshotMessage) -> None:
        self.owner_of(snapshot.account).compared[snapshot.account] = Comparing(snapshot, snapshot.at)

    def put_break(self, message: BreakMessage, *, stands: bool = True) -> None:
        row, partition = BreakRow(message=message, stands=stands), partition_of(message.account, PARTITIONS)
        self.owner_of(message.account).breaks.put(row, partition)

    async def put_account(self, account: str) -> None:
        state = AccountMessage(account=account, connection="ready", balance=Decimal(100), at=AT)
        self.owner_of(account).accounts[account] = state

    async def put_alarms(self, account: str, *alarms: StandingAlarm) -> None:
        self.owner_of(account).alarms.put(AccountRow(account=account, alarms=alarms), partition_of(account, PARTITIONS))

    async def get(self, worker: Worker, path: str, token: str | None = None) -> tuple[int, Any, str | None]:
        status, body, headers = await self.ask("GET", worker, path, token)
        return status, body, headers.get("Streamapp-Answered-By")

    async def ask(
        self, method: str, worker: Worker, path: str, token: str | None = None, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return the status, the JSON (None if it is none) and the headers of an answer."""
        url = worker.url.join(URL(path, encoded=True))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url, **options) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await answer.json() if is_json else None, answer.headers

    async def stop(self, worker: Worker) -> None:
        await self.servers[self.workers.index(worker)].close()


@asynccontextmanager
async def running_group(**options: Any) -> AsyncIterator[Group]:
    group = Group(**options)
    for worker in group.workers:
        server = TestServer(worker.app)
        await server.start_server()
        worker.url = server.make_url("/")
        group.servers.append(server)
        worker.recover()
    try:
        yield group
    finally:
        for worker in group.workers:
            await worker.hub.close()
            await worker.peers.close()
        await asyncio.gather(*(server.close() for server in group.servers))


def facts_of(order_id: str, account: str, *, symbol: str = "EURUSD", claims: int = 1) -> list[Fact]:
    parameters = OrderParameters(symbol=symbol, side="buy", order_type="market", volume=Decimal("0.10"))
    created = OrderCreated(
        parameters=parameters,
        parameters_hash=parameters_hash(parameters),
        signal_id="s-1",
        signal_at=AT,
        not_after=AT + timedelta(seconds=30),
        executor="streamapp",
    )
    claimed: list[Body] = [SubmitClaimed(attempt=1 + number, epoch="e", not_after=AT) for number in range(claims)]
    return [make_fact(account, order_id, body, at=AT, causation_id="test") for body in (created, *claimed)]


def order_row(order_id: str, account: str, **options: Any) -> OrderRow:
    state = fold(OrderState(), facts_of(order_id, account, **options))
    return OrderRow(open=True, order_id=order_id, account=account, state=state)


def deal(number: int, side: str) -> Deal:
    filled = Filled(
        deal=number,
        ticket=number,
        position_id=1,
        symbol="EURUSD",
        side=side,
        entry="in",
        reason="expert",
        volume=Decimal("0.10"),
        price=Decimal("1.1"),
        time=AT + timedelta(seconds=number),
    )
    return Deal(filled=filled, revision=0)


def ids(accounts: list[str], many: int) -> list[tuple[str, str]]:
    """Return (order_id, account) pairs spread over accounts."""
    return [
        (order_id_for("test", accounts[number % len(accounts)], f"s-{number}"), accounts[number % len(accounts)])
        for number in range(many)
    ]
