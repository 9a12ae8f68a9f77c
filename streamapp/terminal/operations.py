"""Operations on orders and positions that are there: compare the state, ask the broker, and compare again.

Until it holds, until the broker says no, or until its time is over (submission "Closing"; reference mt5 §7.10).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from streamapp.clock import Clock
from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import OrderParameters, plain
from streamapp.messages.operation import (
    CancelRequest,
    CloseByRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    OperationRequest,
    Outcome,
    ProtectRequest,
)
from streamapp.messages.report import ReportBody, ReportKind
from streamapp.messages.terminal import JournalRow, SubmitRequest
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal import answers, brokerlog, changes, memory
from streamapp.terminal.answers import Said
from streamapp.terminal.book import Book
from streamapp.terminal.changes import Ask, Context, Holds, Over, Record, Seen, Step, Unclear
from streamapp.terminal.connection import BrokerConnection
from streamapp.terminal.execution import CHECK_PASSED, Execution
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import NotHandedOverError, WorkerLostError
from streamapp.terminal.request import Prepared, RefusedError

logger = logging.getLogger(__name__)

ANSWER_WITHIN_S = 5.0
"""After so long whoever asked hears ``unknown`` and the work goes on: a client rarely waits longer for an answer."""
PATIENCE_S = 3.0
"""So long the terminal's tables may disagree, or not show at all what was asked about: three times what they usually
lag (reference mt5 §2.5)."""
SENDS_AT_MOST = 5
"""Requests of one operation. Each may be repeated without harm, but brokers count them (reference mt5 §3, row 33)."""
SENT_ONCE = frozenset({"close_by"})
DONE = 10009
FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.5


def backoff() -> Iterator[float]:
    """Return how long to wait before each next look, in seconds."""
    wait_s = FIRST_WAIT_S
    while True:
        yield wait_s
        wait_s = min(wait_s * 2, LONGEST_WAIT_S)


@dataclass(frozen=True)
class _Barred:
    """It is not as wanted, and nothing may be sent as things are."""

    message: str


@dataclass
class _Work:
    """An operation that is being carried out.

    ``sendings``: requests that may have reached the broker; ``said``: what is known of the last one; ``doubted``:
    whether one may still come to something. ``barred``: why no other will be sent. ``window``: the connection, and
    since when on it, the last one is looked for. ``first_look``: since when there is something to be seen.
    """

    kind: answers.Kind
    request: OperationRequest
    order_id: str | None
    sendings: int
    done: asyncio.Future[OperationReply]
    why: str = "it waits for its turn"
    said: Said | None = None
    doubted: bool = False
    barred: str = ""
    window: tuple[int, float] = (-1, 0.0)
    first_look: float | None = None
    ticket: int | None = None
    waits: Iterator[float] = field(default_factory=backoff)


class Operations:
    """Carries out one operation at a time, in order of arrival.

    Guarantees:
        Nothing is sent at or after not_after, nor before a durable note of it. What is sent again is only what can't
        happen twice: a cancellation, new values, the close of a whole position of a hedging account. A request_id has
        one outcome, whoever asks and however often.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        execution: Execution,
        account: AccountSettings,
        terminal: TerminalSettings,
        *,
        deployment: str,
        clock: Clock,
        answer_within_s: float = ANSWER_WITHIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """``execution`` takes the orders that a close becomes; ``deployment`` is in their ids."""
        self._journal = journal
        self._connection = connection
        self._execution = execution
        self._account = account
        self._terminal = terminal
        self._deployment = deployment
        self._clock = clock
        self._answer_within_s = answer_within_s
        self._patience_s = patience_s
        self._waiting: asyncio.Queue[_Work] = asyncio.Queue()
        self._works: dict[str, _Work] = {}
        self.counts: dict[str, int] = {}

    async def answer(self, kind: answers.Kind, request: OperationRequest) -> OperationReply:
        """Return what became of an operation, within a few seconds; it may be asked for again for ever."""
        known = await self._journal.write(lambda book: memory.record(book, kind, request))
        if known.digest != memory.digest_of(kind, request):
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

    def _begin(self, known: memory.Known) -> _Work:
        done: asyncio.Future[OperationReply] = asyncio.get_running_loop().create_future()
        kind: Any = known.kind
        work = _Work(kind, known.request, known.order_id, known.sendings, done)
        if work.sendings:
            work.doubted = True
            work.said = Said("doubt", "the terminal stopped, or gave up waiting, before it saw what came of it")
        self._works[work.request.request_id] = work
        self._waiting.put_nowait(work)
        return work

    async def run(self) -> None:
        """Carry operations out, for ever; first those that an earlier life did not finish."""
        for known in await self._journal.write(memory.unfinished):
            if known.request.request_id not in self._works:
                self._begin(known)
        while True:
            work = await self._waiting.get()
            try:
                reply = await self._carried_out(work)
            except Exception:
                logger.exception("operation %s could not be carried out", work.request.request_id)
                reply = self._reply(work.request, "unknown", "it could not be carried out; the terminal's log says why")
            finally:
                del self._works[work.request.request_id]
            self.counts[reply.outcome] = self.counts.get(reply.outcome, 0) + 1
            work.done.set_result(reply)

    # -- the loop

    async def _carried_out(self, work: _Work) -> OperationReply:
        while True:
            try:
                step: Step | _Barred | None = await self._step(work)
            except (NotHandedOverError, WorkerLostError, TimeoutError) as error:
                work.why = str(error) or f"the account is {self._connection.health.connection}"
                step = work.first_look = None
            except RefusedError as refused:
                step = _Barred(refused.message)
            if (reply := await self._act(work, step)) is not None:
                return reply
            await asyncio.sleep(next(work.waits))

    async def _act(self, work: _Work, step: Step | _Barred | None) -> OperationReply | None:
        """Do what a step says; return the answer once there is one."""
        match step:
            case Holds():
                return await self._finish(work, "done", step.message, step.changes)
            case Over():
                return await self._finish(work, "rejected" if work.sendings else "refused", step.message)
            case Record() if self._clock() < work.request.not_after:
                return await self._record(work, step.parameters)
            case Ask() if self._may_send(work):
                await self._send(work, step)
                return None
            case Unclear() | _Barred():
                work.why = step.message
        if not work.sendings:
            return await self._given_up_unsent(work, step)
        return await self._given_up(work, shown=isinstance(step, Ask | _Barred))

    def _may_send(self, work: _Work) -> bool:
        if work.barred or self._clock() >= work.request.not_after:
            return False
        if not work.sendings:
            return True
        repeatable = work.said is not None and work.said.meaning in {"retry", "doubt"}
        return repeatable and work.kind not in SENT_ONCE and work.sendings < SENDS_AT_MOST

    async def _given_up(self, work: _Work, *, shown: bool) -> OperationReply | None:
        """Return the answer if nothing more can come of it. ``shown``: it is plain that the state is another one."""
        said, generation = work.said, self._connection.generation
        assert said is not None
        if shown and said.meaning in {"rejected", "retry"} and not work.doubted:
            return await self._finish(work, "rejected", said.text)
        now = asyncio.get_running_loop().time()
        if work.window[0] != generation:  # what is not seen counts only on one unbroken connection
            work.window = (generation, now)
        elif now - work.window[1] >= self._window_s(said, shown=shown):
            if shown and said.meaning != "taken":
                return await self._finish(work, "rejected", f"not seen at the broker all the time after: {said.text}")
            return self._unknown(work, said)
        if self._clock() >= work.request.not_after and not self._connection.is_readable:
            return self._unknown(work, said)
        return None

    def _window_s(self, said: Said, *, shown: bool) -> float:
        """Return how long to look: a broker that says done and shows something else will not change its mind."""
        return self._patience_s if shown and said.retcode == DONE else self._terminal.settle_window_s

    def _unknown(self, work: _Work, said: Said) -> OperationReply:
        message = f"{said.text}; the broker does not show it: {work.why}. Ask again with the same request_id"
        return self._reply(work.request, "unknown", message, retcode=said.retcode, ticket=work.ticket)

    async def _given_up_unsent(self, work: _Work, step: Step | _Barred | None) -> OperationReply | None:
        late = self._clock() >= work.request.not_after
        if work.barred or isinstance(step, _Barred):
            return await self._finish(work, "refused", work.barred or work.why)
        if late and isinstance(step, Ask | Record):
            return await self._finish(work, "refused", f"not after {work.request.not_after.isoformat()}")
        if late or (isinstance(step, Unclear) and not self._is_patient(work)):
            return await self._finish(work, "refused", work.why)
        return None

    def _is_patient(self, work: _Work) -> bool:
        now = asyncio.get_running_loop().time()
        return work.first_look is None or now - work.first_look < self._patience_s

    # -- looking

    async def _step(self, work: _Work) -> Step:
        """Look, and return what is to be done next.

        Raises:
            RefusedError: as things are, nothing may be sent.
            NotHandedOverError, WorkerLostError, TimeoutError: there was nothing to be seen.
        """
        request = work.request
        if self._connection.health.connection == "wrong_account":
            raise NotHandedOverError(self._connection.health.detail)
        match request:
            case CancelRequest() | ModifyRequest():
                ticket = await self._ticket(request)
                if not isinstance(ticket, int):
                    work.first_look = work.first_look or asyncio.get_running_loop().time()
                    return ticket
                seen = await self._look(work, "order_now", ticket=ticket)
                work.ticket = ticket
                if isinstance(request, CancelRequest):
                    return changes.cancel(request, seen, self._context(work))
                return changes.modify(request, seen, self._context(work))
            case ProtectRequest():
                return changes.protect(request, await self._position(work, request.position_id), self._context(work))
            case CloseRequest():
                return changes.close(request, await self._position(work, request.position_id), self._context(work))
            case CloseByRequest():
                one = await self._position(work, request.position_id)
                other = await self._position(work, request.by_position_id)
                work.ticket = request.position_id
                return changes.close_by(request, one, other, self._context(work))
        raise TypeError(f"expected an operation, got {type(request).__name__}")

    async def _position(self, work: _Work, position_id: int) -> Seen:
        work.ticket = position_id
        return await self._look(work, "position_now", position_id=position_id)

    async def _look(self, work: _Work, operation: str, **arguments: Any) -> Seen:
        left_s = (work.request.not_after - self._clock()).total_seconds()
        if work.sendings:
            left_s = max(left_s, self._terminal.settle_window_s)
        async with asyncio.timeout(max(left_s, self._patience_s)):
            answer = await self._connection.read(operation, **arguments)
        found = answer.value
        if not found["read"]:
            raise NotHandedOverError(f"a table can't be read: {answer.error[1]} ({answer.error[0]})")
        work.first_look = work.first_look or asyncio.get_running_loop().time()
        prepared = Prepared(**found["prepared"]) if found["prepared"] else None
        return Seen(found["live"], found.get("past"), found.get("deals") or [], prepared)

    async def _ticket(self, request: CancelRequest | ModifyRequest) -> int | Step:
        """Return the broker's ticket, or what can be said without one."""
        if request.ticket is not None:
            return request.ticket
        order_id = request.order_id or ""
        ticket, row = await self._journal.write(lambda book: memory.ticket_of(book, order_id))
        if ticket is not None:
            return ticket
        if row is None:
            return Over(f"expected an order of this terminal's journal, got {order_id}")
        if row.state in {"recorded", "started", "doubt"}:
            return Unclear(f"order {order_id} is {row.state}: the broker is not known to have it. Ask again later")
        return Over(f"order {order_id} never worked at the broker: {row.state}, {row.reason}")

    def _context(self, work: _Work) -> Context:
        return Context(
            account=self._account,
            hedging=self._connection.hedging,
            time=self._connection.time,
            now=self._clock(),
            key=memory.tag_key(work.request.request_id, work.sendings + 1),
            sent=work.sendings > 0,
            patient=self._is_patient(work),
        )

    # -- sending

    async def _send(self, work: _Work, ask: Ask) -> None:
        number, request_id = work.sendings + 1, work.request.request_id
        magic = memory.magic_for(request_id, number)
        try:
            request = await self._chosen(ask)
        except RefusedError as refused:
            work.barred = refused.message
            return
        except (NotHandedOverError, WorkerLostError) as error:
            work.why = str(error)
            return
        await self._journal.write(lambda book: memory.send(book, request_id, magic, ask.ticket))
        try:
            said = await self._asked(work, request)
        except NotHandedOverError as error:
            said = Said("unsent", str(error))
        except WorkerLostError as error:
            said = Said("doubt", str(error))
        work.why = said.text
        if said.meaning in {"refused", "unsent"}:
            await self._journal.write(lambda book: memory.withdraw(book, magic))
            if said.meaning == "refused":
                work.barred = said.text
            return
        work.sendings, work.said, work.doubted = number, said, work.doubted or said.meaning == "doubt"
        work.window = (self._connection.generation, asyncio.get_running_loop().time())
        if said.meaning != "retry":  # what can be seen at once is looked at at once
            work.waits = backoff()

    async def _chosen(self, ask: Ask) -> dict[str, Any]:
        if len(ask.requests) == 1:
            return ask.requests[0]
        for request in ask.requests:  # asked, never tried by sending
            check = (await self._connection.ask("check", request=request)).value
            if check is not None and check["retcode"] == CHECK_PASSED:
                return request
        raise RefusedError("invalid", "expected a filling mode that the symbol allows, order_check took none")

    async def _asked(self, work: _Work, request: dict[str, Any]) -> Said:
        if not self._connection.is_readable:
            raise NotHandedOverError("the connection was lost before anything was sent")
        answer = await self._connection.ask(
            "send",
            deadline_s=self._terminal.order_send_deadline_s,
            logged=False,
            request=request,
            not_after=work.request.not_after.timestamp(),
        )
        await self._journal.write(lambda book: brokerlog.append(book, answer.log, work.order_id))
        if not answer.value["sent"]:
            return Said("unsent", f"not after {work.request.not_after.isoformat()}, seen immediately before the call")
        result = answer.value["result"] or {}
        return answers.said(work.kind, result.get("retcode"), result.get("comment", ""), answer.error)

    # -- the end

    async def _record(self, work: _Work, wanted: OrderParameters) -> OperationReply | None:
        assert isinstance(work.request, CloseRequest)
        order = closing_order(work.request, wanted, self._deployment)
        record = partial(_recorded, order=order, request=work.request, deployment=self._deployment)
        found = await self._journal.write(record)
        if isinstance(found, str):
            work.why = f"order {found} closes this position, and is not over. Ask again when it is"
            return await self._given_up_unsent(work, Unclear(work.why))
        reply, new = found
        if new and reply.row is not None and reply.row.state == "recorded":
            self._execution.add(order)
        return reply

    async def _finish(
        self, work: _Work, outcome: Outcome, message: str, taken: dict[str, Any] | None = None
    ) -> OperationReply:
        retcode = work.said.retcode if work.said is not None else None
        reply = self._reply(work.request, outcome, message, retcode=retcode, ticket=work.ticket)
        if outcome == "refused" and self._may_be_of_a_lost_journal(work.request):
            text = "it was asked of a journal that is lost, and may have been carried out: look at the position"
            return reply.model_copy(update={"outcome": "unknown", "message": f"{text}. Now: {message}"})
        said = _said_of_the_order(work.request, outcome, message, taken or {})
        await self._journal.write(lambda book: memory.finish(book, reply, work.order_id, said))
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


