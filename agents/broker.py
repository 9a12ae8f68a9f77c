"""Broker: claims an order durably, hands it to its account's terminal once, and never guesses (design: submission).

For each group of commands of one account:

1. one look at each order's row says what to do (streamapp/domain/submission.py);
2. put the rows, awaited: from here on a claimed order is the terminal's to answer;
3. say SubmitClaimed and SubmitRefused, awaited;
4. submit, pipelined in order, each with its deadline;
5. put what was answered, awaited; say OutcomeUnknown for silence and conflicts, awaited. Then the caller acknowledges.

No fact is made from an answer: everything the journal holds comes back as a report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agents.breakers import Breakers, Link
from agents.dead_letters import dead_record
from agents.facts import fact_record
from agents.incoming import Incoming
from agents.ports import Terminals
from agents.readings import require_place
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.domain.facts import Body, OutcomeUnknown, SubmitClaimed, SubmitRefused, make_fact
from streamapp.domain.submission import Step, step_at_check, step_at_submit
from streamapp.domain.vocabulary import FINAL_STATUSES, decimal_text
from streamapp.errors import Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.command import CheckSubmission, SubmitOrder, decode_command
from streamapp.messages.terminal import SubmitReply, SubmitRequest
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.durable import DurableTable
from tables.submissions import SubmissionRow, submission_key

AT_ONCE = 32
"""Submits on their way to one terminal: one fsync follows another there, and the last must meet its deadline too."""

OrderStatus = Callable[[str], str | None]
"""Returns the status of an order by its id, None if it is not known; called in an event of its partition."""


@dataclass(frozen=True, slots=True)
class Task:
    """One order of a group and what is done with it."""

    step: Step
    row: SubmissionRow
    incoming: Incoming

    @property
    def is_asked(self) -> bool:
        """Whether the terminal is called."""
        return self.step in {"claim", "ask_again", "examine"}


def read_commands(
    events: list[Any], partitions: int, metrics: TradingMetrics
) -> tuple[list[tuple[SubmitOrder | CheckSubmission, Incoming]], list[Record]]:
    """Return the commands of a group, the first of each order, and dead letters for what is none.

    A check beside a submit of the same order adds nothing: both look at the same row.
    """
    commands: dict[str, tuple[SubmitOrder | CheckSubmission, Incoming]] = {}
    letters = []
    for incoming in map(Incoming.of, events):
        try:
            command = decode_command(incoming.payload)
            require_place(incoming, command.account, partitions)
        except Unusable as error:
            letters.append(dead_record(incoming.dead(error.reason, error.detail), incoming.key, incoming.partition))
            metrics.dead_letters.labels(incoming.topic, error.reason).inc()
            continue
        earlier = commands.get(command.order_id)
        if earlier is None or (isinstance(command, SubmitOrder) and not isinstance(earlier[0], SubmitOrder)):
            commands[command.order_id] = (command, incoming)
    return list(commands.values()), letters


class Broker:
    """The broker agent's work on one account's commands at a time, where we have terminals.

    Args:
        table: Table ``submissions``.
        producer: Where facts go.
        terminals: The port.
        breakers: Whether each account's terminal answers.
        order_status: The ledger's word on an order.
        settings: The settings.
        clock: The time.
        metrics: Counters.
    """

    def __init__(
        self,
        table: DurableTable[SubmissionRow],
        producer: Producer,
        *,
        terminals: Terminals,
        breakers: Breakers,
        order_status: OrderStatus,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
    ) -> None:
        self._table = table
        self._producer = producer
        self._terminals = terminals
        self._breakers = breakers
        self._order_status = order_status
        self._deadline_s = settings.broker.submit_deadline_s
        self._partitions = settings.kafka.partitions
        self._skew_s = settings.execution.max_clock_skew_s
        self._clock = clock
        self._metrics = metrics

    async def handle(self, events: list[Any]) -> None:
        """Carry out, or carry on with, commands of one account; everything that was learnt is durable on return.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker.
        """
        commands, letters = read_commands(events, self._partitions, self._metrics)
        tasks = [task for command, incoming in commands if (task := await self._task(command, incoming))]
        await self._table.put_all((_key(task), task.row) for task in tasks if task.step not in {"repeat", "examine"})
        if any(task.step == "claim" for task in tasks):
            reach("broker.after_claim")
        await self._producer.send_all([*letters, *(fact for task in tasks for fact in self._said(task))])
        await self._submit([task for task in tasks if task.is_asked])

    async def _task(self, command: SubmitOrder | CheckSubmission, incoming: Incoming) -> Task | None:
        row = self._table.get(submission_key(command.order_id))
        link = await self._breakers.known(command.account)
        now = self._clock()
        if isinstance(command, SubmitOrder):
            state = None if row is None else row.state
            step = step_at_submit(state, ready=link.ready, now=now, not_after=command.not_after)
            row = row or SubmissionRow(state="held", command=command, since=now)
        elif row is None:
            return (
                None  # the check outlived its row's partition being read anew; whoever has the command will submit it
            )
        else:
            step = self._step_at_check(row, link, now)
        return None if step == "wait" else Task(step, _next_row(step, row, link, now), incoming)

    def _step_at_check(self, row: SubmissionRow, link: Link, now: datetime) -> Step:
        elsewhere = link.epoch is not None and row.recorded_epoch not in {None, link.epoch}
        return step_at_check(
            row.state,
            ready=link.ready,
            now=now,
            not_after=row.command.not_after,
            skew_s=self._skew_s,
            recorded_elsewhere=elsewhere,
            final=elsewhere and self._order_status(row.command.order_id) in FINAL_STATUSES,
        )

    def _said(self, task: Task) -> list[Record]:
        """Return the facts that the row stands for; the same ones every time."""
        row, at = task.row, task.row.claimed_at
        facts: list[Record] = []
        if task.step in {"examine", "settle"}:
            return facts
        if row.state in {"claimed", "recorded"} and row.epoch is not None and at is not None:
            command = row.command
            claim = SubmitClaimed(attempt=command.attempt, epoch=row.epoch, not_after=command.not_after)
            facts.append(self._fact(task, claim, at))
        if row.refused is not None:
            refusal = SubmitRefused(
                attempt=row.command.attempt, reason=row.refused, message="never handed to a terminal"
            )
            facts.append(self._fact(task, refusal, row.since))
        if row.answer == "conflict":
            facts.append(self._doubt(task, "conflict", row.since))
        return facts

    # --- the terminal

    async def _submit(self, tasks: list[Task]) -> None:
        answered: list[tuple[Task, SubmitReply]] = []
        silent: list[Task] = []
        for start in range(0, len(tasks), AT_ONCE):
            slice_ = tasks[start : start + AT_ONCE]
            for task, reply in zip(slice_, await self._ask(slice_), strict=True):
                if reply is None:
                    silent.append(task)
                else:
                    answered.append((task, reply))
        if answered:
            reach("broker.after_reply")
        await self._record(answered, silent)

    async def _ask(self, tasks: list[Task]) -> list[SubmitReply | None]:
        """Submit in order; a terminal that is known to be silent is not asked, and that is silence as well."""
        if self._breakers.link(tasks[0].row.command.account).silent:
            return [None] * len(tasks)
        return await asyncio.gather(*(self._ask_one(task) for task in tasks))

    async def _ask_one(self, task: Task) -> SubmitReply | None:
        request = _request(task.row)
        asked_at = self._clock()
        with self._metrics.submit_seconds.time():
            reply = await self._terminals.submit(request, timeout_s=self._deadline_s)
        self._metrics.submits.labels("none" if reply is None else reply.state).inc()
        if reply is None:
            self._breakers.silent(request.account)
        else:
            self._breakers.heard(request.account, reply.epoch, reply.clock, asked_at)
        return reply

    async def _record(self, answered: list[tuple[Task, SubmitReply]], silent: list[Task]) -> None:
        rows = [_recorded(task.row, reply) for task, reply in answered]
        await self._table.put_all((submission_key(row.command.order_id), row) for row in rows)
        now = self._clock()
        doubts = [
            self._doubt(task, "conflict", task.row.since) for task, reply in answered if reply.state == "conflict"
        ]
        doubts += [self._doubt(task, "no_answer", now) for task in silent if task.row.state == "claimed"]
        await self._producer.send_all(doubts)

    # --- facts

    def _doubt(self, task: Task, why: str, at: datetime) -> Record:
        self._metrics.unknown.labels(why).inc()
        return self._fact(task, OutcomeUnknown(attempt=task.row.command.attempt, why=why), at)

    def _fact(self, task: Task, body: Body, at: datetime) -> Record:
        command = task.row.command
        fact = make_fact(command.account, command.order_id, body, at=at, causation_id=f"order:{command.order_id}")
        return fact_record(fact, task.incoming.partition, task.incoming.trace)


def _key(task: Task) -> bytes:
    return submission_key(task.row.command.order_id)


def _next_row(step: Step, row: SubmissionRow, link: Link, now: datetime) -> SubmissionRow:
    if step == "claim":
        return row.model_copy(update={"state": "claimed", "epoch": link.epoch, "claimed_at": now, "since": now})
    if step == "refuse":
        return row.model_copy(update={"state": "refused", "refused": "not_connected", "since": now})
    if step == "settle":
        return row.model_copy(update={"recorded_epoch": link.epoch})
    return row


def _recorded(row: SubmissionRow, reply: SubmitReply) -> SubmissionRow:
    return row.model_copy(update={"state": "recorded", "recorded_epoch": reply.epoch, "answer": reply.state})


def _request(row: SubmissionRow) -> SubmitRequest:
    command = row.command
    assert row.epoch is not None
    return SubmitRequest(
        order_id=command.order_id,
        account=command.account,
        hash=command.parameters_hash,
        epoch=row.epoch,
        attempt=command.attempt,
        not_after=command.not_after,
        parameters=command.parameters,
        expected_price=None if command.expected_price is None else decimal_text(command.expected_price),
        max_slippage_points=command.max_slippage_points,
    )
