"""Rows ``o/``: each order as the fold of its facts, and how far it is on its way to a terminal (design: desk)."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field

from streamapp.domain.anomalies import HALTING, Anomaly, anomalies_of
from streamapp.domain.facts import Fact
from streamapp.domain.orders import OrderState
from streamapp.domain.status import status_of
from streamapp.domain.vocabulary import FINAL_STATUSES, Status, decimal_text
from tables.row import Row

ORDER = b"o/"
HANDED_OVER = "foreign"
"""The claim's epoch of an order that somebody else's connector executes: there is no journal of ours."""

Standing = Literal["held", "unanswered", "handed_over", "recorded", "over"]
"""held: not claimed. unanswered: claimed, and the journal has not reported it. handed_over: claimed for a foreign
connector that has not answered. recorded: a journal has reported it. over: nothing is to be submitted any more."""


class OrderRow(Row):
    """An order: the fold of its facts.

    ``waiting`` are facts that came before OrderCreated, whole: until it comes nothing of the order is published, and
    then everything is. ``claim_epoch`` is the journal's that the order was claimed for, ``journal_epoch`` the one whose
    report came last.
    """

    open: bool
    order_id: str
    account: str
    state: OrderState = Field(default_factory=OrderState)
    waiting: tuple[Fact, ...] = ()
    claim_epoch: str | None = None
    journal_epoch: str | None = None

    def changed(self, **changes: Any) -> Self:
        """Return the row with other values, and ``open`` as it is with them."""
        row = self.model_copy(update=changes)
        is_open = row.status not in FINAL_STATUSES or row.state.created is None or bool(row.halting)
        return row if row.open == is_open else row.model_copy(update={"open": is_open})

    @property
    def over_since(self) -> datetime | None:
        """When the last fact of it came, None while it is open."""
        return None if self.open else self.state.latest_at

    @property
    def status(self) -> Status:
        """The order's status."""
        return status_of(self.state)

    @property
    def anomalies(self) -> frozenset[Anomaly]:
        """What a person must hear of."""
        known: frozenset[Anomaly] | None = self.state.memo.get("anomalies")
        if known is None:
            known = self.state.memo["anomalies"] = anomalies_of(self.state)
        return known

    @property
    def halting(self) -> frozenset[Anomaly]:
        """The anomalies for which the account must not open orders."""
        return HALTING & self.anomalies

    @property
    def halt_cause(self) -> str | None:
        """Why the account must not open orders, with how much the broker shows of it; None if it may."""
        if not self.halting:
            return None
        lots, tickets = decimal_text(self.state.filled), len(self.state.tickets)
        return f"{min(self.halting)} on order {self.order_id}: {lots} lots executed, {tickets} tickets"

    @property
    def executor(self) -> str | None:
        """Who is meant to execute it, None before OrderCreated."""
        return None if self.state.created is None else self.state.created.executor

    @property
    def standing(self) -> Standing:
        """Where the order is on its way to the terminal."""
        state = self.state
        if state.created is None or self.status in FINAL_STATUSES:
            return "over"
        if self.claim_epoch == HANDED_OVER:
            return "handed_over" if self.status in {"pending", "submitted"} and not _is_doubted(state) else "over"
        if self.journal_epoch is not None:
            return "recorded"
        return "unanswered" if state.has_open_attempt else "held"


def order_key(order_id: str) -> bytes:
    """Return the row's key."""
    return ORDER + order_id.encode()


def _is_doubted(state: OrderState) -> bool:
    return any("no_answer" in attempt.doubts for attempt in state.attempts.values())


class OpenOrder(NamedTuple):
    """What the index knows of an order that is not over; without a symbol its OrderCreated has not come."""

    account: str
    symbol: str | None
    status: Status
    partition: int
    standing: Standing
    since: datetime
    not_after: datetime | None
    journal_epoch: str | None


