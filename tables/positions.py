"""Rows ``p/``: each position as the fold of its deals.

A row knows its own deals and judges one by itself: whether it is new is never asked of an order's row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Self

from pydantic import PrivateAttr

from streamapp.domain.facts import AccountOperation, Filled
from streamapp.domain.orders import Deal, Owner, replaced
from streamapp.domain.positions import PositionState, fold_deals
from tables.row import OVER, Row

POSITION = b"p/"
WHOLE = 32
"""Deals that a row keeps whole, some 10 kB in every write. So far back a late deal counts at its own time and a
correction corrects: terminals report in order and soon."""
REMEMBERED = 10_000
"""Ids of older deals at most, 130 kB, which leaves room in a commit: only a lost journal reports so far back again, and
then one day of history."""


class DealRecord(Row):
    """One fact about a deal: the fact's id within the account, the deal's ticket, and what it says of the deal.

    A deal that did not trade is an ``operation``, and ``deal`` says nothing.
    """

    fact_id: str
    number: int
    deal: Deal = Deal()
    operation: AccountOperation | None = None


class PositionRow(Row):
    """A position: ``base``, the fold of its older deals (fact ids in ``older``), and the newest whole, in their order.

    ``rev`` counts distinct deals, corrections and busts; operations are deals. ``missed`` counts corrections of deals
    that were folded away already: their difference is not in the position, which is a break.
    """

    account: str
    position_id: int
    rev: int = 0
    base: PositionState | None = None
    older: tuple[str, ...] = ()
    newest: tuple[DealRecord, ...] = ()
    missed: int = 0

    _known: frozenset[str] | None = PrivateAttr(None)
    _folded: frozenset[str] | None = PrivateAttr(None)
    _states: dict[str, PositionState] = PrivateAttr(default_factory=dict)

    @property
    def over_since(self) -> datetime | None:
        """When its last deal or charge was made, None while it is open, or no trade of it was seen."""
        state = self.state
        return None if state.net else state.at

    @property
    def known(self) -> frozenset[str]:
        """The ids of all facts in it."""
        if self._known is None:
            self._known = frozenset((*self.older, *(said.fact_id for said in self.newest)))
        return self._known

    @property
    def _gone(self) -> frozenset[str]:
        if self._folded is None:
            self._folded = frozenset(fact_id.partition(":")[0] for fact_id in self.older)
        return self._folded

    @property
    def state(self) -> PositionState:
        """The position now."""
        return self._at(len(self.newest) - 1) if self.newest else self.base or PositionState()

    def encode(self) -> bytes:
        """See :class:`tables.row.Row`."""
        encoded = super().encode()
        return OVER + encoded[1:] if self.rev and not self.state.net else encoded

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """See :class:`tables.row.Row`."""
        return super().decode(b"{" + value[len(OVER) :] if value.startswith(OVER) else value)

    def extended(self, new: Iterable[DealRecord]) -> PositionRow:
        """Return the row with more deals in it, none of which it has yet; older ones are folded away."""
        said = tuple(new)
        added = tuple(self._counting(one) for one in said)
        newest = (*self.newest, *added)
        away = _foldable(newest, len(newest) - max(WHOLE, len(added)))
        row = PositionRow(
            account=self.account,
            position_id=self.position_id,
            rev=self.rev + len(added),
            base=self._after(newest[:away]) if away else self.base,
            older=(*self.older, *(one.fact_id for one in newest[:away]))[-REMEMBERED:] if away else self.older,
            newest=newest[away:],
            missed=self.missed + sum(one is not other for one, other in zip(said, added, strict=True)),
        )
        row._known = self.known | {one.fact_id for one in added}
        row._folded = self._gone | {str(one.number) for one in newest[:away]}
        row._states = self._states_after(added)
        return row

    def owned(self, numbers: Iterable[int], owner: Owner) -> PositionRow:
        """Return the row with deals that turned out to be an order's: its OrderCreated came after them."""
        wanted = frozenset(numbers)
        newest = tuple(
            said.model_copy(update={"deal": replaced(said.deal, owner=owner)}) if said.number in wanted else said
            for said in self.newest
        )
        # Built anew: a copy would keep the positions as they were remembered without an owner.
        return PositionRow(**{**{name: getattr(self, name) for name in type(self).model_fields}, "newest": newest})

    def before(self, filled: Filled) -> PositionState:
        """Return the position just before a deal, which may be in it already; deals folded away count as earlier."""
        deals = _merged(self.newest).values()
        moment = (filled.time, filled.deal)
        earlier = [deal for deal in deals if deal.filled is not None and (deal.filled.time, deal.filled.deal) < moment]
        return self.state if len(earlier) == len(deals) else fold_deals(earlier, self.base)

    def revisions(self, wanted: Iterable[str]) -> list[PositionRevision]:
        """Return the revisions that some facts made, ascending; those folded away are left out: they have been told."""
        ids = set(wanted)
        first = self.rev - len(self.newest) + 1
        return [
            PositionRevision(first + place, said, self._at(place))
            for place, said in enumerate(self.newest)
            if said.fact_id in ids
        ]

    def _counting(self, said: DealRecord) -> DealRecord:
        """Return it as it counts: not at all if its deal was folded away, whose old content nobody knows any more."""
        return DealRecord(fact_id=said.fact_id, number=said.number) if str(said.number) in self._gone else said

    def _states_after(self, added: tuple[DealRecord, ...]) -> dict[str, PositionState]:
        """Return the position after each of ``added``: one step from the last where a deal is the latest of all."""
        states, state, whole = {}, self.state, list(self.newest)
        for said in added:
            latest = all(_moment(one) < _moment(said) and one.number != said.number for one in whole)
            whole.append(said)
            state = _folded([said], state) if latest else self._after(whole)
            states[said.fact_id] = state
        return states

    def _at(self, place: int) -> PositionState:
        fact_id = self.newest[place].fact_id
        known = self._states.get(fact_id)
        if known is None:
            known = self._states[fact_id] = self._after(self.newest[: place + 1])
        return known

    def _after(self, several: Iterable[DealRecord]) -> PositionState:
        return _folded(several, self.base)


