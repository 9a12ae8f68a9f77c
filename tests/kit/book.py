"""The rows of one account without a desk around them: facts are added, a commit at a time, to rows read from bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from streamapp.desk.policy import Policy
from streamapp.desk.projection import add_fact
from streamapp.desk.state import Draft
from streamapp.domain.facts import Fact
from streamapp.domain.positions import PositionState
from streamapp.messages.account import AccountOperationMessage
from streamapp.messages.commit import Publication
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.settings import Settings
from tables.orders import OrderIndex, OrderRow, order_key
from tables.positions import POSITION, PositionRow, position_key
from tests.kit.examples import ACCOUNT, ORDER
from tests.kit.records import NOW

MODELS: dict[str, Any] = {
    "order/1": OrderMessage,
    "fill/1": FillMessage,
    "error/1": ErrorMessage,
    "position/1": PositionMessage,
    "account_operation/1": AccountOperationMessage,
}


def message(value: bytes) -> Any:
    """Return a published message, by its schema."""
    return MODELS[json.loads(value)["schema"]].decode(value)


def orders_in(messages: Sequence[Any]) -> list[tuple[int, str, str]]:
    """Return rev, status and detail of the orders' revisions in ``messages``."""
    return [(one.rev, one.status, one.detail) for one in messages if isinstance(one, OrderMessage)]


class Book:
    """One account's rows, and everything that its commits have said.

    Attributes:
        rows: The rows as they are stored; every commit reads them anew, as a worker does that has just started.
        commits: The number of rows that each commit put.
        facts: The facts of all commits.
        publications: The messages of all commits, published or not.
        index: What a desk knows of the orders in memory.
    """

    def __init__(self, role: str = "both") -> None:
        self.policy = Policy.of(Settings(role=role, deployment="test"))
        self.rows: dict[bytes, bytes] = {}
        self.commits: list[int] = []
        self.facts: list[Fact] = []
        self.publications: list[Publication] = []
        self.index = OrderIndex()
        self._alarms: Counter[str] = Counter()

    def add(self, *several: Fact, journal_epoch: str | None = None) -> list[Any]:
        """Add facts in one commit; return the messages that it makes."""
        draft = Draft(ACCOUNT, NOW, self.policy, self._row)
        for fact in several:
            add_fact(draft, fact, journal_epoch=journal_epoch)
        self.rows |= {key: row.encode() for key, row in draft.changed.items()}
        self.commits.append(len(draft.changed))
        self.facts += draft.facts
        self.publications += draft.publications
        self._alarms.update(alarm.name for alarm in draft.alarms)
        for row in draft.changed.values():
            if isinstance(row, OrderRow):
                self.index.put(row, 0)
        return [message(each.message) for each in draft.publications]

    def _row(self, key: bytes, model: Any) -> Any:
        value = self.rows.get(key)
        return None if value is None else model.decode(value)

    @property
    def messages(self) -> list[Any]:
        """All messages so far."""
        return [message(each.message) for each in self.publications]

    @property
    def published(self) -> list[str]:
        """The subjects of what goes to NATS."""
        return [each.subject for each in self.publications if each.subject is not None]

    @property
    def order(self) -> OrderRow:
        """The row of the examples' order."""
        return OrderRow.decode(self.rows[order_key(ORDER)])

    @property
    def position(self) -> PositionRow:
        """The row of the examples' position."""
        return PositionRow.decode(self.rows[position_key(ACCOUNT, 7)])

    @property
    def positions(self) -> dict[bytes, PositionState]:
        """All positions as they are now, by their rows' keys."""
        return {key: PositionRow.decode(row).state for key, row in self.rows.items() if key.startswith(POSITION)}

    def alarms(self, name: str) -> int:
        """Return how often an alarm was raised."""
        return self._alarms[name]
