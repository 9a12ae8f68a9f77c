"""What programs in Python talk to streamapp with: signals and commands in, decisions, orders and fills out.

::

    async with streamapp.client("nats://127.0.0.1:4222") as client:
        answer = await client.send(signal)
        async for fill in client.fills("my-bot"):
            ...

It speaks NATS with the messages of docs/messages.md and needs nothing else of streamapp's.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NoStreamResponseError
from pydantic import ValidationError

from streamapp import subjects
from streamapp.clock import utc_now
from streamapp.domain.vocabulary import decimal_text, in_utc, time_text
from streamapp.errors import Ambiguous, ConfigurationError, Transient, Unusable
from streamapp.messages.answer import AnswerMessage
from streamapp.messages.command import CommandName, CommandResultMessage, read_command
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.messages.envelope import Message, reason_and_detail
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.signal import no_signal_id, signal_id_of
from streamapp.nats.commands import NatsCommands
from streamapp.nats.connection import FIRST_CONNECTION_S, connect
from streamapp.nats.outlet import advised_message_id
from streamapp.settings import NatsSettings, Settings, load_settings

SILENCE_S = 2.0
"""After so long without an answer it is looked for in the stream: it may have come while the connection was lost."""
PULL_S = 5.0
"""How long one request for messages waits; then the consumer is looked after and asked again."""
AGAIN_S = 0.25
"""Between two tries while NATS is away."""
CLOCKS_S = 600.0
"""How far back an answer is looked for: longer than the stream remembers a message's id, and clocks differ."""
DURABLE = "client-"
"""How the names of consumers begin that keep positions."""
REMEMBERED = 10_000
"""Orders or deals whose newest revision is remembered, so that a redelivered one is dropped."""

Answer = AcceptedMessage | RefusedMessage
M = TypeVar("M", bound=Message)
T = TypeVar("T")

_NOTHING = Msg(_client=None)  # type: ignore[arg-type]
"""In a queue of answers: the stream has them already."""
_NO_STREAM = 10059
"""JetStream's code for a stream that is not there."""
_NO_STREAM_KEEPS = "no stream keeps signals.approved: run `streamapp init`"
_GONE = frozenset({404, 503})
"""A consumer that a restarted server has forgotten; JetStream without a leader."""


@asynccontextmanager
async def client(
    url: str | None = None, *, name: str = "streamapp-client", wait_s: float = FIRST_CONNECTION_S, **given: Any
) -> AsyncIterator[Client]:
    """Connect to NATS, and disconnect at the end of the block.

    Args:
        url: ``nats://host:port`` or ``tls://host:port``; several with commas. Left out: what the settings say, as for
            every command of streamapp's.
        name: Who we are, as NATS' monitor shows it.
        wait_s: How long to wait for the first connection.
        given: Other settings of ``[nats]`` (docs/configuration.md): ``ca_file``, ``credentials_file``, ``user`` ...

    Raises:
        ConfigurationError: The server refuses us, a file can't be read, or there is no such setting.
        Transient: No server answered.
    """
    try:
        settings = load_settings() if url is None else Settings(nats=NatsSettings(url=url, **given))
    except ValidationError as error:
        raise ConfigurationError(f"nats.{reason_and_detail(error)[1]} (docs/configuration.md, [nats])") from None
    connection = await connect(settings, name, wait_s=wait_s)
    try:
        yield Client(connection, settings)
    finally:
        await connection.close()


