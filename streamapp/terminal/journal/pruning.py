"""What is over leaves the journal, some rows a transaction (``retention.journal_days``).

A journal is the witness that an order was sent, so what leaves must never be needed again, and what is asked about it
must never be taken for new. No clock is trusted with that: clocks only say *when* something may leave. *That* it may is
said by the journal's state, and what has left is known by marks in ``meta`` that are written with the deletion:

- ``forgotten_until``: the latest ``not_after`` of an order or operation that left. A request carries its ``not_after``
  for ever. So one that the journal does not know is new for certain if its ``not_after`` is later than the mark.
  Otherwise it may have been here: an order becomes a doubt, is looked for in all of the broker's history and is never
  sent; an operation is not carried out.
- ``forgotten_history_s``: deals dated before it, in the broker's own seconds, may have left. The watch reads no older
  ones.

What leaves, in this order, when no order is unfinished or in doubt and every report was acknowledged by the desk:

1. The deals of a position that is flat by them, if all are old and the broker shows neither it nor their tickets at
   work. They are put on a list (``leaving``) at once, for without some of them it would not be flat, and deleted from
   there some at a time.
2. Money that was booked without a trade.
3. An order that is old and over, without a live ticket or deals that stayed, that the broker does not show at work and
   no unfinished operation speaks of; with its tickets.
4. Operations that have their outcome, after their order; with their sendings.

"Old" is ``journal_days`` before the earliest of three moments: our clock, the broker's newest tick as the broker dates
it, and the moment up to which history is known to be complete.

What may come between:

=====================================================  =================================================================
what happens                                           what comes of it
=====================================================  =================================================================
a submit is repeated after its order left              its ``not_after`` is not later than the mark: DOUBT (forgotten),
                                                       adopted or absent, never sent. The facts of an adopted one have
                                                       the ids that they had before, so the desk knows them
the same, and the clock was set back meanwhile         the same: the mark is compared with ``not_after`` alone
it is repeated while the row leaves                    one thread writes: it is before (the row answers) or after
a kill before a commit                                 nothing left, and no mark moved
a kill after a commit, before the next                 both are on disk. The list of leaving deals goes on where it was
our clock jumps ahead a year                           two of the three moments stand: nothing becomes old by it
all three jump ahead                                   what is over leaves early, and nothing else, under the marks
our clock jumps ahead, and the watch reads a year of   deals that left lie before ``forgotten_history_s``, which the
history by it                                          broker's clock has passed: they are not read
our clock is behind for a while, and set right         rows of that time leave early by as much, under the same marks
a row is dated in the future by a wrong clock          those behind it stay until then: the walk ends at what is not old
an older copy of the journal is restored               forbidden as ever (it does not know the orders since); what left
                                                       since is back in it, with the older mark, which is right for it
a deal comes late for a position whose deals left      it is reported as any: its order is known as long as its row is
                                                       here; afterwards it is nobody's, and the desk books the position
a broker corrects or takes back a deal                 seen in the last day of history only, which never leaves
an order that left appears at the broker once more     its deals are nobody's, and the comparison shows them
an ack is of another epoch                             it releases nothing, so nothing leaves by it
the desk's store is lost and made again                an order that it asks about again is a doubt that is adopted
=====================================================  =================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from streamapp import crashpoints
from streamapp.domain.vocabulary import time_text
from streamapp.messages.operation import OPERATIONS
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.orders import kept

LOOKED_AT = 100
"""Rows that a step passes at most."""
DELETED = 25
"""Orders, operations or deals that a step deletes at most."""
ZONES = timedelta(days=1)
"""More than any server's clock is ahead of UTC or behind."""
FINAL = {"result", "refused", "absent"}
_Cursor = tuple[str, int]
"""The time and the number of the row that was passed last; the time where rows are passed by it."""
_START: _Cursor = ("", 0)
_Walk = tuple[int, _Cursor | None]
"""How many left, and where the walk stands; None: there is nothing old behind."""


