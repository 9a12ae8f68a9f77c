"""The account's books beside the broker's: compared at one moment, and where they differ for good there is a break.

A snapshot and the reports come by different ways, and the snapshot may be older or newer than the rows. So it counts
only where both say the same moment: the journal had given the same last report before and after the terminal was read,
exactly the reports up to it are durable with us, and none is missing (design: desk, "Reconciliation").

A difference becomes a break when a second comparison shows it, and our side has not moved between the two: a deal whose
report the journal has not given yet, or a table of the terminal that lags behind another one, is over by then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from streamapp import subjects
from streamapp.desk.state import Comparing, Draft
from streamapp.domain.reconciliation import (
    WORKING,
    AccountBooks,
    BookDifference,
    BookedOrder,
    BookedPosition,
    cause_of,
    compare,
    differing_deals,
)
from streamapp.domain.vocabulary import FINAL_STATUSES
from streamapp.errors import Unusable
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.breaks import BreakMessage
from tables.breaks import BreakRow, break_id_of, place_of
from tables.orders import OrderRow
from tables.positions import PositionRow

READABLE = frozenset({"ready", "no_algo_trading"})
"""The connections of which a snapshot shows positions and orders."""
RECENT = timedelta(seconds=10)
"""How old a snapshot may be that is compared: they come every two seconds, and clocks may differ by as much."""
DEAL = "deal:"
"""How the place of a deal begins, which no comparison of positions and orders has."""


def reconcile(draft: Draft) -> None:
    """Compare the account's books with its newest snapshot, once they are of one moment; called last in a commit.

    What was found, changed or ended is in the commit's rows and words.
    """
    known = draft.memory.comparing
    newest = known.snapshot
    if draft.snapshot is not None and (newest is None or draft.snapshot.snapshot.at > newest.at):
        newest = draft.snapshot.snapshot
        draft.memory = replace(draft.memory, comparing=replace(known, snapshot=newest))
    if newest is None or not _is_due(draft, known, newest):
        return
    assert newest.report_seq is not None
    theirs = _theirs(newest)
    found = known.suspected
    if (known.epoch, known.seq, known.theirs) != (newest.state.epoch, newest.report_seq, theirs) or known.suspected:
        found = _compare(draft, known, newest, theirs)
    draft.memory = replace(
        draft.memory,
        comparing=Comparing(newest, newest.at, newest.state.epoch, newest.report_seq, theirs, found),
    )


def settle_break(draft: Draft, break_id: str, reason: str, by: str) -> None:
    """Take a person's judgement of a break: it is told again only if another difference is found at its place.

    Raises:
        Unusable: as :func:`open_break`; nothing has changed.
    """
    settled = {"disposition": "settled", "reason": reason, "settled_by": by}
    _put(draft, open_break(draft, break_id), stands=True, **settled)


def open_break(draft: Draft, break_id: str) -> BreakRow:
    """Return a break that nobody has settled.

    Raises:
        Unusable: ``unknown_break``, or ``not_open`` for one that is settled or has ended by itself; both say what was
            found.
    """
    row = draft.break_of(break_id)
    if row is None:
        raise Unusable("unknown_break", f"expected a break of account {draft.account}, got {break_id!r:.160}")
    known = row.message
    if known.disposition == "settled":
        raise Unusable("not_open", f"settled already, by {known.settled_by}: {known.reason}"[:300])
    if known.disposition == "resolved":
        raise Unusable("not_open", f"the books agree again since {known.at.isoformat()} ({known.cause})")
    return row


def books_of(draft: Draft) -> AccountBooks:
    """Return our side: the open positions, whoever traded them, and our orders that work by all that is reported."""
    return AccountBooks(
        tuple(_our_position(row) for row in draft.positions_of(None)),
        tuple(order for row in draft.orders_of(None) for order in _our_orders(row)),
    )


# --- whether, and with what


def _is_due(draft: Draft, known: Comparing, newest: SnapshotMessage) -> bool:
    """Return whether a snapshot that was not compared yet shows the very moment that the rows are of, and a recent one.

    An old one, redelivered to a new owner, may be of the same report and say nothing of now.
    """
    row = draft.account_row()
    return (
        draft.now - newest.at <= RECENT
        and (known.at is None or newest.at > known.at)
        and newest.state.connection in READABLE
        and newest.report_seq is not None
        and (newest.state.epoch, newest.report_seq) == (row.epoch, row.watermark)
        and not draft.memory.ahead
    )


def _theirs(snapshot: SnapshotMessage) -> AccountBooks:
    return AccountBooks(
        tuple(
            BookedPosition(
                each.position_id,
                each.symbol,
                each.volume if each.side == "buy" else -each.volume,
                ours=each.order_id is not None,
                order_id=each.order_id,
            )
            for each in snapshot.positions
        ),
        tuple(BookedOrder(each.ticket, each.symbol, each.order_id) for each in snapshot.orders),
    )


def _our_position(row: PositionRow) -> BookedPosition:
    state = row.state
    opened_by = state.opened_by
    return BookedPosition(
        row.position_id,
        state.symbol,
        state.net,
        ours=any(state.shares.values()),
        order_id=None if opened_by is None else opened_by.order_id,
        rev=row.rev,
    )


def _our_orders(row: OrderRow) -> Iterator[BookedOrder]:
    """Give the tickets of an order that must be among the broker's working ones; one at market never is for long."""
    parameters = row.state.parameters
    if parameters is None or parameters.order_type == "market":
        return
    for ticket, known in row.state.tickets.items():
        if known.live:
            yield BookedOrder(ticket, parameters.symbol, row.order_id)


