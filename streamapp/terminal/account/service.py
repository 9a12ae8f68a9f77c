"""The account's request subjects on NATS: submit, hello, replay, ack, operations, reads, resume (design: messages)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamapp import subjects
from streamapp.clock import Clock
from streamapp.errors import Transient, Unusable
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.operation import (
    OPERATIONS,
    OperationReply,
    OperationRequest,
    ResumeReply,
    ResumeRequest,
    SettleReply,
    SettleRequest,
)
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    JournalRow,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.orders import Execution
from streamapp.terminal.account.readings import REQUESTS as READS
from streamapp.terminal.account.readings import Readings
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.operations.runner import Operations

logger = logging.getLogger(__name__)

Q = TypeVar("Q", bound=Message)
Handler = Callable[[Msg], Awaitable[None]]


class Service:
    """Answers the requests of one account.

    Guarantees:
        Submits are recorded in order of arrival, and answered when that is durable.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        execution: Execution,
        operations: Operations,
        replay: Callable[[int, str], Awaitable[int]],
        *,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._execution = execution
        self._operations = operations
        self._readings = Readings(journal, connection, clock=clock)
        self._replay = replay
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._client: Client | None = None
        self.conflicts = 0
        self.broken_requests = 0

    @property
    def _epoch(self) -> str:
        return self._journal.book.epoch

    @property
    def _account(self) -> str:
        return self._journal.book.account

    async def start(self, client: Client) -> None:
        """Subscribe; from here on requests are answered."""
        self._client = client
        handlers: dict[str, Handler] = {
            "submit": self._on_submit,
            "hello": self._on_hello,
            "ack": self._answering(AckRequest, self._ack, self._refusal),
            "replay": self._answering(ReplayRequest, self._replayed, self._refusal),
            "resume": self._answering(ResumeRequest, self._resume, partial(self._refused_as, ResumeReply)),
            "settle": self._answering(SettleRequest, self._settle, partial(self._refused_as, SettleReply)),
        }
        for kind, request in OPERATIONS.items():
            handlers[kind] = self._answering(request, partial(self._operate, kind), self._refused_operation)
        for name, reading in READS.items():
            answer = partial(self._readings.answer, name)
            handlers[name] = self._answering(reading, answer, partial(self._refused_reading, name))
        for operation, handler in handlers.items():
            await client.subscribe(subjects.terminal(self._account, operation), cb=handler)

    # -- submit: recorded in the callback's order, answered when durable

    async def _on_submit(self, message: Msg) -> None:
        try:
            request = SubmitRequest.decode(message.data)
            self._refuse_other(request.account)
        except Unusable as error:
            self.broken_requests += 1
            self._spawn(self._respond(message, self._error(str(error))))
            return
        answer, loop = self._execution.submit(request), asyncio.get_running_loop()
        # A turn of the loop later: what leaves in this one is the order itself, on its way to the worker.
        answer.add_done_callback(lambda done: loop.call_soon(self._answer_submit, message, request, done))

    def _answer_submit(self, message: Msg, request: SubmitRequest, done: asyncio.Future[SubmitReply]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            logger.error("order %s: the journal could not take it", request.order_id, exc_info=error)
            self._spawn(self._respond(message, self._error(f"the journal could not take it: {error}")))
            return
        reply = done.result()
        if reply.state == "conflict":
            self.conflicts += 1
            logger.error(
                "order %s: submitted again with other parameters (%s); the first ones stand",
                request.order_id,
                request.hash,
            )
        self._spawn(self._respond(message, reply.encode()))

    def _error(self, text: str) -> bytes:
        return SubmitReply(state=None, epoch=self._epoch, clock=self._clock(), error=text).encode()

    # -- the others

    def _answering(
        self, request: type[Q], answer: Callable[[Q], Awaitable[Message]], refusal: Callable[[str, bytes], bytes]
    ) -> Handler:
        """Return what answers a subject, each request beside the others: long ones must not stand in front of any.

        Args:
            request: What comes; an empty payload is taken as ``{}``.
            answer: Returns the reply.
            refusal: Returns the reply to what is none or another account's, from the reason and the payload.
        """

        async def respond(message: Msg) -> None:
            try:
                asked = request.decode(message.data or b"{}")
                self._refuse_other(getattr(asked, "account", self._account))
                reply = (await answer(asked)).encode()
            except Unusable as error:
                self.broken_requests += 1
                reply = refusal(str(error), message.data)
            await self._respond(message, reply)

        async def handle(message: Msg) -> None:
            self._spawn(respond(message))

        return handle

    def _refuse_other(self, account: str) -> None:
        if account != self._account:
            raise Unusable("invalid", f"expected account {self._account}, got {account}")

    def _refusal(self, error: str, _: bytes) -> bytes:
        return json.dumps({"epoch": self._epoch, "error": error}).encode()

    def _refused_as(self, reply: type[ResumeReply | SettleReply], error: str, _: bytes) -> bytes:
        return reply(account=self._account, error=error, clock=self._clock()).encode()

    def _refused_reading(self, name: str, error: str, _: bytes) -> bytes:
        return self._readings.refusal(name, error).encode()

    def _refused_operation(self, error: str, payload: bytes) -> bytes:
        return OperationReply(
            request_id=_request_id(payload),
            account=self._account,
            outcome="refused",
            message=error,
            epoch=self._epoch,
            clock=self._clock(),
        ).encode()

    async def _on_hello(self, message: Msg) -> None:
        """Answer, whatever is asked: who says hello looks for any answer."""
        health = self._connection.health
        reply = HelloReply(
            account=self._account,
            epoch=self._epoch,
            clock=self._clock(),
            connection=health.connection,
            detail=health.detail,
            last_seq=self._journal.last_seq,
            released_seq=self._journal.released_seq,
        )
        await self._respond(message, reply.encode())

    async def _ack(self, request: AckRequest) -> AckReply:
        journal = self._journal
        if request.epoch == self._epoch:  # a watermark of a journal that was lost says nothing about this one
            journal.release("reports", min(request.watermark, journal.last_seq))
        return AckReply(epoch=self._epoch, released_seq=journal.released_seq, last_seq=journal.last_seq)

    async def _replayed(self, request: ReplayRequest) -> ReplayReply:
        if request.epoch != self._epoch:
            text = f"expected epoch {self._epoch}, got {request.epoch}"
            return ReplayReply(epoch=self._epoch, published=0, error=text)
        try:
            published = await self._replay(max(request.after_seq, self._journal.released_seq), request.replay_id)
        except (Transient, Unusable) as error:
            return ReplayReply(epoch=self._epoch, published=0, error=str(error))
        return ReplayReply(epoch=self._epoch, published=published)

    async def _operate(self, kind: Any, request: OperationRequest) -> OperationReply:
        reply = await self._operations.answer(kind, request)
        self.conflicts += reply.outcome == "conflict"
        return reply

    async def _resume(self, request: ResumeRequest) -> ResumeReply:
        was = await self._journal.write(partial(_resumed, request_id=request.request_id))
        logger.warning("resumed by %s; it had been halted: %s", request.issued_by, was)
        return ResumeReply(account=self._account, was=was, clock=self._clock())

    async def _settle(self, request: SettleRequest) -> SettleReply:
        problem, row = await self._journal.write(partial(_settled, request=request))
        logger.warning("order %s, ticket %s, says %s: %s", request.order_id, request.ticket, request.issued_by, problem)
        return SettleReply(account=self._account, row=row, error=problem, clock=self._clock())

    async def _respond(self, message: Msg, payload: bytes) -> None:
        if not message.reply or self._client is None:
            return
        try:
            await self._client.publish(message.reply, payload)
        except (nats.errors.Error, OSError) as error:  # whoever asked asks again
            logger.warning("an answer on %s was not sent: %s", message.subject, type(error).__name__)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a request was not answered", exc_info=error)


def _settled(book: Book, request: SettleRequest) -> tuple[str | None, JournalRow | None]:
    problem = book.settle(request.order_id, request.ticket, request.issued_by)
    return problem, book.row(request.order_id)


def _resumed(book: Book, request_id: str | None) -> str | None:
    was = book.halted()
    return was if book.resume(request_id) else None


def _request_id(payload: bytes) -> str:
    """Return the request_id of a message that can't be used otherwise, so that whoever asked knows the answer."""
    try:
        return str(json_object(payload).get("request_id", ""))[:128]
    except Unusable:
        return ""
