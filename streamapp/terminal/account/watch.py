"""What happens at the broker, seen by looking: deals of new tickets at once, all deals always, orders to their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from streamapp.clock import Clock
from streamapp.domain.facts import AccountOperation, BrokerCancelled, Filled, OutcomeUnknown, Unprotected
from streamapp.domain.vocabulary import ONLY_CLOSING, time_text
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import BUSTED_TRADES, ENDED_STATES, MARKET_ORDERS, TRADES
from streamapp.settings import TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.deals import account_operation, end_of, filled, holds, is_over, unprotected
from streamapp.terminal.account.synchronisation import FUTURE, OVERLAP, watermark
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View
from streamapp.terminal.journal.orders import Expected
from streamapp.terminal.pipe.answers import DealsSeen, EndsSeen, Timed
from streamapp.terminal.pipe.calls import Look, ReadDeals, ReadEnds, ReadMoreDeals, ReadPosition, ReadTicket
from streamapp.terminal.pipe.structs import TradeDeal, TradeOrder, TradePosition

logger = logging.getLogger(__name__)

CONFIRM_WAITS_S = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""After an acceptance the deal is there at once or, by the terminal's visibility lag, within a second or so; the watch
finds what is later."""
NEAR = timedelta(seconds=30)
"""How far before the newest known deal the quick look begins; what it can't explain makes it a look at everything."""
WIDE_EVERY_S = 15.0
"""The whole interval is read this often, or ..."""
WIDE_SHARE = 200
"""... every so many times its own duration: at most one order of 200 waits for it, whatever the size of the history."""
ORDERS_SHARE = 20
"""The same for the orders that work: at most 5 %."""
SHOWN_WITHIN_S = 5.0
"""Every look reads the positions for so long, until the one that an order made or changed is shown as it left it: far
longer than the tables usually lag. Then ..."""
LATE_EVERY_S = 15.0
"""... so often, however long it takes."""
EXPLAINED_AT_ONCE = 50
"""Positions whose deals are added up in one go, some milliseconds of the journal's, which an order may wait for."""

FILLED_UNSHOWN = "the broker calls it filled, and has not shown its deals"
NOWHERE = "the broker has shown it neither at work nor in history, and no deals of it"


@dataclass(frozen=True)
class _Read:
    """A read of the whole interval; ``digest`` is of the deals up to ``until``, None if some were missing."""

    generation: int
    until: datetime
    digest: int | None


@dataclass(frozen=True)
class _Seen:
    """Deals that were read, oldest first: those that traded, the tickets of those that were taken back, the others."""

    trades: list[Filled]
    busted: list[int]
    operations: list[AccountOperation]


