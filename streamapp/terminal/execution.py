"""The queue of recorded orders: judged, STARTED, sent once, classified (submission, steps 5 to 8, 10)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from streamapp import crashpoints
from streamapp.clock import Clock
from streamapp.domain.facts import (
    BrokerRejected,
    OutcomeUnknown,
    RefusedReason,
    SubmitRefused,
    SubmitReturned,
    SubmitStarted,
)
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import OpeningVerdict, classify_opening
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal import brokerlog
from streamapp.terminal.admission import judge
from streamapp.terminal.book import Book
from streamapp.terminal.choosing import chosen
from streamapp.terminal.closing import in_the_way
from streamapp.terminal.connection import BrokerConnection
from streamapp.terminal.filling import fillings
from streamapp.terminal.foresight import Foresight
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import ORDER, Answer, NotHandedOverError, WorkerLostError
from streamapp.terminal.request import NotYetError, Prepared, RefusedError, build, number, protection
from streamapp.terminal.synchronisation import FUTURE, OVERLAP

logger = logging.getLogger(__name__)

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
    """An order that may be sent: what the market showed, on which connection, and the request.

    ``levels`` are stop loss and take profit that its position shall have, 0 for none; ``denied`` the filling modes that
    the broker refused to earlier attempts.
    """

    order: SubmitRequest
    started: SubmitStarted
    request: dict[str, Any]
    levels: tuple[Decimal, Decimal]
    generation: int
    denied: frozenset[int] = frozenset()


@dataclass
class _Aside:
    """An order that waits for a quote: until when (of the loop), and the time of the last quote that it saw."""

    until_s: float
    quote_ms: int = 0


class Execution:
    """Carries out recorded orders one after another, in order of arrival.

    Guarantees:
        ``order_send`` is called at most once for an attempt in all lives of the journal: only after a durable STARTED
        that this life made. The next attempt begins only with the broker's proof that the one before came to nothing
        (mt5.retcodes.AGAIN), in the transaction that writes it down.
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
        """``on_accepted`` is told (order_id, ticket, volume, attempt) once the acceptance is durable."""
        self._journal = journal
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._on_accepted = on_accepted
        self._foresight = Foresight(connection)
        self._waiting: asyncio.Queue[SubmitRequest | asyncio.Future[Any]] = asyncio.Queue()
        self._recording: set[asyncio.Future[OpeningVerdict]] = set()
        self._asides: dict[str, _Aside] = {}
        self._busy = False
        self.idle = asyncio.Event()
        self.idle.set()
        self.counts: dict[str, int] = {}

    def foresee(self, order: SubmitRequest) -> None:
        """Read ahead for an order that is being recorded, where it will be the next one."""
        if not self._busy and self._waiting.empty():
            self._foresight.look(order)

    def add(self, order: SubmitRequest) -> None:
        """Take a recorded order."""
        self._connection.want(order.parameters.symbol)
        self._waiting.put_nowait(order)

    @property
    def depth(self) -> int:
        """How many recorded orders wait."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Carry orders out, for ever."""
        while True:
            order = await self._waiting.get()
            if isinstance(order, asyncio.Future):
                await order
                continue
            self._busy = True
            self.idle.clear()
            try:
                await self._execute(order)
            except RefusedError as refused:
                if not (isinstance(refused, NotYetError) and self._put_aside(order)):
                    await self._refuse(order, refused.reason, refused.message)
            finally:
                self._busy = False
                self._say_idle()

    def _put_aside(self, order: SubmitRequest) -> bool:
        """Let an order come again in a moment; False if it has waited long enough."""
        now_s = asyncio.get_running_loop().time()
        aside = self._asides.setdefault(order.order_id, _Aside(now_s + QUOTE_WITHIN_S))
        if now_s >= aside.until_s:
            del self._asides[order.order_id]
            return False
        asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._waiting.put_nowait, order)
        return True

    async def _execute(self, order: SubmitRequest) -> None:
        judged: _Judged | None = await self._judged(order)
        assert judged is not None
        self._asides.pop(order.order_id, None)
        started, levels = judged.started, judged.levels
        if not await self._journal.write(lambda book: _start(book, order, started, levels)):
            logger.warning("order %s: not started, its row is no longer recorded", order.order_id)
            return
        while judged is not None:
            crashpoints.reach("terminal.after_started")
            judged = await self._sent(judged)

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
                prepared = Prepared(**await self._foresight.take(order))
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
        before, aside.quote_ms = aside.quote_ms, prepared.tick["time_msc"]
        return before not in (0, aside.quote_ms)

    async def _request(self, order: SubmitRequest, prepared: Prepared, denied: frozenset[int]) -> dict[str, Any]:
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
            quote_at=self._connection.time.utc(prepared.tick["time_msc"]),
            point=number(prepared.symbol["point"]),
            contract_size=number(prepared.symbol["trade_contract_size"]),
            account_rate=number(prepared.rate or 0),
            currency=self._connection.currency,
            sent_at=self._clock(),
        )

    async def _sent(self, judged: _Judged) -> _Judged | None:
        """Make the one ``order_send`` of an attempt that is STARTED; return the next attempt, if that is by now."""
        order = judged.order
        if self._connection.generation != judged.generation:  # while that was recorded, which a bad disk makes long
            message = "the connection that it was judged on was lost before it was sent"
            await self._refuse(order, "not_connected", message)
            return None
        until = min(order.not_after, judged.started.sent_at + timedelta(seconds=JUDGED_FOR_S))
        try:
            answer = await self._connection.ask(
                "send",
                urgency=ORDER,
                deadline_s=self._limits.terminal.order_send_deadline_s,
                logged=False,
                request=judged.request,
                not_after=until.timestamp(),
            )
        except NotHandedOverError as error:
            await self._refuse(order, "not_connected", f"never handed to the worker: {error}")
        except WorkerLostError as error:
            await self._doubt(order, "deadline" if error.deadline else "worker_lost", str(error))
        else:
            if answer.value["sent"]:
                return await self._settle(judged, answer)
            await self._refuse(order, "stale", f"not after {until.isoformat()}, seen immediately before order_send")
        return None

    async def _settle(self, judged: _Judged, answer: Answer) -> _Judged | None:
        order = judged.order
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
        if verdict.again and order.attempt < self._limits.terminal.attempts_at_most:
            return await self._again(judged, returned, verdict, answer)
        # Not awaited: the next order is judged meanwhile, and its STARTED shares this commit. A kill before it is on
        # disk leaves a STARTED row, which the next life takes for the doubt that it is.
        recorded = self._journal.write(lambda book: _record(book, order, returned, verdict, answer))
        self._recording.add(recorded)
        recorded.add_done_callback(partial(self._on_recorded, order))
        if verdict.outcome == "doubt":
            await recorded
            await self._connection.renew()  # what answers so may be out of step; the resolver must not ask it
        return None

    async def _again(
        self, judged: _Judged, returned: SubmitReturned, verdict: OpeningVerdict, answer: Answer
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
        wanted = {"magic": magic_of(order.order_id), "tag": tag_of(order.order_id), "alike_from": None}
        since, until = time.server_s(now - OVERLAP), time.server_s(now + FUTURE)
        look = await self._connection.read_now("search", orders=[wanted], since=since, until=until, settled_until=since)
        if not look.value["read"] or any(look.value["found"].values()):
            raise RefusedError("guard", "the broker does not show that there is nothing of it")
        is_denied = returned.retcode == mt5.TRADE_RETCODE_INVALID_FILL
        denied = judged.denied | ({judged.request["type_filling"]} if is_denied else frozenset[int]())
        return await self._judged(order.model_copy(update={"attempt": order.attempt + 1}), denied)

    def _on_recorded(self, order: SubmitRequest, recorded: asyncio.Future[OpeningVerdict]) -> None:
        self._recording.discard(recorded)
        self._say_idle()
        if recorded.cancelled():
            return
        if recorded.exception() is not None:
            self._waiting.put_nowait(recorded)  # raised again by run(), which ends the process
            return
        verdict = recorded.result()
        self._count(verdict.outcome)
        if verdict.name == ANOTHERS_TICKET:
            self._waiting.put_nowait(asyncio.ensure_future(self._connection.renew()))
        crashpoints.reach("terminal.after_result")
        if verdict.outcome == "accepted" and order.parameters.order_type == "market":  # the watch sees to the others
            self._on_accepted(order.order_id, verdict.ticket, order.parameters.volume, order.attempt)

    def _say_idle(self) -> None:
        if not self._busy and not self._recording:
            self.idle.set()

    async def _refuse(self, order: SubmitRequest, reason: RefusedReason, message: str) -> None:
        self._asides.pop(order.order_id, None)
        body = SubmitRefused(attempt=order.attempt, reason=reason, message=message)
        await self._journal.write(lambda book: book.refuse(order.order_id, body))
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


def _start(book: Book, order: SubmitRequest, started: SubmitStarted, levels: tuple[Decimal, Decimal]) -> bool:
    _refuse_halted(book, order)  # once more: a duplicate may have been found while the order was judged
    book.expect_levels(order.order_id, *levels)
    return book.start(order.order_id, started)


def _start_again(book: Book, order: SubmitRequest, rejected: BrokerRejected, judged: _Judged) -> bool:
    _refuse_halted(book, order)
    book.expect_levels(order.order_id, *judged.levels)
    return book.start_again(order.order_id, rejected, judged.started)


def _note(book: Book, order: SubmitRequest, returned: SubmitReturned, answer: Answer) -> None:
    brokerlog.append(book, answer.log, order.order_id)
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
    book: Book, order: SubmitRequest, returned: SubmitReturned, verdict: OpeningVerdict, answer: Answer
) -> OpeningVerdict:
    """Write an answer and what it means: one transaction, so that no report is without its row; return what it means.

    The ticket of another order is the answer to that one (reference mt5 §1.1: replies may be out of phase).
    """
    order_id, attempt = order.order_id, order.attempt
    owner = book.owner(verdict.ticket) if verdict.outcome == "accepted" else None
    if owner not in (None, order_id):
        verdict = OpeningVerdict(
            "doubt", ANOTHERS_TICKET, f"{verdict.name} with ticket {verdict.ticket}, which is {owner}'s"
        )
    _note(book, order, returned, answer)
    match verdict.outcome:
        case "accepted":
            book.accept(order_id, verdict.ticket)
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
    return verdict
