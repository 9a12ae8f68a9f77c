"""Execution: one decision for each signal, durable before anything follows (design: order-status, submission step 1).

For each group of messages of one account:

1. decide on each: judged once, and only the first message of a signal;
2. put the decisions, awaited;
3. send OrderCreated and SubmitOrder, awaited;
4. send the decisions (signal/1) and refusals (refused/1), awaited; then the caller acknowledges.

A redelivery does 2 to 4 again from the row: same words, whatever the clock and the settings say by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from agents.dead_letters import dead_record
from agents.facts import fact_record
from agents.incoming import Incoming
from agents.readings import Reading, read
from agents.rows import RowGate
from streamapp import subjects, topics
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.domain.facts import OrderCreated, make_fact
from streamapp.domain.guards import Limits
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import parameters_hash
from streamapp.domain.signals import ACCEPTED, Rules, Verdict, judge, judge_again, not_after, signal_time
from streamapp.errors import Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.command import SubmitOrder
from streamapp.messages.decision import DecisionMessage, RefusedMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.signals import SignalRow

FOREIGN = "foreign"
"""The executor of an order that somebody else's connector is to send."""


def rules_of(settings: Settings) -> Rules:
    """Return the settings a decision depends on."""
    execution, guards = settings.execution, settings.guards
    return Rules(
        accounts=frozenset(settings.accounts),
        needs_approval=execution.approval == "payload",
        ttl_s=execution.signal_ttl_s,
        skew_s=execution.max_clock_skew_s,
        limits=Limits(guards.max_volume, frozenset(guards.symbols)),
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one message of a signal is answered with; ``row`` is the signal's, ``first``: this message made it."""

    reading: Reading
    row: SignalRow
    verdict: Verdict
    first: bool


class Execution:
    """The execution agent's work on one account's messages at a time.

    Args:
        table: Table ``signals``.
        producer: Where facts, commands and updates go.
        settings: The settings.
        clock: The time.
        gate: Whether the risk engine's row is there, where ``execution.require_row`` asks for it.
        halted: Why an account must not open orders now; None if it may.
        metrics: Counters.
    """

    def __init__(
        self,
        table: DurableTable[SignalRow],
        producer: Producer,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
        *,
        gate: RowGate | None = None,
        halted: Callable[[str], str | None] = lambda _account: None,
    ) -> None:
        self._table = table
        self._producer = producer
        self._settings = settings
        self._rules = rules_of(settings)
        self._clock = clock
        self._metrics = metrics
        self._gate = gate
        self._halted = halted

    async def handle(self, events: list[Any]) -> None:
        """Decide on messages of one account in their order, or repeat what was decided; all is durable on return.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker; everything comes again.
        """
        readings, letters = self._read([Incoming.of(event) for event in events])
        answers = await self._decide(readings)
        decided = {answer.reading.key: answer.row for answer in answers if answer.first}
        await self._table.put_all(decided.items())
        reach("execution.after_put")
        # Fact and command together, one wait instead of two: if only one of them gets there, nothing is acknowledged,
        # and the redelivery says both again from the durable decision, with the same ids.
        await self._producer.send_all([*self._orders(answers), *letters])
        await self._producer.send_all(self._updates(answers))
        reach("execution.after_emit")
        for answer in answers:
            self._metrics.decisions.labels(answer.verdict.decision, answer.verdict.reason or "").inc()

    def _read(self, records: list[Incoming]) -> tuple[list[Reading], list[Record]]:
        readings, letters = [], []
        for incoming in records:
            try:
                readings.append(read(incoming, self._settings))
            except Unusable as error:
                letters.append(dead_record(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition))
                self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()
        return readings, letters

    async def _decide(self, readings: list[Reading]) -> list[_Answer]:
        rows: dict[bytes, SignalRow | None] = {reading.key: self._table.get(reading.key) for reading in readings}
        fresh = {reading.key: reading for reading in reversed(readings) if rows[reading.key] is None}
        verdicts = await asyncio.gather(*(self._judge(reading) for reading in fresh.values()))
        for reading, verdict in zip(fresh.values(), verdicts, strict=True):
            rows[reading.key] = self._row(reading, verdict)
        return [self._answer(reading, row) for reading in readings if (row := rows[reading.key]) is not None]

    def _answer(self, reading: Reading, row: SignalRow) -> _Answer:
        if reading.incoming.sequence == row.stream_seq:
            return _Answer(reading, row, row.verdict, first=True)
        return _Answer(reading, row, judge_again(row.recorded, reading.fingerprint), first=False)

    async def _judge(self, reading: Reading) -> Verdict:
        if reading.signal is None:
            return Verdict("refused", "bad_field", reading.fault)
        stream_time = reading.incoming.at
        halted = self._halted(reading.account)
        verdict = judge(reading.signal, self._rules, stream_time=stream_time, now=self._clock(), halted=halted)
        if self._gate is None or verdict != ACCEPTED:
            return verdict
        return await self._gate.verdict(reading, not_after(reading.signal, self._rules, stream_time))

    def _row(self, reading: Reading, verdict: Verdict) -> SignalRow:
        row = SignalRow(
            account=reading.account,
            signal_id=reading.signal_id,
            stream_seq=reading.incoming.sequence,
            verdict=verdict,
            fingerprint=reading.fingerprint,
            parameters_hash=None if reading.signal is None else parameters_hash(reading.signal.parameters),
            symbol=reading.symbol,
            strategy=reading.strategy,
            decided_at=self._clock(),
        )
        if verdict != ACCEPTED or reading.signal is None:
            return row
        order_id = order_id_for(self._settings.deployment, reading.account, reading.signal_id)
        return row.model_copy(update={"order_id": order_id, "created": self._created(reading)})

    def _created(self, reading: Reading) -> OrderCreated:
        signal, stream_time = reading.signal, reading.incoming.at
        assert signal is not None
        return OrderCreated(
            parameters=signal.parameters,
            parameters_hash=reading.fingerprint,
            signal_id=reading.signal_id,
            strategy=signal.strategy,
            expected_price=signal.expected_price,
            max_slippage_points=signal.max_slippage_points,
            signal_at=signal_time(signal, stream_time),
            not_after=not_after(signal, self._rules, stream_time),
            executor=self._settings.deployment if self._settings.is_executor else FOREIGN,
            metadata=signal.metadata,
        )

    def _orders(self, answers: list[_Answer]) -> Iterator[Record]:
        for answer in answers:
            if answer.first and answer.row.created is not None:
                yield from order_records(answer.row, answer.reading.incoming)

    def _updates(self, answers: list[_Answer]) -> Iterator[Record]:
        for answer in answers:
            yield self._update(answer, self._decision(answer).encode(), {})
            if answer.verdict.decision in {"refused", "conflict"}:
                yield self._update(answer, self._refused(answer).encode(), self._publication(answer))

    def _update(self, answer: _Answer, value: bytes, headers: dict[str, bytes]) -> Record:
        incoming = answer.reading.incoming
        return Record(topics.UPDATES, answer.row.account.encode(), value, headers | incoming.trace, incoming.partition)

    def _decision(self, answer: _Answer) -> DecisionMessage:
        reading, verdict = answer.reading, answer.verdict
        same = answer.first or verdict.decision == "duplicate"
        return DecisionMessage(
            account=reading.account,
            signal_id=reading.signal_id,
            stream_seq=reading.incoming.sequence,
            symbol=reading.symbol,
            strategy=reading.strategy,
            decision=verdict.decision,
            reason=verdict.reason,
            detail=verdict.detail,
            order_id=answer.row.order_id,
            parameters_hash=answer.row.parameters_hash if same else _hash_of(reading),
            at=_time_of(answer),
            payload=reading.incoming.payload.decode("utf-8", "replace"),
        )

    def _refused(self, answer: _Answer) -> RefusedMessage:
        return RefusedMessage(
            signal_id=answer.row.signal_id,
            account=answer.row.account,
            symbol=answer.reading.symbol,
            reason=answer.verdict.reason or answer.verdict.decision,
            detail=answer.verdict.detail,
            order_id=answer.row.order_id,
            at=_time_of(answer),
        )

    def _publication(self, answer: _Answer) -> dict[str, bytes]:
        row, sequence = answer.row, answer.reading.incoming.sequence
        return refusal_headers(self._settings.deployment, row.account, row.signal_id, sequence, answer.reading.symbol)


def refusal_headers(deployment: str, account: str, signal_id: str, sequence: int, symbol: str) -> dict[str, bytes]:
    """Return the headers by which a refused/1 is published once; the account is escaped, it is whatever was sent."""
    message_id = subjects.message_id(deployment, "refused", subjects.token(account), signal_id, sequence)
    return {
        topics.PUBLISH_SUBJECT: subjects.signal_refused(symbol).encode(),
        topics.PUBLISH_ID: message_id.encode(),
    }


def order_records(row: SignalRow, incoming: Incoming) -> list[Record]:
    """Return the fact and the command of an accepted row: the same bytes every time."""
    created, order_id = row.created, row.order_id
    assert created is not None
    assert order_id is not None
    cause = f"signal:{row.account}:{row.signal_id}:{row.stream_seq}"
    command = SubmitOrder(
        order_id=order_id,
        account=row.account,
        signal_id=created.signal_id,
        parameters=created.parameters,
        parameters_hash=created.parameters_hash,
        not_after=created.not_after,
        expected_price=created.expected_price,
        max_slippage_points=created.max_slippage_points,
        executor=created.executor,
    )
    key, partition = row.account.encode(), incoming.partition
    fact = make_fact(row.account, order_id, created, at=row.decided_at, causation_id=cause)
    return [
        fact_record(fact, partition, incoming.trace),
        Record(topics.ORDER_COMMANDS, key, command.encode(), incoming.trace, partition),
    ]


def _hash_of(reading: Reading) -> str | None:
    return None if reading.signal is None else reading.fingerprint


def _time_of(answer: _Answer) -> Any:
    # Of a message that made no row only the stream's time is the same every time it is delivered.
    return answer.row.decided_at if answer.first else answer.reading.incoming.at
