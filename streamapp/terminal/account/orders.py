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
from streamapp.domain.identifiers import magic_of
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5.retcodes import OpeningVerdict, classify_opening
from streamapp.settings import AccountSettings, GuardSettings, TerminalSettings
from streamapp.terminal.account.choosing import chosen
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.filling import fillings
from streamapp.terminal.account.prefetch import Foresight
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.request import Prepared, RefusedError, build, number
from streamapp.terminal.account.worker_client import ORDER, Answer, NotHandedOverError, WorkerLostError
from streamapp.terminal.journal import brokerlog
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal

logger = logging.getLogger(__name__)

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


class Execution:
    """Carries out recorded orders one after another, in order of arrival.

    Guarantees:
        ``order_send`` is called at most once for an order in all lives of the journal: only after a durable STARTED
        that this life made.
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
                await self._refuse(order, refused.reason, refused.message)
            finally:
                self._busy = False
                self._say_idle()

    async def _execute(self, order: SubmitRequest) -> None:
        judged = await self._judged(order)
        started = judged.started
        if not await self._journal.write(lambda book: _start(book, order, started)):
            logger.warning("order %s: not started, its row is no longer recorded", order.order_id)
            return
        crashpoints.reach("terminal.after_started")
        if self._connection.generation != judged.generation:  # while that was recorded, which a bad disk makes long
            raise RefusedError("not_connected", "the connection that it was judged on was lost before it was sent")
        until = min(order.not_after, started.sent_at + timedelta(seconds=JUDGED_FOR_S))
        await self._send(order, judged.request, until)

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
                prepared = Prepared(**await self._foresight.take(order))
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

    async def _send(self, order: SubmitRequest, request: dict[str, Any], until: datetime) -> None:
        try:
            answer = await self._connection.ask(
                "send",
                urgency=ORDER,
                deadline_s=self._limits.terminal.order_send_deadline_s,
                logged=False,
                request=request,
                not_after=until.timestamp(),
            )
        except NotHandedOverError as error:
            await self._refuse(order, "not_connected", f"never handed to the worker: {error}")
        except WorkerLostError as error:
            await self._doubt(order, "deadline" if error.deadline else "worker_lost", str(error))
        else:
            if answer.value["sent"]:
                await self._settle(order, answer)
            else:
                await self._refuse(order, "stale", f"not after {until.isoformat()}, seen immediately before order_send")

    async def _settle(self, order: SubmitRequest, answer: Answer) -> None:
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
        recorded = self._journal.write(lambda book: _record(book, order, returned, verdict, answer))
        self._recording.add(recorded)
        recorded.add_done_callback(partial(self._on_recorded, order))
        if verdict.outcome == "doubt":
            await recorded
            await self._connection.renew()  # what answers so may be out of step; the resolver must not ask it

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


def _start(book: Book, order: SubmitRequest, started: SubmitStarted) -> bool:
    _refuse_halted(book, order)  # once more: a duplicate may have been found while the order was judged
    return book.start(order.order_id, started)


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
    brokerlog.append(book, answer.log, order_id)
    book.returned(order_id, returned)
    match verdict.outcome:
        case "accepted":
            book.accept(order_id, verdict.ticket)
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
    return verdict