class Client:
    """Sends signals and commands, and follows what becomes of them; made by :func:`client`.

    It reconnects by itself for ever. Several tasks may use one at once.
    """

    def __init__(self, connection: NatsClient, settings: Settings) -> None:
        self._nats = connection
        self._settings = settings

    # --- signals

    async def send(self, signal: Mapping[str, Any], *, within_s: float = 10.0) -> Answer:
        """Send a signal (docs/signals.md) and return its account's decision: accepted/1 or refused/1.

        Sending the same one again is safe, after any error too: it is traded once, for its ``signal_id``. Decimal and
        aware datetime values are written as text.

        Raises:
            Unusable: It has no ``signal_id`` or no ``symbol``, or is no JSON; nothing was sent.
            Transient: NATS has not said that it stored the signal.
            Ambiguous: It is stored, and no answer came within ``within_s``: it may still be traded.
        """
        sent = _Sent(signal)
        wanted = (subjects.signal_accepted(sent.symbol), subjects.signal_refused(sent.symbol))

        def decode(message: Msg) -> Answer:
            model = AcceptedMessage if message.subject == wanted[0] else RefusedMessage
            return model.decode(message.data)

        return await self._ask(sent, wanted, decode, lambda answer, sequence: answer.stream_seq == sequence, within_s)

    async def send_to_all(self, signal: Mapping[str, Any], *, within_s: float = 10.0) -> AnswerMessage:
        """Send a signal that routing gives to several accounts, and return what became of each copy: answer/1.

        Raises:
            as :meth:`send`; Unusable also where the signal names an account: :meth:`send` is for one.
        """
        sent = _Sent(signal)
        if sent.account is not None:
            raise Unusable("bad_field", f"account: expected none, since routing names them, got {sent.account!r:.80}")

        def is_its(answer: AnswerMessage, _: int) -> bool:
            return answer.signal_id == sent.signal_id

        wanted = (subjects.signal_answered(sent.symbol),)
        return await self._ask(sent, wanted, lambda message: AnswerMessage.decode(message.data), is_its, within_s)

    async def _ask(
        self,
        sent: _Sent,
        wanted: tuple[str, ...],
        decode: Callable[[Msg], M],
        is_its: Callable[[M, int], bool],
        within_s: float,
    ) -> M:
        """Publish a signal and return its answer, heard as it comes or found in the stream."""
        heard: asyncio.Queue[Msg] = asyncio.Queue()
        try:
            async with asyncio.timeout(within_s), AsyncExitStack() as ended:
                for subject in wanted:
                    subscription = await self._nats.subscribe(subject, cb=heard.put)
                    ended.push_async_callback(_unsubscribe, subscription)
                sequence, is_repeat = await self._publish(sent)
                if is_repeat:  # what the stream has not taken twice is not answered twice
                    heard.put_nowait(_NOTHING)
                while True:
                    for message in await self._next(heard, wanted):
                        answer = decode(message)
                        if is_its(answer, sequence):
                            return answer
        except TimeoutError:
            if sent.trouble is not None:
                raise Transient(_unstored(sent, sent.trouble)) from None
            raise Ambiguous(
                f"signal {sent.signal_id}: no answer within {within_s:g} s. That is no outcome, it may still be "
                "traded: send it again with the same signal_id, which trades it once. Is a trading worker running?"
            ) from None
        except (nats.errors.Error, OSError) as error:
            raise Transient(_unstored(sent, _told(error))) from None

    async def _publish(self, sent: _Sent) -> tuple[int, bool]:
        """Return the signal's place in the stream, and whether it was there already; tries while NATS is away."""
        js = self._nats.jetstream(timeout=self._settings.nats.publish_timeout_s)
        headers = {subjects.MESSAGE_ID_HEADER: sent.message_id}
        while True:
            try:
                ack = await js.publish(subjects.signal_approved(sent.symbol), sent.payload, headers=headers)
            except nats.errors.MaxPayloadError:
                raise Unusable("too_long", f"NATS takes {self._nats.max_payload} bytes at most") from None
            except (nats.errors.Error, OSError, TimeoutError) as error:
                sent.trouble = _NO_STREAM_KEEPS if isinstance(error, NoStreamResponseError) else _told(error)
                await asyncio.sleep(AGAIN_S)  # under the same id: the stream has it once
            else:
                sent.trouble = None
                return ack.seq, bool(ack.duplicate)

    async def _next(self, heard: asyncio.Queue[Msg], wanted: tuple[str, ...]) -> list[Msg]:
        """Return what came last, or after some silence all that the stream has of it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                if (message := await heard.get()) is not _NOTHING:
                    return [message]
        since = utc_now() - timedelta(seconds=CLOCKS_S)
        config = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since)
        found: list[Msg] = []
        with suppress(nats.errors.Error, OSError, TimeoutError):  # away: what comes is heard later
            pull = await self._consume(subjects.EXECUTION_OUT.name, list(wanted), config)
            left = (await pull.consumer_info()).num_pending
            while len(found) < (left or 0):
                found += await pull.fetch(min(100, (left or 0) - len(found)), timeout=SILENCE_S)
            await _unsubscribe(pull)
        return found

    # --- commands

    async def command(self, name: CommandName, *, within_s: float = 30.0, **given: Any) -> CommandResultMessage:
        """Give a command (docs/control.md) and return its end, or ``accepted`` where it goes on after ``within_s``.

        Args:
            name: ``order.cancel``, ``account.halt`` ...
            within_s: How long to wait.
            given: The command's fields. Without a ``request_id`` one is made up; with the same one a command is carried
                out once.

        Raises:
            Unusable: It is no such command; nothing was sent.
            Transient: NATS has not said that it stored the command.
            Ambiguous: It is stored, and no answer came: it may still be carried out.
        """
        fields = {"request_id": f"client-{secrets.token_hex(8)}", "issued_at": time_text(utc_now()), **given}
        asked = read_command(name, fields)
        last: CommandResultMessage | None = None
        commands = NatsCommands(lambda: self._nats, self._settings.nats)
        async with commands.asked(name, asked) as sent:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    async for result in sent.results:
                        last = result
        if last is None:
            raise Ambiguous(
                f"command {asked.request_id}: no answer within {within_s:g} s. It may still be carried out: give it "
                "again with the same request_id. Is a trading worker running?"
            )
        return last

    # --- what happens

    def orders(self, position: str | None = None, *, symbol: str | None = None) -> AsyncGenerator[OrderMessage]:
        """Return every change of an order from now on: order/1, each revision once, an order's in their order.

        Args:
            position: Your name for how far you are, kept by NATS: whoever follows under it goes on where it stood. What
                you are given counts as done when you ask for the next one, so after a crash the last one may come
                again. One at a time may follow under a name. ``[A-Za-z0-9_-]`` only.
            symbol: Only this symbol's.

        Raises (while it is read):
            ConfigurationError: A message is of a version that this one can't read, or NATS forbids it.
        """
        names = [each for each in subjects.EXECUTION_OUT.subjects if each.startswith("orders.")]
        return self._follow(_ORDERS, subjects.EXECUTION_OUT.name, names, position, symbol)

    def fills(self, position: str | None = None, *, symbol: str | None = None) -> AsyncGenerator[FillMessage]:
        """Return every fill from now on: fill/1, each revision of a deal once.

        Arguments and errors as of :meth:`orders`. What another connector says in words of its own is left out; its
        order says it.
        """
        return self._follow(_FILLS, subjects.EXECUTION_IN.name, [f"{subjects.BROKER_FILL}.>"], position, symbol)

    async def _follow(
        self, kind: _Kind[M], stream: str, names: list[str], position: str | None, symbol: str | None
    ) -> AsyncGenerator[M]:
        if symbol is not None:
            names = [f"{each.removesuffix('>')}{subjects.token(symbol)}" for each in names]
        durable = None if position is None else self._settings.nats.prefixed(f"{DURABLE}{kind.name}s-{position}")
        known: OrderedDict[object, int] = OrderedDict()
        async with aclosing(self._messages(stream, names, durable)) as messages:
            async for message in messages:
                item, is_done = kind.read(message), False
                try:
                    if item is not None and _is_new(known, *kind.revision_of(item)):
                        yield item
                    is_done = True
                finally:
                    if durable is not None:
                        with suppress(nats.errors.Error, OSError):  # not heard: it comes again, and is known
                            await (message.ack() if is_done else message.nak())

    async def _messages(self, stream: str, names: list[str], position: str | None) -> AsyncGenerator[Msg]:
        """Yield a stream's messages in order, for ever; each is to be acknowledged where there is a position."""
        begin = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
        while True:
            try:
                pull = await self._consume(stream, names, begin, position)
                async with aclosing(_pulled(pull, 100 if position is None else 1)) as messages:
                    async for message in messages:
                        after = message.metadata.sequence.stream + 1
                        begin = ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=after)
                        yield message
            except APIError as error:
                if error.err_code == _NO_STREAM or error.code not in _GONE:
                    raise ConfigurationError(
                        f"NATS gives us nothing of the stream {stream}: {error.description}. Run `streamapp init`, and "
                        "see docs/client.md for the permissions"
                    ) from None
                await asyncio.sleep(AGAIN_S)
            except (nats.errors.Error, OSError, TimeoutError):  # away, or the consumer is gone
                await asyncio.sleep(AGAIN_S)

    async def _consume(
        self, stream: str, names: list[str], begin: ConsumerConfig, position: str | None = None
    ) -> JetStreamContext.PullSubscription:
        """Return a consumer's messages: the one of a position, which is made at its first use, or one of our own."""
        ours = self._settings.nats
        names, stream = [ours.subject(each) for each in names], ours.prefixed(stream)
        begin = begin.evolve(filter_subjects=names, ack_policy=AckPolicy.NONE, inactive_threshold=6 * PULL_S)
        if position is not None:
            # One at a time, so that a message that comes again comes before the ones after it.
            begin = begin.evolve(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=1, inactive_threshold=None)
        js = self._nats.jetstream(timeout=ours.publish_timeout_s)
        pull = await js.pull_subscribe(names[0], durable=position, stream=stream, config=begin)
        if position is not None:
            config = (await pull.consumer_info()).config
            if {*(config.filter_subjects or ()), *filter(None, [config.filter_subject])} != set(names):
                raise ConfigurationError(
                    f"the position that NATS keeps as {position} was begun with another symbol: choose another name"
                )
        return pull


