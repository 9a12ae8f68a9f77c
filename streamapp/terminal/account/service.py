"""The account's request subjects on NATS: submit, hello, replay, ack, operations, reads, resume (design: messages)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamapp import subjects
from streamapp.clock import Clock
from streamapp.errors import Transient, Unusable
from streamapp.messages.envelope import json_object
from streamapp.messages.operation import (
    OperationReply,
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
from streamapp.terminal.journal.memory import KINDS as OPERATIONS
from streamapp.terminal.operations.runner import Operations

logger = logging.getLogger(__name__)

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

    async def start(self, client: Client) -> None:
        """Subscribe; from here on requests are answered."""
        self._client = client
        account = self._journal.book.account
        handlers: dict[str, Handler] = {
            "submit": self._on_submit,
            "hello": self._on_hello,
            "ack": self._on_ack,
            "replay": self._on_replay,
        }
        handlers |= {"resume": self._on_resume, "settle": self._on_settle}
        handlers |= dict.fromkeys(OPERATIONS, self._on_operation)
        handlers |= dict.fromkeys(READS, self._on_read)
        for operation, handler in handlers.items():
            await client.subscribe(subjects.terminal(account, operation), cb=handler)

    # -- submit: recorded in the callback's order, answered when durable

    async def _on_submit(self, message: Msg) -> None:
        try:
            request = SubmitRequest.decode(message.data)
            self._refuse_other(request.account)
        except Unusable as error:
            self.broken_requests += 1
            self._spawn(self._respond(message, self._error(str(error))))
            return
        answer = self._execution.submit(request)
        answer.add_done_callback(lambda done: self._answer_submit(message, request, done))

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

    async def _on_hello(self, message: Msg) -> None:
        health = self._connection.health
        reply = HelloReply(
            account=self._journal.book.account,
            epoch=self._epoch,
            clock=self._clock(),
            connection=health.connection,
            detail=health.detail,
            last_seq=self._journal.last_seq,
            released_seq=self._journal.released_seq,
        )
        await self._respond(message, reply.encode())

    async def _on_ack(self, message: Msg) -> None:
        try:
            request = AckRequest.decode(message.data)
        except Unusable as error:
            await self._refuse(message, error)
            return
        journal = self._journal
        if request.epoch == self._epoch:  # a watermark of a journal that was lost says nothing about this one
            journal.release("reports", min(request.watermark, journal.last_seq))
        reply = AckReply(epoch=self._epoch, released_seq=journal.released_seq, last_seq=journal.last_seq)
        await self._respond(message, reply.encode())

    async def _on_replay(self, message: Msg) -> None:
        try:
            request = ReplayRequest.decode(message.data)
        except Unusable as error:
            await self._refuse(message, error)
            return
        self._spawn(self._replayed(message, request))  # long ones must not stand in front of others

    async def _replayed(self, message: Msg, request: ReplayRequest) -> None:
        if request.epoch != self._epoch:
            text = f"expected epoch {self._epoch}, got {request.epoch}"
            await self._respond(message, ReplayReply(epoch=self._epoch, published=0, error=text).encode())
            return
        try:
            published = await self._replay(max(request.after_seq, self._journal.released_seq), request.replay_id)
            reply = ReplayReply(epoch=self._epoch, published=published)
        except Transient as error:
            reply = ReplayReply(epoch=self._epoch, published=0, error=str(error))
        await self._respond(message, reply.encode())

    async def _on_operation(self, message: Msg) -> None:
        self._spawn(self._operate(message, message.subject.rpartition(".")[2]))

    async def _operate(self, message: Msg, kind: Any) -> None:
        try:
            request = OPERATIONS[kind].decode(message.data)
            self._refuse_other(request.account)
        except Unusable as error:
            self.broken_requests += 1
            reply = OperationReply(
                request_id=_request_id(message.data),
                account=self._journal.book.account,
                outcome="refused",
                message=str(error),
                epoch=self._epoch,
                clock=self._clock(),
            )
        else:
            reply = await self._operations.answer(kind, request)
            self.conflicts += reply.outcome == "conflict"
        await self._respond(message, reply.encode())

    def _refuse_other(self, account: str) -> None:
        if account != self._journal.book.account:
            raise Unusable("invalid", f"expected account {self._journal.book.account}, got {account}")

    async def _on_read(self, message: Msg) -> None:
        self._spawn(self._read(message, message.subject.rpartition(".")[2]))

    async def _read(self, message: Msg, operation: str) -> None:
        try:
            reply = await self._readings.answer(operation, message.data)
        except Unusable as error:
            self.broken_requests += 1
            reply = self._readings.refusal(operation, error)
        await self._respond(message, reply.encode())

    async def _on_resume(self, message: Msg) -> None:
        account = self._journal.book.account
        try:
            request = ResumeRequest.decode(message.data)
            self._refuse_other(request.account)
        except Unusable as error:
            self.broken_requests += 1
            await self._respond(message, ResumeReply(account=account, error=str(error), clock=self._clock()).encode())
            return
        was = await self._journal.write(_resumed)
        logger.warning("resumed by %s; it had been halted: %s", request.issued_by, was)
        await self._respond(message, ResumeReply(account=account, was=was, clock=self._clock()).encode())

    async def _on_settle(self, message: Msg) -> None:
        account = self._journal.book.account
        try:
            request = SettleRequest.decode(message.data)
            self._refuse_other(request.account)
        except Unusable as error:
            self.broken_requests += 1
            await self._respond(message, SettleReply(account=account, error=str(error), clock=self._clock()).encode())
            return
        problem, row = await self._journal.write(lambda book: _settled(book, request))
        logger.warning("order %s, ticket %s, says %s: %s", request.order_id, request.ticket, request.issued_by, problem)
        await self._respond(message, SettleReply(account=account, row=row, error=problem, clock=self._clock()).encode())

    async def _refuse(self, message: Msg, error: Unusable) -> None:
        self.broken_requests += 1
        await self._respond(message, json.dumps({"epoch": self._epoch, "error": str(error)}).encode())

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


def _resumed(book: Book) -> str | None:
    was = book.halted()
    book.resume()
    return was


def _request_id(payload: bytes) -> str:
    """Return the request_id of a message that can't be used otherwise, so that whoever asked knows the answer."""
    try:
        return str(json_object(payload).get("request_id", ""))[:128]
    except Unusable:
        return ""
