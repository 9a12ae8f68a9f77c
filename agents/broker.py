"""The broker agent: carries out the desk's effects on the terminals and feeds their answers back (design: submission).

Beside the lanes, so that a hung terminal never delays what is reported. One breaker an account: only while its terminal
answers, and its clock agrees with ours, anything new is claimed for it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, Protocol

from streamapp import logs
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.desk.effects import AckReports, Asker, Effect, Operate, Submit, Terminals
from streamapp.desk.inputs import Internal, OperationAnswered, Released, SubmitAnswered, SubmitUnanswered, Sweep
from streamapp.desk.state import TerminalStatus
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import Connection
from streamapp.kafka.abort import end_worker
from streamapp.messages.terminal import AckRequest, HelloReply, ReplayRequest, SubmitReply, SubmitRequest
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from streamapp.tracing import Spans
from tables.orders import OpenOrder, OrderIndex

logger = logging.getLogger(__name__)

AT_ONCE = 32
"""Submits on their way to one terminal: one fsync follows another there, and the last must meet its deadline too."""
SWEPT_AT_ONCE = 200
"""Orders of one account that are looked at again at a time, the oldest first: a lane's work of about a second."""
AGAIN_S = 5.0
"""An order that still waits is looked at again after so long, more than a handling takes."""
GREETING_S = 5.0
"""Between two hellos to a terminal that is ready: it shows a new journal, or reports that are missing."""
REPLAY_PAUSE_S = 5.0
"""Between two replays of one account: the first one's reports come by NATS, mirror and Kafka, some tens of milliseconds
each way, and thousands of them may be on their way."""
ACK_PAUSE_S = 1.0
"""Between two acks to one terminal, each of which is a commit of its journal: the newest says all, and what a terminal
keeps for a second longer costs it nothing."""
OPERATION_DEADLINE_S = 6.0
"""For an operation: a terminal says within five seconds that it does not know yet."""
ASK_DEADLINE_S = 2.0
"""For an ack or a replay: a healthy terminal answers within a few milliseconds."""


class DeskInputs(Protocol):
    """What the broker needs of the desk (:class:`agents.desk.Desk`)."""

    index: OrderIndex

    def put(self, account: str, new: Internal) -> None:
        """Let something happen at an account; forgotten if the account is another worker's."""

    def is_pursuing(self, account: str) -> bool:
        """Return whether an exit or a command of the account is not done."""

    def reported(self, account: str) -> tuple[str, int] | None:
        """Return the epoch and number up to which an account's reports are durable; None: another worker's account."""


@dataclass(frozen=True, slots=True)
class Link:
    """What we know of an account's terminal. ``epoch`` None: it never answered; ``fault`` None: it is ready.

    ``clock_skew``: its clock less ours, as its last answer showed it.
    """

    epoch: str | None = None
    fault: str | None = "the terminal has not answered yet"
    connection: Connection | None = None
    asked: bool = False
    silent: bool = False
    clock_skew: timedelta | None = None

    @property
    def ready(self) -> bool:
        """Whether something new may be claimed."""
        return self.fault is None and self.epoch is not None

    @property
    def status(self) -> TerminalStatus:
        """What the desk needs of it."""
        return TerminalStatus(self.ready, self.epoch)


