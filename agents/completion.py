"""Completion: what a message lacks is found here, or its sender is told (design: architecture).

Of signals and orders that came without, it finds the account, and the fields. Of signals that nobody can use, not even
to see whose they are, mirror sends the dead letters this way: they are kept, and the sender is answered.

The account is bound to the id, durably, before the message is forwarded: whatever ClickHouse or ``routing`` say later,
the id keeps its account, so that it can't become two orders on two accounts.

Where ``routing`` names several accounts, they are bound with their weights, and each is sent a copy. What their desks
decide comes back here and is kept beside the binding; when it is complete, one message answers for all copies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

from pydantic_core import to_json

from agents.approval import SignalRows
from agents.lanes import Lanes
from agents.outbox import Outbox
from streamapp import subjects, topics
from streamapp.clock import Clock
from streamapp.desk.inputs import COMPLETED, Incoming, shown_symbol
from streamapp.desk.notices import command_refusal
from streamapp.domain.identifiers import error_id_for, partition_of
from streamapp.domain.sizing import ONE
from streamapp.domain.vocabulary import decimal_text, time_text
from streamapp.errors import Transient, Unusable
from streamapp.kafka.producer import Producer, Record, dead_letter_record
from streamapp.kafka.window import Unfinished, take_all
from streamapp.messages.answer import AnswerMessage, CopyMessage
from streamapp.messages.command import request_id_of
from streamapp.messages.commit import Publication
from streamapp.messages.dead_letter import DETAIL, REASON
from streamapp.messages.decision import undecided
from streamapp.messages.dialect import renamed, require_known_fields, translated, with_text_ids
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.error import ErrorMessage
from streamapp.messages.signal import account_of, is_split, route_of, signal_id_of
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.bindings import BindingRow, binding_key
from tables.store import Store

REQUIRED, OF_AN_EXIT = ("symbol", "side", "order_type", "volume"), ("symbol",)
"""What an order needs beside its id and account, and an exit beside its intent; without one of them routing alone is
not enough."""
LOOK_S = 2.0
"""How long one delivery waits, for it holds back acknowledgements and rebalances; then it goes to its topic's end."""
FIRST_PAUSE_S = 0.1


