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
import secrets
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from pydantic import ValidationError

from streamapp import subjects
from streamapp.clock import utc_now
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Ambiguous, ConfigurationError, Unusable
from streamapp.messages.answer import AnswerMessage
from streamapp.messages.command import CommandName, CommandResultMessage, read_command
from streamapp.messages.envelope import Message, reason_and_detail
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.outgoing import OutgoingSignal
from streamapp.nats.commands import NatsCommands
from streamapp.nats.connection import FIRST_CONNECTION_S, connect
from streamapp.nats.consumers import StreamReader
from streamapp.nats.signals import Answer, NatsSignals
from streamapp.settings import NatsSettings, Settings, load_settings

DURABLE = "client-"
"""How the names of consumers begin that keep positions."""
REMEMBERED = 10_000
"""Orders or deals whose newest revision is remembered, so that a redelivered one is dropped."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


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
        self._signals = NatsSignals(lambda: connection, settings.nats)
        self._reader = StreamReader(connection, settings.nats)

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
        return await self._signals.decision(OutgoingSignal.of(signal), within_s)

    async def send_to_all(self, signal: Mapping[str, Any], *, within_s: float = 10.0) -> AnswerMessage:
        """Send a signal that routing gives to several accounts, and return what became of each copy: answer/1.

        Raises:
            as :meth:`send`; Unusable also where the signal names an account: :meth:`send` is for one.
        """
        sent = OutgoingSignal.of(signal)
        if sent.account is not None:
            raise Unusable("bad_field", f"account: expected none, since routing names them, got {sent.account!r:.80}")
        return await self._signals.decisions(sent, within_s)

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
        async with aclosing(self._reader.following(stream, names, durable)) as messages:
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


def _is_new(known: OrderedDict[object, int], name: object, revision: int) -> bool:
    """Return whether a revision is newer than what is known, and remember it."""
    if known.get(name, -1) >= revision:
        return False
    known[name] = revision
    known.move_to_end(name)
    if len(known) > REMEMBERED:
        known.popitem(last=False)
    return True
