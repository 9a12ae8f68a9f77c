"""One group of facts of an account, folded: the rows as they are after it, and what each fact made to be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from agents.incoming import Incoming
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.domain.fold import apply, deal_of
from streamapp.domain.orders import Deal, OrderState
from tables.orders import WHOLE, OrderRow, Revision
from tables.positions import PositionRevision, PositionRow, Said

DEALS = (facts.Filled, facts.FillCorrected, facts.FillBusted)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the archive, read; ``text`` is the record's value, kept in rows as it came."""

    incoming: Incoming
    offset: int
    text: str
    fact: Fact


@dataclass(slots=True)
class Told:
    """What one entry makes us say: revisions of its order and of its position; ``state`` is the order just after it."""

    entry: Entry
    order: OrderRow | None = None
    state: OrderState | None = None
    revisions: list[Revision] = field(default_factory=list)
    position: PositionRow | None = None
    moves: list[PositionRevision] = field(default_factory=list)


class Change(NamedTuple):
    """An order's row before and after a group."""

    before: OrderRow
    after: OrderRow
    new: tuple[Fact, ...]


def groups_of(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Return the entries in their order, parted so that none brings more than ``WHOLE`` facts to one order or position.

    A row keeps that many facts whole, so what was put and not yet told can always be refolded from it.
    """
    groups: list[list[Entry]] = []
    counts: Counter[object] = Counter()
    for entry in entries:
        names = _rows_of(entry.fact)
        if not groups or any(counts[name] >= WHOLE for name in names):
            groups.append([])
            counts.clear()
        counts.update(names)
        groups[-1].append(entry)
    return groups


def _rows_of(fact: Fact) -> list[object]:
    names: list[object] = [] if fact.order_id is None else [fact.order_id]
    match fact.body:
        case (
            facts.Filled(position_id=position)
            | facts.FillCorrected(deal=facts.Filled(position_id=position))
            | facts.FillBusted(was=facts.Filled(position_id=position))
        ):
            names.append(position)
    return names


class _OrderDraft:
    """One order within a group.

    A fact that is new makes its revision at once. What has to be told again, or was held back until OrderCreated came,
    is refolded from the row in the end: it is the same then, as a revision is a function of a set of facts.
    """

    def __init__(self, row: OrderRow) -> None:
        self.before = row
        self.state = row.state
        self.new: list[tuple[str, Fact]] = []
        self.offset = -1
        self._made: dict[int, Revision] = {}
        self._wanted: list[tuple[int, Iterable[int]]] = []

    def add(self, place: int, entry: Entry) -> OrderState:
        """Fold the entry at ``place`` of the group; return the order just after it."""
        fact, before = entry.fact, self.state
        self.state = apply(before, fact)
        self.offset = max(self.offset, entry.offset)
        if fact.fact_id in before.facts:
            rev = list(before.facts).index(fact.fact_id) + 1
        else:
            rev = len(self.state.facts)
            self.new.append((entry.text, fact))
            if self.state.created is not None and (before.created is not None or rev == 1):
                self._made[rev] = Revision(rev, fact, before if rev > 1 else None, self.state)
        # With OrderCreated everything that waited for it is told.
        is_creation = isinstance(fact.body, facts.OrderCreated)
        self._wanted.append((place, range(1, rev + 1) if is_creation else (rev,)))
        return self.state

    def finish(self, told: list[Told]) -> OrderRow:
        """Give every entry what it makes us say, each revision once; return the row after the group."""
        row = self.before.extended(self.new, self.state, offset=self.offset)
        missing = {rev for _, revs in self._wanted for rev in revs if rev not in self._made}
        if self.state.created is None:
            made = {}
        else:
            made = self._made | {revision.rev: revision for revision in (row.revisions(missing) if missing else ())}
        for place, revs in self._wanted:
            told[place].order = row
            told[place].revisions = [made.pop(rev) for rev in revs if rev in made]
        return row


@dataclass(slots=True)
class _PositionDraft:
    before: PositionRow
    new: dict[str, Said] = field(default_factory=dict)
    wanted: list[tuple[int, str]] = field(default_factory=list)
    offset: int = -1

    def add(self, place: int, said: Said, offset: int) -> None:
        if said.fact_id not in self.before.known:
            self.new.setdefault(said.fact_id, said)
        self.wanted.append((place, said.fact_id))
        self.offset = max(self.offset, offset)


class Group:
    """A group of entries, folded at once when it is made.

    Args:
        entries: Of one account and partition; see :func:`groups_of`.
        order: Returns the row of an order, an empty one where there is none.
        position: The same for a position.

    Attributes:
        changes: Each order of the group.
        positions: The row of each position after the group.
        told: What each entry makes us say, in their order.
    """

    def __init__(
        self,
        entries: list[Entry],
        order: Callable[[str], OrderRow],
        position: Callable[[int], PositionRow],
    ) -> None:
        self.told = [Told(entry) for entry in entries]
        self.changes: list[Change] = []
        self.positions: list[PositionRow] = []
        self._position = position
        self._fold_orders(order)
        self._fold_positions()

    def _fold_orders(self, order: Callable[[str], OrderRow]) -> None:
        drafts: dict[str, _OrderDraft] = {}
        for place, told in enumerate(self.told):
            if (order_id := told.entry.fact.order_id) is not None:
                if order_id not in drafts:
                    drafts[order_id] = _OrderDraft(order(order_id))
                told.state = drafts[order_id].add(place, told.entry)
        for draft in drafts.values():
            after = draft.finish(self.told)
            self.changes.append(Change(draft.before, after, tuple(fact for _, fact in draft.new)))

    def _fold_positions(self) -> None:
        drafts: dict[int, _PositionDraft] = {}
        for place, told in enumerate(self.told):
            if isinstance(told.entry.fact.body, DEALS):
                for position_id, said in _said_of(told):
                    if position_id not in drafts:
                        drafts[position_id] = _PositionDraft(self._position(position_id))
                    drafts[position_id].add(place, said, told.entry.offset)
        for draft in drafts.values():
            after = draft.before.extended(draft.new.values(), offset=draft.offset)
            self.positions.append(after)
            made = {one.said.fact_id: one for one in after.revisions({fact_id for _, fact_id in draft.wanted})}
            for place, fact_id in draft.wanted:
                self.told[place].position = after
                if fact_id in made:
                    self.told[place].moves.append(made.pop(fact_id))


def _said_of(told: Told) -> list[tuple[int, Said]]:
    """Return what an entry says of a position: its deal, and the bust that came before the deal, if one did."""
    fact = told.entry.fact
    number, deal = deal_of(fact)
    # The order as of this entry, not as of the group's end: what is told must not depend on how facts were grouped.
    known = Deal() if told.state is None else told.state.deals.get(number, Deal())
    filled = deal.filled or known.filled or (fact.body.was if isinstance(fact.body, facts.FillBusted) else None)
    if filled is None or filled.position_id == 0:
        return []
    name = fact.fact_id.removeprefix(f"{fact.account}:deal:")
    several = [Said(fact_id=name, number=number, deal=deal)]
    if known.busted >= 0 and deal.busted < 0:
        taken_back = Deal(busted=known.busted)
        several.append(Said(fact_id=f"{number}:busted:{known.busted}", number=number, deal=taken_back))
    return [(filled.position_id, said) for said in several]