def _unfinished(draft: Draft, theirs: AccountBooks) -> frozenset[str]:
    """Return the orders of ours, of those that work at the broker, that are not over."""
    rows = (draft.order(each.order_id) for each in theirs.orders if each.order_id is not None)
    return frozenset(row.order_id for row in rows if row is not None and not _is_over(row))


def _is_over(row: OrderRow) -> bool:
    return row.state.created is not None and row.status in FINAL_STATUSES


# --- what came of it

Suspected = tuple[tuple[BookDifference, datetime], ...]


def _compare(draft: Draft, known: Comparing, newest: SnapshotMessage, theirs: AccountBooks) -> Suspected:
    """Bring the account's breaks up to date; return what a second comparison has to show before it is one."""
    ours = books_of(draft)
    found = compare(ours, theirs, _unfinished(draft, theirs)).differences
    before, suspected = {one.place: (one, since) for one, since in known.suspected}, []
    for difference in found:
        row = _standing(draft, difference.place)
        if row is not None and _is_of(row.message, difference):
            _follow(draft, row, difference, newest.at)
        elif (first := before.get(difference.place)) is not None and first[0] == difference:
            _find(draft, row, difference, first[1], newest.at)
        else:
            suspected.append((difference, newest.at))
    places = {difference.place for difference in found}
    for place in draft.account_row().breaks:
        if place not in places and not place.startswith(DEAL):
            _end(draft, place, _said_at(ours, place), known.at)
    return tuple(suspected)


def _is_of(known: BreakMessage, difference: BookDifference) -> bool:
    return difference.is_same(
        BookDifference(known.kind, difference.place, difference.symbol, known.ours, known.theirs, lots=known.lots)
    )


def _follow(draft: Draft, row: BreakRow, difference: BookDifference, at: datetime) -> None:
    """Say what an open break looks like now where both sides have moved by as much; of a settled one nobody asks."""
    known = row.message
    if known.disposition == "open" and (known.ours, known.theirs) != (difference.ours, difference.theirs):
        moved = {"ours": difference.ours, "theirs": difference.theirs, "last_seen": at}
        _put(draft, row, stands=True, **moved)


