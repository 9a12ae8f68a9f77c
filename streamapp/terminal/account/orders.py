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

from streamapp import crashpoints
from streamapp.clock import Clock
from streamapp.domain.facts import (
    BrokerRejected,
    Filled,
    OutcomeUnknown,
    RefusedReason,
    SubmitRefused,
    SubmitReturned,
    SubmitStarted,
)
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.messages.terminal import SubmitReply, SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import OpeningVerdict, classify_opening
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.request import NotYetError, RefusedError, build, chosen, fillings, protection
from streamapp.terminal.account.synchronisation import FUTURE, OVERLAP
from streamapp.terminal.account.worker_client import ORDER, NotHandedOverError, WorkerLostError
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.operations.close import in_the_way
from streamapp.terminal.pipe.answers import Answered, Prepared, SendResult
from streamapp.terminal.pipe.calls import DealWindow, Prepare, Search, Send, Wanted
from streamapp.terminal.pipe.structs import TradeRequest, number

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
QUOTE_WITHIN_S = 2.0
"""How long an order waits for the first tick of a symbol that nobody looked at before, for one that moves, or for a
position as its deals left it: a subscription takes a second. Others go on meanwhile."""
LOOK_AGAIN_S = 0.05
AGAIN_AFTER_S: dict[int | None, float] = {mt5.TRADE_RETCODE_TOO_MANY_REQUESTS: 1.0}
PAUSE_S = 0.1
"""Before a new attempt: a price that moved has settled by then; too many requests need longer."""
WRONG_ACCOUNT = "wrong_account"
"""What an answer is called that may be another account's: the order was executed here, or there."""

TICKET_MISMATCH = "anothers_ticket"
"""What an answer is called that names the ticket of an order before this one."""


@dataclass(frozen=True)
class OrderLimits:
    """What the orders of one account are judged by."""

    account: AccountSettings
    guards: GuardSettings
    terminal: TerminalSettings


@dataclass(frozen=True)
class _Judged:
    """An order that may be sent: what the market showed, on which connection, and the request.

    ``levels`` are stop loss and take profit that its position shall have, 0 for none; ``denied`` the filling modes that
    the broker refused to earlier attempts.
    """

    order: SubmitRequest
    started: SubmitStarted
    request: TradeRequest
    levels: tuple[Decimal, Decimal]
    generation: int
    denied: frozenset[int] = frozenset()


