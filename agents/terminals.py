"""The terminals over NATS: request and reply on ``mt5.{account}.*``, each with a deadline. Silence is None."""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import nats.errors

from streamapp import subjects
from streamapp.errors import Unusable
from streamapp.messages.envelope import Message
from streamapp.messages.terminal import (
    AckReply,
    AckRequest,
    HelloReply,
    ReplayReply,
    ReplayRequest,
    SubmitReply,
    SubmitRequest,
)

logger = logging.getLogger(__name__)
ReplyT = TypeVar("ReplyT", bound=Message)


class NatsTerminals:
    """Implements :class:`agents.ports.Terminals`.

    Args:
        client: A connected ``nats.aio.client.Client``.
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
