"""Doubts resolved by evidence: what the broker shows is adopted, what it never shows is absent (submission, step 9)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from streamapp.clock import Clock
from streamapp.domain.facts import Filled, OutcomeUnknown, ProvenAbsent
from streamapp.domain.vocabulary import time_text
from streamapp.settings import TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.search import CLOCK_SLACK, DoubtEvidence, judged, matched_rows
from streamapp.terminal.account.synchronisation import FUTURE
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.journal.orders import Doubt
from streamapp.terminal.pipe.answers import SearchResult
from streamapp.terminal.pipe.calls import Search, Wanted
from streamapp.terminal.pipe.structs import TradeDeal

logger = logging.getLogger(__name__)

AT_ONCE = 500
"""Most doubts looked for in one search; the others wait their turn."""
BEFORE = timedelta(days=1)
"""How far before a row was made history is searched; with FUTURE more than any offset of a server's clock."""
WHOLE_DAY_S = 86400
"""History is searched from the beginning of a day: one interval for all doubts of that day. It is also the earliest
moment to ask the module for: never 0 (reference mt5 §1.3)."""
NAMED = 20
"""Most rows that a message names: a year of another program's orders would be a report that NATS never takes."""
LATE_FOR = timedelta(days=1)
"""How long what was resolved is still searched for, once every settle window: an absent order may appear, an adopted
one a second time. The watch takes deals with its magic for ever."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
"""Between two looks: doubled each time, from a new doubt on."""


@dataclass
class Window:
    """One doubt's settle window; it began with the first look in it. ``suspected``: it waits for a person."""

    doubt: Doubt
    suspected: bool
    began_s: float | None = None
    began_at: datetime | None = None
    looks: int = 0


class Settling:
    """The windows of all doubts on one connection, and the looks that they share: when each began, and may end.

    Nothing here reads a clock: moments are seconds of one steady clock, given by the caller.

    Attributes:
        windows: By order id.
        generation: The connection's, of all that was seen in them.
        next_s: When the next look is due.
    """

    def __init__(self, window_s: float, equal_reads_s: float) -> None:
        self._window_s = window_s
        self._equal_reads_s = equal_reads_s
        self._digest: int | None = None
        self._equal_since_s = 0.0
        self._pause_s = FIRST_PAUSE_S
        self.windows: dict[str, Window] = {}
        self.generation = -1
        self.next_s = 0.0

    def take(self, open_now: Collection[str], new: Iterable[Doubt]) -> None:
        """Keep the windows of what is still in doubt and open those of what is ``new``."""
        self.windows = {name: window for name, window in self.windows.items() if name in open_now}
        for doubt in new:
            self.windows[doubt.order.order_id] = Window(doubt, doubt.reason == "suspicion")
            self._pause_s, self.next_s = FIRST_PAUSE_S, 0.0

    def begin_anew(self, generation: int) -> None:
        """Forget what was seen: a window counts only whole."""
        for window in self.windows.values():
            window.began_s, window.began_at, window.looks = None, None, 0
        self.generation, self._digest = generation, None
        self._pause_s, self.next_s = FIRST_PAUSE_S, 0.0

    def looked(self, began_s: float, began_at: datetime, digest: int) -> None:
        """Take note of a whole look that began at these moments; ``digest`` is of the settled part of history."""
        if digest != self._digest:
            self._digest, self._equal_since_s = digest, began_s
        for window in self.windows.values():
            window.looks += 1
            if window.began_s is None:
                window.began_s, window.began_at = began_s, began_at

    def over(self, began_s: float) -> list[Window]:
        """Return the windows that are whole with the look that began then, its history as before."""
        if began_s - self._equal_since_s < self._equal_reads_s:
            return []
        return [
            window
            for window in self.windows.values()
            if window.began_s is not None and began_s - window.began_s >= self._window_s
        ]

    def plan(self, now_s: float) -> None:
        """Say when the next look is due: after the pause, or when a window can end before that."""
        equal_s = self._equal_since_s + self._equal_reads_s
        ends = [
            max(window.began_s + self._window_s, equal_s)
            for window in self.windows.values()
            if window.began_s is not None and not window.suspected
        ]
        self.next_s = min([now_s + self._pause_s, *ends])
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)


