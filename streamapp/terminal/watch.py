"""What happens at the broker, seen by looking: deals of new tickets at once, all deals always, tickets to their end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from streamapp.clock import Clock
from streamapp.domain.facts import Filled
from streamapp.domain.vocabulary import time_text
from streamapp.settings import TerminalSettings
from streamapp.terminal.book import Book
from streamapp.terminal.connection import BrokerConnection
from streamapp.terminal.deals import end_of, filled
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import NotHandedOverError, WorkerLostError

logger = logging.getLogger(__name__)

CONFIRM_WAITS_S = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""After an acceptance the deal is there at once or, by the terminal's visibility lag, within a second or so; the watch
finds what is later."""
OVERLAP = timedelta(days=1)
"""How far before the watermark history is read: a deal that the server shows late is dated when it happened."""
FUTURE = timedelta(days=2)
"""History is compared with the server's clock, which may be ahead of ours; more than any offset."""
NEAR = timedelta(seconds=30)
"""How far before the newest known deal the quick look begins; what it can't explain makes it a look at everything."""
WIDE_EVERY_S = 15.0
"""The whole interval is read this often, or ..."""
WIDE_SHARE = 50
"""... every so many times its own duration: at most 2 % of the worker's time, whatever the size of the history."""
EQUAL_READS_S = 1.0
"""Two equal reads this far apart, connected in between, are what the watermark moves on (reference mt5 §2.5)."""
TICKETS_AT_ONCE = 20
"""Most live tickets looked at in one round: each costs up to three calls of the worker, which orders wait for."""


@dataclass(frozen=True)
class _Read:
    """A read of the whole interval; ``digest`` is of the deals up to ``until``."""

    began: float
    generation: int
    until: datetime
    digest: int


class Watch:
    """Everything seen at the broker becomes a journal entry and a report, once."""

    def __init__(
        self, journal: Journal, connection: BrokerConnection, terminal: TerminalSettings, *, clock: Clock
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._terminal = terminal
        self._clock = clock
        self._watermark = clock()
        self._newest = self._watermark
        self._generation = -1
        self._next_wide = 0.0
        self._before: _Read | None = None
        self._confirming: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def confirm(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> None:
        """Look for the deals of a ticket that was accepted just now."""
        self._confirming.add(ticket)
        task = asyncio.create_task(self._confirm(order_id, ticket, volume, attempt))
        self._tasks.add(task)
        task.add_done_callback(self._confirmed)

    def _confirmed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a deal could not be confirmed; the watch goes on looking for it", exc_info=error)

    async def _confirm(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> None:
        try:
            for wait_s in CONFIRM_WAITS_S:
                await asyncio.sleep(wait_s)
                if await self._look_at(order_id, ticket, volume, attempt):
                    return
        except (NotHandedOverError, WorkerLostError) as error:
            logger.warning("order %s, ticket %s: its deals are looked for later: %s", order_id, ticket, error)
        finally:
            self._confirming.discard(ticket)

    async def _look_at(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> bool:
        """Record what is to be seen of a ticket; True when it is over."""
        time, now = self._connection.time, self._clock()
        answer = await self._connection.ask(
            "ticket",
            ticket=ticket,
            volume=float(volume),
            since=time.server_s(now - OVERLAP if ticket not in self._confirming else now - NEAR),
            until=time.server_s(now + FUTURE),
            hedging=self._connection.hedging,
        )
        order, done = answer.value["order"], answer.value["done"]
        bodies = self._bodies(answer.value["deals"])
        # None also where history says done and the deals are not to be seen yet: the volume counts, and it comes from
        # deals.
        final = end_of(order, attempt) if done else None

        def record(book: Book) -> bool:
            _record_deals(book, bodies)
            if final is not None:
                book.end_ticket(ticket, order_id, final)
            return not book.is_live(ticket)

        return await self._journal.write(record)

    def _bodies(self, deals: list[dict[str, Any]]) -> list[Filled]:
        trades = sorted((deal for deal in deals if deal["volume"] > 0), key=_in_time)
        bodies = [filled(deal, self._connection.currency, self._connection.time) for deal in trades]
        self._newest = max([self._newest, *(body.time for body in bodies)])
        return bodies

    async def run(self) -> None:
        """Look, for ever."""
        known = await self._journal.write(_first_watermark)
        self._watermark = self._newest = known
        while True:
            await self._connection.readable()
            try:
                await self._look()
                await self._look_at_live()
            except (NotHandedOverError, WorkerLostError) as error:
                logger.warning("looking at the broker again when it is connected: %s", error)
            await asyncio.sleep(self._terminal.poll_interval_s)

    async def _look(self) -> None:
        time, now, generation = self._connection.time, self._clock(), self._connection.generation
        began = asyncio.get_running_loop().time()
        wide = generation != self._generation or began >= self._next_wide
        settled = now - NEAR if self._before is None else self._before.until
        answer = await self._connection.ask(
            "deals",
            wide_from=time.server_s(self._watermark - OVERLAP),
            near_from=time.server_s(max(self._newest - NEAR, self._watermark - OVERLAP)),
            settled_until=time.server_s(settled),
            until=time.server_s(now + FUTURE),
            wide=wide,
        )
        read = answer.value
        await self._record_all(read)
        if wide and read["read"]:
            self._generation = generation
            await self._judge_read(_Read(began, generation, settled, read["digest"]))

    async def _record_all(self, part: dict[str, Any]) -> None:
        while True:
            bodies = self._bodies(part["deals"])
            if bodies:
                await self._journal.write(partial(_record_deals, bodies=bodies))
            if not part["more"]:
                return
            part = (await self._connection.ask("more_deals")).value

    async def _judge_read(self, read: _Read) -> None:
        """Move the watermark if this read equals the one before; plan the next."""
        before, self._before = self._before, read
        now = asyncio.get_running_loop().time()
        wait_s = EQUAL_READS_S
        if before is not None and (before.generation, before.digest) == (read.generation, read.digest):
            wait_s, self._before = WIDE_EVERY_S, None
            self._watermark = max(self._watermark, read.until)
            text = time_text(self._watermark)
            await self._journal.write(lambda book: book.set_meta("history_watermark", text))
        elif before is not None:
            self._before = None
        self._next_wide = now + max(wait_s, (now - read.began) * WIDE_SHARE)

    async def _look_at_live(self) -> None:
        live = await self._journal.write(lambda book: book.live_tickets(TICKETS_AT_ONCE))
        for ticket, order_id, volume, attempt in live:
            if ticket not in self._confirming:
                await self._look_at(order_id, ticket, Decimal(volume), attempt)


def _record_deals(book: Book, bodies: list[Filled]) -> None:
    for body in bodies:
        book.record_deal(body)


def _in_time(deal: dict[str, Any]) -> tuple[int, int]:
    return deal["time_msc"], deal["ticket"]


def _first_watermark(book: Book) -> datetime:
    """Return up to when history was known to be complete; a new journal begins now, and so with one day of history."""
    text = book.meta("history_watermark")
    if text is None:
        text = time_text(book.clock())
        book.set_meta("history_watermark", text)
    return datetime.fromisoformat(text).astimezone(UTC)