def closing_order(request: CloseRequest, wanted: OrderParameters, deployment: str) -> SubmitRequest:
    """Return the order that a close is when it can't be repeated; the same for the same request."""
    content = [request.position_id, plain(wanted.volume), wanted.side, wanted.symbol]
    return SubmitRequest(
        order_id=order_id_for(deployment, request.account, f"close:{request.request_id}"),
        account=request.account,
        hash=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        epoch=request.epoch,
        not_after=request.not_after,
        parameters=wanted,
        position_id=request.position_id,
    )


def _recorded(
    book: Book, *, order: SubmitRequest, request: CloseRequest, deployment: str
) -> tuple[OperationReply, bool] | str:
    """Record a closing order and that it is one; return the order that is in its way, if there is."""
    other = memory.closing_now(book, request.position_id)
    if other is not None and other != order.order_id:
        return other
    new = book.row(order.order_id) is None
    if new:
        created = facts.OrderCreated(
            parameters=order.parameters,
            parameters_hash=order.hash,
            signal_id=f"close:{request.request_id}",
            signal_at=book.clock(),
            not_after=order.not_after,
            executor=deployment,
            metadata={"position_id": request.position_id, "issued_by": request.issued_by},
        )
        book.report("created", order.order_id, created)
    row = book.submit(order).row
    reply = OperationReply(
        request_id=request.request_id,
        account=book.account,
        outcome="recorded",
        message=f"order {order.order_id} closes {plain(order.parameters.volume)} lots; ask again for its state",
        row=row,
        epoch=book.epoch,
        clock=book.clock(),
    )
    memory.finish(book, reply, order.order_id)
    return reply, new


def _said_of_the_order(
    request: OperationRequest, outcome: Outcome, message: str, taken: dict[str, Any]
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