@dataclass
class _Aside:
    """An order that waits for a quote: until when (of the loop), and the time of the last quote that it saw."""

    until_s: float
    quote_ms: int = 0


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
        self.is_ours = book.record(self.order) or self.is_ours
        return book.answer(self.order)

    def start(self, book: Book, judged: _Judged) -> tuple[SubmitReply, bool]:
        """Write STARTED, and INTENT if that is not there; return the answer, and whether it may be sent.

        Raises:
            RefusedError: the account is halted; nothing is written.
        """
        _refuse_halted(book, self.order)  # once more: a duplicate may have been found while the order was judged
        self.is_ours = book.record(self.order) or self.is_ours
        may_send = self.is_ours and book.start(self.order.order_id, judged.started)
        if may_send:
            book.expect_levels(self.order.order_id, *judged.levels)
        return book.answer(self.order), may_send

    def refuse(self, book: Book, body: SubmitRefused) -> SubmitReply:
        """Write REFUSED, and INTENT if that is not there."""
        self.is_ours = book.record(self.order) or self.is_ours
        if self.is_ours:
            book.refuse(self.order.order_id, body)
        return book.answer(self.order)

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
        self._asides: dict[str, _Aside] = {}
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
        if self._unrecorded is taken:
            self._unrecorded = None
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
                await self._carry_out(taken)
            except Exception as error:  # noqa: BLE001 - raised again, unless it concerns this submit alone
                if self._unrecorded is taken:  # or the next submit would write an INTENT that nobody carries out
                    self._unrecorded = None
                taken.fail(error)
            finally:
                self._busy = False
                self._say_idle()

    async def _carry_out(self, taken: _Taken) -> None:
        try:
            await self._execute(taken)
        except RefusedError as refused:
            if not (isinstance(refused, NotYetError) and self._put_aside(taken)):
                await self._refuse(taken, taken.order.attempt, refused.reason, refused.message)

    def _put_aside(self, taken: _Taken) -> bool:
        """Let an order come again in a moment; False if it has waited long enough.

        It keeps its place among those that were submitted: whoever comes meanwhile has its INTENT written first.
        """
        now_s, order_id = asyncio.get_running_loop().time(), taken.order.order_id
        aside = self._asides.setdefault(order_id, _Aside(now_s + QUOTE_WITHIN_S))
        if now_s >= aside.until_s:
            del self._asides[order_id]
            return False
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._waiting.put_nowait, taken)
        return True

    async def _execute(self, taken: _Taken) -> None:
        judged: _Judged | None = await self._judged(taken.order)
        assert judged is not None
        self._asides.pop(taken.order.order_id, None)
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
        if self._unrecorded is taken:
            self._unrecorded = None
        return self._journal.write(action)

    async def _judged(self, order: SubmitRequest, denied: frozenset[int] = frozenset()) -> _Judged:
        """Return what the market shows and the request, waiting for a connection as long as the order is valid.

        Raises:
            NotYetError: it may perhaps be sent in a moment.
            RefusedError: it may not be sent.
        """
        while True:
            await self._refuse_now(order)
            generation = self._connection.generation
            try:
                prepared = (
                    await self._connection.ask(Prepare(order.parameters.symbol, order.position_id), urgency=ORDER)
                ).value
                judge(
                    order,
                    prepared,
                    self._limits.account,
                    self._limits.guards,
                    time=self._connection.time,
                    now=self._clock(),
                    quote_moved=self._has_moved(order, prepared),
                )
                request = await self._request(order, prepared, denied)
                levels = protection(order, prepared)
                return _Judged(order, self._started(order, prepared), request, levels, generation, denied)
            except (NotHandedOverError, WorkerLostError) as error:
                logger.warning("order %s: nothing was sent, judging it again: %s", order.order_id, error)
            except (ArithmeticError, ValueError, TypeError) as error:
                # Nothing was sent. Without this, one order that nobody foresaw ends the process in every life.
                logger.exception("order %s can't be judged", order.order_id)
                raise RefusedError("invalid", f"it can't be judged: {type(error).__name__}: {error}"[:500]) from None

    async def _refuse_now(self, order: SubmitRequest) -> None:
        """Return once the account may open or the order closes, in its time, and nothing before it is in its way.

        Raises:
            RefusedError: it never will be so; NotYetError: an order before it changes the same position.
        """
        _refuse_halted(self._journal.book, order)
        if self._clock() >= order.not_after:
            raise RefusedError("stale", f"not after {order.not_after.isoformat()}")
        if not await self._connection.settled(order.not_after):
            health = self._connection.health
            raise RefusedError("stale", f"still {health.connection} at {order.not_after.isoformat()}: {health.detail}")
        if self._connection.health.connection != "ready":
            raise RefusedError(
                "not_connected", f"{self._connection.health.connection}: {self._connection.health.detail}"
            )
        if order.position_id is not None:
            before = partial(in_the_way, order=order, hedging=self._connection.hedging)
            if (other := await self._journal.write(before)) is not None:
                raise NotYetError("guard", f"order {other} may still change position {order.position_id}")

    def _has_moved(self, order: SubmitRequest, prepared: Prepared) -> bool:
        """Return whether the quote is another one than when the order was put aside."""
        aside = self._asides.get(order.order_id)
        if aside is None or prepared.tick is None:
            return False
        before, aside.quote_ms = aside.quote_ms, prepared.tick.time_msc
        return before not in (0, aside.quote_ms)

    async def _request(self, order: SubmitRequest, prepared: Prepared, denied: frozenset[int]) -> TradeRequest:
        assert prepared.symbol is not None
        choices, deviations = (
            fillings(order.parameters, prepared.symbol, denied),
            self._limits.terminal.deviation_points,
        )
        deviation, time = deviations.get(order.parameters.symbol), self._connection.time
        requests = [build(order, prepared, filling, time, deviation) for filling in choices]
        return await chosen(self._connection, requests, urgency=ORDER)

    def _started(self, order: SubmitRequest, prepared: Prepared) -> SubmitStarted:
        assert prepared.symbol is not None
        assert prepared.tick is not None
        return SubmitStarted(
            attempt=order.attempt,
            bid=prepared.bid,
            ask=prepared.ask,
            quote_at=self._connection.time.utc(prepared.tick.time_msc),
            point=number(prepared.symbol.point),
            contract_size=number(prepared.symbol.trade_contract_size),
            account_rate=number(prepared.rate or 0),
            currency=self._connection.currency,
            sent_at=self._clock(),
        )

    async def _sent(self, taken: _Taken, judged: _Judged) -> _Judged | None:
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

    def _deals(self, answer: Answered[SendResult], generation: int) -> list[Filled]:
        """Return the deals that came with an answer, if what this connection shows is believed."""
        if self._connection.generation != generation:
            return []
        rows = [row for row in answer.value.deals or () if row.volume > 0]
        try:
            return [filled(row, self._connection.currency, self._connection.time) for row in rows]
        except (ArithmeticError, ValueError, TypeError):
            logger.exception("a deal can't be read; it is looked for once more")  # and takes no RESULT with it
            return []

    async def _settle(self, judged: _Judged, answer: Answered[SendResult]) -> _Judged | None:
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
        deals = self._deals(answer, judged.generation)

        def record(book: Book) -> tuple[OpeningVerdict, bool]:
            _note(book, order, returned, answer)
            return _record(book, order, returned, verdict, deals)

        recorded = self._journal.write(record)
        self._recording.add(recorded)
        recorded.add_done_callback(partial(self._on_recorded, order))
        if verdict.outcome == "doubt":
            await recorded
            await self._connection.renew()  # what answers so may be out of step; the resolver must not ask it
        return None

    async def _again(
        self, judged: _Judged, returned: SubmitReturned, verdict: OpeningVerdict, answer: Answered[SendResult]
    ) -> _Judged | None:
        """Begin the next attempt after an answer that proves that this one came to nothing; None: it is rejected.

        The answer is on disk first. A kill until the next STARTED is leaves this attempt a doubt, which is looked for
        like any other.
        """
        order = judged.order
        await self._journal.write(lambda book: _note(book, order, returned, answer))
        rejected = _rejection(order, returned, verdict)
        try:
            await asyncio.sleep(AGAIN_AFTER_S.get(returned.retcode, PAUSE_S))
            following = await self._judged_again(judged, returned)
            begun = partial(_start_again, order=order, rejected=rejected, judged=following)
            if await self._journal.write(begun):
                self._count("again")
                return following
        except (RefusedError, NotHandedOverError, WorkerLostError) as error:
            said = "; ".join(part for part in (verdict.message, f"not tried again: {error}") if part)
            rejected = rejected.model_copy(update={"message": said})
        await self._journal.write(lambda book: book.reject(order.order_id, rejected))
        self._count("rejected")
        return None

    async def _judged_again(self, judged: _Judged, returned: SubmitReturned) -> _Judged:
        """Return the next attempt, judged as things are now.

        Raises:
            RefusedError: it may not be sent; something of the order is at the broker after all.
            NotHandedOverError, WorkerLostError: the broker could not be looked at.
        """
        order = judged.order
        now, time = self._clock(), self._connection.time
        ours = Wanted(
            magic=magic_of(order.order_id),
            tag=tag_of(order.order_id),
            symbol=order.parameters.symbol,
            side=order.parameters.side,
            volume=float(order.parameters.volume),
            alike_from=None,
        )
        since, until = time.server_s(now - OVERLAP), time.server_s(now + FUTURE)
        look = (await self._connection.read_now(Search((ours,), since, until, settled_until=since))).value
        if not look.read or look.matches:
            raise RefusedError("guard", "the broker does not show that there is nothing of it")
        is_denied = returned.retcode == mt5.TRADE_RETCODE_INVALID_FILL
        denied = judged.denied | ({judged.request["type_filling"]} if is_denied else frozenset[int]())
        return await self._judged(order.model_copy(update={"attempt": order.attempt + 1}), denied)

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

    async def _refuse(self, taken: _Taken, attempt: int, reason: RefusedReason, message: str) -> None:
        self._asides.pop(taken.order.order_id, None)
        body = SubmitRefused(attempt=attempt, reason=reason, message=message)
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


