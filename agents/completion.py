"""Completion: finds the account, and the fields, of signals and orders that came without (design: architecture).

The account is pinned to the id, durably, before the message is sent on: whatever ClickHouse or ``routing`` say later,
the id keeps its account, so that it can't become two orders on two accounts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import to_json

from agents.dead_letters import dead_record
from agents.errors import error_record
from agents.execution import refusal_headers
from agents.incoming import ACCOUNT, COMPLETED, Incoming
from agents.ports import OrderRows, SignalRows
from agents.readings import SHOWN_SYMBOL
from streamapp import subjects, topics
from streamapp.clock import Clock
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Transient, Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.decision import DecisionMessage, RefusedMessage
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import account_of, renamed, routed_account, signal_id_of
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.pins import PinRow, pin_key

REQUIRED = ("symbol", "side", "order_type", "volume")
"""What an order needs beside its id and account; without one of them routing alone is not enough."""
LOOK_S = 2.0
"""How long one delivery waits, for it holds back acknowledgements and rebalances; then it goes to its topic's end."""
FIRST_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class _Incomplete:
    """What came: a signal (for ``signals_approved``) or an order (for ``orders_submitted``)."""

    incoming: Incoming
    topic: str
    id: str
    named: dict[str, Any]

    @property
    def key(self) -> bytes:
        return pin_key(self.topic, self.id)

    @property
    def symbol(self) -> str:
        symbol = self.named.get("symbol")
        return symbol[:SHOWN_SYMBOL] if isinstance(symbol, str) else ""


