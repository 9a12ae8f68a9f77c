"""The account's connection to the broker: made, verified, watched, made again; and its state in one word."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from streamapp.clock import Clock
from streamapp.domain.vocabulary import Connection
from streamapp.messages.report import ConnectionChange
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal import brokerlog
from streamapp.terminal.book import Book
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import ORDER, READ, Answer, NotHandedOverError, WorkerLostError, WorkerPort
from streamapp.terminal.servertime import ServerTime

logger = logging.getLogger(__name__)

WHAT_TO_DO: dict[Connection, str] = {
    "connecting": "nothing: it is being connected",
    "ready": "",
    "no_algo_trading": "press Algo Trading in the terminal, allow its Python API, log in with the trading password",
    "wrong_account": "log the terminal in to the configured account, or mend login, server and password_file",
    "disconnected": "see that the terminal program runs and shows a connection; it is tried again by itself",
    "hung": "nothing: the worker was ended and starts again; if it repeats, look at the terminal program",
}
FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 10.0
"""Between two tries to connect: doubled each time, with jitter, so that many terminals of one host do not start
together."""
INITIALIZE_TIMEOUT_SHARE = 0.5
"""The module's own timeout is this share of our deadline: the rest is for the launch of the terminal program, which it
does not count."""


@dataclass(frozen=True)
class Health:
    """How the connection is, and what a person should do about it."""

    connection: Connection = "connecting"
    detail: str = WHAT_TO_DO["connecting"]


class BrokerConnection:
    """Whoever wants something from the broker asks here.

    Attributes:
        health: The state now.
        generation: Counts the times it became ready: what was read in an earlier one proves nothing about stability.
        time: The server's clock.
        currency: The account's.
        hedging: Whether each order opens a position of its own.
    """

    def __init__(
        self,
        worker: WorkerPort,
        journal: Journal,
        account: AccountSettings,
        terminal: TerminalSettings,
        *,
        clock: Clock,
        password: str | None,
    ) -> None:
        self._worker = worker
        self._journal = journal
        self._account = account
        self._terminal = terminal
        self._clock = clock
        self._password = password
        self._lost = asyncio.Event()
        self._changed = asyncio.Condition()
        self.health = Health()
        self._told: Connection | None = None
        self.generation = 0
        self.time = ServerTime()
        self.currency = ""
        self.hedging = True
        self.account_info: dict[str, Any] | None = None

    async def ask(
        self,
        operation: str,
        *,
        urgency: int = READ,
        deadline_s: float | None = None,
        logged: bool = True,
        **arguments: Any,
    ) -> Answer:
        """Return the worker's answer; what it exchanged goes into the broker log, unless the caller keeps it himself.

        Raises:
            NotHandedOverError: it did not happen; the connection is being made again.
            WorkerLostError: nobody knows whether it happened; the worker is dead, the connection is being made again.
        """
        try:
            answer = await self._worker.call(
                operation, arguments, deadline_s=deadline_s or self._terminal.read_deadline_s, urgency=urgency
            )
        except WorkerLostError as error:
            logger.warning("%s", error)
            if error.deadline:
                await self._become("hung")
            self._lost.set()
            raise
        except NotHandedOverError:
            self._lost.set()
            raise
        if logged and answer.log:
            self._journal.write(lambda book: brokerlog.append(book, answer.log))
        if answer.broken or answer.failure:
            self._lost.set()
        if answer.failure:
            raise NotHandedOverError(answer.failure)
        if answer.broken and operation not in {"initialize", "send"}:  # what was read before it broke is not believed
            raise NotHandedOverError(f"{operation}: {answer.broken[1]} ({answer.broken[0]})")
        return answer

    async def settled(self, until: datetime) -> bool:
        """Wait until the state is known; False if ``until`` came first."""
        left_s = (until - self._clock()).total_seconds()
        try:
            async with asyncio.timeout(max(left_s, 0)), self._changed:
                await self._changed.wait_for(
                    lambda: self.health.connection not in {"connecting", "hung"} and not self._lost.is_set()
                )
        except TimeoutError:
            return False
        return True

    async def ready(self) -> None:
        """Wait until the account can be read and traded."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.health.connection == "ready" and not self._lost.is_set())

    async def run(self) -> None:
        """Keep the connection, for ever."""
        known = await self._journal.write(lambda book: book.meta("server_offset_s"))
        self.time = ServerTime(int(known) if known else None)
        retry_s = FIRST_RETRY_S
        while True:
            generation = self.generation
            if await self._connected():
                await self._watched()
            if self.generation != generation:
                retry_s = FIRST_RETRY_S
            await self._become("connecting") if self.health.connection == "ready" else None
            await asyncio.sleep(retry_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            retry_s = min(retry_s * 2, LONGEST_RETRY_S)

    async def _connected(self) -> bool:
        self._lost.clear()
        try:
            if not self._worker.is_alive:
                await self._worker.start()
            deadline_s = self._terminal.initialize_deadline_s
            answer = await self.ask(
                "initialize",
                urgency=ORDER,
                deadline_s=deadline_s,
                path=str(self._account.terminal_path) if self._account.terminal_path else None,
                login=self._account.login,
                server=self._account.server,
                password=self._password,
                timeout_ms=int(deadline_s * INITIALIZE_TIMEOUT_SHARE * 1000),
            )
        except (NotHandedOverError, WorkerLostError):
            return False
        if answer.value["done"]:
            self._lost.clear()
            return True
        code, text = answer.error
        await self._become("wrong_account" if code == -6 else "disconnected", f"initialize: {text} ({code})")
        return False

    async def _watched(self) -> None:
        while not self._lost.is_set():
            try:
                answer = await self.ask("pulse")
            except (NotHandedOverError, WorkerLostError):
                return
            await self._learn(answer.value)
            try:
                await asyncio.wait_for(self._lost.wait(), self._terminal.poll_interval_s)
            except TimeoutError:
                continue

    async def _learn(self, pulse: dict[str, Any]) -> None:
        tick, account = pulse["tick"], pulse["account"]
        if tick and tick["time_msc"] and self.time.observe(tick["time_msc"], self._clock()):
            offset = str(self.time.offset_s)
            logger.info("the broker's server clock is %s s ahead of UTC", offset)
            await self._journal.write(lambda book: book.set_meta("server_offset_s", offset))
        if account:
            self.account_info = account
            self.currency, self.hedging = account["currency"], account["margin_mode"] == MARGIN_MODE_HEDGING
        state, detail = self._judged(pulse["terminal"], account)
        if not self._lost.is_set():
            await self._become(state, detail)

    def _judged(self, terminal: dict[str, Any] | None, account: dict[str, Any] | None) -> tuple[Connection, str]:
        if terminal is None or account is None or not terminal["connected"]:
            return "disconnected", "the terminal has no connection to the broker"
        if (account["login"], account["server"]) != (self._account.login, self._account.server):
            return "wrong_account", f"the terminal is logged in to {account['login']} on {account['server']}"
        wanted = self._account.terminal_path
        if wanted is not None and Path(terminal["path"]) not in (wanted, wanted.parent):
            return "wrong_account", f"the terminal that answers is {terminal['path']}"
        if (
            not terminal["trade_allowed"]
            or terminal["tradeapi_disabled"]
            or not account["trade_allowed"]
            or not account["trade_expert"]
        ):
            return "no_algo_trading", ""
        if self.time.offset_s is None:
            return "connecting", "no fresh tick has shown the server's clock yet; it comes when the market is open"
        return "ready", ""

    async def _become(self, connection: Connection, detail: str = "") -> None:
        health = Health(connection, "; ".join(part for part in (detail, WHAT_TO_DO[connection]) if part))
        changed = health.connection != self._told
        self.health, self._told = health, connection
        if changed:
            self.generation += connection == "ready"
            level = logging.INFO if connection in {"ready", "connecting"} else logging.ERROR
            logger.log(level, "connection: %s %s", connection, health.detail)
            body = ConnectionChange(connection=connection, detail=health.detail)
            await self._journal.write(lambda book: _report_connection(book, body))
        async with self._changed:
            self._changed.notify_all()


MARGIN_MODE_HEDGING = 2


def _report_connection(book: Book, body: ConnectionChange) -> None:
    book.report("connection", None, body)
