"""The trading worker's connection to NATS: made at start, before anything is recovered, and kept for life.

The terminals are asked through it (:class:`NatsTerminals`), and the outbox is published through it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, TypeVar

import nats.errors
from mode import Service

from streamapp import subjects
from streamapp.desk.effects import OperationAnswer
from streamapp.errors import ConfigurationError, Transient, Unusable
from streamapp.messages.envelope import Message
from streamapp.messages.operation import OPERATIONS, OperationReply, OperationRequest, ResumeReply, ResumeRequest
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)
from streamapp.nats.connection import ConnectionState, connect
from streamapp.nats.streams import verify
from streamapp.settings import Settings

logger = logging.getLogger(__name__)
ReplyT = TypeVar("ReplyT", bound=Message)

LOOK_S = 0.02
PAUSE_S = 1.0
"""Between two tries to connect for the first time, or to find the streams."""


class Messaging(Service):
    """Connects in the background; whoever asks before that waits for it within its own deadline.

    Attributes:
        connection: How the connection is.
        streams_fault: Why the streams are not known to be there; None once they were seen.
    """

    def __init__(self, settings: Settings, name: str, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings
        self._name = name
        self._client: asyncio.Future[Any] | None = None
        self._connected: Any = None
        self.connection = ConnectionState()
        self.streams_fault: str | None = "NATS: the streams were not looked at yet"

    @property
    def client(self) -> Any | None:
        """The connected client, None before the first connection."""
        return self._connected

    async def available(self) -> None:
        """Return when the connection was made and the streams are there."""
        while self.should_stop is False and (self._connected is None or self.streams_fault is not None):
            await self.sleep(LOOK_S)

    @property
    def reasons(self) -> list[str]:
        """What is wrong, for ``/health``."""
        return [*self.connection.reasons, *([self.streams_fault] if self.streams_fault else [])]

    async def on_start(self) -> None:
        """Begin to connect; NATS may come up later than we do."""
        self._client = asyncio.get_running_loop().create_future()

    @Service.task
    async def _connect(self) -> None:
        while not self.should_stop and self._connected is None:
            try:
                self._connected = await connect(self._settings, self._name, on_state=self._note)
            except (ConfigurationError, Transient) as error:
                self.connection = ConnectionState(error=str(error))
                self.log.warning("%s", error)
                await self.sleep(PAUSE_S)
        if self._connected is not None and self._client is not None:
            self._client.set_result(self._connected)
            await self._look_for_streams()

    async def _look_for_streams(self) -> None:
        while not self.should_stop and self.streams_fault is not None:
            try:
                await verify(self._connected.jetstream(), self._settings)
                self.streams_fault = None
            except (ConfigurationError, Transient) as error:
                self.streams_fault = str(error)
                await self.sleep(PAUSE_S)

    def _note(self, state: ConnectionState) -> None:
        self.connection = state

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> Any:
        """As ``nats.aio.client.Client.request``, waiting for the first connection within the same ``timeout`` in s.

        Raises:
            TimeoutError: no connection or no answer in time.
            nats.errors.Error: as of nats-py.
        """
        async with asyncio.timeout(timeout):
            if self._client is None:
                raise TimeoutError
            client = await asyncio.shield(self._client)
            return await client.request(subject, payload, timeout=timeout)

    async def on_stop(self) -> None:
        """Close the connection."""
        if self._connected is not None:
            await self._connected.close()


class NatsTerminals:
    """Implements :class:`streamapp.desk.effects.Terminals`.

    Args:
        client: A connected ``nats.aio.client.Client``, or :class:`Messaging`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def hello(self, account: str, *, timeout_s: float) -> HelloReply | None:
        """See the port."""
        return await self._ask(account, "hello", b"{}", HelloReply, timeout_s)

    async def submit(self, request: SubmitRequest, *, timeout_s: float) -> SubmitReply | None:
        """See the port."""
        reply = await self._ask(request.account, "submit", request.encode(), SubmitReply, timeout_s)
        if reply is not None and reply.state is None:
            logger.warning("terminal %s: submit %s: %s", request.account, request.order_id, reply.error)
            return None
        return reply

    async def operate(self, request: OperationRequest | ResumeRequest, *, timeout_s: float) -> OperationAnswer | None:
        """See the port."""
        if isinstance(request, ResumeRequest):
            resumed = await self._ask(request.account, "resume", request.encode(), ResumeReply, timeout_s)
            return None if resumed is None or resumed.error else OperationAnswer("done", resumed.was or "")
        name = next(word for word, model in OPERATIONS.items() if isinstance(request, model))
        reply = await self._ask(request.account, name, request.encode(), OperationReply, timeout_s)
        return None if reply is None else OperationAnswer(reply.outcome, reply.message)

    async def ack(self, account: str, request: AckRequest, *, timeout_s: float) -> AckReply | None:
        """See the port."""
        return await self._ask(account, "ack", request.encode(), AckReply, timeout_s)

    async def replay(self, account: str, request: ReplayRequest, *, timeout_s: float) -> ReplayReply | None:
        """See the port."""
        reply = await self._ask(account, "replay", request.encode(), ReplayReply, timeout_s)
        return None if reply is None or reply.error else reply

    async def _ask(
        self, account: str, operation: str, payload: bytes, reply: type[ReplyT], timeout_s: float
    ) -> ReplyT | None:
        subject = subjects.terminal(account, operation)
        try:
            answer = await self._client.request(subject, payload, timeout=timeout_s)
            return reply.decode(answer.data)
        except (nats.errors.Error, TimeoutError, ConnectionError) as error:
            # No responder is silence too: the request may still stand in a buffer on its way.
            logger.debug("%s: no answer within %s s (%s)", subject, timeout_s, type(error).__name__)
        except Unusable as error:
            logger.warning("%s: the answer can't be read: %s", subject, error)
        return None