class OrderIndex:
    """What must be known of orders at once, in memory: nobody iterates over the rows (design: submission, step 2).

    Built by a recovery from the open rows, and kept up by commits.
    """

    def __init__(self) -> None:
        self._open: dict[str, OpenOrder] = {}
        self._halting: dict[str, dict[str, tuple[str, int]]] = {}
        self._waiting: defaultdict[str, set[str]] = defaultdict(set)
        self._recorded: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._answered: dict[str, str] = {}
        self._of: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def of(self, account: str, symbol: str | None) -> frozenset[str]:
        """Return the ids of an account's orders of a symbol, or of all, that are not over."""
        if symbol is None:
            return frozenset().union(*(ids for (owner, _), ids in self._of.items() if owner == account))
        return frozenset(self._of.get((account, symbol), ()))

    def symbols(self, account: str) -> frozenset[str]:
        """Return the symbols of an account that have orders that are not over."""
        return frozenset(symbol for (owner, symbol), ids in self._of.items() if owner == account and ids)

    @property
    def open(self) -> Mapping[str, OpenOrder]:
        """The orders that are not over, by id."""
        return self._open

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """The number of open orders by (account, status)."""
        return Counter((order.account, order.status) for order in self._open.values())

    @property
    def standings(self) -> Counter[tuple[str, str]]:
        """The number of orders that wait for a terminal, by (account, standing)."""
        waiting = (self._open[order_id] for ids in self._waiting.values() for order_id in ids)
        return Counter((order.account, order.standing) for order in waiting)

    def halting(self, account: str) -> dict[str, str]:
        """Return why ``account`` must not open orders, by the order that shows it: more was executed than asked for."""
        return {order_id: cause for order_id, (cause, _) in self._halting.get(account, {}).items()}

    def accounts(self) -> set[str]:
        """Return the accounts with an order that waits for a terminal."""
        return {account for account, ids in self._waiting.items() if ids}

    def waiting(self, account: str) -> list[tuple[str, OpenOrder]]:
        """Return the orders of ``account`` that are held, unanswered or handed over, oldest first."""
        return sorted(((each, self._open[each]) for each in self._waiting[account]), key=lambda one: one[1].since)

    def is_answered(self, order_id: str, epoch: str | None) -> bool:
        """Return whether the journal of ``epoch`` has answered the order's submit, so that its report is on its way."""
        return epoch is not None and self._answered.get(order_id) == epoch

    def answered(self, order_id: str, epoch: str) -> None:
        """Take note that the journal of ``epoch`` answered a submit: remembered here only, its report is the word."""
        if order_id in self._open:
            self._answered[order_id] = epoch

    def recorded_elsewhere(self, account: str, epoch: str, limit: int) -> list[str]:
        """Return orders that are not over and that only other journals than that of ``epoch`` know, the oldest."""
        return [order_id for _, order_id in heapq.nsmallest(limit, self._others(account, epoch))]

    def _others(self, account: str, epoch: str) -> Iterator[tuple[datetime, str]]:
        for (owner, recorded), ids in self._recorded.items():
            if owner == account and recorded != epoch:
                unasked = (order_id for order_id in ids if not self.is_answered(order_id, epoch))
                yield from ((self._open[order_id].since, order_id) for order_id in unasked)

    def put(self, row: OrderRow, partition: int) -> None:
        """Replace what is known of an order by its durable row."""
        order_id, account = row.order_id, row.account
        self._forget(order_id)
        if row.status not in FINAL_STATUSES or row.state.created is None:
            standing, created = row.standing, row.state.created
            self._open[order_id] = OpenOrder(
                account,
                None if created is None else created.parameters.symbol,
                row.status,
                partition,
                standing,
                _since(row.state),
                None if created is None else created.not_after,
                row.journal_epoch,
            )
            if created is not None:
                self._of[account, created.parameters.symbol].add(order_id)
            if standing in {"held", "unanswered", "handed_over"}:
                self._waiting[account].add(order_id)
            elif standing == "recorded" and row.journal_epoch is not None:
                self._recorded[account, row.journal_epoch].add(order_id)
        if row.standing != "unanswered":
            self._answered.pop(order_id, None)
        if cause := row.halt_cause:
            self._halting.setdefault(account, {})[order_id] = (cause, partition)
        else:
            self._halting.get(account, {}).pop(order_id, None)

    def _forget(self, order_id: str) -> None:
        known = self._open.pop(order_id, None)
        if known is not None:
            self._waiting[known.account].discard(order_id)
            if known.symbol is not None:
                self._of[known.account, known.symbol].discard(order_id)
            if known.journal_epoch is not None:
                self._recorded[known.account, known.journal_epoch].discard(order_id)

    def drop(self, partitions: frozenset[int]) -> None:
        """Forget the orders of ``partitions``: they belong to another worker."""
        for order_id in [name for name, order in self._open.items() if order.partition in partitions]:
            self._forget(order_id)
            self._answered.pop(order_id, None)
        for account, orders in self._halting.items():
            self._halting[account] = {name: known for name, known in orders.items() if known[1] not in partitions}


def _since(state: OrderState) -> datetime:
    claimed = [attempt.claimed_at for attempt in state.attempts.values() if attempt.claimed_at is not None]
    since = max(claimed, default=None) or state.created_at or state.latest_at
    assert since is not None, "an order's row holds a fact"
    return since