class Completion:
    """The completion agent's work on one message.

    Args:
        table: Table ``pins``.
        producer: Where completed messages and refusals go.
        settings: The settings.
        clock: The time.
        metrics: Counters.
        signals: The risk engine's table; None: routing alone.
        orders: The execution service's table of orders; None: routing alone.
    """

    def __init__(
        self,
        table: DurableTable[PinRow],
        producer: Producer,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
        *,
        signals: SignalRows | None = None,
        orders: OrderRows | None = None,
    ) -> None:
        self._table = table
        self._producer = producer
        self._settings = settings
        self._ttl = timedelta(seconds=settings.execution.signal_ttl_s)
        self._clock = clock
        self._metrics = metrics
        self._signals = signals
        self._orders = orders

    async def handle(self, event: Any) -> None:
        """Send one message on, or refuse it at its deadline, or put it at the end of the topic to be looked at again.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker.
        """
        incoming = Incoming.of(event)
        try:
            message = self._read(incoming)
        except Unusable as error:
            self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()
            letter = incoming.dead(error.reason, error.detail)
            await self._producer.send_all([dead_record(letter, incoming.key, incoming.partition)])
            return
        row = self._table.get(message.key) or await self._resolve(message)
        if row is None:
            await self._producer.send_all([self._again(message)])
            return
        await self._table.put(message.key, row)
        await self._producer.send_all(self._refusal(message, row) if not row.account else [self._sent_on(message, row)])
        self._metrics.pins.labels("pinned" if row.account else "unresolved").inc()

    def _read(self, incoming: Incoming) -> _Incomplete:
        payload = json_object(incoming.payload)
        if self._is_order(incoming):
            named, topic, name = payload, topics.ORDERS_SUBMITTED, payload.get("order_id")
            identifier = signal_id_of({"signal_id": name})
        else:
            named, topic = renamed(payload, self._settings.execution), topics.SIGNALS_APPROVED
            identifier = signal_id_of(named)
        if identifier is None:
            raise Unusable("no_id", "expected a signal_id or order_id of 1 to 128 visible ASCII characters")
        return _Incomplete(incoming, topic, identifier, named)

    def _is_order(self, incoming: Incoming) -> bool:
        subject = incoming.text(topics.NATS_SUBJECT)
        if subject is None:
            return self._settings.role == "connector"
        return subject.startswith(f"{subjects.ORDERS_SUBMITTED}.")

    # --- finding

    async def _resolve(self, message: _Incomplete) -> PinRow | None:
        """Return the pin, one that says unresolved when it is too late, or None if somebody should look again."""
        started, pause_s = self._clock(), FIRST_PAUSE_S
        while True:
            found = await self._look(message)
            now = self._clock()
            if isinstance(found, PinRow):
                return found
            if now >= message.incoming.at + self._ttl:
                return PinRow(kind=message.topic, id=message.id, account="", detail=found, pinned_at=now)
            if now - started >= timedelta(seconds=LOOK_S):
                return None
            await asyncio.sleep(pause_s)
            pause_s *= 2

    async def _look(self, message: _Incomplete) -> PinRow | str:
        """Return the pin, or a sentence about what is missing."""
        said = {name: value for name, value in message.named.items() if value is not None}
        if all(name in said for name in REQUIRED) and (account := self._routed(said)):
            return self._pin(message, account, {})
        try:
            row = await self._row(message)
        except Transient as error:
            return f"no account by execution.routing, and ClickHouse did not answer: {error}"[:300]
        if row is None:
            return "no account by execution.routing, and no row in ClickHouse"
        whole = row | said
        account = account_of(whole) or self._routed(whole)
        if not account:
            return "no account in the payload, in ClickHouse or by execution.routing"
        return self._pin(message, account, {name: value for name, value in row.items() if name not in said})

    def _routed(self, named: Mapping[str, Any]) -> str | None:
        return routed_account(named.get("strategy"), str(named.get("symbol")), self._settings.execution.routing)

    async def _row(self, message: _Incomplete) -> dict[str, Any] | None:
        if message.topic == topics.ORDERS_SUBMITTED:
            return None if self._orders is None else await self._orders.order(message.id)
        return None if self._signals is None else await self._signals.signal(message.id)

    def _pin(self, message: _Incomplete, account: str, fields: dict[str, Any]) -> PinRow:
        return PinRow(kind=message.topic, id=message.id, account=account, fields=fields, pinned_at=self._clock())

    # --- saying

    def _sent_on(self, message: _Incomplete, row: PinRow) -> Record:
        headers = self._headers(message) | {ACCOUNT: row.account.encode()}
        if row.fields:
            headers[COMPLETED] = to_json(row.fields)
        partition = partition_of(row.account, self._settings.kafka.partitions)
        return Record(message.topic, row.account.encode(), message.incoming.payload, headers, partition)

    def _again(self, message: _Incomplete) -> Record:
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

    def _refusal(self, message: _Incomplete, row: PinRow) -> list[Record]:
        if message.topic == topics.ORDERS_SUBMITTED:
            return self._order_refusal(message, row)
        incoming = message.incoming
        said = {"signal_id": row.id, "account": "", "symbol": message.symbol, "reason": "unresolved"}
        refused = RefusedMessage(**said, detail=row.detail, at=row.pinned_at)
        decision = DecisionMessage(
            **said,
            stream_seq=incoming.sequence,
            decision="refused",
            detail=row.detail,
            at=row.pinned_at,
            payload=incoming.payload.decode("utf-8", "replace"),
        )
        headers = refusal_headers(self._settings.deployment, "", row.id, incoming.sequence, message.symbol)
        return [
            Record(topics.UPDATES, incoming.key, decision.encode(), incoming.trace, incoming.partition),
            Record(topics.UPDATES, incoming.key, refused.encode(), headers | incoming.trace, incoming.partition),
        ]

    def _order_refusal(self, message: _Incomplete, row: PinRow) -> list[Record]:
        incoming, detail = message.incoming, f"unresolved: {row.detail}"
        letter = dead_record(incoming.dead("unresolved", row.detail), incoming.key, incoming.partition)
        error = error_record(
            self._settings,
            incoming,
            order_id=row.id,
            account="",
            symbol=message.symbol,
            kind="invalid",
            message=detail,
            final=True,
            at=row.pinned_at,
        )
        return [letter, error]
