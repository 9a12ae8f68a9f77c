"""Operations on orders and positions that are there: compare the state, ask the broker, and compare again.

Until it holds, until the broker says no, or until its time is over (submission "Closing"; reference mt5 §7.10).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from functools import partial
from typing import Any

from streamapp import logs
from streamapp.clock import Clock
from streamapp.domain import facts
from streamapp.messages.operation import (
    CancelRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    OperationRequest,
    Outcome,
)
from streamapp.messages.report import ReportBody, ReportKind
from streamapp.messages.terminal import JournalRow
from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import OperationKind, OperationVerdict, classify_operation
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.judging import OrderLimits
from streamapp.terminal.account.orders import Execution
from streamapp.terminal.account.request import NotYetError, RefusedError, chosen
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal import broker_log, operation_rows
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.operations.close import closing_orders, record
from streamapp.terminal.operations.operation import Blocked, Operation
from streamapp.terminal.operations.planner import Planner
from streamapp.terminal.operations.rules import Ask, AsOrder, Done, Impossible, Step, Unknown
from streamapp.terminal.pipe.calls import Send
from streamapp.terminal.pipe.structs import TradeRequest

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0
"""After so long whoever asked hears ``unknown`` and the work goes on: a client rarely waits longer for an answer."""
PATIENCE_S = 3.0
"""So long the terminal's tables may disagree, or not show at all what was asked about: three times what they usually
lag (reference mt5 §2.5)."""
SENDS_AT_MOST = 5
"""Requests of one operation. Each may be repeated without harm, but brokers count them (reference mt5 §3, row 33)."""
SENT_ONCE = frozenset({"close_by"})
OVERWRITING = frozenset({"modify", "protect"})
"""Sent again after a newer one of its kind, such a request would take back what that one set."""


class Operations:
    """Carries operations out in order of arrival, one after another; one that has to wait for long lets others go on.

    Guarantees:
        Those of one order or position never overtake each other. Nothing is sent at or after not_after, nor before a
        durable note of it. What is sent again is only what can't happen twice: a cancellation, new values, the close of
        a whole position of a hedging account. A request_id has one outcome, whoever asks and however often.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        execution: Execution,
        limits: OrderLimits,
        *,
        deployment: str,
        clock: Clock,
        answer_within_s: float = ANSWER_WITHIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``execution`` takes the orders that a close becomes; ``deployment`` is in their ids."""
        self._journal = journal
        self._connection = connection
        self._steps = Planner(journal, connection, limits, patience_s=patience_s, clock=clock)
        self._execution = execution
        self._terminal = limits.terminal
        self._deployment = deployment
        self._clock = clock
        self._answer_within_s = answer_within_s
        self._patience_s = patience_s
        self._waiting: asyncio.Queue[Operation] = asyncio.Queue()
        self._works: dict[str, Operation] = {}
        self.counts: dict[str, int] = {}

    async def answer(self, kind: OperationKind, request: OperationRequest) -> OperationReply:
        """Return what became of an operation, within a few seconds; it may be asked for again for ever."""
        known = await self._journal.write(lambda book: operation_rows.record(book, kind, request))
        if known is None:
            text = "it may have been carried out, and the journal have forgotten it since: look at the broker"
            return self._reply(request, "unknown", text)
        if known.digest != operation_rows.digest_of(kind, request):
            logger.error("operation %s: asked for again with other content; the first stands", request.request_id)
            message = f"request_id {request.request_id} was used for another {known.kind}: the first stands"
            return self._reply(request, "conflict", message)
        if known.reply is not None:
            return await self._repeated(known.reply, known.order_id)
        work = self._works.get(request.request_id) or self._begin(known)
        try:
            return await asyncio.wait_for(asyncio.shield(work.done), self._answer_within_s)
        except TimeoutError:
            return self._reply(request, "unknown", f"not finished: {work.why}. Ask again with the same request_id")

    async def _repeated(self, reply: OperationReply, order_id: str | None) -> OperationReply:
        row: JournalRow | None = None
        if reply.outcome == "recorded" and order_id is not None:
            row = await self._journal.write(lambda book: book.row(order_id))
        ticket = reply.ticket if row is None else row.ticket
        return reply.model_copy(update={"clock": self._clock(), "row": row, "ticket": ticket})

    def _begin(self, known: operation_rows.KnownOperation) -> Operation:
        done: asyncio.Future[OperationReply] = asyncio.get_running_loop().create_future()
        kind: Any = known.kind
        work = Operation(kind, known.request, known.order_id, known.sendings, done)
        if work.sendings:
            work.doubted = True
            text = "the terminal stopped, or gave up waiting, before it saw what came of it"
            work.verdict = OperationVerdict("doubt", text)
        self._works[work.request.request_id] = work
        self._waiting.put_nowait(work)
        return work

    async def run(self) -> None:
        """Carry operations out, for ever; first those that an earlier life did not finish."""
        for known in await self._journal.write(operation_rows.unfinished):
            if known.request.request_id not in self._works:
                self._begin(known)
        async with asyncio.TaskGroup() as tasks:
            while True:
                work = await self._waiting.get()
                tasks.create_task(self._done(work))
                await work.aside.wait()

    async def _done(self, work: Operation) -> None:
        """Carry one out after those before it that have a target in common; answer it."""
        try:
            if before := self._before(work):
                work.aside.set()
                await asyncio.wait(before)
            with logs.about(order_id=work.order_id, request_id=work.request.request_id):
                reply = await self._carried_out(work)
        except Exception:
            logger.exception("operation %s could not be carried out", work.request.request_id)
            reply = self._reply(work.request, "unknown", "it could not be carried out; the terminal's log says why")
        finally:
            del self._works[work.request.request_id]
            work.aside.set()
        self.counts[reply.outcome] = self.counts.get(reply.outcome, 0) + 1
        work.done.set_result(reply)

    def _before(self, work: Operation) -> list[asyncio.Future[OperationReply]]:
        earlier = itertools.takewhile(lambda other: other is not work, self._works.values())
        return [other.done for other in earlier if other.targets & work.targets]

    # -- the loop

    async def _carried_out(self, work: Operation) -> OperationReply:
        while True:
            try:
                step: Step | Blocked | None = await self._steps.next_for(work)
            except (NotHandedOverError, WorkerLostError, TimeoutError) as error:
                health = self._connection.health.connection
                work.why = str(error) or f"nothing could be read in time; the account is {health}"
                step = work.first_look = None
            except NotYetError as refused:
                step = Unknown(refused.message)
            except RefusedError as refused:
                step = Blocked(refused.message)
            if (reply := await self._act(work, step)) is not None:
                return reply
            await work.wait()

    async def _act(self, work: Operation, step: Step | Blocked | None) -> OperationReply | None:
        """Do what a step says; return the answer once there is one."""
        match step:
            case Done():
                return await self._finish(work, "done", step.message, step.changes)
            case Impossible():
                return await self._finish(work, "rejected" if work.sendings else "refused", step.message)
            case AsOrder() if self._clock() < work.request.not_after:
                return await self._record(work, step)
            case Ask() if self._may_send(work):
                await self._send(work, step)
                return None
            case Unknown() | Blocked():
                work.why = step.message
        if not work.sendings:
            return await self._given_up_unsent(work, step)
        return await self._given_up(work, shown=isinstance(step, Ask | Blocked))

    def _may_send(self, work: Operation) -> bool:
        if work.barred or self._clock() >= work.request.not_after:
            return False
        if not work.sendings:
            return True
        repeatable = work.verdict is not None and work.verdict.meaning in {"retry", "doubt"}
        return repeatable and work.kind not in SENT_ONCE and work.sendings < SENDS_AT_MOST

    async def _given_up(self, work: Operation, *, shown: bool) -> OperationReply | None:
        """Return the answer if nothing more can come of it. ``shown``: it is plain that the state is another one."""
        verdict, generation = work.verdict, self._connection.generation
        assert verdict is not None
        if shown and verdict.meaning in {"rejected", "retry"} and not work.doubted:
            return await self._finish(work, "rejected", verdict.text)
        now = asyncio.get_running_loop().time()
        if work.window[0] != generation:  # what is not seen counts only on one unbroken connection
            work.window = (generation, now)
        elif now - work.window[1] >= self._window_s(verdict, shown=shown):
            if shown and verdict.meaning != "taken":
                text = "; ".join(part for part in (verdict.text, work.barred) if part)
                return await self._finish(work, "rejected", f"not seen at the broker all the time after: {text}")
            return self._unknown(work, verdict)
        if self._clock() >= work.request.not_after and not self._connection.is_readable:
            return self._unknown(work, verdict)
        return None

    def _window_s(self, verdict: OperationVerdict, *, shown: bool) -> float:
        """Return how long to look: a broker that says done and shows something else will not change its mind."""
        done = verdict.retcode == mt5.TRADE_RETCODE_DONE
        return self._patience_s if shown and done else self._terminal.settle_window_s

    def _unknown(self, work: Operation, verdict: OperationVerdict) -> OperationReply:
        message = f"{verdict.text}; the broker does not show it: {work.why}. Ask again with the same request_id"
        return self._reply(work.request, "unknown", message, retcode=verdict.retcode, ticket=work.ticket)

    async def _given_up_unsent(self, work: Operation, step: Step | Blocked | None) -> OperationReply | None:
        late = self._clock() >= work.request.not_after
        if work.barred or isinstance(step, Blocked):
            return await self._finish(work, "refused", work.barred or work.why)
        if late and isinstance(step, Ask | AsOrder):
            waited = f": {work.why}" if work.why else ""
            return await self._finish(work, "refused", f"not after {work.request.not_after.isoformat()}{waited}")
        if late or (isinstance(step, Unknown) and not work.is_within_grace(self._patience_s)):
            return await self._finish(work, "refused", work.why)
        return None

    # -- sending

    async def _send(self, work: Operation, ask: Ask) -> None:
        number, request_id = work.sendings + 1, work.request.request_id
        magic = operation_rows.magic_for(request_id, number)
        try:
            request = await chosen(self._connection, ask.requests)
        except RefusedError as refused:
            work.barred = refused.message
            return
        except (NotHandedOverError, WorkerLostError) as error:
            work.why = str(error)
            return
        overwrites, unseen_s = work.kind in OVERWRITING, self._terminal.settle_window_s
        barred = await self._journal.write(
            lambda book: operation_rows.send(
                book, request_id, magic, ask.ticket, overwrites=overwrites, unseen_s=unseen_s
            )
        )
        if barred is not None:
            work.barred = barred
            return
        try:
            verdict = await self._asked(work, request)
        except NotHandedOverError as error:
            verdict = OperationVerdict("unsent", str(error))
        except WorkerLostError as error:
            verdict = OperationVerdict("doubt", str(error))
        work.why = verdict.text
        if verdict.meaning in {"refused", "unsent"}:
            await self._journal.write(lambda book: operation_rows.withdraw(book, magic))
            if verdict.meaning == "refused":
                work.barred = verdict.text
            return
        if verdict.retcode == mt5.TRADE_RETCODE_INVALID_FILL:
            work.denied |= {request["type_filling"]}
        work.sendings, work.verdict, work.doubted = number, verdict, work.doubted or verdict.meaning == "doubt"
        work.window = (self._connection.generation, asyncio.get_running_loop().time())
        if verdict.meaning != "retry":  # what can be seen at once is looked at at once
            work.backoff.reset()

    async def _asked(self, work: Operation, request: TradeRequest) -> OperationVerdict:
        if not self._connection.is_readable:
            raise NotHandedOverError("the connection was lost before anything was sent")
        answer = await self._connection.ask(
            Send(request, work.request.not_after.timestamp()),
            deadline_s=self._terminal.order_send_deadline_s,
            logged=False,
        )
        await self._journal.write(lambda book: broker_log.append(book, answer.log, work.order_id))
        if not answer.value.sent:
            late = f"not after {work.request.not_after.isoformat()}, seen immediately before the call"
            return OperationVerdict("unsent", late)
        result = answer.value
        return classify_operation(work.kind, result.retcode, result.comment, answer.error)

    # -- the end

    async def _record(self, work: Operation, step: AsOrder) -> OperationReply | None:
        assert isinstance(work.request, CloseRequest)
        orders = closing_orders(work.request, step.parameters, step.largest, self._deployment)
        hedging = self._connection.hedging
        found = await self._journal.write(
            partial(record, orders=orders, request=work.request, deployment=self._deployment, hedging=hedging)
        )
        if isinstance(found, str):
            work.why = f"order {found} may still change this position. Ask again when it is over"
            return await self._given_up_unsent(work, Unknown(work.why))
        reply, new = found
        for order in new:
            self._execution.add(order)
        return reply

    async def _finish(
        self, work: Operation, outcome: Outcome, message: str, taken: dict[str, str | None] | None = None
    ) -> OperationReply:
        retcode = work.verdict.retcode if work.verdict is not None else None
        reply = self._reply(work.request, outcome, message, retcode=retcode, ticket=work.ticket)
        if outcome == "refused" and self._may_be_of_a_lost_journal(work.request):
            text = "it was asked of a journal that is lost, and may have been carried out: look at the position"
            return reply.model_copy(update={"outcome": "unknown", "message": f"{text}. Now: {message}"})
        said = _said_of_the_order(work.request, outcome, message, taken or {})
        await self._journal.write(lambda book: operation_rows.finish(book, reply, work.order_id, said))
        return reply

    def _may_be_of_a_lost_journal(self, request: OperationRequest) -> bool:
        return isinstance(request, CloseRequest) and request.epoch != self._journal.book.epoch

    def _reply(self, request: OperationRequest, outcome: Outcome, message: str, **fields: Any) -> OperationReply:
        book = self._journal.book
        return OperationReply(
            request_id=request.request_id,
            account=book.account,
            outcome=outcome,
            message=message,
            epoch=book.epoch,
            clock=self._clock(),
            **fields,
        )


def _said_of_the_order(
    request: OperationRequest, outcome: Outcome, message: str, taken: dict[str, str | None]
) -> tuple[ReportKind, ReportBody] | None:
    """Return the report of an outcome: a cancelled order's end is seen by the watch, and said by it."""
    match request:
        case CancelRequest() if outcome != "done":
            return "cancel_rejected", facts.CancelRejected(request_id=request.request_id, message=message)
        case ModifyRequest() if outcome == "done":
            return "modified", facts.Modified(request_id=request.request_id, changes=taken)
        case ModifyRequest():
            return "modify_rejected", facts.ModifyRejected(request_id=request.request_id, message=message)
        case _:
            return None
