"""The account's connection to the broker: made, verified, watched, made again; and its state in one word."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from streamapp.clock import Clock
from streamapp.domain.vocabulary import Connection
from streamapp.messages.report import ConnectionChange
from streamapp.mt5 import constants as mt5
from streamapp.processes.backoff import Backoff
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal.account.servertime import HALF_HOUR_S, ServerTime
from streamapp.terminal.account.synchronisation import Synchronisation, known_deals
from streamapp.terminal.account.worker_client import ORDER, READ, NotHandedOverError, WorkerLostError, WorkerPort
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View
from streamapp.terminal.pipe.answers import Answered, Looked
from streamapp.terminal.pipe.calls import Call, Initialize, Look, Send
from streamapp.terminal.pipe.structs import AccountInfo, TerminalInfo, Tick

logger = logging.getLogger(__name__)

A = TypeVar("A")

WHAT_TO_DO: dict[Connection, str] = {
    "connecting": "nothing: it is being connected",
    "ready": "",
    "no_algo_trading": "press Algo Trading in the terminal, allow its Python API, log in with the trading password",
    "wrong_account": "log the terminal in to the configured account, or mend login and server",
    "wrong_password": "mend login, server and password_file and start the terminal again; it tries ever more rarely, "
    "for brokers lock accounts that fail too often",
    "disconnected": "see that the terminal program runs and shows a connection; it is tried again by itself",
    "hung": "nothing: the worker was ended and starts again; if it repeats, look at the terminal program",
}
HASTE_S = 0.25
"""Between two looks while the terminal is not believed: orders may wait for it."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.25, 10.0
"""Between two tries to connect: doubled each time, with jitter, so that many terminals of one host do not start
together."""
BLIND_S = 5.0
"""Longer without a look, and the connection may have been lost and made again, with a stale cache, unnoticed: a
terminal program needs several seconds for it. Far longer than any look of ours takes."""
FIRST_LOGIN_S, LONGEST_LOGIN_S = 5.0, 1800.0
"""Between two logins that the broker refuses: some 60 a day, where every ten seconds would be thousands."""
CLOCK_STEP_S = 1.0
"""More than a clock is slewed between two looks: it was set."""
SAME_STEP_S = 5.0
"""A clock that was set ahead, and back by as much to within so much, is where it was."""
RETRY_JITTER = 0.5
INITIALIZE_TIMEOUT_SHARE = 0.5
"""The module's own timeout is this share of our deadline: the rest is for the launch of the terminal program, which it
does not count."""


@dataclass(frozen=True)
class _Rider:
    """Whoever waits for the next look, and what he wants of it."""

    asked: Look
    seen: asyncio.Future[Looked]

    def fail(self, error: Exception) -> None:
        if not self.seen.done():
            self.seen.set_exception(error)


@dataclass(frozen=True)
class Health:
    """How the connection is, and what a person should do about it."""

    connection: Connection = "connecting"
    detail: str = WHAT_TO_DO["connecting"]


def _together(asked: Sequence[Look], symbols: tuple[str, ...]) -> Look:
    """Return one look that reads what several want of it."""
    return Look(
        deals=next((look.deals for look in asked if look.deals is not None), None),
        ends=next((look.ends for look in asked if look.ends is not None), None),
        positions=any(look.positions for look in asked),
        orders=any(look.orders for look in asked),
        symbols=symbols,
    )