class SyncClient:
    """A :class:`Client` for programs without an event loop; made by :func:`sync_client`. Its methods block.

    Several threads may use one at once; the connection lives in a thread of its own.
    """

    def __init__(self, connecting: AbstractAsyncContextManager[Client]) -> None:
        self._connecting = connecting
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="streamapp-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._client = self._run(self._connecting.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._connecting.__aexit__(None, None, None))
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def send(self, signal: Mapping[str, Any], *, within_s: float = 10.0) -> Answer:
        """See :meth:`Client.send`."""
        return self._run(self._client.send(signal, within_s=within_s))

    def send_to_all(self, signal: Mapping[str, Any], *, within_s: float = 10.0) -> AnswerMessage:
        """See :meth:`Client.send_to_all`."""
        return self._run(self._client.send_to_all(signal, within_s=within_s))

    def command(self, name: CommandName, *, within_s: float = 30.0, **given: Any) -> CommandResultMessage:
        """See :meth:`Client.command`."""
        return self._run(self._client.command(name, within_s=within_s, **given))

    def orders(self, position: str | None = None, *, symbol: str | None = None) -> Iterator[OrderMessage]:
        """See :meth:`Client.orders`; it blocks until there is a next one."""
        return self._each(self._client.orders(position, symbol=symbol))

    def fills(self, position: str | None = None, *, symbol: str | None = None) -> Iterator[FillMessage]:
        """See :meth:`Client.fills`; it blocks until there is a next one."""
        return self._each(self._client.fills(position, symbol=symbol))

    def _each(self, items: AsyncGenerator[M]) -> Iterator[M]:
        async def following() -> M | None:
            return await anext(items, None)

        try:
            while (item := self._run(following())) is not None:
                yield item
        finally:
            self._run(items.aclose())