class PositionRevision(NamedTuple):
    """What one fact made of a position."""

    rev: int
    said: DealRecord
    state: PositionState


class PositionIndex:
    """The positions that are open, in memory: nobody iterates over the rows. Kept up by commits, as the orders' is."""

    def __init__(self) -> None:
        self._open: defaultdict[tuple[str, str], dict[int, int]] = defaultdict(dict)

    def open(self, account: str, symbol: str | None) -> frozenset[int]:
        """Return the ids of an account's open positions of a symbol, or of all."""
        if symbol is None:
            return frozenset().union(*(ids for (owner, _), ids in self._open.items() if owner == account))
        return frozenset(self._open.get((account, symbol), ()))

    def symbols(self, account: str) -> frozenset[str]:
        """Return the symbols of an account that have open positions."""
        return frozenset(symbol for (owner, symbol), known in self._open.items() if owner == account and known)

    def put(self, row: PositionRow, partition: int) -> None:
        """Replace what is known of a position by its durable row."""
        state, place = row.state, (row.account, row.state.symbol)
        if state.net:
            self._open[place][row.position_id] = partition
        elif place in self._open:
            self._open[place].pop(row.position_id, None)

    def drop(self, partitions: frozenset[int]) -> None:
        """Forget the positions of ``partitions``: they belong to another worker."""
        for place, known in self._open.items():
            self._open[place] = {one: partition for one, partition in known.items() if partition not in partitions}


def _folded(several: Iterable[DealRecord], base: PositionState | None) -> PositionState:
    operations: dict[int, AccountOperation] = {}
    for said in several:
        if said.operation is not None:
            known = operations.get(said.number, said.operation)
            operations[said.number] = max(known, said.operation, key=lambda one: one.revision)
    return fold_deals(_merged(several).values(), base, operations.values())


def _merged(several: Iterable[DealRecord]) -> dict[int, Deal]:
    """Return each deal, by its ticket, as all that is said of it."""
    deals: dict[int, Deal] = {}
    for said in several:
        known = deals.get(said.number)
        deals[said.number] = said.deal if known is None else known.merged(said.deal)
    return deals


def _moment(said: DealRecord) -> tuple[float, int]:
    """Return what deals are ordered by; what is said of a deal again, or takes it back, is never the latest."""
    at = said.deal.filled.time if said.deal.filled else said.operation.at if said.operation else None
    return (0.0 if at is None else at.timestamp(), said.number)


def _foldable(newest: tuple[DealRecord, ...], most: int) -> int:
    """Return how many of the oldest, at most, may be folded away without parting a deal from what corrected it."""
    for count in range(max(0, most), 0, -1):
        kept = {said.number for said in newest[count:]}
        if all(said.number not in kept for said in newest[:count]):
            return count
    return 0


def position_key(account: str, position_id: int) -> bytes:
    """Return the row's key: the number first, so that no account's name can be taken for part of it."""
    return POSITION + f"{position_id}/{account}".encode()
