"""Our books beside the broker's: what differs, and what at the broker is not ours (design: desk, "Reconciliation").

The position is what the broker says it is. Where our fold says something else of a position or an order that is ours,
nobody hides it: it is a difference, with a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from streamapp.domain.orders import EXACT, OrderState
from streamapp.domain.vocabulary import decimal_text

BreakKind = Literal[
    "position_missing",
    "position_unknown",
    "symbol",
    "side",
    "volume",
    "order_missing",
    "order_unexpected",
    "deal_differs",
]
"""position_missing: open with us, not at the broker. position_unknown: open at the broker, and not with us. symbol,
side, volume: open with both, and not the same. order_missing: works with us, not at the broker. order_unexpected: works
at the broker, and is over with us. deal_differs: a deal is not what its order asked for."""
BreakCause = Literal["unexplained", "late_report", "broker", "both"]
"""Why a break ended: our books came to what the broker had shown, the broker came back to what they said, or both came
to something third. Until then, and where a person ends it, it is unexplained."""
WORKING = "working"
"""How the books say that an order works."""


@dataclass(frozen=True, slots=True)
class BookedPosition:
    """An open position in one of the two books.

    Attributes:
        net: Signed lots, positive long, never 0.
        ours: Whether an order of ours made (a part of) it, as far as this book shows.
        order_id: That order, where the book names one.
        rev: How many deals it is made of, in our book.
    """

    position_id: int
    symbol: str
    net: Decimal
    ours: bool
    order_id: str | None = None
    rev: int = 0

    @property
    def text(self) -> str:
        """What it is, for a person: ``buy 0.10 EURUSD``."""
        return f"{'buy' if self.net > 0 else 'sell'} {decimal_text(abs(self.net).normalize())} {self.symbol}"


@dataclass(frozen=True, slots=True)
class BookedOrder:
    """A working order in one of the two books; ``order_id`` is None for one that is not ours."""

    ticket: int
    symbol: str
    order_id: str | None = None


@dataclass(frozen=True, slots=True)
class AccountBooks:
    """What is open and what works, as one side has it; nothing twice."""

    positions: tuple[BookedPosition, ...] = ()
    orders: tuple[BookedOrder, ...] = ()


@dataclass(frozen=True, slots=True)
class BookDifference:
    """One place where the books differ.

    Attributes:
        place: What it is about, the same as long as it lasts: ``position:{id}``, ``ticket:{ticket}``, ``deal:{deal}``.
        ours, theirs: What each side says of it, None where it has nothing.
        lots: Of a position, theirs minus ours, signed.
        rev: Of a position, how many deals ours is made of: with another one it may be another deal that is under way.
    """

    kind: BreakKind
    place: str
    symbol: str
    ours: str | None
    theirs: str | None
    position_id: int | None = None
    order_id: str | None = None
    ticket: int | None = None
    deal: int | None = None
    lots: Decimal | None = None
    rev: int = 0

    def is_same(self, other: BookDifference) -> bool:
        """Return whether it is the same difference, though both sides may have moved by as much since."""
        if self.lots is not None:
            return (self.kind, self.place, self.lots) == (other.kind, other.place, other.lots)
        return (self.kind, self.place, self.ours, self.theirs) == (other.kind, other.place, other.ours, other.theirs)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        differences: By place.
        foreign_positions: Ids of the broker's positions that are not ours.
        foreign_orders: Tickets of the broker's orders that are not ours.
    """

    differences: tuple[BookDifference, ...]
    foreign_positions: frozenset[int]
    foreign_orders: frozenset[int]


def compare(ours: AccountBooks, theirs: AccountBooks, unfinished: frozenset[str] = frozenset()) -> Comparison:
    """Return where our books and the broker's differ, both as they were at one moment.

    Args:
        ours: Our fold, whoever traded.
        theirs: The broker's.
        unfinished: The orders of ours that are not over: one of them may work at the broker before its ticket is
            reported.

    What is nobody's of ours is foreign and never a difference.
    """
    positions, foreign_positions = _positions(ours.positions, theirs.positions)
    orders, foreign_orders = _orders(ours.orders, theirs.orders, unfinished)
    differences = tuple(sorted((*positions, *orders), key=lambda each: each.place))
    return Comparison(differences, frozenset(foreign_positions), frozenset(foreign_orders))


