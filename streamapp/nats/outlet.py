"""Publishing on NATS, and knowing that JetStream has stored it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from streamapp import subjects
from streamapp.errors import StreamappError, Transient, Unusable

_TOO_LARGE = 10054
"""JetStream's code for a message beyond the stream's max_msg_size."""
_FULL = 10077
"""And for one that a stream with ``discard = "new"`` has no room for."""


class JetStreamPublisher:
    """Publishes with JetStream's acknowledgements over one inbox; messages leave in the order of the calls.

    nats-py's own ``jetstream().publish`` makes an inbox, a queue and a timeout task of each message.

    Args:
        client: The connection.
        timeout_s: How long to wait for an acknowledgement.
        headers: Of every message, beside its own.
    """

    def __init__(self, client: Client, timeout_s: float, headers: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._headers = headers or {}
        self._inbox = client.new_inbox()
        self._number = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[None]]] = {}
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> asyncio.Future[None]:
        """Hand a message to the connection.

        Returns:
            A future that is done when JetStream has stored the message, or had it already by its ``Nats-Msg-Id``. It
            raises Unusable where JetStream never will (``too_long``), Transient where nobody knows.

        Raises:
            Unusable: It can't be published: ``too_long`` or ``bad_subject``.
            Transient: There is no connection; it was not handed over.
        """
        token, future = self._expect(subject)
        try:
            async with self._subscribing:
                if self._subscription is None:
                    self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
                reply, headers = f"{self._inbox}.{token}", {**self._headers, **headers}
                await self._client.publish(subject, payload, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            future.cancel()
            raise _reason(error, subject, len(payload), self._client) from None
        except asyncio.CancelledError:
            future.cancel()
            raise
        return future

    def _expect(self, subject: str) -> tuple[str, asyncio.Future[None]]:
        self._number += 1
        token, loop = str(self._number), asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[token] = subject, future
        silence = Transient(f"NATS: no acknowledgement within {self._timeout_s:g} s")
        timer = loop.call_later(self._timeout_s, _fail, future, silence)
        future.add_done_callback(partial(self._forget, token, timer))
        return token, future

    def _forget(self, token: str, timer: asyncio.TimerHandle, _: asyncio.Future[None]) -> None:
        timer.cancel()
        self._waiting.pop(token, None)

    async def _on_answer(self, message: Msg) -> None:
        subject, future = self._waiting.get(message.subject.rpartition(".")[2], ("", None))
        if future is None or future.done():
            return
        if message.headers and message.headers.get("Status"):
            _fail(
                future, Transient(f"NATS: no stream keeps {subject}. Run `streamapp init`, unless a leader is elected")
            )
        elif (error := json.loads(message.data).get("error")) is None:
            future.set_result(None)
        elif error.get("err_code") == _TOO_LARGE:
            _fail(future, Unusable("too_long", f"JetStream: {error.get('description')}"))
        else:
            _fail(future, Transient(refusal(subject, error.get("description"), error.get("err_code"))))


def refusal(subject: str, description: str | None, err_code: int | None) -> str:
    """Return in words why JetStream did not store a message of ours now."""
    if err_code == _FULL and (spec := subjects.stream_of(subject)) is not None:
        return (
            f"JetStream: stream {spec.name} is full ({description}) and takes nothing new. Raise max_bytes in "
            f"[nats.streams.{spec.name}] and run `streamapp init`"
        )
    return f"JetStream: {description} ({err_code})"


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _reason(error: Exception, subject: str, size: int, client: Client) -> StreamappError:
    """Return what is raised for a message that nats-py did not take."""
    match error:
        case nats.errors.MaxPayloadError():
            return Unusable("too_long", f"NATS takes {client.max_payload} bytes, got {size}")
        case nats.errors.BadSubjectError():
            return Unusable("bad_subject", f"NATS takes no subject {subject!r}")
    return Transient(f"NATS: {str(error) or type(error).__name__}")


class JetStreamOutlet:
    """Publishes through a connection that somebody else makes and keeps.

    Args:
        client: Returns the connected client, None before the first connection; the same for life.
        timeout_s: How long to wait for JetStream's acknowledgement.
    """

    def __init__(self, client: Callable[[], Client | None], timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._publisher: JetStreamPublisher | None = None

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Return when JetStream has stored the message, or had it already by its ``Nats-Msg-Id``.

        Raises:
            Unusable: It will never be stored (too large, no valid subject): ``too_long`` or ``bad_subject``.
            Transient: Not stored as far as we know; publish it again with the same id.
        """
        if self._publisher is None:
            if (client := self._client()) is None:
                raise Transient("NATS: connecting")
            self._publisher = JetStreamPublisher(client, self._timeout_s)
        await (await self._publisher.publish(subject, payload, headers))
