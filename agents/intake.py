"""Intake, in role connector: orders of somebody else's execution service become orders of ours under the id they have.

The same promise as execution's: one decision for each order id, durable before anything follows from it. What can't be
used is a dead letter and a ``broker.error``; what names another executor is none of our business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from agents.dead_letters import dead_record
from agents.errors import error_record
from agents.execution import order_records, rules_of
from agents.incoming import ACCOUNT, COMPLETED, Incoming
from agents.readings import SHOWN_SYMBOL, require_place
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.domain.facts import OrderCreated
from streamapp.domain.signals import ACCEPTED, Verdict, fingerprint_of, judge, judge_again, not_after, signal_time
from streamapp.errors import Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import Signal, account_of, read_signal, signal_id_of
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.signals import SignalRow, signal_key

ANY_CONNECTOR = "foreign"
"""The executor that an execution service names when it means somebody else's connector: here, us."""

Outcome = Literal["accepted", "repeated", "duplicate", "conflict", "refused", "not_ours"]


@dataclass(frozen=True, slots=True)
class _Order:
    """An order as a signal, for the rules are the same; ``signal`` is None where a field is bad: see ``fault``."""

    incoming: Incoming
    order_id: str
    account: str
    signal_id: str
    symbol: str
    signal: Signal | None
    fault: str | None
    fingerprint: str

    @property
    def key(self) -> bytes:
        return signal_key(self.account, self.order_id)


class Intake:
    """The intake agent's work on one account's orders at a time; arguments as of ``agents.execution.Execution``."""

    def __init__(
        self,
        table: DurableTable[SignalRow],
        producer: Producer,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
        *,
        halted: Callable[[str], str | None] = lambda _account: None,
    ) -> None:
        self._table = table
        self._producer = producer
        self._settings = settings
        self._rules = replace(rules_of(settings), needs_approval=False)
        self._clock = clock
        self._metrics = metrics
        self._halted = halted

    async def handle(self, events: list[Any]) -> None:
        """Take over, or refuse, orders of one account; everything is durable on return. Errors as of ``Execution``."""
        rows: dict[bytes, SignalRow] = {}
        records: list[Record] = []
        for incoming in map(Incoming.of, events):
            try:
                outcome, said = self._take(incoming, rows)
            except Unusable as error:
                outcome, said = "refused", self._refusal(incoming, error)
            records += said
            self._metrics.foreign_orders.labels(outcome).inc()
        await self._table.put_all(rows.items())
        reach("execution.after_put")
        await self._producer.send_all(records)
        reach("execution.after_emit")

    def _take(self, incoming: Incoming, rows: dict[bytes, SignalRow]) -> tuple[Outcome, list[Record]]:
        named = _named(incoming)
        if named.get("executor") not in (None, ANY_CONNECTOR, self._settings.deployment):
            return "not_ours", []
        order = self._read(incoming, named)
        row = rows.get(order.key) or self._table.get(order.key)
        if row is None:
            row = rows[order.key] = self._row(order, self._verdict(order))
        elif row.stream_seq == incoming.sequence:
            rows[order.key] = row
        else:
            return self._again(order, row)
        if row.created is None:
            return "refused", self._refusal(
                incoming, Unusable(row.verdict.reason or "refused", row.verdict.detail or "")
            )
        return "accepted", order_records(row, incoming)

    def _again(self, order: _Order, row: SignalRow) -> tuple[Outcome, list[Record]]:
        verdict = judge_again(row.recorded, order.fingerprint)
        if verdict.decision == "duplicate":
            return "duplicate", []
        # Not final: the first order stands, whatever becomes of it.
        return "conflict", self._refusal(order.incoming, Unusable("conflict", verdict.detail or ""), final=False)

    def _read(self, incoming: Incoming, named: dict[str, Any]) -> _Order:
        order_id = signal_id_of({"signal_id": named.get("order_id")})
        if order_id is None:
            raise Unusable("no_order_id", "order_id: expected 1 to 128 visible ASCII characters")
        account = account_of(named)
        if account is None:
            raise Unusable("no_account", "account: expected a name")
        require_place(incoming, account, self._settings.kafka.partitions)
        signal, fault = _signal(named, order_id, account)
        digest = hashlib.sha256(incoming.payload).hexdigest()
        fingerprint = fingerprint_of(signal, digest)
        return _Order(
            incoming, order_id, account, signal_id_of(named) or order_id, _symbol(named), signal, fault, fingerprint
        )

    def _verdict(self, order: _Order) -> Verdict:
        if order.signal is None:
            return Verdict("refused", "bad_field", order.fault)
        halted = self._halted(order.account)
        return judge(order.signal, self._rules, stream_time=order.incoming.at, now=self._clock(), halted=halted)

    def _row(self, order: _Order, verdict: Verdict) -> SignalRow:
        signal = order.signal
        row = SignalRow(
            account=order.account,
            signal_id=order.order_id,
            stream_seq=order.incoming.sequence,
            verdict=verdict,
            fingerprint=order.fingerprint,
            parameters_hash=None if signal is None else order.fingerprint,
            symbol=order.symbol,
            strategy=None if signal is None else signal.strategy,
            decided_at=self._clock(),
        )
        if verdict != ACCEPTED or signal is None:
            return row
        return row.model_copy(update={"order_id": order.order_id, "created": self._created(order, signal)})

    def _created(self, order: _Order, signal: Signal) -> OrderCreated:
        stream_time = order.incoming.at
        return OrderCreated(
            parameters=signal.parameters,
            parameters_hash=order.fingerprint,
            signal_id=order.signal_id,
            strategy=signal.strategy,
            expected_price=signal.expected_price,
            max_slippage_points=signal.max_slippage_points,
            signal_at=signal_time(signal, stream_time),
            not_after=not_after(signal, self._rules, stream_time),
            executor=self._settings.deployment,
            metadata=signal.metadata,
        )

    def _refusal(self, incoming: Incoming, error: Unusable, *, final: bool = True) -> list[Record]:
        self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()
        records = [dead_record(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition)]
        try:
            named = _named(incoming)
        except Unusable:
            return records
        if (order_id := signal_id_of({"signal_id": named.get("order_id")})) is None:
            return records
        notice = error_record(
            self._settings,
            incoming,
            order_id=order_id,
            account=account_of(named) or "",
            symbol=_symbol(named),
            kind="invalid" if final else "duplicate",
            message=f"{error.reason}: {error.detail}",
            final=final,
            at=incoming.at,
        )
        return [*records, notice]


def _named(incoming: Incoming) -> dict[str, Any]:
    named = json_object(incoming.payload)
    if COMPLETED in incoming.headers:
        named = json_object(incoming.headers[COMPLETED]) | _without_nothing(named)
    if named.get("account") is None and (account := incoming.text(ACCOUNT)) is not None:
        named = named | {"account": account}
    return named


def _signal(named: dict[str, Any], order_id: str, account: str) -> tuple[Signal | None, str | None]:
    times = {"approved_at": named.get("signal_at"), "valid_until": named.get("not_after")}
    try:
        return read_signal(_without_nothing(named) | times | {"signal_id": order_id, "account": account}), None
    except Unusable as error:
        return None, error.detail


def _symbol(named: dict[str, Any]) -> str:
    symbol = named.get("symbol")
    return symbol[:SHOWN_SYMBOL] if isinstance(symbol, str) else ""


def _without_nothing(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if value is not None}