def _find(draft: Draft, row: BreakRow | None, difference: BookDifference, since: datetime, at: datetime) -> None:
    """Say that a place differs, or in another way than it did; a settled break is over with that."""
    said = {
        "kind": difference.kind,
        "symbol": difference.symbol,
        "position_id": difference.position_id,
        "order_id": difference.order_id,
        "ticket": difference.ticket,
        "deal": difference.deal,
        "ours": difference.ours,
        "theirs": difference.theirs,
        "lots": difference.lots,
        "last_seen": at,
    }
    if row is not None and row.message.disposition == "open":
        _put(draft, row, stands=True, **said)
        return
    break_id = break_id_of(draft.account, difference.place, since)
    message = BreakMessage(break_id=break_id, account=draft.account, first_seen=since, at=draft.now, **said)
    _publish(draft, difference.place, BreakRow(message=message))
    account = draft.account_row()
    if difference.place not in account.breaks:
        draft.put_account(account.model_copy(update={"breaks": (*account.breaks, difference.place)}))
    draft.counts["breaks", difference.kind] += 1
    draft.alarm("break", f"account {draft.account}, {difference.kind} {difference.place}: {_sides(difference)}")


def _end(draft: Draft, place: str, now: str | None, last_seen: datetime | None) -> None:
    """Forget a place where the books agree again; a break that nobody has settled is resolved by that."""
    account, row = draft.account_row(), draft.break_at(place)
    draft.put_account(account.model_copy(update={"breaks": tuple(one for one in account.breaks if one != place)}))
    if row is None:
        return
    known = row.message
    if known.disposition != "open":
        draft.put_break(place, row.model_copy(update={"stands": False}))
        return
    seen = known.last_seen if last_seen is None else max(known.last_seen, last_seen)
    cause = "broker" if known.deal is not None else cause_of(known.ours, known.theirs, now)
    _put(draft, row, stands=False, disposition="resolved", cause=cause, last_seen=seen)


def _said_at(ours: AccountBooks, place: str) -> str | None:
    """Return what our books, which the broker's agree with, say of a place."""
    kind, _, number = place.partition(":")
    if kind == "position":
        return next((each.text for each in ours.positions if each.position_id == int(number)), None)
    return next((WORKING for each in ours.orders if each.ticket == int(number)), None)


# --- deals and their orders


def note_deals(draft: Draft) -> None:
    """Find the deals of this commit's orders that are not what was asked for; a correction can end that.

    Called after each input, so that it says the same whatever inputs are one commit.
    """
    ends = any(place.startswith(DEAL) for place in draft.account_row().breaks)
    for row in [row for row in draft.changed.values() if isinstance(row, OrderRow)]:
        if ends or "deal_differs" in row.anomalies:
            _note_deals_of(draft, row)


def _note_deals_of(draft: Draft, row: OrderRow) -> None:
    found = {difference.place: difference for difference in differing_deals(row.state)}
    for place, difference in found.items():
        at = row.state.latest_at or draft.now
        known = _standing(draft, place)
        if known is None or not _is_of(known.message, difference):
            _find(draft, known, replace(difference, order_id=row.order_id), at, at)
    for place in _gone(draft.account_row().breaks, row, found):
        _end(draft, place, None, None)


def _gone(places: Sequence[str], row: OrderRow, found: dict[str, BookDifference]) -> list[str]:
    deals = {f"{DEAL}{number}" for number in row.state.deals}
    return [place for place in places if place in deals and place not in found]


# --- rows and words


def _standing(draft: Draft, place: str) -> BreakRow | None:
    row = draft.break_at(place)
    return row if row is not None and row.stands else None


def _put(draft: Draft, row: BreakRow, *, stands: bool, **changes: object) -> None:
    known = row.message
    place = place_of(known.account, known.break_id)
    assert place is not None
    message = known.model_copy(update={**changes, "revision": known.revision + 1, "at": draft.now})
    _publish(draft, place, BreakRow(message=message, stands=stands))


def _publish(draft: Draft, place: str, row: BreakRow) -> None:
    message = row.message
    draft.put_break(place, row)
    draft.publish(
        message,
        subject=subjects.reconciliation_break(message.account),
        id_parts=("break", subjects.token(message.break_id), message.revision),
    )


def _sides(difference: BookDifference) -> str:
    return f"with us {difference.ours or 'nothing'}, at the broker {difference.theirs or 'nothing'}"