def cause_of(ours: str | None, theirs: str | None, now: str | None) -> BreakCause:
    """Return why a difference ended, from what each side said of its place and what both say ``now``."""
    if now == theirs:
        return "late_report"
    return "broker" if now == ours else "both"


def differing_deals(state: OrderState) -> tuple[BookDifference, ...]:
    """Return the deals of an order that are not what it asked for: another symbol or side, or more volume.

    What somebody else's connector says of its fills is not compared: it names symbols as it likes.
    """
    parameters = state.parameters
    if parameters is None:
        return ()
    asked = f"{parameters.side} {decimal_text(parameters.volume.normalize())} {parameters.symbol}"
    found = []
    for number, deal in sorted(state.deals.items()):
        filled = deal.filled
        if filled is None or deal.foreign or not deal.stands:
            continue
        same = (filled.symbol, filled.side) == (parameters.symbol, parameters.side)
        if not same or filled.volume > parameters.volume:
            done = f"{filled.side} {decimal_text(filled.volume.normalize())} {filled.symbol}"
            found.append(
                BookDifference(
                    "deal_differs",
                    f"deal:{number}",
                    filled.symbol,
                    ours=asked,
                    theirs=done,
                    position_id=filled.position_id,
                    ticket=filled.ticket,
                    deal=number,
                )
            )
    return tuple(found)


def _positions(
    ours: Iterable[BookedPosition], theirs: Iterable[BookedPosition]
) -> tuple[list[BookDifference], list[int]]:
    mine, found, foreign = {each.position_id: each for each in ours}, [], []
    for their in theirs:
        my = mine.pop(their.position_id, None)
        if not their.ours and (my is None or not my.ours):
            foreign.append(their.position_id)
        elif (kind := _kind(my, their)) is not None:
            found.append(_of_position(kind, my, their))
    found += [_of_position("position_missing", my, None) for my in mine.values() if my.ours]
    return found, foreign


def _kind(my: BookedPosition | None, their: BookedPosition) -> BreakKind | None:
    if my is None:
        return "position_unknown"
    if my.symbol != their.symbol:
        return "symbol"
    if (my.net > 0) != (their.net > 0):
        return "side"
    return "volume" if my.net != their.net else None


def _of_position(kind: BreakKind, my: BookedPosition | None, their: BookedPosition | None) -> BookDifference:
    one = their or my
    assert one is not None
    return BookDifference(
        kind,
        f"position:{one.position_id}",
        one.symbol,
        ours=None if my is None else my.text,
        theirs=None if their is None else their.text,
        position_id=one.position_id,
        order_id=next((each.order_id for each in (my, their) if each is not None and each.order_id), None),
        rev=0 if my is None else my.rev,
        lots=EXACT.subtract(Decimal(0) if their is None else their.net, Decimal(0) if my is None else my.net),
    )


def _orders(
    ours: Iterable[BookedOrder], theirs: Iterable[BookedOrder], unfinished: frozenset[str]
) -> tuple[list[BookDifference], list[int]]:
    mine, found, foreign = {each.ticket: each for each in ours}, [], []
    for their in theirs:
        my = mine.pop(their.ticket, None)
        if my is None and their.order_id is None:
            foreign.append(their.ticket)
        elif my is None and their.order_id not in unfinished:
            found.append(_of_order("order_unexpected", their, ours=None, theirs=WORKING))
    found += [_of_order("order_missing", my, ours=WORKING, theirs=None) for my in mine.values()]
    return found, foreign


def _of_order(kind: BreakKind, order: BookedOrder, *, ours: str | None, theirs: str | None) -> BookDifference:
    place = f"ticket:{order.ticket}"
    return BookDifference(kind, place, order.symbol, ours, theirs, order_id=order.order_id, ticket=order.ticket)