class Resolver:
    """Looks for every doubt of the journal until it is adopted, absent, or left to a person.

    Guarantees:
        Nothing is sent. ABSENT is said only of an order that no look showed through a whole settle window of one
        unbroken connection, the last looks showing equal histories at least ``equal_reads_s`` apart.
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
        """``on_adopted`` is told (order_id, ticket, volume, attempt) once the adoption of a market order is durable."""
        self._journal = journal
        self._connection = connection
        self._terminal = terminal
        self._clock = clock
        self._on_adopted = on_adopted
        self._settling = Settling(terminal.settle_window_s, terminal.equal_reads_s)
        self._settled_until = 0
        self._revision = -1
        self._resolved: dict[str, Doubt] = {}
        self._next_late_s = 0.0

    async def run(self) -> None:
        """Resolve, for ever."""
        since = self._clock() - LATE_FOR
        absent = await self._journal.write(lambda book: book.sought(book.absents(since, AT_ONCE)))
        self._resolved = {doubt.order.order_id: doubt for doubt in absent}
        while True:
            await self._learn_of_doubts()
            if self._is_due():
                await self._connection.readable()
                try:
                    await self._look()
                except (NotHandedOverError, WorkerLostError) as error:
                    logger.warning("doubts are looked for from the beginning when the broker is readable: %s", error)
                    self._begin_anew()
            await asyncio.sleep(min(self._terminal.poll_interval_s, FIRST_PAUSE_S))

    # -- when

    async def _learn_of_doubts(self) -> None:
        if self._revision == self._journal.revision:  # nothing was written since
            return
        self._revision = self._journal.revision
        windows = self._settling.windows
        open_now, found = await self._journal.write(partial(_doubts, known=set(windows)))
        ended = [window.doubt for name, window in windows.items() if name not in open_now]
        new = [doubt for doubt in found if doubt.order.order_id in open_now]
        # What the watch adopted before we looked is looked for all the same: it may be there twice.
        ended += [doubt for doubt in found if doubt.order.order_id not in open_now]
        self._resolved |= {doubt.order.order_id: doubt for doubt in ended}
        for doubt in new:  # one that had to leave for others, where too many are in doubt, and is back
            self._resolved.pop(doubt.order.order_id, None)
        if new and not windows:
            self._begin_anew()
        self._settling.take(open_now, new)
        if new:
            logger.info("looking for %d orders in doubt", len(new))

    def _is_due(self) -> bool:
        now_s = _now_s()
        in_doubt = self._settling.windows and now_s >= self._settling.next_s
        return bool(in_doubt or (self._resolved and now_s >= self._next_late_s))

    def _begin_anew(self) -> None:
        self._settling.begin_anew(self._connection.generation)
        self._settled_until = self._connection.time.server_s(self._clock())

    # -- one look at everything

    async def _look(self) -> None:
        if self._connection.generation != self._settling.generation:
            self._begin_anew()
        began_s, began_at = _now_s(), self._clock()
        doubts = self._sought()
        look = (await self._connection.read_now(self._search(doubts))).value
        if not look.read:
            raise NotHandedOverError("search: the terminal did not show all four tables")
        self._settling.looked(began_s, began_at, look.digest)
        evidence = self._judged(look, doubts)
        await self._adopt(doubts, evidence, look.deals)
        await self._close(self._settling.over(began_s), evidence, look.counts)
        self._settling.plan(_now_s())
        self._next_late_s = _now_s() + self._terminal.settle_window_s

    def _sought(self) -> list[Doubt]:
        oldest = self._clock() - LATE_FOR
        self._resolved = {name: doubt for name, doubt in self._resolved.items() if doubt.recorded_at > oldest}
        return [*(window.doubt for window in self._settling.windows.values()), *self._resolved.values()]

    def _search(self, doubts: Sequence[Doubt]) -> Search:
        return Search(
            orders=tuple(self._wanted(doubt) for doubt in doubts),
            since=min(self._since(doubt) for doubt in doubts),
            until=self._connection.time.server_s(self._latest(doubts) + FUTURE),
            settled_until=self._settled_until,
        )

    def _wanted(self, doubt: Doubt) -> Wanted:
        order = doubt.order
        alike_from = 0 if self._may_be_old(doubt) else self._connection.time.server_s(doubt.recorded_at - CLOCK_SLACK)
        return Wanted(
            magic=doubt.magic,
            tag=doubt.tag,
            symbol=order.parameters.symbol,
            side=order.parameters.side,
            volume=float(order.parameters.volume),
            alike_from=None if order.order_id in self._resolved else alike_from,
        )

    def _since(self, doubt: Doubt) -> int:
        if self._may_be_old(doubt):
            return WHOLE_DAY_S
        return self._connection.time.server_s(doubt.recorded_at - BEFORE) // WHOLE_DAY_S * WHOLE_DAY_S

    def _latest(self, doubts: Sequence[Doubt]) -> datetime:
        """Return now, at least: our clock may have been set back since the orders were recorded."""
        return max(self._clock(), self._connection.time.newest, *(doubt.recorded_at for doubt in doubts))

    def _may_be_old(self, doubt: Doubt) -> bool:
        """Return whether it may have been sent long before its row was made, and is still looked for as such."""
        return doubt.may_be_old and doubt.order.order_id not in self._resolved

    def _judged(self, look: SearchResult, doubts: Sequence[Doubt]) -> dict[str, DoubtEvidence]:
        seen = matched_rows(look.matches, hedging=self._connection.hedging, time=self._connection.time)
        lateness = timedelta(seconds=self._terminal.settle_window_s)
        return judged(seen, doubts, lateness=lateness)

    # -- what it means

    async def _adopt(
        self, doubts: Sequence[Doubt], evidence: dict[str, DoubtEvidence], rows: Sequence[TradeDeal]
    ) -> None:
        """Take what is ours as ours, with the deals that were found beside it."""
        found = [doubt for doubt in doubts if evidence[doubt.order.order_id].tickets]
        if not found:
            return
        tickets = {ticket for doubt in found for ticket in evidence[doubt.order.order_id].tickets}
        ours = [row for row in rows if row.order in tickets and row.volume > 0]
        deals = [filled(row, self._connection.currency, self._connection.time) for row in ours]
        adopted = await self._journal.write(partial(_adopted, doubts=found, evidence=evidence, deals=deals))
        for doubt in found:
            order = doubt.order
            self._settling.windows.pop(order.order_id, None)
            self._resolved[order.order_id] = doubt
            for ticket in adopted[order.order_id]:
                logger.warning("order %s is at the broker: %s", order.order_id, evidence[order.order_id])
                if order.parameters.order_type == "market":  # a pending one is the watch's
                    self._on_adopted(order.order_id, ticket, order.parameters.volume, order.attempt)

    async def _close(self, over: Sequence[Window], evidence: dict[str, DoubtEvidence], counts: dict[str, int]) -> None:
        """Windows are over and nothing showed that is theirs: absent, unless something can't be told."""
        if not over:
            return
        ends = [(window.doubt, self._absence(window, counts), evidence[window.doubt.order.order_id]) for window in over]
        states = await self._journal.write(lambda book: [_closed(book, *end) for end in ends])
        for window, state in zip(over, states, strict=True):
            order_id = window.doubt.order.order_id
            if state == "absent":
                del self._settling.windows[order_id]
                self._resolved[order_id] = window.doubt
            window.suspected = state == "suspicion"

    def _absence(self, window: Window, counts: dict[str, int]) -> ProvenAbsent:
        assert window.began_at is not None
        return ProvenAbsent(
            attempt=window.doubt.order.attempt,
            evidence={
                "window_from": time_text(window.began_at),
                "window_until": time_text(self._clock()),
                "polls": window.looks,
                "rows_looked_at": counts,
                "generation": self._settling.generation,
                "connection": "unbroken",
            },
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _doubts(book: Book, known: set[str]) -> tuple[set[str], list[Doubt]]:
    """Return what is in doubt now, and every order that is or was and is not ``known`` to us."""
    open_now = set(book.doubts(AT_ONCE))
    return open_now, book.sought((open_now | set(book.take_doubted())) - known)


def _adopted(
    book: Book, doubts: Sequence[Doubt], evidence: dict[str, DoubtEvidence], deals: Sequence[Filled]
) -> dict[str, list[int]]:
    """Accept the tickets found; return those that are new, by order id."""
    new: dict[str, list[int]] = {}
    for doubt in doubts:
        order_id = doubt.order.order_id
        tickets = evidence[order_id].tickets
        new[order_id] = [ticket for ticket in tickets if book.accept(order_id, ticket)]
        for body in deals:
            if body.ticket in tickets:
                book.record_deal(body)
    return new


def _closed(book: Book, doubt: Doubt, absent: ProvenAbsent, evidence: DoubtEvidence) -> str | None:
    """Call a doubt absent, or leave it to a person; None: it is no doubt any more."""
    order_id, attempt = doubt.order.order_id, doubt.order.attempt
    suspicious = [*evidence.ours, *(row for row in evidence.alike if not book.explains(row.ticket, row.magic))]
    if not suspicious:
        if not book.absent(order_id, absent):
            return None
        logger.error("order %s is absent: %s", order_id, absent.evidence)
        return "absent"
    others = f"; and {len(suspicious) - NAMED} more" if len(suspicious) > NAMED else ""
    named = "; ".join(str(row) for row in suspicious[:NAMED])
    message = f"this may be the order, look at it in the terminal: {named}{others}"
    if book.suspect(order_id, OutcomeUnknown(attempt=attempt, why="suspicion", message=message)):
        logger.error("order %s is left to a person: %s", order_id, message)
    return "suspicion"
