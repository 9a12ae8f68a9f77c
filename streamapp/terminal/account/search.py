"""What the broker's four tables say about orders in doubt. Everything here is a function of its arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from streamapp.domain.identifiers import SHORTEST_TAG, TAG_BEGINS
from streamapp.domain.vocabulary import Side
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import SIDES
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.journal.orders import Doubt
from streamapp.terminal.pipe.answers import Match
from streamapp.terminal.pipe.structs import number

CLOCK_SLACK = timedelta(minutes=5)
"""How far off a server's clock may date an order that has lost its name."""
_Kind = tuple[str, Side]
"""Symbol and side."""


@dataclass(frozen=True)
class MatchedRow:
    """One row of one table, in our words.

    ``ticket`` is its order's, 0 where the table does not tell; ``closes`` the position that it closes, if that can be
    told; ``may_be_part``: of an order whose own row may not be seen yet.
    """

    table: str
    ticket: int
    magic: int
    comment: str
    symbol: str
    side: Side
    volume: Decimal
    at: datetime
    closes: int | None
    may_be_part: bool

    def __str__(self) -> str:
        """Return it in a few words."""
        return f"{self.table} {self.ticket}, magic {self.magic}, comment {self.comment!r}"


@dataclass
class DoubtEvidence:
    """What was seen of one doubt.

    Attributes:
        tickets: Order tickets that are its own.
        ours: The rows that say so, and rows that do but name no ticket.
        alike: Rows that may be its own without magic and tag.
    """

    tickets: list[int] = field(default_factory=list)
    ours: list[MatchedRow] = field(default_factory=list)
    alike: list[MatchedRow] = field(default_factory=list)

    def __str__(self) -> str:
        """Return what says that it is at the broker."""
        return "; ".join(str(row) for row in self.ours)


def matched_rows(matches: Iterable[Match], *, hedging: bool, time: ServerTime) -> list[MatchedRow]:
    """Return the rows that a search found, as far as a program sent them and they can be an order's own."""
    return [
        _matched_row(row, hedging, time)
        for row in matches
        if row.reason == mt5.ORDER_REASON_EXPERT and row.entry != mt5.DEAL_ENTRY_OUT_BY
    ]


def _matched_row(row: Match, hedging: bool, time: ServerTime) -> MatchedRow:
    # A netting position is named after the order that opened it, and carries the magic of any.
    ticket = row.ticket if row.table != "positions" or hedging else 0
    may_close = row.table.endswith("orders") or row.entry not in (None, mt5.DEAL_ENTRY_IN)
    closes = row.position_id if may_close else 0
    return MatchedRow(
        table=row.table,
        ticket=ticket,
        magic=row.magic,
        comment=row.comment,
        symbol=row.symbol,
        side=SIDES[row.type & 1],
        volume=number(row.volume),
        at=time.utc(row.time_msc),
        closes=closes if hedging and closes not in (0, ticket) else None,
        may_be_part=row.may_be_part,
    )


def judged(seen: list[MatchedRow], doubts: Sequence[Doubt], *, lateness: timedelta) -> dict[str, DoubtEvidence]:
    """Return what the rows say about each doubt, by order id.

    A row is an order's own by its magic, else by its tag. A row that names nobody but looks like an order may be it.

    Args:
        seen: The rows.
        doubts: What is looked for.
        lateness: How long after its not_after an order may still have been taken by the broker.
    """
    evidence = {doubt.order.order_id: DoubtEvidence() for doubt in doubts}
    # Thousands of rows and hundreds of doubts, after a journal was lost: not each of these with each of those.
    by_magic, by_kind = defaultdict[int, list[Doubt]](list), defaultdict[_Kind, list[Doubt]](list)
    for doubt in doubts:
        wanted = doubt.order.parameters
        by_magic[doubt.magic].append(doubt)
        by_kind[wanted.symbol, wanted.side].append(doubt)
    for row in seen:
        possible = doubts if TAG_BEGINS in row.comment else by_magic.get(row.magic, ())
        named = [doubt for doubt in possible if _names(row, doubt)]
        for doubt in named:
            found = evidence[doubt.order.order_id]
            found.ours.append(row)
            if row.ticket and row.ticket not in found.tickets:
                found.tickets.append(row.ticket)
        for doubt in by_kind.get((row.symbol, row.side), ()) if not named else ():
            if _is_alike(row, doubt, lateness):
                evidence[doubt.order.order_id].alike.append(row)
    return evidence


def _names(row: MatchedRow, doubt: Doubt) -> bool:
    by_tag = doubt.tag in row.comment or (row.magic == 0 and doubt.tag[:SHORTEST_TAG] in row.comment)
    return (row.magic == doubt.magic or by_tag) and row.side == doubt.order.parameters.side


def _is_alike(row: MatchedRow, doubt: Doubt, lateness: timedelta) -> bool:
    order = doubt.order
    earliest = doubt.recorded_at - CLOCK_SLACK
    whole = order.parameters.volume
    return (
        # A deal or a position may be a part of the order, and be seen before the order's own row is.
        (row.volume <= whole if row.may_be_part else row.volume == whole)
        and (row.closes is None or row.closes == order.position_id)
        and (order.position_id is None or row.closes in (None, order.position_id))
        and (doubt.may_be_old or row.at >= earliest)
        and row.at <= order.not_after + lateness + CLOCK_SLACK
    )