@dataclass(slots=True)
class _Dealings:
    submits: deque[SubmitRequest] = field(default_factory=deque)
    submitting: set[asyncio.Task[None]] = field(default_factory=set)
    operating: dict[Asker, asyncio.Task[None]] = field(default_factory=dict)
    on_the_way: dict[str, datetime] = field(default_factory=dict)
    ack: AckReports | None = None
    acked_s: float | None = None
    ack_due: asyncio.TimerHandle | None = None
    acking: asyncio.Task[None] | None = None
    replaying: asyncio.Task[None] | None = None
    replayed_s: float | None = None
    greeted_s: float | None = None
    seen_at_hello: tuple[str, int, int] | None = None
    swept: dict[str, datetime] = field(default_factory=dict)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is on its way to the terminal."""
        return [
            *self.submitting,
            *self.operating.values(),
            *(task for task in (self.acking, self.replaying) if task is not None),
        ]

    def begin_nothing_more(self) -> None:
        """Forget what waits; what is on its way goes on."""
        self.submits.clear()
        self.ack = None


class Broker:
    """One worker's terminals.

    Args:
        terminals: The port; None in role execution, where somebody else's connector executes.
        settings: Accounts and deadlines.
        clock: The time.
        metrics: What is counted.
        spans: What is told of orders' way, None where nothing is.
        clock_s: A monotonic clock in seconds.
        ack_pause_s: Between two acks to one terminal.
        new_id: A name for a replay that was never used before: JetStream drops messages whose ids it has seen.
    """

    def __init__(
        self,
        terminals: Terminals | None,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
        *,
        spans: Spans | None = None,
        clock_s: Callable[[], float] = monotonic,
        ack_pause_s: float = ACK_PAUSE_S,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._terminals = terminals
        self._names = frozenset(settings.accounts)
        self._partitions = settings.kafka.partitions
        self._deadline_s = settings.broker.submit_deadline_s
        self._max_skew = timedelta(seconds=settings.execution.max_clock_skew_s)
        self._clock = clock
        self._clock_s = clock_s
        self._ack_pause_s = ack_pause_s
        self._new_id = new_id
        self._metrics = metrics
        self._spans = spans
        self._links: dict[str, Link] = {}
        self._accounts: dict[str, _Dealings] = {}
        self._desk: DeskInputs | None = None

    def attach(self, desk: DeskInputs) -> None:
        """Feed answers and sweeps to ``desk`` from now on."""
        self._desk = desk

    @property
    def desk(self) -> DeskInputs:
        """The desk that answers go to."""
        assert self._desk is not None
        return self._desk

    def link(self, account: str) -> Link:
        """Return what is known of an account's terminal, without asking."""
        return self._links.get(account, Link())

    # --- effects

    async def run(self, stream: Any) -> None:
        """Carry out the effects of an in-memory channel, until it ends."""
        async for effect in stream:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        """Begin to carry out an effect of a commit that is durable; submits of an account leave in their order."""
        match effect:
            case AckReports():
                self._ack(effect)
            case Operate():
                self._operate(effect)
            case Submit():
                self._submit_in_turn(effect)

    def _submit_in_turn(self, effect: Submit) -> None:
        known = self._account(effect.request.account)
        if effect.request.order_id in known.on_the_way or self._is_needless(effect.request):
            return
        known.on_the_way[effect.request.order_id] = self._clock()
        known.submits.append(effect.request)
        self._submit_next(known)

    def drop(self, partitions: frozenset[int]) -> None:
        """Begin nothing more for the accounts of ``partitions``: they belong to another worker, which asks itself."""
        for account in [name for name in self._accounts if partition_of(name, self._partitions) in partitions]:
            self._accounts.pop(account).begin_nothing_more()

    async def close(self) -> None:
        """Stop what is on its way."""
        for known in self._accounts.values():
            known.begin_nothing_more()
        tasks = [task for known in self._accounts.values() for task in known.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return when everything asked so far was answered, or met with silence."""
        while tasks := [task for known in self._accounts.values() for task in known.tasks]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)

    def _is_needless(self, request: SubmitRequest) -> bool:
        """Return whether the journal that is there now has answered an order since it was to be asked."""
        return self.desk.index.is_answered(request.order_id, self.link(request.account).epoch)

    def _submit_next(self, known: _Dealings) -> None:
        """Submit what waits, in order, ``AT_ONCE`` at a time on their way."""
        while known.submits and len(known.submitting) < AT_ONCE:
            task = self._spawn(self._submit(known, known.submits.popleft()))
            known.submitting.add(task)
            task.add_done_callback(partial(self._submitted, known))

    def _submitted(self, known: _Dealings, task: asyncio.Task[None]) -> None:
        known.submitting.discard(task)
        self._submit_next(known)

    async def _submit(self, known: _Dealings, request: SubmitRequest) -> None:
        with logs.about(account=request.account, order_id=request.order_id):
            reply = None if self.link(request.account).silent else await self._ask(request)
        since = known.on_the_way.pop(request.order_id)
        self._metrics.submits.labels("none" if reply is None else reply.state).inc()
        if reply is None or reply.state is None:
            self.desk.put(request.account, SubmitUnanswered(request.order_id, request.attempt))
            return
        now = self._clock()
        self._metrics.took("committed to submitted", now - since)
        if self._spans is not None:
            self._spans.submitted(request.account, request.order_id, since, now)
        reach("desk.after_submit")
        self.desk.index.answered(request.order_id, reply.epoch)
        if reply.state == "conflict":
            self.desk.put(request.account, SubmitAnswered(request.order_id, request.attempt, reply.state, reply.epoch))

    async def _ask(self, request: SubmitRequest) -> SubmitReply | None:
        assert self._terminals is not None
        asked_at = self._clock()
        reply = await self._terminals.submit(request, timeout_s=self._deadline_s)
        if reply is None:
            self._note_silence(request.account)
        else:
            self._note_answer(request.account, reply.epoch, reply.clock, asked_at)
        return reply

    # --- operations on what is there

    def _operate(self, effect: Operate) -> None:
        request = effect.request
        known = self._account(request.account)
        if effect.asker in known.operating or not self.link(request.account).ready:
            return  # asked for again by the timer
        task = known.operating[effect.asker] = self._spawn(self._ask_operation(effect))
        task.add_done_callback(lambda _: known.operating.pop(effect.asker, None))

    async def _ask_operation(self, effect: Operate) -> None:
        assert self._terminals is not None
        answer = await self._terminals.operate(effect.request, timeout_s=OPERATION_DEADLINE_S)
        if answer is not None and answer.outcome != "unknown":
            self.desk.put(effect.request.account, OperationAnswered(effect.asker, *answer))

    # --- reports: acknowledged to the terminal, asked for where they are missing

    def _ack(self, effect: AckReports) -> None:
        known = self._account(effect.account)
        known.ack = effect
        wait_s = 0.0 if known.acked_s is None else known.acked_s + self._ack_pause_s - self._clock_s()
        if wait_s <= 0:
            self._ack_now(known)
        elif known.ack_due is None:
            known.ack_due = asyncio.get_running_loop().call_later(wait_s, self._ack_now, known)
        if effect.is_missing:
            self._replay(effect.account)

    def _ack_now(self, known: _Dealings) -> None:
        if known.ack_due is not None:
            known.ack_due.cancel()
            known.ack_due = None
        if known.acking is None and known.ack is not None:
            known.acked_s = self._clock_s()
            known.acking = self._spawn(self._ack_all(known))

    async def _ack_all(self, known: _Dealings) -> None:
        try:
            while (ack := known.ack) is not None and self._terminals is not None:
                known.ack = None
                request = AckRequest(epoch=ack.epoch, watermark=ack.watermark)
                await self._terminals.ack(ack.account, request, timeout_s=ASK_DEADLINE_S)
        finally:
            known.acking = None

    def _replay(self, account: str) -> None:
        """Ask for every report after the watermark, unless that was done a moment ago."""
        known, now_s = self._account(account), self._clock_s()
        just_asked = known.replayed_s is not None and now_s - known.replayed_s < REPLAY_PAUSE_S
        if known.replaying is None and not just_asked:
            known.replayed_s = now_s
            known.replaying = self._spawn(self._ask_replay(account, known))

    async def _ask_replay(self, account: str, known: _Dealings) -> None:
        try:
            assert self._terminals is not None
            if (reported := self.desk.reported(account)) is None:
                return
            epoch, watermark = reported
            hello = await self._terminals.hello(account, timeout_s=ASK_DEADLINE_S)
            if hello is None:
                known.replayed_s = None  # it was not asked: the next occasion may
                return
            after = watermark if hello.epoch == epoch else 0
            if hello.last_seq <= after:
                return
            request = ReplayRequest(epoch=hello.epoch, after_seq=after, replay_id=self._new_id())
            reply = await self._terminals.replay(account, request, timeout_s=ASK_DEADLINE_S)
            count = "no answer" if reply is None else f"{reply.published} reports"
            logger.info("account %s: replay after %s of epoch %s: %s", account, after, hello.epoch, count)
        finally:
            known.replaying = None

    # --- the clock's part

    async def tick(self, accounts: Iterable[str]) -> None:
        """Greet the terminals that are due, and sweep the orders that wait; ``accounts`` are this worker's own."""
        await self.greet()
        for account in accounts:
            self._sweep(account)

    async def greet(self) -> None:
        """Ask every terminal that is not known to be ready, or was not asked for a while, who it is now."""
        if self._terminals is None:
            return
        now_s = self._clock_s()
        await asyncio.gather(*(self._hello(account) for account in sorted(self._names) if self._is_due(account, now_s)))

    def _is_due(self, account: str, now_s: float) -> bool:
        greeted_s = self._account(account).greeted_s
        return greeted_s is None or not self.link(account).ready or now_s - greeted_s >= GREETING_S

    async def _hello(self, account: str) -> None:
        assert self._terminals is not None
        known = self._account(account)
        known.greeted_s = self._clock_s()
        asked_at = self._clock()
        reply = await self._terminals.hello(account, timeout_s=self._deadline_s)
        if reply is None:
            self._note_silence(account)
            return
        self._note_answer(account, reply.epoch, reply.clock, asked_at)
        self._set(account, replace(self.link(account), connection=reply.connection))
        self._look_for_gap(account, known, reply)

    def _look_for_gap(self, account: str, known: _Dealings, reply: HelloReply) -> None:
        """Ask for what is missing where nothing has moved since the last hello: a lost last report shows only so."""
        if (reported := self.desk.reported(account)) is None:
            return
        epoch, watermark = reported
        reached = watermark if epoch == reply.epoch else 0
        seen = (reply.epoch, reached, reply.last_seq)
        if reply.released_seq > reached:
            self.desk.put(account, Released(reply.epoch, reply.released_seq))
        if reply.last_seq > reached and known.seen_at_hello in {None, seen}:
            self._replay(account)
        elif reply.released_seq < reached:
            self._ack(AckReports(account, reply.epoch, reached))
        known.seen_at_hello = seen

    def _sweep(self, account: str) -> None:
        known, now, index = self._account(account), self._clock(), self.desk.index
        known.swept = {name: at for name, at in known.swept.items() if now < at + timedelta(seconds=AGAIN_S)}
        link = self.link(account)
        due = [name for name, order in index.waiting(account) if self._is_waiting(link, name, order, now)]
        if link.epoch is not None and not link.silent:
            due += index.recorded_elsewhere(account, link.epoch, SWEPT_AT_ONCE)
        due = [name for name in due if name not in known.swept and name not in known.on_the_way][:SWEPT_AT_ONCE]
        if due or self.desk.is_pursuing(account):
            known.swept |= dict.fromkeys(due, now)
            self.desk.put(account, Sweep(tuple(due)))

    def _is_waiting(self, link: Link, order_id: str, order: OpenOrder, now: datetime) -> bool:
        assert order.not_after is not None
        is_over = now - self._max_skew > order.not_after  # which may be the last moment that there is
        if order.standing == "handed_over":
            return is_over
        if order.standing == "held":
            return is_over or (link.ready and now < order.not_after)
        return not link.silent and link.asked and not self.desk.index.is_answered(order_id, link.epoch)

    # --- the breaker

    def _note_answer(self, account: str, epoch: str, clock: datetime, asked_at: datetime) -> None:
        """Take note of an answer asked for at ``asked_at`` and here now: the breaker closes, unless clocks differ."""
        now = self._clock()
        # The answer was written at some moment between asking and now; only what lies outside of both is skew.
        skew = max(clock - now, timedelta(0)) or min(clock - asked_at, timedelta(0))
        self._metrics.clock_skew_seconds.labels(account).set(skew.total_seconds())
        fault = None
        if abs(skew) > self._max_skew:
            most_s = self._max_skew.total_seconds()
            fault = f"the terminal's clock is {skew.total_seconds():+.1f} s from ours, expected {most_s} s at most"
        self._set(
            account, replace(self.link(account), epoch=epoch, fault=fault, asked=True, silent=False, clock_skew=skew)
        )

    def _note_silence(self, account: str) -> None:
        """Take note that no answer came: the breaker opens, until the terminal answers a hello."""
        fault = f"the terminal did not answer within {self._deadline_s} s"
        self._set(account, replace(self.link(account), fault=fault, asked=True, silent=True))

    def _set(self, account: str, link: Link) -> None:
        before = self.link(account)
        if link.fault is not None and (link.fault != before.fault or not before.asked):
            logger.warning("account %s: nothing new is claimed: %s", account, link.fault)
        elif link.ready and (not before.ready or before.epoch != link.epoch):
            logger.info("account %s: its terminal answers, journal epoch %s", account, link.epoch)
        self._links[account] = link
        self._metrics.breaker_open.labels(account).set(0 if link.ready else 1)

    def _account(self, account: str) -> _Dealings:
        return self._accounts.setdefault(account, _Dealings())

    @staticmethod
    def _spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_check)
        return task


def _check(task: asyncio.Task[None]) -> None:
    # The port turns every trouble into silence: what it raises all the same is a fault of ours.
    if not task.cancelled() and (error := task.exception()) is not None:
        end_worker(error)
