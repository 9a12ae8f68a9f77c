"""Table ``orders``: each order as folded from the archive. Written by the ledger alone (design: order-status)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pydantic import PrivateAttr

from streamapp.domain.anomalies import HALTING, Anomaly, anomalies_of
from streamapp.domain.facts import Fact, OrderCreated
from streamapp.domain.fold import apply, fold
from streamapp.domain.orders import OrderState, replaced
from streamapp.domain.status import status_of
from streamapp.domain.vocabulary import FINAL_STATUSES, Status
from streamapp.messages.fact import FactMessage
from tables.row import Row

NAME = "orders"
WHOLE = 50
"""Facts that a row keeps whole, and so the most that may be in it without having been told: an order of ordinary
life has six, and 50 take some 25 kB in every write."""
HELD = 500
"""Facts that wait in a row for OrderCreated, at most: beyond it the oldest are only counted, or the row would not fit
into a record. Our own OrderCreated is always first; so many come only for an order that will never be known here."""


class Revision(NamedTuple):
    """What one fact made of an order. ``before`` is the order without it, None if nothing was told before."""

    rev: int
    fact: Fact
    before: OrderState | None
    state: OrderState


class OrderRow(Row):
    """An order: ``base``, the fold of its older facts, and the newest ones whole, as they stand in the archive.

    ``offset`` is the archive's, folded through. ``symbol``, ``status`` and ``anomalies`` are there for indexes, which
    must not have to fold a million rows. ``conflicts`` are ids of which a second, different content came.
    """

    order_id: str
    account: str
    offset: int
    base: OrderState | None = None
    texts: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    symbol: str | None = None
    status: Status = "pending"
    anomalies: tuple[Anomaly, ...] = ()

    _facts: tuple[Fact, ...] | None = PrivateAttr(None)
    _state: OrderState | None = PrivateAttr(None)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The newest facts, in the archive's order; older ones are in ClickHouse."""
        if self._facts is None:
            self._facts = tuple(FactMessage.decode(text.encode()) for text in self.texts)
        return self._facts

    @property
    def state(self) -> OrderState:
        """The fold of all its facts."""
        if self._state is None:
            state = fold(self.base or OrderState(), self.facts)
            self._state = replaced(state, conflicts=self.conflicts) if self.conflicts else state
        return self._state

    @property
    def rev(self) -> int:
        """The number of its facts."""
        return self._folded + len(self.texts)

    @property
    def executor(self) -> str | None:
        """Who is meant to execute it, None before OrderCreated."""
        return None if self.state.created is None else self.state.created.executor

    @property
    def _folded(self) -> int:
        return 0 if self.base is None else len(self.base.facts)

    def extended(self, new: Iterable[tuple[str, Fact]], state: OrderState, *, offset: int) -> OrderRow:
        """Return the row with more facts in it, none of which it has yet; ``state`` is the fold of it all.

        Facts it had before are folded away, down to ``WHOLE`` together with the new ones: they have been told. As long
        as OrderCreated is not there, nothing has been told, and all are kept.
        """
        added = list(new)
        texts = (*self.texts, *(text for text, _ in added))
        whole = (*self.facts, *(fact for _, fact in added))
        told = len(self.texts) if self.state.created is not None else max(0, len(texts) - HELD)
        away = min(max(0, len(texts) - WHOLE), told)
        base = fold(self.base or OrderState(), whole[:away]) if away else self.base
        return self._with(base, texts[away:], whole[away:], state, max(offset, self.offset))

    def _with(
        self, base: OrderState | None, texts: tuple[str, ...], whole: tuple[Fact, ...], state: OrderState, offset: int
    ) -> OrderRow:
        row = OrderRow(
            order_id=self.order_id,
            account=self.account,
            offset=offset,
            base=base,
            texts=texts,
            conflicts=state.conflicts,
            symbol=None if state.created is None else state.created.parameters.symbol,
            status=status_of(state),
            anomalies=tuple(sorted(anomalies_of(state))),
        )
        row._facts, row._state = whole, state
        return row

    def revisions(self, wanted: Iterable[int]) -> list[Revision]:
        """Return some revisions, ascending: the same ones whenever they are asked for.

        Args:
            wanted: Their numbers. Those whose facts are folded away are left out: they have been told before.

        Returns:
            Nothing before OrderCreated is there; then also the revisions of the facts that came before it, with it in
            them.
        """
        numbers = set(wanted)
        state = self.base or OrderState()
        if state.created is None:
            created = next((fact for fact in self.facts if isinstance(fact.body, OrderCreated)), None)
            if created is None:
                return []
            state = apply(state, created)
        found = []
        for rev, fact in enumerate(self.facts, start=self._folded + 1):
            before, state = state, apply(state, fact)
            if rev in numbers:
                found.append(Revision(rev, fact, before if rev > 1 else None, state))
        return found


def order_key(order_id: str) -> bytes:
    """Return the row's key."""
    return order_id.encode()


class OpenOrder(NamedTuple):
    """What the index says of an order that is not over."""

    account: str
    symbol: str | None
    status: Status
    partition: int


class OrderIndex:
    """What must be known of orders at once: the open ones, and the accounts that must not open more (an Index)."""

    def __init__(self) -> None:
        self._open: dict[str, OpenOrder] = {}
        self._halting: dict[str, dict[str, tuple[Anomaly, int]]] = {}

    @property
    def open(self) -> Mapping[str, OpenOrder]:
        """The orders that are not over, by id; without a symbol: facts whose OrderCreated has not come."""
        return self._open

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """The number of open orders by (account, status)."""
        return Counter((order.account, order.status) for order in self._open.values())

    def halted(self, account: str) -> str | None:
        """Return why ``account`` must not open orders (more was executed than was asked for), None if it may."""
        for order_id, (anomaly, _) in self._halting.get(account, {}).items():
            return f"{anomaly} on order {order_id}"
        return None

    def added(self, key: bytes, row: OrderRow, partition: int) -> None:
        """Take over the durable row of ``key``."""
        order_id = key.decode()
        if row.status in FINAL_STATUSES and row.symbol is not None:
            self._open.pop(order_id, None)
        else:
            self._open[order_id] = OpenOrder(row.account, row.symbol, row.status, partition)
        if halting := HALTING.intersection(row.anomalies):
            self._halting.setdefault(row.account, {})[order_id] = (min(halting), partition)
        else:
            self._halting.get(row.account, {}).pop(order_id, None)

    def dropped(self, partition: int) -> None:
        """Forget the rows of ``partition``: they belong to another worker."""
        self._open = {name: order for name, order in self._open.items() if order.partition != partition}
        for account, orders in self._halting.items():
            self._halting[account] = {name: known for name, known in orders.items() if known[1] != partition}
