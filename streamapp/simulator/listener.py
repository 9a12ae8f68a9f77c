"""The market server: one port for the module's calls and for HTTP, one event loop, one commit a turn."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import LAST_ERRORS
from streamapp.simulator.control.http import HttpControl, HttpError, http_reply, parse_http
from streamapp.simulator.server.market import Market
from streamapp.simulator.terminal.session import Session
from streamapp.simulator.terminal.symbol_info import SymbolInfos
from streamapp.simulator.wire import COMMANDS, HEAD, MAGIC, MAX_FRAME, reply_frame

# Prices move in steps of this, so that a quiet market costs next to nothing.
PULSE_S = 0.025
QUOTES_SAVED_S = 1.0
# What the process ends with after an error of its own.
FAILED_STATUS = 70


class MarketServer:
    """Serves one market. Replies of a turn of the loop leave together, after what they report is durable."""

    def __init__(self, market: Market) -> None:
        """Serve ``market``; nothing listens yet."""
        self.market = market
        self.control = HttpControl(market)
        self.infos = SymbolInfos(market.books)
        self.clients = 0
        self._outbox: list[tuple[asyncio.Transport, bytes, bool]] = []
        self._flush_is_due = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pulse: asyncio.TimerHandle | None = None

    async def run(self, host: str, port: int, announce: Callable[[str, int], None]) -> None:
        """Listens until SIGINT or SIGTERM, then stops cleanly."""
        self._loop = loop = asyncio.get_running_loop()
        loop.set_exception_handler(_fail)
        stopped = asyncio.Event()
        _on_stop(loop, stopped)
        server = await loop.create_server(lambda: Connection(self), host, port)
        self.market.timeline.changed = self._arm
        if not self.market.clock.virtual:
            self._beat()
            self._keep_quotes()
        address = server.sockets[0].getsockname()
        announce(address[0], address[1])
        await stopped.wait()
        server.close()
        self._flush()
        self.market.close()

    def send(self, transport: asyncio.Transport, data: bytes, *, close: bool = False) -> None:
        """Have data leave once everything so far is durable: at the end of this turn at the latest."""
        self._outbox.append((transport, data, close))
        if not self._flush_is_due and self._loop is not None:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def serve(self, calls: Callable[[], None]) -> None:
        """Serve what one client sent; its replies do not wait for the others of this turn if there are none."""
        waiting, self._flush_is_due = self._flush_is_due, True
        try:
            calls()
        finally:
            self._flush_is_due = waiting
        if self._outbox and not waiting:
            if self.clients <= 1 or not self.market.books.has_changes():
                self._flush()
            elif self._loop is not None:
                self._flush_is_due = True
                self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        self.market.books.commit()
        outbox, self._outbox = self._outbox, []
        for transport, data, close in outbox:
            if not transport.is_closing():
                transport.write(data)
            if close:
                transport.close()

    def _beat(self) -> None:
        self.market.timeline.run_until(self.market.clock.utc_ms())
        self.market.books.commit()
        self._arm()

    def _arm(self) -> None:
        if self._loop is None or self.market.clock.virtual:
            return
        due = self.market.timeline.next_ms()
        wait = PULSE_S
        if due is not None:
            wait = min(wait, max(0.0, (due - self.market.clock.utc_ms()) / 1000))
        if self._pulse is not None:
            self._pulse.cancel()
        self._pulse = self._loop.call_later(wait, self._beat)

    def _keep_quotes(self) -> None:
        self.market.save_quotes()
        if self._loop is not None:
            self._loop.call_later(QUOTES_SAVED_S, self._keep_quotes)


class Connection(asyncio.Protocol):
    """One connection, of the module or of HTTP, told apart by its first bytes."""

    def __init__(self, server: MarketServer) -> None:
        """A connection that has not said what it is."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._session: Session | None = None
        self._is_http = False
        # Out of phase, each reply is held back and the one before it is sent: the first is -10000.
        self._late: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream transport, got {type(transport).__name__}")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Serve every complete request that has arrived."""
        self._buffer += data
        if self._session is None and not self._is_http:
            if len(self._buffer) < len(MAGIC):
                return
            if self._buffer.startswith(MAGIC):
                del self._buffer[: len(MAGIC)]
                self._session = Session(self._server.market, self._server.infos, self._hang_up)
                self._server.clients += 1
            else:
                self._is_http = True
        self._server.serve(self._serve_calls if self._session is not None else self._serve_http)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the signature of asyncio
        """The client is gone; what it had sent stays sent."""
        self._transport = None
        if self._session is not None:
            self._session.end()
            self._server.clients -= 1

    def _serve_calls(self) -> None:
        buffer, session = self._buffer, self._session
        while session is not None and len(buffer) >= HEAD.size:
            (length,) = HEAD.unpack_from(buffer)
            if length > MAX_FRAME:
                self._hang_up()
                return
            if len(buffer) < HEAD.size + length:
                return
            try:
                command, method, *arguments = json.loads(bytes(buffer[HEAD.size : HEAD.size + length]))
                known = COMMANDS.get(method) == command
            except (ValueError, TypeError, RecursionError):
                known = False
            if not known:
                self._hang_up()
                return
            del buffer[: HEAD.size + length]
            session.call(method, arguments, self._replier(command))

    def _replier(self, command: int) -> Callable[[int, str, str], None]:
        def reply(code: int, text: str, result: str) -> None:
            data = reply_frame(command, code, text, result)
            if self._session is not None and self._session.out_of_phase:
                late, self._late = self._late, data
                failed = mt5.RES_E_INTERNAL_FAIL
                data = late or reply_frame(command, failed, LAST_ERRORS[failed].sentence, "null")
            if self._transport is not None:
                self._server.send(self._transport, data)

        return reply

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._server.send(self._transport, b"", close=True)

    def _serve_http(self) -> None:
        try:
            request = parse_http(bytes(self._buffer))
            answer = self._server.control.answer(request) if request is not None else None
        except HttpError as error:
            answer = http_reply(error.status, "application/json", json.dumps({"error": error.text}))
        if answer is not None and self._transport is not None:
            self._buffer.clear()
            self._server.send(self._transport, answer, close=True)


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """End the market at an error of its own: what is on disk is whole, what is in memory may be half done.

    Errors of connections (OSError) are their own business.
    """
    loop.default_exception_handler(context)
    error = context.get("exception")
    if error is not None and not isinstance(error, OSError):
        os._exit(FAILED_STATUS)


def _on_stop(loop: asyncio.AbstractEventLoop, stopped: asyncio.Event) -> None:
    """Have SIGINT and SIGTERM set ``stopped``; Windows has no handlers in the loop, so there it is plain signals."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stopped.set))
        else:
            loop.add_signal_handler(number, stopped.set)
