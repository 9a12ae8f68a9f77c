"""Doubts resolved by evidence: what the broker shows is adopted, what it never shows is absent (submission, step 9)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from streamapp.clock import Clock
from streamapp.domain.facts import Filled, OutcomeUnknown, ProvenAbsent
from streamapp.domain.vocabulary import time_text
from streamapp.settings import TerminalSettings
from streamapp.terminal.book import Book
from streamapp.terminal.connection import BrokerConnection
from streamapp.terminal.deals import filled
from streamapp.terminal.evidence import CLOCK_SLACK, Evidence, judged, sightings
from streamapp.terminal.journal import Journal
from streamapp.terminal.link import NotHandedOverError, WorkerLostError
from streamapp.terminal.rows import Doubt

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two searches: doubled each time, from a new doubt on."""
AT_ONCE = 500
"""Most doubts looked for in one search; the others wait their turn."""
BEFORE = timedelta(days=1)
"""How far before a row was made history is searched; with FUTURE more than any offset of a server's clock."""
FUTURE = timedelta(days=2)
WHOLE_DAY_S = 86400
"""History is searched from the beginning of a day: one interval for all doubts of that day. It is also the earliest
moment to ask the module for: never 0 (reference mt5 §1.3)."""
LATE_FOR = timedelta(days=1)
"""How long an absent order is still searched for by itself; a deal with its magic is adopted for ever, by the watch."""


@dataclass
class _Window:
    """The settle window of one doubt; ``began_s``: the first search in it had begun, by the loop's clock."""

    doubt: Doubt
    began_s: float | None = None
    began_at: datetime | None = None
    polls: int = 0
    suspected: bool = False