class BrokerConnection:
    """Whoever wants something from the broker asks here.

    A connection is *believed* once it is synchronised: two equal looks at the past, ``terminal.equal_reads_s`` apart,
    connected to the right account at every look in between. Nothing is sent, reported or resolved before.

    Attributes:
        health: The state now; ``connecting`` until it is believed.
        generation: Counts the connections that were begun. It moves when one is made, and with the first look that
            shows no connection or another account: what was read in another generation proves nothing about stability.
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
        symbols: Sequence[str] = (),
    ) -> None:
        """``symbols`` are those that a Market Watch gets in which nothing is quoted."""
        self._worker = worker
        self._journal = journal
        self._account = account
        self._terminal = terminal
        self._clock = clock
        self._password = password
        self._lost = asyncio.Event()
        self._changed = asyncio.Condition()
        self._riders: list[_Rider] = []
        self.health = Health()
        self._told: Connection | None = None
        self.generation = 0
        self._synchronisation: Synchronisation | None = None
        self.time = ServerTime()
        self.currency = ""
        self.hedging = True
        self.account_info: AccountInfo | None = None
        self._symbols = list(symbols)
        self._selected: tuple[str, ...] = ()
        self._looked: tuple[float, float] | None = None
        self._set_back_s = self._set_ahead_s = 0.0
        self._pending = View(journal, Book.has_pending)
        self._empty_at: int | None = None

    def want(self, symbol: str) -> None:
        """Take note of a symbol that an order names, for a Market Watch in which nothing is quoted."""
        if symbol not in self._symbols and self.health.connection == "connecting":
            self._symbols.append(symbol)

    async def ask(
        self,
        call: Call[A],
        *,
        urgency: int = READ,
        deadline_s: float | None = None,
        logged: bool = True,
    ) -> Answered[A]:
        """Return the worker's answer; what it exchanged goes into the broker log, unless the caller keeps it himself.

        Raises:
            NotHandedOverError: it did not happen; the connection is being made again.
            WorkerLostError: nobody knows whether it happened; the worker is dead, the connection is being made again.
        """
        try:
            answer = await self._worker.call(
                call, deadline_s=deadline_s or self._terminal.read_deadline_s, urgency=urgency
            )
        except WorkerLostError as error:
            logger.warning("%s", error)
            self._lose()
            if error.deadline:
                await self._become("hung")
            raise
        except NotHandedOverError:
            self._lose()
            raise
        if logged and answer.log:
            self._journal.write(lambda book: broker_log.append(book, answer.log))
        if answer.away:
            self._doubt()
            raise NotHandedOverError(f"{call.name}: {answer.away}")
        if isinstance(call, Send) and answer.took_s >= BLIND_S:
            self.require_resync(f"order_send took {answer.took_s:.0f} s, in which nothing else could be asked")
        if answer.broken or answer.failure:
            self._lose()
        if answer.failure:
            raise NotHandedOverError(answer.failure)
        if answer.broken and not isinstance(call, Initialize | Send):  # what was read before it broke is not believed
            raise NotHandedOverError(f"{call.name}: {answer.broken[1]} ({answer.broken[0]})")
        return answer

    async def read(self, call: Call[A]) -> Answered[A]:
        """Wait until the account is readable, and return an answer that is believed.

        Raises:
            NotHandedOverError, WorkerLostError: as :meth:`read_now`.
        """
        await self.readable()
        return await self.read_now(call)

    async def read_now(self, call: Call[A]) -> Answered[A]:
        """Return an answer that is believed.

        Raises:
            NotHandedOverError: the account is not readable, or it was another connection when the answer came.
            WorkerLostError: as :meth:`ask`.
        """
        generation = self.generation
        self._refuse_unless_readable(call)
        answer = await self.ask(call)
        self._refuse_if_made_again(call, generation)
        return answer

    async def ride(self, asked: Look) -> Looked:
        """Return what the next look reads of the account, believed.

        Looks are ``terminal.poll_interval_s`` apart, at a quiet account up to ``terminal.quiet_interval_s``. All who
        ask meanwhile share one exchange with the worker, and the look that the connection itself is judged by.

        Raises:
            NotHandedOverError: the account is not readable, or was not at that look.
            WorkerLostError: as :meth:`ask`.
        """
        self._refuse_unless_readable(asked)
        rider = _Rider(asked, asyncio.get_running_loop().create_future())
        self._riders.append(rider)
        return await rider.seen

    def _refuse_unless_readable(self, call: Call[Any]) -> None:
        if not self.is_readable:
            raise NotHandedOverError(f"{call.name}: {self.health.connection}: {self.health.detail}")

    def _refuse_if_made_again(self, call: Call[Any], generation: int) -> None:
        if self.generation != generation:
            raise NotHandedOverError(f"{call.name}: the connection was made again meanwhile")

    @property
    def is_believed(self) -> bool:
        """Whether what is read now counts."""
        return self._synchronisation is not None and self._synchronisation.done and not self._lost.is_set()

    @property
    def is_readable(self) -> bool:
        """Whether the account can be read: connected, the right one, believed; perhaps not allowed to trade."""
        return self.is_believed and self.health.connection in {"ready", "no_algo_trading"}

    async def settled(self, until: datetime) -> bool:
        """Wait until the state is known; False if ``until`` came first."""
        left_s = (until - self._clock()).total_seconds()
        try:
            async with asyncio.timeout(max(left_s, 0)):
                await self._until(self._is_settled)
        except TimeoutError:
            return False
        return True

    def _is_settled(self) -> bool:
        away = self.health.connection in {"wrong_account", "wrong_password", "disconnected"} and not self._lost.is_set()
        return away or self.is_readable

    async def readable(self) -> None:
        """Wait until the account can be read, believed, and resolved; it need not be allowed to trade."""
        await self._until(lambda: self.is_readable)

    async def ready(self) -> None:
        """Wait until the account can be read and traded."""
        await self._until(lambda: self.is_readable and self.health.connection == "ready")

    async def renew(self) -> None:
        """End the worker; the connection is made again with a fresh one, and synchronised. Returns when it is dead."""
        self._lose()
        await self._worker.end()

    def require_resync(self, why: str) -> None:
        """Believe nothing until it is synchronised again, because nobody looked for a while."""
        logger.warning("synchronising again: %s", why)
        self._doubt()

    def _lose(self) -> None:
        self._lost.set()
        self._doubt()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def run(self) -> None:
        """Keep the connection, for ever."""
        known = await self._journal.write(lambda book: book.meta("server_offset_s"))
        self.time = ServerTime(int(known) if known else None)
        backoff = Backoff(FIRST_RETRY_S, LONGEST_RETRY_S, jitter=RETRY_JITTER)
        logins = Backoff(FIRST_LOGIN_S, LONGEST_LOGIN_S, jitter=RETRY_JITTER)
        while True:
            if await self._connected() and await self._watched():
                backoff.reset()
                logins.reset()
            if self.health.connection in {"ready", "no_algo_trading"}:
                await self._become("connecting")
            await asyncio.sleep((logins if self.health.connection == "wrong_password" else backoff).next_s())

    def _doubt(self) -> None:
        """Believe nothing until it is synchronised again."""
        self._empty_at = None
        self.generation += self._synchronisation is not None
        self._synchronisation = None
        for rider in self._taken_riders():
            rider.fail(NotHandedOverError("look: the connection is being made, or believed, again"))

    async def _connected(self) -> bool:
        self._doubt()
        self._lost.clear()
        path = self._account.terminal_path
        try:
            if not self._worker.is_alive:
                await self._worker.start()
            deadline_s = self._terminal.initialize_deadline_s
            initialize = Initialize(
                path=str(path) if path else None,
                portable=self._account.terminal_portable if path else None,
                login=self._account.login,
                server=self._account.server,
                password=self._password,
                timeout_ms=int(deadline_s * INITIALIZE_TIMEOUT_SHARE * 1000),
            )
            answer = await self.ask(initialize, urgency=ORDER, deadline_s=deadline_s)
        except (NotHandedOverError, WorkerLostError):
            return False
        if answer.value.done:
            self._lost.clear()
            return True
        code, text = answer.error
        refused = code == mt5.RES_E_AUTH_FAILED
        await self._become("wrong_password" if refused else "disconnected", f"initialize: {text} ({code})")
        return False

    async def _watched(self) -> bool:
        """Look until the connection is lost; return whether it was ever believed."""
        believed = False
        while not self._lost.is_set():
            await self._look()
            believed = believed or self.is_believed
            await self._rest()
        return believed

    async def _rest(self) -> None:
        """Wait until the next look is due, or the connection is lost: longer for as long as the account is quiet."""
        interval_s, rested_s = self._terminal.poll_interval_s, 0.0
        if not self.is_believed:
            await self._lost_within(min(interval_s, HASTE_S))
            return
        is_quiet = True
        while is_quiet and not self._lost.is_set():
            await self._lost_within(interval_s)
            rested_s += interval_s
            is_quiet = rested_s + interval_s <= self._terminal.quiet_interval_s and await self._is_quiet()

    async def _lost_within(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._lost.wait()

    async def _is_quiet(self) -> bool:
        """Return whether the tables were empty, nothing was written since, and nothing waits for what happens next."""
        return self._empty_at == self._journal.revision and not await self._pending.get()

    async def _look(self) -> None:
        """Look once, for all who ride. What was read before the account is believed only if it is still ours after."""
        riders, generation, revision = self._taken_riders(), self.generation, self._journal.revision
        look = _together([rider.asked for rider in riders], tuple(self._symbols))
        try:
            seen = (await self.ask(look)).value
            self._selected = seen.selected
            await self._learn(seen)
            self._refuse_unless_readable(look)
            self._refuse_if_made_again(look, generation)
        except (NotHandedOverError, WorkerLostError) as error:
            logger.debug("looking again: %s", error)
            for rider in riders:
                rider.fail(error)
            return
        if seen.positions is not None and seen.orders is not None:
            is_empty = seen.positions.value.rows == () and seen.orders.value.rows == ()
            self._empty_at = revision if is_empty else None
        for rider in riders:
            if not rider.seen.done():
                rider.seen.set_result(seen)

    def _taken_riders(self) -> list[_Rider]:
        riders, self._riders = self._riders, []
        return riders

    async def _learn(self, seen: Looked) -> None:
        terminal, account, tick = seen.terminal, seen.account, seen.tick
        if (away := self._not_our_account(terminal, account, seen.unread)) is not None:
            self._doubt()
            await self._become(*away)
            return
        assert terminal is not None
        assert account is not None
        self.account_info = account
        self.currency = account.currency
        self.hedging = account.margin_mode == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING
        now = self._as_if_never_set_back(self._clock())
        if tick and tick.time_msc and self.time.observe(tick.time_msc, now):
            await self._keep_offset()
        if await self._synchronised(tick):
            await self._become(*self._permitted(terminal, account))

    def learn_deal_time(self, deal_ms: int, at: datetime) -> None:
        """Take the server's time of a deal that was made just now, ``at`` by our clock, as what its clock shows."""
        if self.time.observe_deal(deal_ms, at):
            self._keep_offset()

    def _keep_offset(self) -> asyncio.Future[None]:
        offset = str(self.time.offset_s)
        logger.info("the broker's server clock is %s s ahead of UTC", offset)
        return self._journal.write(lambda book: book.set_meta("server_offset_s", offset))

    def _not_our_account(
        self, terminal: TerminalInfo | None, account: AccountInfo | None, unread: str
    ) -> tuple[Connection, str] | None:
        if unread:  # it says nothing of the broker: orders wait, as for any look that comes to nothing
            return "connecting", f"a read failed: {unread}"
        if terminal is None or account is None or not terminal.connected:
            return "disconnected", "the terminal has no connection to the broker"
        if (account.login, account.server) != (self._account.login, self._account.server):
            return "wrong_account", f"the terminal is logged in to {account.login} on {account.server}"
        wanted = self._account.terminal_path
        if wanted is not None and Path(terminal.path) not in (wanted, wanted.parent):
            return "wrong_account", f"the terminal that answers is {terminal.path}"
        return None

    def _permitted(self, terminal: TerminalInfo, account: AccountInfo) -> tuple[Connection, str]:
        if self.time.offset_s is None:
            return "connecting", self._clock_unknown()
        if (
            not terminal.trade_allowed
            or terminal.tradeapi_disabled
            or not account.trade_allowed
            or not account.trade_expert
        ):
            return "no_algo_trading", ""
        return "ready", ""

    def _clock_unknown(self) -> str:
        text = "no fresh tick has shown the server's clock yet"
        if self._selected:
            names = ", ".join(self._selected)
            return f"{text}: nothing in Market Watch was quoted, now it has {names}; a quote comes when they trade"
        return f"{text}; it comes when a symbol of Market Watch trades"

    def _as_if_never_set_back(self, now: datetime) -> datetime:
        """Return the time as if our clock had never been set back: no change of the server's is to be seen in that.

        One that was wrong is being set right where the server's seemed to be off by less than a time zone, and where
        the step takes back the one ahead before it.
        """
        steady_s, wall_s = asyncio.get_running_loop().time(), now.timestamp()
        if self._looked is not None:
            step_s = (wall_s - self._looked[1]) - (steady_s - self._looked[0])
            if abs(step_s) >= CLOCK_STEP_S:
                self._take_step(step_s)
        self._looked = (steady_s, wall_s)
        return now + timedelta(seconds=self._set_back_s)

    def _take_step(self, step_s: float) -> None:
        was_odd = bool((self.time.offset_s or 0) % HALF_HOUR_S)
        is_taken_back = abs(step_s + self._set_ahead_s) <= SAME_STEP_S
        # What only undoes a step back is no step ahead: a clock that goes to and fro is behind each time.
        ahead_s = step_s - self._set_back_s
        self._set_ahead_s = max(0.0, ahead_s)
        self._set_back_s = 0.0 if was_odd or is_taken_back else max(0.0, -ahead_s)

    async def _synchronised(self, tick: Tick | None) -> bool:
        """Take the next look at the past if it is due; True once the terminal is believed."""
        if self._synchronisation is None:
            since, known = await self._journal.write(known_deals)
            self._synchronisation = Synchronisation(
                self._clock(), since, known, tick.time if tick else 0, self._terminal.equal_reads_s
            )
        synchronisation, loop = self._synchronisation, asyncio.get_running_loop()
        if synchronisation.is_due(loop.time()):
            look = (await self.ask(synchronisation.next_look(self.time))).value
            if self._synchronisation is synchronisation and synchronisation.learn(look, loop.time()):
                logger.info("the terminal showed the same past twice: synchronised")
        if not synchronisation.done:
            lacking = synchronisation.lacking or "waiting for two equal reads"
            await self._become("connecting", f"synchronising with the broker: {lacking}")
        return self.is_believed

    async def _become(self, connection: Connection, detail: str = "") -> None:
        health = Health(connection, "; ".join(part for part in (detail, WHAT_TO_DO[connection]) if part))
        changed = health.connection != self._told
        self.health, self._told = health, connection
        if changed:
            level = logging.INFO if connection in {"ready", "connecting"} else logging.ERROR
            logger.log(level, "connection: %s %s", connection, health.detail)
            body = ConnectionChange(connection=connection, detail=health.detail)
            await self._journal.write(lambda book: _report_connection(book, body))
        async with self._changed:
            self._changed.notify_all()


def _report_connection(book: Book, body: ConnectionChange) -> None:
    book.report("connection", None, body)
