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
from streamapp.domain.identifiers import magic_of
from streamapp.messages.terminal import SubmitReply, SubmitRequest
from streamapp.mt5.retcodes import OpeningVerdict, classify_opening
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal import brokerlog
from streamapp.terminal.admission import judge
from streamapp.terminal.book import Book
from streamapp.terminal.choosing import chosen
from streamapp.terminal.connection import BrokerConnection
from streamapp.terminal.deals import filled
from streamapp.terminal.filling import fillings
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import ORDER, Answer, NotHandedOverError, WorkerLostError
from streamapp.terminal.request import Prepared, RefusedError, build, number
from streamapp.terminal.synchronisation import FUTURE

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
WRONG_ACCOUNT = "wrong_account"
"""What an answer is called that may be another account's: the order was executed here, or there."""

ANOTHERS_TICKET = "anothers_ticket"
"""What an answer is called that names the ticket of an order before this one."""


@dataclass(frozen=True)
class Limits:
    """What the orders of one account are judged by."""

    account: AccountSettings
    guards: GuardSettings
    terminal: TerminalSettings


@dataclass(frozen=True)
class _Judged:
    """An order that may be sent: what the market showed, on which connection, and the request."""

    started: SubmitStarted
    request: dict[str, Any]
    generation: int


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

    def start(self, book: Book, started: SubmitStarted) -> tuple[SubmitReply, bool]:
        """Write STARTED, and INTENT if that is not there; return the answer, and whether it may be sent.

        Raises:
            RefusedError: the account is halted; nothing is written.
        """
        _refuse_halted(book, self.order)  # once more: a duplicate may have been found while the order was judged
        self.is_ours = book.record(self.order) or self.is_ours
        may_send = self.is_ours and book.start(self.order.order_id, started)
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
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class Execution:
    """Records orders and carries them out one after another, in order of arrival.

    Guarantees:
        ``order_send`` is called at most once for an order in all lives of the journal: only after a durable STARTED
        that this life made. A submit is answered by what is durable, and within ``ANSWER_WITHIN_S`` and a commit.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        limits: Limits,
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
                taken.fail(error)
            finally:
                self._busy = False
                self._say_idle()

    async def _carry_out(self, taken: _Taken) -> None:
        try:
            await self._execute(taken)
        except RefusedError as refused:
            await self._refuse(taken, refused.reason, refused.message)

    async def _execute(self, taken: _Taken) -> None:
        order, judged = taken.order, await self._judged(taken.order)
        reply, may_send = await self._written(taken, partial(_Taken.start, taken, started=judged.started))
        taken.reply(reply)
        if not may_send:
            if taken.is_ours:
                logger.warning("order %s: not started, its row is %s", order.order_id, reply.state)
            return
        crashpoints.reach("terminal.after_started")
        if self._connection.generation != judged.generation:  # while that was recorded, which a bad disk makes long
            raise RefusedError("not_connected", "the connection that it was judged on was lost before it was sent")
        until = min(order.not_after, judged.started.sent_at + timedelta(seconds=JUDGED_FOR_S))
        await self._send(taken, judged, until)

    def _written(self, taken: _Taken, action: Callable[[Book], T]) -> asyncio.Future[T]:
        """Write the next step of an order, INTENT with it: from here on nobody else need write that."""
        if self._unrecorded is taken:
            self._unrecorded = None
        return self._journal.write(action)

    async def _judged(self, order: SubmitRequest) -> _Judged:
        """Return what the market shows and the request, waiting for a connection as long as the order is valid.

        Raises:
            RefusedError: it may not be sent.
        """
        while True:
            _refuse_halted(self._journal.book, order)
            if self._clock() >= order.not_after:
                raise RefusedError("stale", f"not after {order.not_after.isoformat()}")
            if not await self._connection.settled(order.not_after):
                raise RefusedError(
                    "stale", f"still {self._connection.health.connection} at {order.not_after.isoformat()}"
                )
            if self._connection.health.connection != "ready":
                raise RefusedError(
                    "not_connected", f"{self._connection.health.connection}: {self._connection.health.detail}"
                )
            generation = self._connection.generation
            try:
                prepared = Prepared(**(await self._connection.ask("prepare", urgency=ORDER, **_about(order))).value)
                judge(
                    order,
                    prepared,
                    self._limits.account,
                    self._limits.guards,
                    time=self._connection.time,
                    now=self._clock(),
                )
                request = await self._request(order, prepared)
                return _Judged(self._started(order, prepared), request, generation)
            except (NotHandedOverError, WorkerLostError) as error:
                logger.warning("order %s: nothing was sent, judging it again: %s", order.order_id, error)
            except (ArithmeticError, ValueError, TypeError) as error:
                # Nothing was sent. Without this, one order that nobody foresaw ends the process in every life.
                logger.exception("order %s can't be judged", order.order_id)
                raise RefusedError("invalid", f"it can't be judged: {type(error).__name__}: {error}"[:500]) from None

    async def _request(self, order: SubmitRequest, prepared: Prepared) -> dict[str, Any]:
        assert prepared.symbol is not None
        choices = fillings(order.parameters, prepared.symbol)
        requests = [build(order, prepared, filling, self._connection.time) for filling in choices]
        return await chosen(self._connection, requests, urgency=ORDER)

    def _started(self, order: SubmitRequest, prepared: Prepared) -> SubmitStarted:
        assert prepared.symbol is not None
        assert prepared.tick is not None
        return SubmitStarted(
            attempt=order.attempt,
            bid=prepared.bid,
            ask=prepared.ask,
            quote_at=self._connection.time.utc(prepared.tick["time_msc"]),
            point=number(prepared.symbol["point"]),
            contract_size=number(prepared.symbol["trade_contract_size"]),
            account_rate=number(prepared.rate or 0),
            currency=self._connection.currency,
            sent_at=self._clock(),
        )

    async def _send(self, taken: _Taken, judged: _Judged, until: datetime) -> None:
        order = taken.order
        try:
            answer = await self._connection.ask(
                "send",
                urgency=ORDER,
                deadline_s=self._limits.terminal.order_send_deadline_s,
                logged=False,
                request=judged.request,
                not_after=until.timestamp(),
                look=self._look(order),
            )
        except NotHandedOverError as error:
            await self._refuse(taken, "not_connected", f"never handed to the worker: {error}")
        except WorkerLostError as error:
            await self._doubt(order, "deadline" if error.deadline else "worker_lost", str(error))
        else:
            if answer.value["sent"]:
                await self._settle(order, answer, judged.generation)
            else:
                await self._refuse(taken, "stale", f"not after {until.isoformat()}, seen immediately before order_send")

    def _look(self, order: SubmitRequest) -> dict[str, Any] | None:
        """Return where the deals of a market order are to be looked for at once; a pending one has none."""
        if order.parameters.order_type != "market":
            return None
        time, now, opens = self._connection.time, self._clock(), order.position_id is None
        return {
            "hedging": self._connection.hedging and opens,  # what closes has the position of what opened
            "since": time.server_s(now - JUST_NOW),
            "until": time.server_s(now + FUTURE),
        }

    def _deals(self, answer: Answer, generation: int) -> list[Filled]:
        """Return the deals that came with an answer, if what this connection shows is believed."""
        if self._connection.generation != generation:
            return []
        rows = [row for row in answer.value.get("deals") or () if row["volume"] > 0]
        try:
            return [filled(row, self._connection.currency, self._connection.time) for row in rows]
        except (ArithmeticError, ValueError, TypeError):
            logger.exception("a deal can't be read; it is looked for once more")  # and takes no RESULT with it
            return []

    async def _settle(self, order: SubmitRequest, answer: Answer, generation: int) -> None:
        result = answer.value["result"] or {}
        retcode, comment = result.get("retcode"), result.get("comment", "")
        verdict = classify_opening(retcode, result.get("order", 0), comment, answer.error)
        returned = SubmitReturned(
            attempt=order.attempt,
            retcode=retcode,
            retcode_name=verdict.name,
            request_id=result.get("request_id", 0),
            returned_at=datetime.fromtimestamp(answer.value["at"], UTC),
            raw={**result, "last_error": list(answer.error)},
        )
        elsewhere = answer.value.get("elsewhere")
        if elsewhere and verdict.outcome in {"accepted", "doubt"}:
            verdict = OpeningVerdict(
                "doubt", WRONG_ACCOUNT, f"after the call the terminal was logged in to {elsewhere}"
            )
        # Not awaited: the next order is judged meanwhile, and its STARTED shares this commit. A kill before it is on
        # disk leaves a STARTED row, which the next life takes for the doubt that it is.
        deals = self._deals(answer, generation)

        def record(book: Book) -> tuple[OpeningVerdict, bool]:
            brokerlog.append(book, answer.log, order.order_id)
            return _record(book, order, returned, verdict, deals)

        recorded = self._journal.write(record)
        self._recording.add(recorded)
        recorded.add_done_callback(partial(self._on_recorded, order))
        if verdict.outcome == "doubt":
            await recorded
            await self._connection.renew()  # what answers so may be out of step; the resolver must not ask it

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
        if verdict.name == ANOTHERS_TICKET:
            self._waiting.put_nowait(asyncio.ensure_future(self._connection.renew()))
        crashpoints.reach("terminal.after_result")
        if is_live and order.parameters.order_type == "market":  # the watch sees to the others
            self._on_accepted(order.order_id, verdict.ticket, order.parameters.volume, order.attempt)

    def _say_idle(self) -> None:
        if not self._busy and not self._recording:
            self.idle.set()

    async def _refuse(self, taken: _Taken, reason: RefusedReason, message: str) -> None:
        body = SubmitRefused(attempt=taken.order.attempt, reason=reason, message=message)
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


def _about(order: SubmitRequest) -> dict[str, Any]:
    """Return what the worker is asked about for an order: its symbol, and the position that it closes."""
    closed = {} if order.position_id is None else {"position_id": order.position_id}
    return {"symbol": order.parameters.symbol, **closed}


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
            "doubt", ANOTHERS_TICKET, f"{verdict.name} with ticket {verdict.ticket}, which is {owner}'s"
        )
    book.returned(order_id, returned)
    match verdict.outcome:
        case "accepted":
            book.accept(order_id, verdict.ticket)
            for body in deals:
                book.record_deal(body)
        case "rejected":
            retcode = returned.retcode or 0
            book.reject(
                order_id,
                BrokerRejected(
                    attempt=attempt,
                    retcode=retcode,
                    retcode_name=verdict.name,
                    message=verdict.message,
                    ticket=verdict.ticket or None,
                ),
            )
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