class OrderLookup(Protocol):
    """Table ``orders``, as somebody else's execution service keeps it."""

    async def order(self, order_id: str) -> dict[str, Any] | None:
        """Return the newest revision of an order in our names, None if there is none.

        Raises:
            Transient: ClickHouse did not answer in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Incomplete:
    """What came: a signal (for ``signals_approved``) or an order (for ``orders_submitted``)."""

    incoming: Incoming
    topic: str
    id: str
    named: dict[str, Any]

    @property
    def key(self) -> bytes:
        return binding_key(self.topic, self.id)

    @property
    def symbol(self) -> str:
        return shown_symbol(self.named)


class Completion:
    """The completion agent.

    Args:
        store: Where bindings are kept.
        producer: Where completed messages and dead letters go.
        outbox: Where refusals go.
        settings: The settings.
        clock: The time.
        metrics: Counters.
        signals: The risk engine's table; None: routing alone.
        orders: The execution service's table of orders; None: routing alone.
        ready: Set while the store is recovered and the outbox may be used.
    """

    def __init__(
        self,
        store: Store,
        producer: Producer,
        outbox: Outbox,
        *,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
        ready: asyncio.Event,
        signals: SignalRows | None = None,
        orders: OrderLookup | None = None,
    ) -> None:
        self._store = store
        self._producer = producer
        self._outbox = outbox
        self._settings = settings
        self._ttl = timedelta(seconds=settings.execution.signal_ttl_s)
        self._clock = clock
        self._metrics = metrics
        self._ready = ready
        self._signals = signals
        self._orders = orders
        self._lanes: Lanes[tuple[Incoming, Unfinished | None]] = Lanes(self._handle_all)

    async def run(self, stream: Any) -> None:
        """Complete the messages of a stream of one partition, until it ends: an agent's whole body."""
        await take_all(stream, self._take)

    async def _take(self, event: Any, record: Unfinished) -> None:
        incoming = Incoming.of(event, self._settings.kafka.topic_prefix)
        lane = f"{incoming.partition}/{(incoming.key or b'').decode('utf-8', 'replace')}"
        self._lanes.put(lane, (incoming, record))

    async def _handle_all(self, _lane: str, items: list[tuple[Incoming, Unfinished | None]]) -> None:
        await self._ready.wait()
        for incoming, record in items:
            try:
                await self.handle(incoming)
            except Transient:
                if self._ready.is_set() and incoming.partition in self._store.owned:
                    raise
                continue  # reassigned: it is redelivered to whoever owns it now
            if record is not None:
                await record.finish()

    async def handle(self, incoming: Incoming) -> None:
        """Forward one message, or refuse it at its deadline, or put it at the end of the topic to be looked at again.

        A decision on a copy is kept; the last one of its signal lets the answer be published.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker.
        """
        if incoming.headers.get(topics.FAMILY) == topics.COPY:
            await self._collect(incoming)
            return
        try:
            message = self._read(incoming)
        except Unusable as error:
            await self._bury(incoming, error.reason, error.detail)
            if incoming.text(topics.FAMILY) == "command":
                await self._answer_command(incoming, error)
            elif not self._is_order(incoming):
                await self._answer(incoming, error)
            return
        known = self._bound(message.key, incoming.partition)
        row = await self._resolve(message) if known is None else known
        if row is None:
            await self._producer.send_all([self._requeue(message)])
            return
        if known is None:
            await self._store.commit(incoming.partition, {message.key: row.encode()})
        if row.is_bound:
            await self._producer.send_all(self._forward(message, row))
        else:
            await self._refuse(message, row)
        self._metrics.bindings.labels("bound" if row.is_bound else "unresolved").inc()

    def _bound(self, key: bytes, partition: int) -> BindingRow | None:
        value = self._store.get(key, partition=partition)
        return None if value is None else BindingRow.decode(value)

    async def _bury(self, incoming: Incoming, reason: str, detail: str) -> None:
        self._metrics.dead_letters.labels(incoming.topic, reason).inc()
        if REASON in incoming.headers:
            letter = Record(
                topics.DEAD_LETTERS, incoming.key, incoming.payload, dict(incoming.headers), incoming.partition
            )
        else:
            letter = dead_letter_record(incoming.dead(reason, detail), incoming.key, incoming.partition)
        await self._producer.send_all([letter])

    def _read(self, incoming: Incoming) -> _Incomplete:
        if (reason := incoming.text(REASON)) is not None:
            raise Unusable(reason, incoming.text(DETAIL) or "")
        payload = json_object(incoming.payload)
        if self._is_order(incoming):
            named, topic = with_text_ids(payload), topics.ORDERS_SUBMITTED
            identifier = signal_id_of({"signal_id": named.get("order_id")})
        else:
            execution = self._settings.execution
            require_known_fields(payload, execution)
            named, topic = translated(renamed(payload, execution), execution), topics.SIGNALS_APPROVED
            identifier = signal_id_of(named)
        if identifier is None:
            raise Unusable("no_id", "expected a signal_id or order_id of 1 to 128 visible ASCII characters")
        return _Incomplete(incoming, topic, identifier, named)

    def _is_order(self, incoming: Incoming) -> bool:
        family = incoming.text(topics.FAMILY)
        return self._settings.role == "connector" if family is None else family == "order"

    # --- finding

    async def _resolve(self, message: _Incomplete) -> BindingRow | None:
        """Return the binding, one that says unresolved when it is too late, or None if somebody should look again."""
        started, pause_s = self._clock(), FIRST_PAUSE_S
        while True:
            found = await self._look(message)
            now = self._clock()
            if isinstance(found, BindingRow):
                return found
            if now >= message.incoming.at + self._ttl:
                return BindingRow(kind=message.topic, id=message.id, account="", detail=found, bound_at=now)
            if now - started >= timedelta(seconds=LOOK_S):
                return None
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _look(self, message: _Incomplete) -> BindingRow | str:
        """Return the binding, or a sentence about what is missing."""
        said = {name: value for name, value in message.named.items() if value is not None}
        required = REQUIRED if said.get("intent", "open") == "open" else OF_AN_EXIT
        if all(name in said for name in required) and (route := self._route(said)):
            return self._binding(message, route, {})
        try:
            row = await self._row(message)
        except (Transient, Unusable) as error:
            return f"no account by execution.routing, and ClickHouse did not answer: {error}"[:300]
        if row is None:
            return "no account by execution.routing, and no row in ClickHouse"
        whole = row | said
        account = account_of(whole)
        route = self._route(whole) if account is None else {account: ONE}
        if not route:
            return "no account in the payload, in ClickHouse or by execution.routing"
        return self._binding(message, route, {name: value for name, value in row.items() if name not in said})

    def _route(self, named: Mapping[str, Any]) -> Mapping[str, Decimal]:
        return route_of(named.get("strategy"), str(named.get("symbol")), self._settings.execution.routing)

    async def _row(self, message: _Incomplete) -> dict[str, Any] | None:
        if message.topic == topics.ORDERS_SUBMITTED:
            return None if self._orders is None else await self._orders.order(message.id)
        return None if self._signals is None else await self._signals.signal(message.id)

    def _binding(self, message: _Incomplete, route: Mapping[str, Decimal], fields: dict[str, Any]) -> BindingRow:
        split = is_split(route)
        return BindingRow(
            kind=message.topic,
            id=message.id,
            account="" if split else next(iter(route)),
            weights=dict(route) if split else {},
            fields=fields,
            bound_at=self._clock(),
        )

    # --- what follows

    def _forward(self, message: _Incomplete, row: BindingRow) -> list[Record]:
        """Return the message for its account, or a copy for each of its accounts."""
        headers = self._headers(message)
        if row.fields:
            headers[COMPLETED] = to_json(row.fields)
        if row.account:
            return [self._addressed(message, row.account, headers)]
        return [
            self._addressed(message, account, headers | {topics.WEIGHT: decimal_text(weight).encode()})
            for account, weight in row.weights.items()
        ]

    def _addressed(self, message: _Incomplete, account: str, headers: dict[str, bytes]) -> Record:
        key, partition = account.encode(), partition_of(account, self._settings.kafka.partitions)
        return Record(message.topic, key, message.incoming.payload, headers | {topics.ACCOUNT: key}, partition)

    def _requeue(self, message: _Incomplete) -> Record:
        incoming = message.incoming
        return Record(topics.INCOMPLETE, incoming.key, incoming.payload, self._headers(message), incoming.partition)

    @staticmethod
    def _headers(message: _Incomplete) -> dict[str, bytes]:
        """Return the record's headers with its place in the stream, which it must not lose by being sent again."""
        incoming = message.incoming
        place = {
            topics.NATS_SEQUENCE: str(incoming.sequence).encode(),
            topics.NATS_TIME: time_text(incoming.at).encode(),
        }
        return dict(incoming.headers) | place

    async def _collect(self, incoming: Incoming) -> None:
        """Keep a copy's decision; returns when the archive and NATS have the answer, if it was the last one."""
        try:
            said = CopyMessage.decode(incoming.payload)
        except Unusable as error:
            await self._bury(incoming, error.reason, error.detail)
            return
        decision, key = said.copy_, binding_key(topics.SIGNALS_APPROVED, said.signal_id)
        row = self._bound(key, incoming.partition)
        if row is None or decision.account not in row.weights:
            detail = f"expected an account that {said.signal_id} was sent to, got {decision.account!r:.80}"
            await self._bury(incoming, "wrong_account", detail)
            return
        if decision.account not in row.decided:
            row = row.with_decision(decision, said.at)
            await self._store.commit(incoming.partition, {key: row.encode()})
        # The last one alone is answered, also when it is redelivered: not another message's by the same account.
        if row.answered_at == said.at and [*row.decided.values()][-1] == decision:
            copies = tuple(row.decided[account] for account in row.weights)
            answer = AnswerMessage(signal_id=said.signal_id, symbol=said.symbol, copies=copies, at=said.at)
            subject = subjects.signal_answered(said.symbol)
            publication = self._published(incoming, answer, subject, "answered", said.signal_id)
            await self._outbox.say_aside(incoming.partition, [publication], said.at)

    async def _refuse(self, message: _Incomplete, row: BindingRow) -> None:
        """Refuse what has no account; returns when the archive and NATS have it."""
        incoming = message.incoming
        if message.topic == topics.ORDERS_SUBMITTED:
            await self._bury(incoming, "unresolved", row.detail)
            publications = [self._order_error(message, row)]
        else:
            error = Unusable("unresolved", row.detail)
            publications = self._refusal(incoming, row.id, message.symbol, error, row.bound_at)
        await self._outbox.say_aside(incoming.partition, publications, row.bound_at)

    async def _answer(self, incoming: Incoming, error: Unusable) -> None:
        """Tell the sender of a signal that nobody can use, by its place in the stream, for it may have no id."""
        signal_id = self._readable_id(incoming)
        publications = self._refusal(incoming, signal_id, incoming.approved_symbol or "", error, incoming.at)
        await self._outbox.say_aside(incoming.partition, publications, incoming.at)

    async def _answer_command(self, incoming: Incoming, error: Unusable) -> None:
        """Tell whoever gave a command that nobody can use, if it has a request_id to answer on."""
        try:
            request_id = request_id_of(json_object(incoming.payload))
        except Unusable:
            request_id = None
        if request_id is not None:
            publication = command_refusal(incoming, error, request_id, self._settings.deployment)
            await self._outbox.say_aside(incoming.partition, [publication], incoming.at)

    def _readable_id(self, incoming: Incoming) -> str | None:
        try:
            return signal_id_of(renamed(json_object(incoming.payload), self._settings.execution))
        except Unusable:
            return None

    def _refusal(
        self, incoming: Incoming, signal_id: str | None, symbol: str, error: Unusable, at: datetime
    ) -> list[Publication]:
        decision, refused = undecided(
            error,
            signal_id=signal_id,
            account="",
            symbol=symbol,
            stream_seq=incoming.sequence,
            at=at,
            payload=incoming.payload,
        )
        subject = subjects.signal_refused(symbol)
        return [
            Publication(decision.encode(), trace=incoming.trace),
            self._published(incoming, refused, subject, "refused", "", signal_id or "", incoming.sequence),
        ]

    def _order_error(self, message: _Incomplete, row: BindingRow) -> Publication:
        error = ErrorMessage(
            error_id=error_id_for(row.id, 1, "invalid"),
            order_id=row.id,
            account="",
            symbol=message.symbol,
            kind="invalid",
            message=f"unresolved: {row.detail}"[:2000],
            attempt=1,
            final=True,
            at=row.bound_at,
            executor=self._settings.deployment,
        )
        return self._published(message.incoming, error, subjects.error(message.symbol), "error", error.error_id)

    def _published(self, incoming: Incoming, message: Message, subject: str, *parts: object) -> Publication:
        name = subjects.message_id(self._settings.deployment, *parts)
        return Publication(message.encode(), subject, name, incoming.trace)
