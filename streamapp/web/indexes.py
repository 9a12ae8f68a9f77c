"""What the views keep in memory of tables that they must never iterate over."""

from __future__ import annotations

from collections.abc import Iterable

from agents.updates import position_message
from streamapp.messages.position import PositionMessage
from tables.accounts import AccountRow, AccountStateRow
from tables.positions import PositionRevision, PositionRow


class OpenPositions:
    """The positions that are not flat (an Index of table ``positions``)."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, bytes], PositionMessage] = {}

    @property
    def messages(self) -> Iterable[PositionMessage]:
        """position/1 of each, as it is now."""
        return self._open.values()

    def added(self, key: bytes, row: PositionRow, partition: int) -> None:
        """Take over the durable row of ``key``."""
        # Rendered here, where the row has been folded just now, and not once more for every question.
        message = position_message(row, PositionRevision(row.rev, row.newest[-1], row.state)) if row.newest else None
        if message is None or message.side is None:
            self._open.pop((partition, key), None)
        else:
            self._open[partition, key] = message

    def dropped(self, partition: int) -> None:
        """Forget the rows of ``partition``: they belong to another worker."""
        self._open = {place: message for place, message in self._open.items() if place[0] != partition}


class AccountStates:
    """The accounts as their terminals saw them last (an Index of table ``accounts``)."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[int, AccountStateRow]] = {}

    @property
    def rows(self) -> Iterable[AccountStateRow]:
        """The rows, each as it is now."""
        return [row for _, row in self._states.values()]

    def of(self, account: str) -> AccountStateRow | None:
        """Return the row of one account, None if no terminal of it was ever heard here."""
        found = self._states.get(account)
        return None if found is None else found[1]

    def added(self, key: bytes, row: AccountRow, partition: int) -> None:  # noqa: ARG002  the row knows its account
        """Take over the durable row of ``key``; watermarks are not the views' business."""
        if isinstance(row.root, AccountStateRow):
            self._states[row.root.account] = (partition, row.root)

    def dropped(self, partition: int) -> None:
        """Forget the rows of ``partition``."""
        self._states = {account: known for account, known in self._states.items() if known[0] != partition}
