"""Commands on NATS: stored in their stream, and what becomes of them heard."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js.errors import APIError

from streamapp import subjects
from streamapp.errors import Transient, Unusable
from streamapp.messages.command import CommandRequest, CommandResultMessage
from streamapp.nats.outlet import refusal
from streamapp.settings import NatsSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredCommand:
    """A command that JetStream has.

    Attributes:
        stream_seq: Its place in the stream ``EXECUTION_IN``; of a repeat that of the first.
        is_repeat: The stream had it already, and has not taken it twice.
    """

    subject: str
    stream_seq: int
    is_repeat: bool


@dataclass(frozen=True)
class AskedCommand:
    """A stored command and its results, in order, as long as one waits for them; the last is not ``accepted``."""

    stored: StoredCommand
    results: AsyncIterator[CommandResultMessage]


class NatsCommands:
    """Implements :class:`streamapp.web.commands.Commands`.

    Args:
        client: Returns the connected client, None before the first connection.
        timeout_s: How long to wait for JetStream's acknowledgement.
    """

    def __init__(self, client: Callable[[], Client | None], settings: NatsSettings) -> None:
        self._client = client
        self._settings = settings
        self._timeout_s = settings.publish_timeout_s

    async def publish(self, name: str, command: CommandRequest) -> StoredCommand:
        """See the port."""
        return await self._publish(self._connected(), name, command)

    @asynccontextmanager
    async def asked(self, name: str, command: CommandRequest) -> AsyncIterator[AskedCommand]:
        """See the port."""
        client = self._connected()
        subject = subjects.command_result(command.request_id)
        try:
            # Before the command on the same connection: the server has it before anybody can answer.
            subscription = await client.subscribe(subject)
        except (nats.errors.Error, OSError) as error:
            raise _not_stored(error) from None
        try:
            stored = await self._publish(client, name, command)
            # What the stream has not taken twice is not answered twice.
            earlier = await self._last(client, subject) if stored.is_repeat else None
            async with aclosing(_results(subscription, earlier, stored.stream_seq)) as results:
                yield AskedCommand(stored, results)
        finally:
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    def _connected(self) -> Client:
        if (client := self._client()) is None:
            raise Transient("NATS: connecting")
        return client

    async def _publish(self, client: Client, name: str, command: CommandRequest) -> StoredCommand:
        subject = subjects.command(name, command.account or "")
        headers = {subjects.MESSAGE_ID_HEADER: message_id(name, command)}
        try:
            ack = await client.jetstream(timeout=self._timeout_s).publish(subject, command.encode(), headers=headers)
        except APIError as error:
            said = refusal(subject, error.description, error.err_code)
            raise Transient(f"{said}, and send the command again: it was not stored") from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _not_stored(error) from None
        return StoredCommand(subject, ack.seq, bool(ack.duplicate))

    async def _last(self, client: Client, subject: str) -> bytes | None:
        js = client.jetstream(timeout=self._timeout_s)
        try:
            stream, placed = self._settings.prefixed(subjects.EXECUTION_OUT.name), self._settings.subject(subject)
            return (await js.get_last_msg(stream, placed)).data
        except (nats.errors.Error, TimeoutError, OSError):  # not answered yet; what comes will be heard
            return None


def message_id(name: str, command: CommandRequest) -> str:
    """Return the Nats-Msg-Id of a command: the same for a repeat, which its stream then drops.

    Another command or other values under the same ``request_id`` have an id of their own: they must come to the desk,
    which answers that they are a conflict.
    """
    return f"command:{name}:{subjects.token(command.account or '-')}:{command.request_id}:{command.fingerprint[:16]}"


async def _results(
    subscription: Subscription, earlier: bytes | None, stream_seq: int
) -> AsyncGenerator[CommandResultMessage]:
    heard = 0
    if earlier is not None and (result := _of(earlier, stream_seq)) is not None:
        heard = result.revision
        yield result
        if result.state != "accepted":
            return
    async for message in subscription.messages:
        if (result := _of(message.data, stream_seq)) is not None and result.revision > heard:
            heard = result.revision
            yield result
            if result.state != "accepted":
                return


def _of(payload: bytes, stream_seq: int) -> CommandResultMessage | None:
    """Return a result, None if it is of a later command that had the same request_id, or can't be read."""
    try:
        result = CommandResultMessage.decode(payload)
    except Unusable as error:
        logger.warning("the result of a command can't be read: %s", error)
        return None
    return result if result.stream_seq <= stream_seq else None


def _not_stored(error: Exception) -> Transient:
    return Transient(
        f"NATS did not say that it has stored the command ({str(error) or type(error).__name__}). Send it again with "
        "the same request_id: it is carried out once"
    )
