"""A trading worker without Faust, Kafka or NATS: the real desk, broker, outbox and publisher on a store in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from agents.broker import Broker
from agents.desk import Approve, Desk
from agents.outbox import Outbox, Unsaid
from agents.pruning import PAUSE_S, Pruner
from agents.publisher import Publisher
from streamapp import subjects, topics
from streamapp.desk.effects import Effect
from streamapp.desk.inputs import Incoming
from streamapp.desk.policy import Policy
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.kafka.memory import MemoryProducer
from streamapp.kafka.window import AckWindow
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.command import is_of_account
from streamapp.messages.commit import CommitMessage
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.report import Report, ReportBatch
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, Settings
from streamapp.tracing import Spans
from streamapp.web.indexes import StandingAlarms
from tables.accounts import AccountRow, account_key
from tables.breaks import BreakRow, break_key
from tables.commands import CommandRow, command_key
from tables.memory import MemoryStore
from tables.orders import OrderRow, order_key
from tables.positions import PositionRow, position_key
from tables.row import Row
from tables.signals import SignalRow, signal_key
from tests.kit.records import NOW, FakeClock, event
from tests.kit.terminals import ScriptedTerminals

ACCOUNT = "a"
SIGNAL = {"status": "approved", "symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": "0.1"}


@dataclass
class MemoryOutlet:
    """JetStream as a list, which drops what it has by its id.

    Attributes:
        refuse: Set to an exception and publishing raises it.
    """

    stored: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    refuse: Exception | None = None
    calls: int = 0

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        if headers["Nats-Msg-Id"] not in {known["Nats-Msg-Id"] for _, _, known in self.stored}:
            self.stored.append((subject, json.loads(payload), dict(headers)))


class DeskWorld:
    """One worker, and everything around it that survives when it dies.

    Attributes:
        store, producer, outlet, terminals, clock: What survives.
        desk, broker, outbox, publisher, metrics, alarms: The worker that lives now; :meth:`restart` makes the next one.
        acked: The payloads that were acknowledged, in order.
        failures: Why the worker would have ended.
        effects: What was asked of the broker, in order.
        carries_out: Whether the broker does it; if not, the worker dies between its commits and their effects.
        policy: As of the settings, but that an account need not be reconciled before it opens, and that what is over
            for ``closed`` is put away where that is given.

    The world's time is its clock's: no outbox is emptied because a test takes long, only where ``idle_s`` says 0.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        approve: Approve | None = None,
        carries_out: bool = True,
        reconcile_first: bool = False,
        closed: timedelta | None = None,
        spans: Spans | None = None,
        idle_s: float = 3600.0,
    ) -> None:
        self.settings = settings or Settings(accounts={ACCOUNT: AccountSettings(login=1)})
        self.policy = _reconciling(Policy.of(self.settings), first=reconcile_first)
        if closed is not None:
            self.policy = replace(self.policy, closed_for=closed)
        self.clock = FakeClock()
        self.store = MemoryStore(partitions=self.policy.partitions)
        self.producer = MemoryProducer()
        self.outlet = MemoryOutlet()
        self.terminals = ScriptedTerminals(self.clock)
        self.acked: list[bytes] = []
        self.failures: list[object] = []
        self.effects: list[Effect] = []
        self._approve = approve
        self._spans = spans
        self._idle_s = idle_s
        self.carries_out = carries_out
        self._sequence = 0
        self._unfinished: list[Any] = []
        self._attached: Desk | None = None
        self.store.attach(self)
        self._build()

    def _build(self) -> None:
        self.metrics = TradingMetrics()
        self.alarms = StandingAlarms()
        self.outbox = Outbox(
            self.producer,
            lambda unsaid: self.publisher.put(unsaid),  # noqa: PLW0108  made after the outbox
            lambda *place: self.desk.tidy(*place),  # noqa: PLW0108  made after the outbox
            on_failure=self.failures.append,
            idle_s=self._idle_s,
        )
        self.publisher = Publisher(
            self.outlet,
            subjects.origin(self.settings.deployment, self.settings.role),
            done=self.outbox.published,
            bury=self._bury,
            clock=self.clock,
            metrics=self.metrics,
            spans=self._spans,
            on_failure=self.failures.append,
        )
        terminals = self.terminals if self.policy.executes else None
        self.broker = Broker(
            terminals,
            self.settings,
            self.clock,
            self.metrics,
            spans=self._spans,
            clock_s=self.clock_s,
            ack_pause_s=0.0,
        )
        self.desk = Desk(
            self.store,
            self.outbox,
            carry_out=self._carry_out,
            terminal=lambda account: self.broker.link(account).status,
            policy=self.policy,
            producer=self.producer,
            clock=self.clock,
            metrics=self.metrics,
            spans=self._spans,
            approve=self._approve,
            watchers=(self.alarms,),
            on_failure=self.failures.append,
        )
        self.broker.attach(self.desk)

    def clock_s(self) -> float:
        return self.clock.now.timestamp()

    def _carry_out(self, effect: Effect) -> None:
        self.effects.append(effect)
        if self.carries_out:
            self.broker.carry_out(effect)

    async def _bury(self, letter: DeadLetter, unsaid: Unsaid) -> None:
        await self.producer.send(topics.DEAD_LETTERS, b"", letter.value, headers=letter.headers)

    # --- a store's listener

    def revoked(self, partitions: Any) -> None:
        lost = frozenset(partitions)
        self.broker.drop(lost)
        self.publisher.drop(lost)
        self.desk.revoked(lost)

    def recovered(self, partitions: Any) -> None: ...

    # --- lives

    async def start(self, *, greeted: bool = True) -> DeskWorld:
        """Let the worker recover, greet the terminals, and open its lanes."""
        await self.desk.recover(sorted(self.store.owned))
        if greeted:
            await self.broker.greet()
        self.desk.ready.set()
        return self

    async def restart(self, *, greeted: bool = True, redelivers: bool = False) -> None:
        """Let the worker die where it stands, and start another one on what survives.

        A commit that is on its way becomes durable, and is not acted upon. ``redelivers``: what was not acknowledged is
        given to the next one.
        """
        await self.broker.close()
        if self.desk.is_busy:
            self.desk.revoked(range(self.policy.partitions))
            self.desk.ready.set()  # what waits for it sees that it is too late
            await self.desk.drain()
        self.outbox.close()
        self.publisher.drop(frozenset(range(self.policy.partitions)))
        self._build()
        await self.start(greeted=greeted)
        unfinished, self._unfinished = self._unfinished, []
        for record in unfinished if redelivers else ():
            await self._take(record)

    async def settled(self) -> None:
        """Return when everything that was given is done: lanes, terminals' answers, and words."""
        for _ in range(50):
            await self.desk.drain()
            await self.broker.settled()
            await asyncio.sleep(0)
            if not self.desk.is_busy and not any(self.outbox.unsaid().values()):
                return

    def later(self, seconds: float) -> None:
        self.clock.now += timedelta(seconds=seconds)

    async def tick(self) -> None:
        """Let the timer pass once."""
        await self.broker.tick(self.desk.accounts(self.settings.accounts))
        await self.settled()

    async def prune(self) -> None:
        """Let the worker walk through its rows once, and what is over leave."""
        pruner = Pruner(self.store, self.desk, self.policy, self.clock)
        while pruner.step() == PAUSE_S:
            await self.settled()

    # --- what is given

    async def give(
        self,
        payload: bytes,
        topic: str,
        family: str,
        *,
        account: str = ACCOUNT,
        sequence: int | None = None,
        at: datetime | None = None,
        headers: dict[str, bytes] | None = None,
        partition: int | None = None,
    ) -> None:
        """Give one record as mirror writes it, and wait for nothing."""
        if sequence is None:
            self._sequence += 1
            sequence = self._sequence
        known = {topics.FAMILY: family.encode(), topics.ACCOUNT: account.encode()} | (headers or {})
        record = event(
            payload,
            account=account,
            topic=topic,
            sequence=sequence,
            at=at or self.clock.now,
            headers=known,
            partition=partition,
        )

        await self._take(record)

    async def _take(self, record: Any) -> None:
        self._unfinished.append(record)

        async def acknowledge(given: Any) -> None:
            self.acked.append(given.message.value)
            self._unfinished = [each for each in self._unfinished if each is not record]

        await self.desk.take(Incoming.of(record), await AckWindow(acknowledge).add(record))

    async def signal(
        self,
        signal_id: str = "s-1",
        *,
        account: str = ACCOUNT,
        sequence: int | None = None,
        at: datetime | None = None,
        **changes: Any,
    ) -> str:
        """Give a signal and let everything settle; return the id its order has or would have."""
        order_id = await self.give_signal(signal_id, account=account, sequence=sequence, at=at, **changes)
        await self.settled()
        return order_id

    async def command(self, name: str, request_id: str = "c-1", **given: Any) -> None:
        """Give a command, as :meth:`give_command` does, and let everything settle."""
        await self.give_command(name, request_id, **given)
        await self.settled()

    async def give_command(
        self,
        name: str,
        request_id: str = "c-1",
        *,
        account: str | None = ACCOUNT,
        target: str | None = None,
        sequence: int | None = None,
        **fields: Any,
    ) -> None:
        """Give a command and wait for nothing; ``target`` ends its subject: the account for one to it, else ``-``."""
        said = {"request_id": request_id, "account": account, **fields}
        end = target or ((account or "") if is_of_account(name) else "-")
        headers = {topics.NATS_SUBJECT: subjects.command(name, end).encode(), topics.MESSAGE_OF: request_id.encode()}
        payload = json.dumps(said).encode()
        await self.give(
            payload,
            topics.ORDER_COMMANDS,
            "command",
            account=account or fields["order_id"],
            sequence=sequence,
            headers=headers,
            partition=partition_of(account or ACCOUNT, self.policy.partitions),
        )

    async def order(self, order_id: str = "o-1", *, account: str = ACCOUNT, **changes: Any) -> None:
        """Give an order of somebody else's execution service."""
        said = {"order_id": order_id, "account": account} | SIGNAL | changes
        await self.give(json.dumps(said).encode(), topics.ORDERS_SUBMITTED, "order", account=account)
        await self.settled()

    async def report(
        self, *reports: tuple[str, str | None, Any], first_seq: int = 1, epoch: str = "e1", account: str = ACCOUNT
    ) -> None:
        """Give a batch of reports, each (kind, order_id, body)."""
        batch = ReportBatch(
            account=account,
            epoch=epoch,
            first_seq=first_seq,
            reports=tuple(
                Report(seq=seq, at=self.clock.now, kind=kind, order_id=order_id, body=body)
                for seq, (kind, order_id, body) in enumerate(reports, start=first_seq)
            ),
        )
        await self.give(batch.encode(), topics.BROKER_REPORTS, "reports", account=account)
        await self.settled()

    async def foreign(self, family: str, *, account: str = ACCOUNT, **said: Any) -> None:
        """Give a fill (``family`` fill) or error of somebody else's connector."""
        await self.give(json.dumps(said).encode(), topics.BROKER_REPORTS, family, account=account)
        await self.settled()

    async def snapshot(self, state: AccountMessage, *, at: datetime | None = None) -> None:
        """Give a snapshot."""
        snapshot = SnapshotMessage(account=state.account, state=state, at=at or self.clock.now)
        await self.give(snapshot.encode(), topics.ACCOUNT_SNAPSHOTS, "snapshot", account=state.account)
        await self.settled()

    async def give_signal(
        self,
        signal_id: str = "s-1",
        *,
        account: str = ACCOUNT,
        sequence: int | None = None,
        at: datetime | None = None,
        **changes: Any,
    ) -> str:
        """Give a signal and wait for nothing; return the id its order has or would have."""
        said = {"signal_id": signal_id, "account": account} | SIGNAL | changes
        await self.give(
            json.dumps(said).encode(),
            topics.SIGNALS_APPROVED,
            "signal",
            account=account,
            sequence=sequence,
            at=at,
            headers={topics.MESSAGE_OF: str(signal_id).encode()},
        )
        return order_id_for(self.settings.deployment, account, signal_id)

    # --- what came of it

    @property
    def commits(self) -> list[CommitMessage]:
        """The archive, every record, also one that was said again."""
        return [CommitMessage.decode(record.value) for record in self.producer.on(topics.ARCHIVE)]

    def facts(self, order_id: str | None = None) -> list[str]:
        """Return the names of the distinct facts in the archive, in order; of one order or of all."""
        found: dict[str, str] = {}
        for commit in self.commits:
            for fact in commit.facts:
                if order_id is None or fact.order_id == order_id:
                    found.setdefault(fact.fact_id, fact.fact)
        return list(found.values())

    def archived(self, schema: str) -> list[dict[str, Any]]:
        """Return the archived messages of a schema, published or not, in order."""
        return [each.message for commit in self.commits for each in commit.messages if each.message["schema"] == schema]

    def published(self, schema: str) -> list[dict[str, Any]]:
        """Return the messages of a schema that are on NATS, in order."""
        return [message for _, message, _ in self.outlet.stored if message["schema"] == schema]

    @property
    def subjects(self) -> list[str]:
        """The subjects of everything on NATS, in order."""
        return [subject for subject, _, _ in self.outlet.stored]

    def dead_letters(self) -> list[dict[str, bytes]]:
        """Return the headers of the dead letters."""
        return [dict(record.headers) for record in self.producer.on(topics.DEAD_LETTERS)]

    def row(self, key: bytes, model: type[Row], account: str = ACCOUNT) -> Any:
        """Return a durable row, None if there is none."""
        value = self.store.get(key, partition=partition_of(account, self.policy.partitions))
        return None if value is None else model.decode(value)

    def order_row(self, order_id: str, account: str = ACCOUNT) -> OrderRow:
        row = self.row(order_key(order_id), OrderRow, account)
        assert isinstance(row, OrderRow)
        return row

    def signal_row(self, signal_id: str, account: str = ACCOUNT) -> SignalRow | None:
        found: SignalRow | None = self.row(signal_key(account, signal_id), SignalRow, account)
        return found

    def command_row(self, request_id: str = "c-1", account: str = ACCOUNT) -> CommandRow | None:
        found: CommandRow | None = self.row(command_key(account, request_id), CommandRow, account)
        return found

    def results(self, request_id: str = "c-1") -> list[tuple[str, str | None]]:
        """Return what a command was answered, in order: the state, and the word why."""
        said = [each for each in self.published("command_result/1") if each["request_id"] == request_id]
        return [(each["state"], each["why"]) for each in said]

    def position_row(self, position_id: int, account: str = ACCOUNT) -> PositionRow | None:
        found: PositionRow | None = self.row(position_key(account, position_id), PositionRow, account)
        return found

    def break_row(self, place: str, account: str = ACCOUNT) -> BreakRow | None:
        found: BreakRow | None = self.row(break_key(account, place), BreakRow, account)
        return found

    def account_row(self, account: str = ACCOUNT) -> AccountRow | None:
        found: AccountRow | None = self.row(account_key(account), AccountRow, account)
        return found


def _reconciling(policy: Policy, *, first: bool) -> Policy:
    return replace(policy, execution=policy.execution.model_copy(update={"reconcile_first": first}))


__all__ = ["ACCOUNT", "NOW", "SIGNAL", "DeskWorld", "MemoryOutlet"]