class Watch:
    """Everything seen at the broker becomes a journal entry and a report, once.

    Guarantees:
        Only what a synchronised connection shows is believed, and only what it shows: from what is not to be seen (any
        more) nothing follows.
    """

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
        self._next_orders = 0.0
        self._looked_up = 0
        self._unseen: dict[int, float] = {}
        self._next_late = 0.0
        self._missing: dict[int, float] = {}
        self._told: dict[int, str] = {}
        self._before: _Read | None = None
        self._live = View(journal, Book.live_tickets)
        self._confirming: set[int] = set()
        self._just_sent: dict[int, datetime] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the deals of a ticket that was accepted just now

    def expect(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> None:
        """Look for the deals of an order that was sent just now: their times show the server's clock."""
        self._just_sent[ticket] = self._clock()
        self.confirm(order_id, ticket, volume, attempt)

    def confirm(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> None:
        """Look for the deals of a ticket that is known to be ours since just now."""
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
            self._just_sent.pop(ticket, None)

    async def _look_at(self, order_id: str, ticket: int, volume: Decimal, attempt: int) -> bool:
        """Record what is to be seen of a ticket; True when it is over, or works and will for a while."""
        time, now = self._connection.time, self._clock()
        look = ReadTicket(
            ticket=ticket,
            volume=float(volume),
            since=time.server_s(now - NEAR),
            until=time.server_s(now + FUTURE),
            hedging=self._connection.hedging,
        )
        found = (await self._connection.read_now(look)).value
        order, done, seen = found.order, found.done, self._seen(found.deals)

        def record(book: Book) -> bool:
            _record(book, seen)
            if done and order is not None:
                _record_end(book, order, order_id, volume, attempt)
            return not book.is_live(ticket)

        works = order is not None and not done and order.type not in MARKET_ORDERS
        return await self._journal.write(record) or works

    def _seen(self, deals: Sequence[TradeDeal]) -> _Seen:
        currency, time = self._connection.currency, self._connection.time
        seen = _Seen([], [], [])
        for deal in sorted(deals, key=_in_time):
            if deal.type in BUSTED_TRADES:
                seen.busted.append(deal.ticket)
            elif deal.type in TRADES and deal.volume > 0:
                if (sent_at := self._just_sent.get(deal.order)) is not None:
                    self._connection.learn_deal_time(deal.time_msc, sent_at)
                seen.trades.append(filled(deal, currency, time))
            else:
                seen.operations.append(account_operation(deal, currency, time))
        times = [*(body.time for body in seen.trades), *(body.at for body in seen.operations)]
        self._newest = max([self._newest, *times])
        return seen

    # -- everything

    async def run(self) -> None:
        """Look, for ever."""
        self._watermark = self._newest = await self._journal.write(watermark)
        while True:
            await self._connection.readable()
            try:
                await self._look()
            except (NotHandedOverError, WorkerLostError) as error:
                logger.warning("looking at the broker again when it is connected: %s", error)

    async def _look(self) -> None:
        """Take the next look: at the deals, and at the tickets without an end if it is time for that."""
        now_s, now, generation = asyncio.get_running_loop().time(), self._clock(), self._connection.generation
        # Either may lie ahead if our clock did: nothing of the time in between would be read.
        self._watermark, self._newest = min(self._watermark, now), min(self._newest, now)
        anew = generation != self._generation
        wide = anew or now_s >= self._next_wide
        settled = now - NEAR if self._before is None else self._before.until
        live = await self._live_tickets() if now_s >= self._next_orders else {}
        expected = await self._levels_to_compare(now_s)
        deals = self._deals(now, settled, wide=wide, anew=anew)
        ends = ReadEnds(tuple(live)) if live else None
        seen = await self._connection.ride(Look(deals=deals, ends=ends, positions=anew or bool(expected)))
        rows = None if seen.positions is None else seen.positions.value.rows
        if anew and rows is not None:
            await self._record_older(rows)
        if seen.deals is not None:
            await self._record_all(seen.deals.value)
            if wide and seen.deals.value.read:
                self._generation = generation
                wait_s = await self._judged(_Read(generation, settled, seen.deals.value.digest))
                self._next_wide = asyncio.get_running_loop().time() + max(wait_s, seen.deals.took_s * WIDE_SHARE)
        if seen.ends is not None:
            await self._record_ends(seen.ends, live)
        if expected and rows is not None:
            await self._compare_levels(expected, rows)

    def _deals(self, now: datetime, settled: datetime, *, wide: bool, anew: bool) -> ReadDeals:
        time = self._connection.time
        # It lies far before the watermark, unless our clock has jumped ahead since: what left the journal is not new.
        forgotten_s = self._journal.book.forgotten_history_s
        return ReadDeals(
            wide_from=max(time.server_s(self._watermark - OVERLAP), forgotten_s),
            near_from=max(time.server_s(max(self._newest - NEAR, self._watermark - OVERLAP)), forgotten_s),
            settled_until=time.server_s(settled),
            until=time.server_s(now + FUTURE),
            wide=wide,
            anew=anew,
        )

    async def _record_older(self, rows: Sequence[TradePosition]) -> None:
        """Record the deals of open positions that those in the journal don't add up to: they were before its first day.

        Once a connection. Of a position that a split has changed they are known, and recorded once.
        """
        for at in range(0, len(rows), EXPLAINED_AT_ONCE):
            part = rows[at : at + EXPLAINED_AT_ONCE]
            for position_id in await self._journal.write(partial(_unexplained, rows=part)):
                found = (await self._connection.read_now(ReadPosition(position_id, with_market=False))).value
                await self._journal.write(partial(_record, seen=self._seen(found.deals)))

    async def _record_all(self, part: DealsSeen) -> None:
        while True:
            seen = self._seen(part.deals)
            if part.deals:
                await self._journal.write(partial(_record, seen=seen))
            if not part.more:
                return
            part = (await self._connection.read_now(ReadMoreDeals())).value

    async def _judged(self, read: _Read) -> float:
        """Move the watermark if this read equals the one before; return after how long the next is due."""
        before, self._before = self._before, None
        if read.digest is None:
            logger.info("history shows fewer deals than it did, or than it counts; it is read again")
        elif before is None:
            self._before = read
        elif (before.generation, before.digest) == (read.generation, read.digest):
            # By the server's ticks: were our clock days ahead, all that came later would lie before the watermark.
            self._watermark = max(self._watermark, min(read.until, self._connection.time.newest))
            text = time_text(self._watermark)
            await self._journal.write(lambda book: book.set_meta("history_watermark", text))
            return WIDE_EVERY_S
        return self._terminal.equal_reads_s

    async def _live_tickets(self) -> dict[int, list[Any]]:
        """Return the tickets without an end, those after the last one that was looked up first."""
        known = await self._live.get()
        turns = sorted(known, key=lambda row: (row[0] <= self._looked_up, row[0]))
        live = {ticket: row for ticket, *row in turns if ticket not in self._confirming}
        self._missing = {ticket: at for ticket, at in self._missing.items() if ticket in live}
        self._told = {ticket: text for ticket, text in self._told.items() if ticket in live}
        return live

    async def _record_ends(self, seen: Timed[EndsSeen], live: dict[int, list[Any]]) -> None:
        """Record what became of the tickets that do not work any more."""
        self._next_orders = asyncio.get_running_loop().time() + seen.took_s * ORDERS_SHARE
        ended = seen.value
        self._looked_up = ended.looked[-1] if ended.looked else 0
        if ended.orders:
            await self._journal.write(lambda book: _record_ends(book, ended.orders, live))
        due = {row.ticket: FILLED_UNSHOWN for row in ended.orders if row.state == mt5.ORDER_STATE_FILLED}
        due |= dict.fromkeys(set(ended.looked) - {row.ticket for row in ended.orders}, NOWHERE)
        self._missing = {ticket: at for ticket, at in self._missing.items() if ticket not in ended.working}
        await self._miss_deals(due, live)

    @property
    def problem(self) -> str:
        """What should have come and did not, in words; "" if nothing."""
        return "; ".join(self._told.values())

    async def _miss_deals(self, due: dict[int, str], live: dict[int, list[Any]]) -> None:
        """Tell of tickets whose deals are ``due``, and do not show, once each."""
        now_s = asyncio.get_running_loop().time()
        self._missing |= dict.fromkeys(due.keys() - self._missing.keys(), now_s)
        for ticket in due.keys() - self._told.keys():
            if now_s - self._missing[ticket] < self._terminal.deals_within_s:
                continue
            order_id, _, attempt = live[ticket]
            waited = f"{due[ticket]} for {self._terminal.deals_within_s:g} s"
            self._told[ticket] = f"order {order_id}, ticket {ticket}: {waited}"
            body = OutcomeUnknown(attempt=attempt, why="no_deals", message=f"ticket {ticket}: {waited}")
            # No doubt of the journal's: what the broker has is known, but not how much of it at which price.
            await self._journal.write(partial(_report_unknown, order_id=order_id, body=body))
            logger.error("%s", self._told[ticket])

    async def _levels_to_compare(self, now_s: float) -> list[Expected]:
        """Return the levels that wait to be compared; none if the positions need not be read for them by now."""
        if not self._journal.book.expects_levels:
            return []
        expected = await self._journal.write(Book.levels_to_compare)
        self._unseen = {one.ticket: self._unseen.get(one.ticket, now_s) for one in expected}
        is_due = now_s >= self._next_late or any(not self._is_late(one, now_s) for one in expected)
        return expected if is_due else []

    def _is_late(self, expected: Expected, now_s: float) -> bool:
        return now_s - self._unseen[expected.ticket] >= SHOWN_WITHIN_S

    async def _compare_levels(self, expected: list[Expected], rows: Sequence[TradePosition]) -> None:
        """Compare the levels of positions that orders opened or changed with what these asked for."""
        now_s, positions = asyncio.get_running_loop().time(), {row.identifier: row for row in rows}
        self._next_late = now_s + LATE_EVERY_S
        for one in expected:
            position = positions.get(one.position_id)
            if position is not None and self._connection.time.utc(position.time_update_msc) >= one.filled_at:
                await self._compare(one, position)
            elif position is None or self._is_late(one, now_s):
                deals = await self._journal.write(partial(Book.deals_of, position_id=one.position_id))
                await self._compare_late(one, position, [_change(deal) for deal in deals])

    async def _compare(self, expected: Expected, position: TradePosition) -> None:
        lacking = unprotected(expected, position, hedging=self._connection.hedging)
        await self._journal.write(partial(_compared, expected=expected, lacking=lacking))

    async def _compare_late(
        self, expected: Expected, position: TradePosition | None, changes: list[tuple[Decimal, bool]]
    ) -> None:
        """Compare what has been shown for long as the deals leave it, whatever its time says; forget what they closed.

        That a position is not shown proves nothing: its deals say whether there is something to protect.
        """
        if position is not None and holds(position, _left(changes)):
            await self._compare(expected, position)
        elif position is None and is_over(changes):
            await self._journal.write(partial(_compared, expected=expected, lacking=None))


def _unexplained(book: Book, rows: Sequence[TradePosition]) -> list[int]:
    return [
        row.identifier
        for row in rows
        if not holds(row, _left([_change(deal) for deal in book.deals_of(row.identifier)]))
    ]


def _record(book: Book, seen: _Seen) -> None:
    for body in seen.trades:
        book.record_deal(body)
    for deal in seen.busted:
        book.bust_deal(deal)
    for operation in seen.operations:
        book.record_operation(operation)


def _report_unknown(book: Book, order_id: str, body: OutcomeUnknown) -> None:
    book.report("unknown", order_id, body)


def _compared(book: Book, expected: Expected, lacking: Unprotected | None) -> None:
    book.forget_levels(expected.order_id)
    if lacking is not None:
        logger.error("order %s is unprotected: %s", expected.order_id, lacking)
        book.report("unprotected", expected.order_id, lacking)


def _record_ends(book: Book, orders: Sequence[TradeOrder], live: dict[int, list[Any]]) -> None:
    for order in orders:
        order_id, volume, attempt = live[order.ticket]
        _record_end(book, order, order_id, Decimal(volume), attempt)


def _record_end(book: Book, order: TradeOrder, order_id: str, volume: Decimal, attempt: int) -> None:
    if order.state not in ENDED_STATES:
        return
    by_user = book.cancel_requested(order.ticket)
    # None also where history says done and the deals are not to be seen yet: the volume counts, and it comes from
    # deals.
    final = end_of(order, attempt, asked=volume, by_user=by_user)
    if final is None and book.has_lost_deals(order.ticket):
        final = BrokerCancelled(ticket=order.ticket, reason="broker")
    if final is not None:
        book.end_ticket(order.ticket, order_id, final)


def _left(changes: Sequence[tuple[Decimal, bool]]) -> Decimal:
    return sum((lots for lots, _ in changes), Decimal(0))


def _change(deal: Filled) -> tuple[Decimal, bool]:
    return deal.volume if deal.side == "buy" else -deal.volume, deal.entry in ONLY_CLOSING


def _in_time(deal: TradeDeal) -> tuple[int, int]:
    return deal.time_msc, deal.ticket
