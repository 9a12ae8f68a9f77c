"""The broker agent of role execution: somebody else's connector executes, so the durable claim is the submission.

The ledger's revision that SubmitClaimed makes is published as ``orders.submitted``. Nothing is claimed after not_after,
and who does not answer by then leaves a doubt.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from agents.broker import OrderStatus, read_commands
from agents.facts import fact_record
from agents.incoming import Incoming
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.domain.facts import Body, OutcomeUnknown, SubmitClaimed, SubmitRefused, make_fact
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.command import CheckSubmission, SubmitOrder
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.submissions import HANDED_OVER, SubmissionRow, submission_key

UNANSWERED = frozenset({None, "pending", "submitted"})
"""Statuses under which no connector has said anything yet."""

Step = Literal["claim", "refuse", "give_up", "settle", "repeat"]


class Handover:
    """The work on one account's commands at a time; arguments as of :class:`agents.broker.Broker`."""

    def __init__(
        self,
        table: DurableTable[SubmissionRow],
        producer: Producer,
        *,
        order_status: OrderStatus,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
    ) -> None:
        self._table = table
        self._producer = producer
        self._order_status = order_status
        self._partitions = settings.kafka.partitions
        self._skew = timedelta(seconds=settings.execution.max_clock_skew_s)
        self._clock = clock
        self._metrics = metrics

    async def handle(self, events: list[Any]) -> None:
        """Claim, or look at, orders of one account; everything is durable on return. Errors as of ``Broker.handle``."""
        commands, letters = read_commands(events, self._partitions, self._metrics)
        tasks = [task for command, incoming in commands if (task := self._task(command, incoming))]
        changed = [(submission_key(row.command.order_id), row) for step, row, _ in tasks if step in {"claim", "refuse"}]
        await self._table.put_all(changed)
        if any(step == "claim" for step, _, _ in tasks):
            reach("broker.after_claim")
        await self._producer.send_all([*letters, *(fact for task in tasks for fact in self._said(*task))])
        # A doubt is said before its row is settled: the other way round a crash in between would leave it unsaid.
        over = [(submission_key(row.command.order_id), row) for step, row, _ in tasks if step in {"give_up", "settle"}]
        await self._table.put_all(over)

    def _task(
        self, command: SubmitOrder | CheckSubmission, incoming: Incoming
    ) -> tuple[Step, SubmissionRow, Incoming] | None:
        row, now = self._table.get(submission_key(command.order_id)), self._clock()
        if row is None:
            if not isinstance(command, SubmitOrder):
                return None
            step: Step = "claim" if now < command.not_after else "refuse"
            return step, self._first_row(command, now, step), incoming
        if isinstance(command, SubmitOrder):
            # The claim again, durable and said; if its time is over, the timer's next check makes it a doubt.
            return ("claim" if row.state == "claimed" else "repeat"), row, incoming
        if row.state != "claimed" or now <= row.command.not_after + self._skew:
            return None
        step = "give_up" if self._order_status(command.order_id) in UNANSWERED else "settle"
        return step, row.model_copy(update={"state": "recorded", "recorded_epoch": HANDED_OVER}), incoming

    @staticmethod
    def _first_row(command: SubmitOrder, now: datetime, step: Step) -> SubmissionRow:
        if step == "refuse":
            return SubmissionRow(state="refused", command=command, since=now, refused="stale")
        return SubmissionRow(state="claimed", command=command, since=now, epoch=HANDED_OVER, claimed_at=now)

    def _said(self, step: Step, row: SubmissionRow, incoming: Incoming) -> list[Record]:
        attempt = row.command.attempt
        if step == "give_up":
            self._metrics.unknown.labels("no_answer").inc()
            return [self._fact(row, incoming, OutcomeUnknown(attempt=attempt, why="no_answer"), row.command.not_after)]
        if step == "settle":
            return []
        if row.refused is not None:
            message = "past not_after before it could be handed over"
            refusal = SubmitRefused(attempt=attempt, reason=row.refused, message=message)
            return [self._fact(row, incoming, refusal, row.since)]
        claim = SubmitClaimed(attempt=attempt, epoch=row.epoch or HANDED_OVER, not_after=row.command.not_after)
        return [self._fact(row, incoming, claim, row.claimed_at or row.since)]

    @staticmethod
    def _fact(row: SubmissionRow, incoming: Incoming, body: Body, at: datetime) -> Record:
        command = row.command
        fact = make_fact(command.account, command.order_id, body, at=at, causation_id=f"order:{command.order_id}")
        return fact_record(fact, incoming.partition, incoming.trace)
