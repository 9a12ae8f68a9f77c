"""Signals on NATS: stored in their stream, and the decision awaited; for the client, the commands and the webhook.

Silence is no outcome: a signal is stored or nobody knows (:class:`Transient`), and decided or nobody knows
(:class:`Ambiguous`). After either it is sent again under the same ``signal_id``, which trades it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NoStreamResponseError

from streamapp import subjects
from streamapp.clock import utc_now
from streamapp.errors import Ambiguous, Transient, Unusable
from streamapp.messages.answer import AnswerMessage
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.messages.envelope import Message
from streamapp.messages.outgoing import OutgoingSignal
from streamapp.nats.consumers import AGAIN_S, StreamReader, unsubscribe
from streamapp.nats.outlet import refusal
from streamapp.settings import NatsSettings

SILENCE_S = 2.0
"""After so long without an answer it is looked for in the stream: it may have come while the connection was lost."""
CLOCKS_S = 600.0
"""How far back an answer is looked for: longer than the stream remembers a message's id, and clocks differ."""

Answer = AcceptedMessage | RefusedMessage
M = TypeVar("M", bound=Message)

_NOTHING = Msg(_client=None)  # type: ignore[arg-type]
"""In a queue of answers: the stream has them already."""


@dataclass(frozen=True)
class StoredSignal:
    """A signal that JetStream has.

    Attributes:
        stream_seq: Its place in the stream ``EXECUTION_IN``; of a repeat that of the first.
        is_repeat: The stream had it already, and has not taken it twice.
    """

    stream_seq: int
    is_repeat: bool


class NatsSignals:
    """Sends signals.

    Args:
        client: Returns the connected client, None before the first connection.
        settings: What our streams are called, and how long to wait for JetStream's acknowledgement.
    """

    def __init__(self, client: Callable[[], Client | None], settings: NatsSettings) -> None:
        self._client = client
        self._settings = settings

    async def publish(self, payload: bytes, *, symbol: str, message_id: str | None) -> StoredSignal:
        """Publish a signal once, as an upstream should: by JetStream and with a message id.

        Raises:
            Unusable: NATS never takes it: ``too_long``.
            Transient: Nobody said that it is stored, which it may be; it may be sent again with the same id. Without a
                connection nothing was sent, nor is it later.
        """
        client = self._connected()
        headers = {subjects.MESSAGE_ID_HEADER: message_id} if message_id else None
        subject = subjects.signal_approved(symbol)
        js = client.jetstream(timeout=self._settings.publish_timeout_s)
        try:
            ack = await js.publish(subject, payload, headers=headers)
        except nats.errors.MaxPayloadError:
            raise Unusable("too_long", f"NATS takes {client.max_payload} bytes at most") from None
        except NoStreamResponseError:
            raise Transient(f"no stream keeps {subjects.SIGNALS_APPROVED}: run `streamapp init`") from None
        except APIError as error:
            raise Transient(refusal(subject, error.description, error.err_code)) from None
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Transient(f"NATS: {str(error) or type(error).__name__}") from None
        return StoredSignal(ack.seq, bool(ack.duplicate))

    async def stored(self, signal: OutgoingSignal) -> StoredSignal:
        """Publish a signal once, under its own message id; errors as of :meth:`publish`."""
        return await self.publish(signal.payload, symbol=signal.symbol, message_id=signal.message_id)

    async def decision(self, signal: OutgoingSignal, within_s: float) -> Answer:
        """Publish a signal until it is stored, and return its account's decision.

        Raises:
            Unusable: As of :meth:`publish`.
            Transient: NATS has not said within ``within_s`` that it stored the signal.
            Ambiguous: It is stored, and no answer came in time: it may still be traded.
        """
        accepted = subjects.signal_accepted(signal.symbol)

        def decode(message: Msg) -> Answer:
            model = AcceptedMessage if message.subject == accepted else RefusedMessage
            return model.decode(message.data)

        wanted = (accepted, subjects.signal_refused(signal.symbol))
        return await self._ask(signal, wanted, decode, lambda answer, seq: answer.stream_seq == seq, within_s)

    async def decisions(self, signal: OutgoingSignal, within_s: float) -> AnswerMessage:
        """Do the same with a signal that routing gives to several accounts; return what became of each copy."""
        wanted = (subjects.signal_answered(signal.symbol),)
        return await self._ask(
            signal,
            wanted,
            lambda message: AnswerMessage.decode(message.data),
            lambda answer, _: answer.signal_id == signal.signal_id,
            within_s,
        )

    async def _ask(
        self,
        signal: OutgoingSignal,
        wanted: tuple[str, ...],
        decode: Callable[[Msg], M],
        is_its: Callable[[M, int], bool],
        within_s: float,
    ) -> M:
        """Publish a signal and return its answer, heard as it comes or found in the stream."""
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        storing = _Storing(signal)
        try:
            async with asyncio.timeout(within_s), AsyncExitStack() as ended:
                client = self._known()
                for subject in wanted:
                    subscription = await client.subscribe(subject, cb=heard.put)
                    ended.push_async_callback(unsubscribe, subscription)
                stored = await self._until_stored(storing)
                if stored.is_repeat:  # what the stream has not taken twice is not answered twice
                    heard.put_nowait(_NOTHING)
                while True:
                    for message in await self._next(heard, wanted):
                        answer = decode(message)
                        if is_its(answer, stored.stream_seq):
                            return answer
        except TimeoutError:
            if storing.trouble is not None:
                raise storing.unstored(storing.trouble) from None
            raise Ambiguous(
                f"signal {signal.signal_id}: no answer within {within_s:g} s. That is no outcome, it may still be "
                "traded: send it again with the same signal_id, which trades it once. Is a trading worker running?"
            ) from None
        except (nats.errors.Error, OSError, Transient) as error:
            raise storing.unstored(str(error) or type(error).__name__) from None

    async def _until_stored(self, storing: _Storing) -> StoredSignal:
        """Publish until it is stored, under the same id each time: the stream has it once."""
        while True:
            try:
                stored = await self.stored(storing.signal)
            except Transient as error:
                storing.trouble = str(error)
                await asyncio.sleep(AGAIN_S)
            else:
                storing.trouble = None
                return stored

    async def _next(self, heard: asyncio.Queue[Msg], wanted: tuple[str, ...]) -> list[Msg]:
        """Return what came last, or after some silence all that the stream has of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                if (message := await heard.get()) is not _NOTHING:
                    return [message]
        since = utc_now() - timedelta(seconds=CLOCKS_S)
        begin = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)
        reader = StreamReader(self._known(), self._settings)
        return await reader.found(subjects.EXECUTION_OUT.name, list(wanted), begin, SILENCE_S)

    def _known(self) -> Client:
        if (client := self._client()) is None:
            raise Transient("NATS: connecting")
        return client

    def _connected(self) -> Client:
        client = self._known()
        if not client.is_connected:  # nats-py would keep it, and send it when nobody means it any more
            raise Transient("NATS: no connection")
        return client


class _Storing:
    """How far a signal is; ``trouble``: why NATS has not said that it stored it, None when it has."""

    def __init__(self, signal: OutgoingSignal) -> None:
        self.signal = signal
        self.trouble: str | None = "no connection"

    def unstored(self, trouble: str) -> Transient:
        return Transient(
            f"NATS did not say that it has stored signal {self.signal.signal_id} ({trouble}). Send it again with the "
            "same signal_id: it is traded once"
        )
