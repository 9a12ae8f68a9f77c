"""The orders of one account: recorded, judged, STARTED, sent once, classified (submission, steps 3, 5 to 8, 10).

An order that nobody is before is judged first, and INTENT and STARTED are one commit::

    the lane is free    judge ─▶ INTENT + STARTED ─▶ answer, order_send ─▶ RESULT + the deals that are there
    it is not           INTENT ─▶ answer … judge ─▶ STARTED ─▶ order_send ─▶ RESULT + the deals that are there

What may come between, for the first way:

1. The same order again, or another one, before the commit: INTENT is written at once, before anything of the newcomer,
   so that rows stand in order of arrival; a repetition finds the row and is answered by it.
2. A judging that takes longer than ``ANSWER_WITHIN_S``: INTENT is written and answered, as on the second way.
3. An order that is in the journal already: its submission has made no row, and only whoever made the row goes on.
4. A kill before the commit: nothing was answered and nothing sent; the desk asks again. After it, with or without
   ``order_send``: STARTED of an earlier life, a doubt.

In each of them the right to send is given by the one move from INTENT to STARTED, which the journal makes once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from streamapp import crashpoints, logs
from streamapp.clock import Clock
from streamapp.domain.facts import (
    Filled,
    OutcomeUnknown,
    RefusedReason,
    SubmitRefused,
    SubmitReturned,
)
from streamapp.messages.terminal import SubmitReply, SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import OpeningVerdict, classify_opening
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.judging import Judge, Judged, OrderLimits, refuse_halted
from streamapp.terminal.account.outcomes import TICKET_MISMATCH, WRONG_ACCOUNT, note, record, rejection, start_again
from streamapp.terminal.account.request import NotYetError, RefusedError
from streamapp.terminal.account.synchronisation import FUTURE
from streamapp.terminal.account.worker_client import ORDER, NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.pipe.answers import Answered, SendResult
from streamapp.terminal.pipe.calls import DealWindow, Send

logger = logging.getLogger(__name__)

T = TypeVar("T")
ANSWER_WITHIN_S = 0.25
"""A judging that takes longer does not hold up the answer to a submit, which has a deadline of 2 s at the desk."""
JUST_NOW = timedelta(seconds=3)
"""How far back the deals of an order that was just sent are read where they are found by time; a clock that differs by
more only has them looked for once more."""
JUDGED_FOR_S = 5.0
"""Longer after it was judged, an order is not sent: the disk, or an operation in the worker's hands, held it up, and
the market that it was judged by is gone. A thousand times what lies between the two otherwise."""
LOOK_AGAIN_S = 0.05
AGAIN_AFTER_S: dict[int | None, float] = {mt5.TRADE_RETCODE_TOO_MANY_REQUESTS: 1.0}
PAUSE_S = 0.1
"""Before a new attempt: a price that moved has settled by then; too many requests need longer."""


@dataclass(eq=False)
class _Taken:
    """An order on its way.

    ``answer``: what its submit is answered, once that is durable; None: nobody waits. ``is_recorded``: whether its row
    is known to be on disk; ``is_ours``: whether its submission made the row, and so carries the order out; ``in_lane``:
    whether it has its place among those that are carried out.
    """

    order: SubmitRequest
    answer: asyncio.Future[SubmitReply] | None = None
    is_recorded: bool = False
    is_ours: bool = False
    in_lane: bool = False

    def record(self, book: Book) -> SubmitReply:
        """Write INTENT, or whatever else a first submit becomes, if nobody has; return the answer."""
        self._make_row(book)
        return book.answer(self.order)

    def start(self, book: Book, judged: Judged) -> tuple[SubmitReply, bool]:
        """Write STARTED, and INTENT if that is not there; return the answer, and whether it may be sent.

        Raises:
            RefusedError: the account is halted; nothing is written.
        """
        refuse_halted(book, self.order)  # once more: a duplicate may have been found while the order was judged
        self._make_row(book)
        may_send = self.is_ours and book.start(self.order.order_id, judged.started)
        if may_send:
            book.expect_levels(self.order.order_id, *judged.levels)
        return book.answer(self.order), may_send

    def refuse(self, book: Book, body: SubmitRefused) -> SubmitReply:
        """Write REFUSED, and INTENT if that is not there."""
        self._make_row(book)
        if self.is_ours:
            book.refuse(self.order.order_id, body)
        return book.answer(self.order)

    def _make_row(self, book: Book) -> None:
        self.is_ours = book.record(self.order) or self.is_ours

    def reply(self, reply: SubmitReply) -> None:
        """Answer the submit by its row, unless it was answered before."""
        self.is_recorded = True
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Answer a submit that the journal can't take: nothing of it is there, and the next one goes on.

        Raises:
            Exception: ``error`` itself, where its row is there.
        """
        if self.is_recorded:
            raise error
        self.in_lane = False  # an INTENT of it that is on its way to the disk takes a place anew
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class Execution:
    """Records orders and carries them out one after another, in order of arrival.

    Guarantees:
        ``order_send`` is called at most once for an attempt in all lives of the journal: only after a durable STARTED
        that this life made. The next attempt begins only with the broker's proof that the one before came to nothing
        (mt5.retcodes.AGAIN), in the transaction that writes it down. A submit is answered by what is durable, and
        within ``ANSWER_WITHIN_S`` and a commit.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        limits: OrderLimits,
        *,
        clock: Clock,
        on_accepted: Callable[[str, int, Decimal, int], None],
    ) -> None:
        """``on_accepted`` is told (order_id, ticket, volume, attempt) of market orders whose deals are not all here."""
        self._journal = journal
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._on_accepted = on_accepted
        self._waiting: asyncio.Queue[_Taken | asyncio.Future[Any]] = asyncio.Queue()
        self._unrecorded: _Taken | None = None
        self._recording: set[asyncio.Future[Any]] = set()
        self._judge = Judge(journal, connection, limits, clock)
        self._busy = False
        self.idle = asyncio.Event()
        self.idle.set()
        self.counts: dict[str, int] = {}

    def submit(self, order: SubmitRequest) -> asyncio.Future[SubmitReply]:
        """Record an order, and carry it out if it is new; may be repeated for ever.

        Returns:
            The future of the answer, done when that is durable. It fails if the journal can't take the order.
        """
        if (first := self._unrecorded) is not None:
            self._record(first)
        answer = asyncio.get_running_loop().create_future()
        taken = _Taken(order, answer)
        if self._is_next(order):
            self._unrecorded = taken
            self._queue(taken)
            timer = asyncio.get_running_loop().call_later(ANSWER_WITHIN_S, self._record, taken)
            answer.add_done_callback(lambda _: timer.cancel())
        else:
            self._record(taken)
        return answer

    def _is_next(self, order: SubmitRequest) -> bool:
        """Return whether an order would be judged at once, and is one to be judged at all."""
        is_ordinary = order.epoch == self._journal.book.epoch and self._clock() < order.not_after
        is_free = not self._busy and self._waiting.empty()
        return is_ordinary and is_free and self._connection.is_readable

    def _record(self, taken: _Taken) -> None:
        self._leave_unrecorded(taken)
        recorded = self._journal.write(taken.record)
        recorded.add_done_callback(partial(self._on_intent, taken))

    def _on_intent(self, taken: _Taken, recorded: asyncio.Future[SubmitReply]) -> None:
        if recorded.cancelled():
            return
        try:
            reply = recorded.result()
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            taken.fail(error)
            return
        if taken.is_ours and reply.state == "recorded":
            crashpoints.reach("terminal.after_intent")
            if not taken.in_lane:
                self._queue(taken)
        taken.reply(reply)

    def add(self, order: SubmitRequest) -> None:
        """Take an order whose row is there, and nobody else's."""
        self._queue(_Taken(order, is_recorded=True, is_ours=True))

    def _queue(self, taken: _Taken) -> None:
        taken.in_lane = True
        self._connection.want(taken.order.parameters.symbol)
        self._waiting.put_nowait(taken)

    @property
    def depth(self) -> int:
        """How many orders wait."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Carry orders out, for ever."""
        while True:
            taken = await self._waiting.get()
            if isinstance(taken, asyncio.Future):
                await taken
                continue
            self._busy = True
            self.idle.clear()
            try:
                with logs.about(order_id=taken.order.order_id):
                    await self._carry_out(taken)
            except Exception as error:  # noqa: BLE001 - raised again, unless it concerns this submit alone
                self._leave_unrecorded(taken)  # or the next submit would write an INTENT that nobody carries out
                taken.fail(error)
            finally:
                self._busy = False
                self._say_idle()

    async def _carry_out(self, taken: _Taken) -> None:
        try:
            await self._execute(taken)
        except RefusedError as refused:
            if not (isinstance(refused, NotYetError) and self._put_aside(taken, refused.message)):
                await self._refuse(taken, taken.order.attempt, refused.reason, refused.message, refused.largest)

    def _put_aside(self, taken: _Taken, why: str) -> bool:
        """Let an order come again in a moment; False if it has waited long enough.

        It keeps its place among those that were submitted: whoever comes meanwhile has its INTENT written first.
        """
        if not self._judge.may_wait(taken.order.order_id, why):
            return False
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._waiting.put_nowait, taken)
        return True

    async def _execute(self, taken: _Taken) -> None:
        judged: Judged | None = await self._judge.judged(taken.order)
        assert judged is not None
        self._judge.forget(taken.order.order_id)
        reply, may_send = await self._written(taken, partial(_Taken.start, taken, judged=judged))
        taken.reply(reply)
        if not may_send:
            if taken.is_ours:
                logger.warning("order %s: not started, its row is %s", taken.order.order_id, reply.state)
            return
        while judged is not None:
            crashpoints.reach("terminal.after_started")
            judged = await self._sent(taken, judged)

    def _written(self, taken: _Taken, action: Callable[[Book], T]) -> asyncio.Future[T]:
        """Write the next step of an order, INTENT with it: from here on nobody else need write that."""
        self._leave_unrecorded(taken)
        return self._journal.write(action)

    def _leave_unrecorded(self, taken: _Taken) -> None:
        if self._unrecorded is taken:
            self._unrecorded = None

    async def _sent(self, taken: _Taken, judged: Judged) -> Judged | None:
        """Make the one ``order_send`` of an attempt that is STARTED; return the next attempt, if that is by now."""
        order = judged.order
        if self._connection.generation != judged.generation:  # while that was recorded, which a bad disk makes long
            message = "the connection that it was judged on was lost before it was sent"
            await self._refuse(taken, order.attempt, "not_connected", message)
            return None
        until = min(order.not_after, judged.started.sent_at + timedelta(seconds=JUDGED_FOR_S))
        try:
            answer = await self._connection.ask(
                Send(judged.request, until.timestamp(), self._window(order)),
                urgency=ORDER,
                deadline_s=self._limits.terminal.order_send_deadline_s,
                logged=False,
            )
        except NotHandedOverError as error:
            await self._refuse(taken, order.attempt, "not_connected", f"never handed to the worker: {error}")
        except WorkerLostError as error:
            await self._doubt(order, "deadline" if error.deadline else "worker_lost", str(error))
        else:
            if answer.value.sent:
                return await self._settle(judged, answer)
            late = f"not after {until.isoformat()}, seen immediately before order_send"
            await self._refuse(taken, order.attempt, "stale", late)
        return None

    def _window(self, order: SubmitRequest) -> DealWindow | None:
        """Return where the deals of a market order are to be looked for at once; a pending one has none."""
        if order.parameters.order_type != "market":
            return None
        time, now, opens = self._connection.time, self._clock(), order.position_id is None
        return DealWindow(
            hedging=self._connection.hedging and opens,  # what closes has the position of what opened
            since=time.server_s(now - JUST_NOW),
            until=time.server_s(now + FUTURE),
        )

    def _deals(self, answer: Answered[SendResult], judged: Judged) -> list[Filled]:
        """Return the deals that came with an answer, if what this connection shows is believed."""
        if self._connection.generation != judged.generation:
            return []
        rows = [row for row in answer.value.deals or () if row.volume > 0]
        for row in rows:
            if row.magic == judged.request["magic"]:  # surely of this order, and so made since it was sent
                self._connection.learn_deal_time(row.time_msc, datetime.fromtimestamp(answer.value.at, UTC))
        try:
            return [filled(row, self._connection.currency, self._connection.time) for row in rows]
        except (ArithmeticError, ValueError, TypeError):
            logger.exception("a deal can't be read; it is looked for once more")  # and takes no RESULT with it
            return []

    async def _settle(self, judged: Judged, answer: Answered[SendResult]) -> Judged | None:
        order = judged.order
        result = answer.value
        verdict = classify_opening(result.retcode, result.order, result.comment, answer.error)
        returned = SubmitReturned(
            attempt=order.attempt,
            retcode=result.retcode,
            retcode_name=verdict.name,
            request_id=result.request_id,
            returned_at=datetime.fromtimestamp(result.at, UTC),
            raw={**result.raw, "last_error": list(answer.error)},
        )
        if result.logged_in_as and verdict.outcome in {"accepted", "doubt"}:
            verdict = OpeningVerdict(
                "doubt", WRONG_ACCOUNT, f"after the call the terminal was logged in to {result.logged_in_as}"
            )
        if verdict.again and order.attempt < self._limits.terminal.attempts_at_most:
            return await self._again(judged, returned, verdict, answer)
        # Not awaited: the next order is judged meanwhile, and its STARTED shares this commit. A kill before it is on
        # disk leaves a STARTED row, which the next life takes for the doubt that it is.
        deals = self._deals(answer, judged)

        def write(book: Book) -> tuple[OpeningVerdict, bool]:
            note(book, order, returned, answer)
            return record(book, order, returned, verdict, deals)

        recorded = self._journal.write(write)
        self._recording.add(recorded)
        recorded.add_done_callback(partial(self._on_recorded, order))
        if verdict.outcome == "doubt":
            await recorded
            await self._connection.renew()  # what answers so may be out of step; the resolver must not ask it
        return None

    async def _again(
        self, judged: Judged, returned: SubmitReturned, verdict: OpeningVerdict, answer: Answered[SendResult]
    ) -> Judged | None:
        """Begin the next attempt after an answer that proves that this one came to nothing; None: it is rejected.

        The answer is on disk first. A kill until the next STARTED is leaves this attempt a doubt, which is looked for
        like any other.
        """
        order = judged.order
        await self._journal.write(lambda book: note(book, order, returned, answer))
        rejected = rejection(order, returned, verdict)
        try:
            await asyncio.sleep(AGAIN_AFTER_S.get(returned.retcode, PAUSE_S))
            following = await self._judge.judged_again(judged, returned)
            begun = partial(start_again, order=order, rejected=rejected, judged=following)
            if await self._journal.write(begun):
                self._count("again")
                return following
        except (RefusedError, NotHandedOverError, WorkerLostError) as error:
            said = "; ".join(part for part in (verdict.message, f"not tried again: {error}") if part)
            rejected = rejected.model_copy(update={"message": said})
        await self._journal.write(lambda book: book.reject(order.order_id, rejected))
        self._count("rejected")
        return None

    def _on_recorded(self, order: SubmitRequest, recorded: asyncio.Future[tuple[OpeningVerdict, bool]]) -> None:
        self._recording.discard(recorded)
        self._say_idle()
        if recorded.cancelled():
            return
        if recorded.exception() is not None:
            self._waiting.put_nowait(recorded)  # raised again by run(), which ends the process
            return
        verdict, is_live = recorded.result()
        self._count(verdict.outcome)
        if verdict.name == TICKET_MISMATCH:
            self._waiting.put_nowait(asyncio.ensure_future(self._connection.renew()))
        crashpoints.reach("terminal.after_result")
        if is_live and order.parameters.order_type == "market":  # the watch sees to the others
            self._on_accepted(order.order_id, verdict.ticket, order.parameters.volume, order.attempt)

    def _say_idle(self) -> None:
        if not self._busy and not self._recording:
            self.idle.set()

    async def _refuse(
        self, taken: _Taken, attempt: int, reason: RefusedReason, message: str, largest: Decimal | None = None
    ) -> None:
        self._judge.forget(taken.order.order_id)
        body = SubmitRefused(attempt=attempt, reason=reason, message=message, largest=largest)
        taken.reply(await self._written(taken, lambda book: taken.refuse(book, body)))
        if taken.is_ours:
            self._count("refused")

    async def _doubt(self, order: SubmitRequest, why: str, message: str) -> None:
        logger.error("order %s is in doubt: %s", order.order_id, message)
        body = OutcomeUnknown(attempt=order.attempt, why=why, message=message)
        await self._journal.write(lambda book: book.doubt(order.order_id, body))
        self._count("doubt")

    def _count(self, outcome: str) -> None:
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