class Resolver:
    """Looks for every doubt of the journal until it is adopted, absent, or left to a person.

    Guarantees:
        Nothing is sent. ABSENT is said only of an order that no search showed through a whole settle window of one
        unbroken connection, the last searches of it showing equal histories at least ``equal_reads_s`` apart.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        terminal: TerminalSettings,
        *,
        clock: Clock,
        on_adopted: Callable[[str, int, Decimal, int], None],
    ) -> None:
        """``on_adopted`` is told (order_id, ticket, volume, attempt) once an adoption is durable."""
        self._journal = journal
        self._connection = connection
        self._terminal = terminal
        self._clock = clock
        self._on_adopted = on_adopted
        self._windows: dict[str, _Window] = {}
        self._absent: dict[str, Doubt] = {}
        self._generation = -1
        self._digest: int | None = None
        self._equal_since_s = 0.0
        self._settled_until = 0
        self._pause_s = FIRST_PAUSE_S
        self._next_s = 0.0
        self._next_late_s = 0.0

    @property
    def suspicions(self) -> int:
        """How many doubts wait for a person."""
        return sum(window.suspected for window in self._windows.values())

    async def run(self) -> None:
        """Resolve, for ever."""
        since = self._clock() - LATE_FOR
        self._absent = {
            doubt.order.order_id: doubt
            for doubt in await self._journal.write(lambda book: book.sought(book.absents(since)))
        }
        while True:
            await self._learn_of_doubts()
            if self._is_due():
                await self._connection.readable()
                try:
                    await self._search()
                except (NotHandedOverError, WorkerLostError) as error:
                    logger.warning("doubts are looked for from the beginning when the broker is readable: %s", error)
                    self._begin_anew()
            await asyncio.sleep(self._terminal.poll_interval_s)

    # -- which, and when

    async def _learn_of_doubts(self) -> None:
        known = self._windows
        open_now, new = await self._journal.write(partial(_doubts, known=set(known)))
        if new:
            if not known:
                self._begin_anew()
            self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0
            logger.info("looking for %d orders in doubt", len(new))
        self._windows = {name: known[name] for name in open_now if name in known}
        self._windows |= {doubt.order.order_id: _Window(doubt, suspected=doubt.reason == "suspicion") for doubt in new}

    def _is_due(self) -> bool:
        now = _now_s()
        return bool(self._windows and now >= self._next_s) or bool(self._absent and now >= self._next_late_s)

    def _begin_anew(self) -> None:
        """Forget what was seen: a window counts only whole."""
        for window in self._windows.values():
            window.began_s, window.began_at, window.polls = None, None, 0
        self._generation, self._digest = self._connection.generation, None
        self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0
        if self._connection.time.offset_s is not None:
            self._settled_until = self._connection.time.server_s(self._clock())

    # -- one search

    async def _search(self) -> None:
        if self._connection.generation != self._generation:
            self._begin_anew()
        windows, generation = dict(self._windows), self._generation
        began_s, began_at = _now_s(), self._clock()
        doubts = [*(window.doubt for window in windows.values()), *self._absent.values()]
        answer = (await self._connection.ask("search", **self._arguments(doubts))).value
        if not answer["read"] or self._connection.generation != generation:
            self._begin_anew()
            return
        if answer["digest"] != self._digest:
            self._digest, self._equal_since_s = answer["digest"], began_s
        for window in windows.values():
            window.polls += 1
            if window.began_s is None:
                window.began_s, window.began_at = began_s, began_at
        seen = sightings(answer["found"], hedging=self._connection.hedging, time=self._connection.time)
        lateness = timedelta(seconds=self._terminal.settle_window_s)
        evidence = judged(seen, doubts, epoch=self._journal.book.epoch, lateness=lateness)
        await self._adopt(doubts, evidence, answer["found"]["history_deals"])
        for name, window in windows.items():
            if name in self._windows and self._is_over(window, began_s):
                await self._close(window, evidence[name], answer["counts"])
        self._plan()

    def _arguments(self, doubts: list[Doubt]) -> dict[str, Any]:
        time = self._connection.time
        return {
            "orders": [self._wanted(doubt) for doubt in doubts],
            "since": min(self._since(doubt) for doubt in doubts),
            "until": time.server_s(self._clock() + FUTURE),
            "settled_until": self._settled_until,
        }

    def _may_be_old(self, doubt: Doubt) -> bool:
        """Return whether it was claimed for another journal, and so may have been sent before this one began."""
        return doubt.order.epoch != self._journal.book.epoch and doubt.order.order_id not in self._absent

    def _since(self, doubt: Doubt) -> int:
        if self._may_be_old(doubt):
            return WHOLE_DAY_S
        return self._connection.time.server_s(doubt.recorded_at - BEFORE) // WHOLE_DAY_S * WHOLE_DAY_S

    def _wanted(self, doubt: Doubt) -> dict[str, Any]:
        order = doubt.order
        alike_from = 0 if self._may_be_old(doubt) else self._connection.time.server_s(doubt.recorded_at - CLOCK_SLACK)
        return {
            "magic": doubt.magic,
            "tag": doubt.tag,
            "symbol": order.parameters.symbol,
            "side": order.parameters.side,
            "volume": float(order.parameters.volume),
            "alike_from": None if order.order_id in self._absent else alike_from,
        }

    def _is_over(self, window: _Window, now_s: float) -> bool:
        return (
            window.began_s is not None
            and now_s - window.began_s >= self._terminal.settle_window_s
            and now_s - self._equal_since_s >= self._terminal.equal_reads_s
        )

    def _plan(self) -> None:
        """Say when the next searches are: after the pause, and when a window ends before that."""
        now = _now_s()
        ends = [
            max(window.began_s + self._terminal.settle_window_s, self._equal_since_s + self._terminal.equal_reads_s)
            for window in self._windows.values()
            if window.began_s is not None and not window.suspected
        ]
        self._next_s = min([now + self._pause_s, *ends])
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._next_late_s = now + self._terminal.settle_window_s
        forgotten = self._clock() - LATE_FOR
        self._absent = {name: doubt for name, doubt in self._absent.items() if doubt.recorded_at > forgotten}

    # -- what it means

    async def _adopt(self, doubts: list[Doubt], evidence: dict[str, Evidence], rows: list[dict[str, Any]]) -> None:
        """Take what is ours as ours, with the deals that were found beside it."""
        deals = [filled(row, self._connection.currency, self._connection.time) for row in rows if row["volume"] > 0]
        for doubt in doubts:
            order, tickets = doubt.order, evidence[doubt.order.order_id].tickets
            if not tickets:
                continue
            seen = "; ".join(str(row) for row in evidence[order.order_id].ours)
            logger.warning("order %s is at the broker: %s", order.order_id, seen)
            await self._journal.write(partial(_adopted, order_id=order.order_id, tickets=tickets, deals=deals))
            self._windows.pop(order.order_id, None)
            self._absent.pop(order.order_id, None)
            for ticket in tickets:
                self._on_adopted(order.order_id, ticket, order.parameters.volume, order.attempt)

    async def _close(self, window: _Window, evidence: Evidence, counts: dict[str, int]) -> None:
        """The window is over and nothing showed that is ours: absent, unless something can't be told."""
        order = window.doubt.order
        assert window.began_at is not None
        absent = ProvenAbsent(
            attempt=order.attempt,
            evidence={
                "window_from": time_text(window.began_at),
                "window_until": time_text(self._clock()),
                "polls": window.polls,
                "rows_looked_at": counts,
                "generation": self._generation,
                "connection": "unbroken",
            },
        )
        match await self._journal.write(partial(_closed, doubt=window.doubt, absent=absent, evidence=evidence)):
            case "absent":
                logger.error("order %s is absent: %s", order.order_id, absent.evidence)
                self._windows.pop(order.order_id, None)
                self._absent[order.order_id] = window.doubt
            case "suspicion":
                window.suspected = True


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _doubts(book: Book, known: set[str]) -> tuple[list[str], list[Doubt]]:
    open_now = book.doubts(AT_ONCE)
    return open_now, book.sought([name for name in open_now if name not in known])


def _adopted(book: Book, order_id: str, tickets: list[int], deals: list[Filled]) -> None:
    for ticket in tickets:
        book.accept(order_id, ticket)
    for body in deals:
        if body.ticket in tickets:
            book.record_deal(body)


def _closed(book: Book, doubt: Doubt, absent: ProvenAbsent, evidence: Evidence) -> str | None:
    """Call a doubt absent, or leave it to a person; None: it is no doubt any more."""
    order = doubt.order
    unexplained = [row for row in evidence.alike if not book.explains(row.ticket, row.magic)]
    suspicious = [*evidence.ours, *unexplained]
    if not suspicious:
        return "absent" if book.absent(order.order_id, absent) else None
    message = f"this may be the order, look at it in the terminal: {'; '.join(str(row) for row in suspicious)}"
    if book.suspect(order.order_id, OutcomeUnknown(attempt=order.attempt, why="suspicion", message=message)):
        logger.error("order %s is left to a person: %s", order.order_id, message)
    return "suspicion"