def sync_client(url: str | None = None, **options: Any) -> SyncClient:
    """Return the context manager of a :class:`SyncClient`; arguments and errors as of :func:`client`."""
    return SyncClient(client(url, **options))


@dataclass(frozen=True)
class _Kind(Generic[M]):
    """What is followed: its messages, and whose revision one is."""

    name: str
    model: type[M]
    revision_of: Callable[[M], tuple[object, int]]

    def read(self, message: Msg) -> M | None:
        """Return it, None for what somebody else has published there in words of their own."""
        try:
            return self.model.decode(message.data)
        except Unusable as error:
            if f'"{self.name}/'.encode() not in message.data:
                return None
            raise ConfigurationError(
                f"{message.subject}: expected {self.name}/1 as this version of streamapp knows it, got one that is "
                f"{error}: install the version that the trading worker has"
            ) from None


_ORDERS = _Kind("order", OrderMessage, lambda order: (order.order_id, order.rev))
_FILLS = _Kind("fill", FillMessage, lambda fill: ((fill.account, fill.deal), fill.revision))


class _Sent:
    """A signal as it goes out; ``trouble``: why NATS has not said that it stored it, None when it has."""

    def __init__(self, signal: Mapping[str, Any]) -> None:
        try:
            self.payload = json.dumps(dict(signal), default=_text, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise Unusable("bad_field", f"the signal is no JSON: {error}") from None
        signal_id = signal_id_of(dict(signal))
        if signal_id is None:
            raise no_signal_id(dict(signal))
        symbol = signal.get("symbol")
        if not isinstance(symbol, str) or not symbol.strip():
            raise Unusable("bad_field", f"symbol: expected a text, got {symbol!r:.80}")
        self.signal_id, self.symbol = signal_id, symbol.strip()
        self.trouble: str | None = "no connection"
        self.account = signal.get("account")
        account = None if self.account is None else str(self.account)
        self.message_id = advised_message_id(account, signal_id, self.payload)


def _text(value: object) -> str:
    match value:
        case Decimal():
            return decimal_text(value)
        case datetime():
            return time_text(in_utc(value))
        case UUID():
            return str(value)
    raise TypeError(f"expected text, numbers, times and objects of them, got a {type(value).__name__}")


def _is_new(known: OrderedDict[object, int], name: object, revision: int) -> bool:
    """Return whether a revision is newer than what is known, and remember it."""
    if known.get(name, -1) >= revision:
        return False
    known[name] = revision
    known.move_to_end(name)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
    return True


def _unstored(sent: _Sent, trouble: str) -> str:
    return (
        f"NATS did not say that it has stored signal {sent.signal_id} ({trouble}). Send it again with the same "
        "signal_id: it is traded once"
    )


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _unsubscribe(subscription: Subscription | JetStreamContext.PullSubscription) -> None:
    with suppress(nats.errors.Error, OSError):
        await subscription.unsubscribe()


async def _pulled(pull: JetStreamContext.PullSubscription, batch: int) -> AsyncGenerator[Msg]:
    """Yield a consumer's messages until it is gone, which raises."""
    try:
        while True:
            try:
                messages = await pull.fetch(batch, timeout=PULL_S)
            except (nats.errors.TimeoutError, TimeoutError):
                await pull.consumer_info()  # raises where a restarted server does not know it any more
                continue
            for message in messages:
                yield message
    finally:
        await _unsubscribe(pull)