def _refuse_halted(book: Book, order: SubmitRequest) -> None:
    """Return if the account opens, or if the order closes.

    Raises:
        RefusedError: reason halted.
    """
    if order.position_id is None and (why := book.halted()) is not None:
        raise RefusedError("halted", f"the account opens nothing more until it is resumed: {why}")


def _start_again(book: Book, order: SubmitRequest, rejected: BrokerRejected, judged: _Judged) -> bool:
    _refuse_halted(book, order)
    book.expect_levels(order.order_id, *judged.levels)
    return book.start_again(order.order_id, rejected, judged.started)


def _note(book: Book, order: SubmitRequest, returned: SubmitReturned, answer: Answered[SendResult]) -> None:
    broker_log.append(book, answer.log, order.order_id)
    book.returned(order.order_id, returned)


def _rejection(order: SubmitRequest, returned: SubmitReturned, verdict: OpeningVerdict) -> BrokerRejected:
    return BrokerRejected(
        attempt=order.attempt,
        retcode=returned.retcode or 0,
        retcode_name=verdict.name,
        message=verdict.message,
        ticket=verdict.ticket or None,
    )


def _record(
    book: Book,
    order: SubmitRequest,
    returned: SubmitReturned,
    verdict: OpeningVerdict,
    deals: list[Filled],
) -> tuple[OpeningVerdict, bool]:
    """Write an answer, what it means, and the deals that came with it, in one transaction: no report without its row.

    Return what it means, and whether it is accepted with more deals to come.

    The ticket of another order is the answer to that one (reference mt5 §1.1: replies may be out of phase).
    """
    order_id, attempt = order.order_id, order.attempt
    owner = book.owner(verdict.ticket) if verdict.outcome == "accepted" else None
    if owner not in (None, order_id):
        verdict = OpeningVerdict(
            "doubt", TICKET_MISMATCH, f"{verdict.name} with ticket {verdict.ticket}, which is {owner}'s"
        )
    match verdict.outcome:
        case "accepted":
            book.accept(order_id, verdict.ticket)
            for body in deals:
                book.record_deal(body)
        case "rejected":
            book.reject(order_id, _rejection(order, returned, verdict))
        case "not_sent":
            reason: RefusedReason = "invalid" if verdict.name == "invalid_params" else "not_connected"
            book.refuse(
                order_id, SubmitRefused(attempt=attempt, reason=reason, message=f"{verdict.name}: {verdict.message}")
            )
        case "doubt":
            logger.error("order %s is in doubt: %s %s", order_id, verdict.name, verdict.message)
            if verdict.name == WRONG_ACCOUNT:  # whatever we find at ours: nobody watches a position at the other one
                book.halt(f"{verdict.message}, which may hold order {order_id}: look for magic {magic_of(order_id)}")
            book.doubt(
                order_id,
                OutcomeUnknown(attempt=attempt, why="ambiguous_answer", message=f"{verdict.name}: {verdict.message}"),
            )
    return verdict, verdict.outcome == "accepted" and book.is_live(verdict.ticket)