@dataclass(frozen=True)
class Shown:
    """What the broker shows of positions and working orders: their tickets and identifiers, and their magics."""

    tickets: frozenset[int]
    magics: frozenset[int]


@dataclass(frozen=True)
class Due:
    """What is old, and what is needed all the same.

    Attributes:
        before: What is dated earlier is old.
        shown: What the broker shows.
        released_seq: Up to where the desk has acknowledged reports.
    """

    before: datetime
    shown: Shown
    released_seq: int


@dataclass(frozen=True)
class PrunePlace:
    """Where a walk through the journal stands: in which family of rows, and after which one."""

    family: int = 0
    after: _Cursor = _START


@dataclass(frozen=True)
class PruneStep:
    """How many rows left, and where to go on; None: the walk is over."""

    left: int
    place: PrunePlace | None


def prune(book: Book, place: PrunePlace, due: Due) -> PruneStep:
    """Let some rows leave; a function of one transaction.

    Returns:
        ``place`` itself where something is unfinished or not acknowledged, and nothing may leave for now.
    """
    if book.last_seq() > due.released_seq or book.has_unfinished():
        return PruneStep(0, place)
    left = _delete_leaving(book)
    left, after = (left, place.after) if left else FAMILIES[place.family](book, place.after, due)
    crashpoints.reach("terminal.in_prune")
    if after is not None:
        return PruneStep(left, PrunePlace(place.family, after))
    following = place.family + 1
    return PruneStep(left, PrunePlace(following) if following < len(FAMILIES) else None)


def _delete_leaving(book: Book) -> int:
    deals = book.db.execute("SELECT deal FROM leaving LIMIT ?", (DELETED,)).fetchall()
    book.db.executemany("DELETE FROM deals WHERE deal = ?", deals)
    book.db.executemany("DELETE FROM leaving WHERE deal = ?", deals)
    return len(deals)


def _deals(book: Book, after: _Cursor, due: Due) -> _Walk:
    """Put the deals of positions that are over on the list."""
    found = book.db.execute(
        "SELECT at, deal, json_extract(body, '$.position_id') FROM deals WHERE (at, deal) > (?, ?) AND at < ? "
        "ORDER BY at, deal LIMIT ?",
        (*after, time_text(due.before), LOOKED_AT),
    ).fetchall()
    leaving: set[int] = set()
    positions: set[int] = set()
    for at, deal, position_id in found:
        if position_id not in positions:
            positions.add(position_id)
            leaving |= _all_of(book, position_id, due)
        after = at, deal
        if len(leaving) >= DELETED:
            break
    if leaving:
        book.db.executemany("INSERT INTO leaving VALUES (?)", [(deal,) for deal in sorted(leaving)])
        book.forget_history(int((due.before + ZONES).timestamp()))
    return 0, after if found else None


def _all_of(book: Book, position_id: int, due: Due) -> set[int]:
    """Return the deals of a position, if it is over and all of them may leave; otherwise none.

    One that is open, or was just now, is known by its number or its last deal: it may have any number of them.
    """
    of_position = "FROM deals WHERE json_extract(body, '$.position_id') = ?"
    before = time_text(due.before)
    (last,) = book.db.execute(f"SELECT at {of_position} ORDER BY deal DESC LIMIT 1", (position_id,)).fetchone()
    if position_id in due.shown.tickets or last >= before:
        return set()
    rows = book.db.execute(
        f"SELECT deal, ticket, at, volume, json_extract(body, '$.side') {of_position}", (position_id,)
    ).fetchall()
    net = sum((Decimal(volume) if side == "buy" else -Decimal(volume) for *_, volume, side in rows), Decimal(0))
    tickets = {ticket for _, ticket, *_ in rows}
    is_needed = (
        net != 0
        or any(at >= before for _, _, at, *_ in rows)
        or not due.shown.tickets.isdisjoint(tickets)
        or any(book.is_live(ticket) for ticket in tickets)
    )
    return set() if is_needed else {deal for deal, *_ in rows}


