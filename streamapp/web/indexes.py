"""What the views keep in memory of rows that they must never iterate over."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from streamapp.desk.rendering import position_message
from streamapp.domain.facts import Fact
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.position import PositionMessage
from tables.accounts import AccountRow, StandingAlarm
from tables.breaks import BreakRow, place_of
from tables.positions import PositionRevision, PositionRow
from tables.row import Row

MOST_ORDERS = 2000
"""Orders whose facts are at hand, some 8 MB: ClickHouse has those of all others, seconds after their commit."""


K = TypeVar("K")
V = TypeVar("V")


class _Standing(Generic[K, V]):
    """What stands of the rows, each with the partition whose it is."""

    def __init__(self) -> None:
        self._known: dict[K, tuple[int, V]] = {}

    @property
    def _values(self) -> Iterable[V]:
        return [value for _, value in self._known.values()]

    def said(self, facts: Iterable[Fact]) -> None:
        """Facts are in the rows."""

    def drop(self, partitions: frozenset[int]) -> None:
        """Forget the rows of ``partitions``: they belong to another worker."""
        self._known = {place: known for place, known in self._known.items() if known[0] not in partitions}


class OpenPositions(_Standing[tuple[str, int], tuple[PositionMessage, bool]]):
    """The positions that are not flat."""

    @property
    def messages(self) -> Iterable[PositionMessage]:
        """position/1 of each, as it is now."""
        return [message for message, _ in self._values]

    def is_ours(self, account: str, position_id: int) -> bool:
        """Return whether a position is open and (a part of) it is our orders'."""
        known = self._known.get((account, position_id))
        return known is not None and known[1][1]

    def put(self, row: Row, partition: int) -> None:
        """Take over a durable row."""
        if not isinstance(row, PositionRow):
            return
        # Rendered here, where the row has been folded just now, and not once more for every question.
        message = position_message(row, PositionRevision(row.rev, row.newest[-1], row.state)) if row.newest else None
        if message is None or message.side is None:
            self._known.pop((row.account, row.position_id), None)
        else:
            self._known[row.account, row.position_id] = partition, (message, any(row.state.shares.values()))


class StandingBreaks(_Standing[tuple[str, str | None], BreakMessage]):
    """The differences with the brokers' books that stand, settled or not."""

    @property
    def messages(self) -> Iterable[BreakMessage]:
        """break/1 of each, as it was published last."""
        return self._values

    def put(self, row: Row, partition: int) -> None:
        """Take over a durable row."""
        if not isinstance(row, BreakRow):
            return
        message = row.message
        place = message.account, place_of(message.account, message.break_id)
        self._known.pop(place, None)
        if row.stands:
            self._known[place] = (partition, message)


class StandingAlarms(_Standing[str, tuple[StandingAlarm, ...]]):
    """The alarms that nobody has acknowledged."""

    @property
    def alarms(self) -> Iterable[tuple[str, StandingAlarm]]:
        """Each with its account."""
        return [(account, alarm) for account, (_, alarms) in self._known.items() for alarm in alarms]

    def put(self, row: Row, partition: int) -> None:
        """Take over a durable row."""
        if not isinstance(row, AccountRow):
            return
        if row.alarms:
            self._known[row.account] = partition, row.alarms
        else:
            self._known.pop(row.account, None)


class RecentFacts:
    """The facts of the orders that changed last: rows keep their ids alone, and ClickHouse has them seconds later."""

    def __init__(self, most_orders: int = MOST_ORDERS) -> None:
        self._most = most_orders
        self._facts: OrderedDict[str, dict[str, Fact]] = OrderedDict()

    def of(self, order_id: str) -> dict[str, Fact]:
        """Return the facts of an order that are at hand, by id."""
        return self._facts.get(order_id, {})

    def put(self, row: Row, partition: int) -> None:
        """Rows keep no facts."""

    def said(self, facts: Iterable[Fact]) -> None:
        """Take over the facts of a durable commit."""
        for fact in facts:
            if fact.order_id is not None:
                self._facts.setdefault(fact.order_id, {}).setdefault(fact.fact_id, fact)
                self._facts.move_to_end(fact.order_id)
        while len(self._facts) > self._most:
            self._facts.popitem(last=False)

    def drop(self, partitions: frozenset[int]) -> None:
        """Facts are true whoever owns their order."""