def _money(book: Book, after: _Cursor, due: Due) -> _Walk:
    left = book.db.execute(
        "DELETE FROM account_operations WHERE deal IN "
        "(SELECT deal FROM account_operations WHERE at < ? ORDER BY at LIMIT ?)",
        (time_text(due.before), DELETED),
    ).rowcount
    if left:
        book.forget_history(int((due.before + ZONES).timestamp()))
    return left, after if left == DELETED else None


def _orders(book: Book, after: _Cursor, due: Due) -> _Walk:
    asked = {order_id for (order_id,) in book.db.execute("SELECT order_id FROM operations WHERE outcome IS NULL")}
    found = book.db.execute(
        "SELECT position, order_id, state, magic, not_after, recorded_at FROM rows WHERE position > ? "
        "ORDER BY position LIMIT ?",
        (after[1], LOOKED_AT),
    ).fetchall()
    shown = {kept(magic) for magic in due.shown.magics}
    before, left, latest = time_text(due.before), 0, ""
    for position, order_id, state, magic, not_after, recorded_at in found:
        if recorded_at >= before:
            return _forgotten(book, left, latest, None)
        is_over = state in FINAL and not_after < before and order_id not in asked and magic not in shown
        if is_over and _leaves(book, order_id, due):
            left, latest = left + 1, max(latest, not_after)
        after = "", position
        if left == DELETED:
            break
    return _forgotten(book, left, latest, after if found else None)


def _leaves(book: Book, order_id: str, due: Due) -> bool:
    """Let an order leave, unless something that stays rests on it."""
    tickets = book.db.execute("SELECT ticket, state FROM tickets WHERE order_id = ?", (order_id,)).fetchall()
    if any(state == "live" or ticket in due.shown.tickets for ticket, state in tickets):
        return False
    if any(book.db.execute("SELECT 1 FROM deals WHERE ticket = ?", (ticket,)).fetchone() for ticket, _ in tickets):
        return False
    book.forget_levels(order_id)
    book.db.execute("DELETE FROM tickets WHERE order_id = ?", (order_id,))
    book.db.execute("DELETE FROM rows WHERE order_id = ?", (order_id,))
    return True


def _operations(book: Book, after: _Cursor, due: Due) -> _Walk:
    found = book.db.execute(
        "SELECT position, request_id, kind, at, ticket, outcome, request, "
        "EXISTS (SELECT 1 FROM rows WHERE rows.order_id = operations.order_id) FROM operations "
        "WHERE position > ? ORDER BY position LIMIT ?",
        (after[1], DELETED),
    ).fetchall()
    before, left, latest = time_text(due.before), 0, ""
    for position, request_id, kind, at, ticket, outcome, request, has_order in found:
        if at >= before:
            return _forgotten(book, left, latest, None)
        not_after = time_text(OPERATIONS[kind].decode(request).not_after)
        is_needed = has_order or (ticket is not None and (ticket in due.shown.tickets or book.is_live(ticket)))
        if outcome is not None and not_after < before and not is_needed:
            book.db.execute("DELETE FROM sendings WHERE request_id = ?", (request_id,))
            book.db.execute("DELETE FROM operations WHERE position = ?", (position,))
            left, latest = left + 1, max(latest, not_after)
        after = "", position
    return _forgotten(book, left, latest, after if found else None)


def _forgotten(book: Book, left: int, latest: str, after: _Cursor | None) -> _Walk:
    if left:
        book.forget_until(datetime.fromisoformat(latest))
    return left, after


FAMILIES: tuple[Callable[[Book, _Cursor, Due], _Walk], ...] = (_deals, _money, _orders, _operations)
"""What leaves, in this order: each rests on those before it having left."""
