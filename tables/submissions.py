"""Table ``submissions``: how far each order is on its way to a terminal. Written by the broker agent alone."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from streamapp.domain.facts import RefusedReason
from streamapp.domain.submission import SubmissionState
from streamapp.domain.vocabulary import UtcTime
from streamapp.messages.command import SubmitOrder
from streamapp.messages.terminal import SubmitState
from tables.row import Row

NAME = "submissions"
HANDED_OVER = "foreign"
"""The epoch of an order that a foreign connector executes: there is no journal of ours."""


class SubmissionRow(Row):
    """An order's way to the terminal, with the whole command: whoever finds the row can go on with it.

    ``epoch`` is the journal's that the claim was made for and never changes, ``recorded_epoch`` the last that answered.
    """

    state: SubmissionState
    command: SubmitOrder
    since: UtcTime
    epoch: str | None = None
    claimed_at: UtcTime | None = None
    recorded_epoch: str | None = None
    answer: SubmitState | None = None
    refused: RefusedReason | None = None


def submission_key(order_id: str) -> bytes:
    """Return the row's key."""
    return order_id.encode()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row that waits for an answer."""

    order_id: str
    account: str
    partition: int
    state: SubmissionState
    since: datetime
    not_after: datetime


class SubmissionIndex:
    """The rows that somebody may have to look at again, in memory: nobody iterates over the table."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, Waiting]] = defaultdict(dict)
        self._recorded: dict[tuple[str, str], dict[str, tuple[datetime, int]]] = defaultdict(dict)
        self._places: dict[str, tuple[str, str, int]] = {}

    # --- told by the table

    def added(self, key: bytes, row: SubmissionRow, partition: int) -> None:
        """See :class:`tables.durable.Index`."""
        order_id, account = key.decode(), row.command.account
        self.forget(order_id)
        if row.state in {"held", "claimed"}:
            waiting = Waiting(order_id, account, partition, row.state, row.since, row.command.not_after)
            self._waiting[account][order_id] = waiting
            self._places[order_id] = (account, "", partition)
        elif row.state == "recorded" and row.recorded_epoch not in {None, HANDED_OVER}:
            assert row.recorded_epoch is not None
            self._recorded[account, row.recorded_epoch][order_id] = (row.since, partition)
            self._places[order_id] = (account, row.recorded_epoch, partition)

    def dropped(self, partition: int) -> None:
        """See :class:`tables.durable.Index`."""
        for order_id in [name for name, place in self._places.items() if place[2] == partition]:
            self.forget(order_id)

    def forget(self, order_id: str) -> None:
        """Drop an order from the index."""
        if (place := self._places.pop(order_id, None)) is None:
            return
        account, epoch, _ = place
        rows: dict[str, Waiting] | dict[str, tuple[datetime, int]]
        rows = self._recorded[account, epoch] if epoch else self._waiting[account]
        rows.pop(order_id, None)

    def settled(self, order_id: str) -> None:
        """The order is over: a recorded row of it needs no more looking, whatever epoch comes."""
        if (place := self._places.get(order_id)) is not None and place[1]:
            self.forget(order_id)

    # --- asked by the timer, web and metrics

    def accounts(self) -> set[str]:
        """Return the accounts with a row that waits."""
        return {account for account, rows in self._waiting.items() if rows}

    def waiting(self, account: str) -> list[Waiting]:
        """Return the held and claimed rows of an account, oldest first."""
        return sorted(self._waiting[account].values(), key=lambda row: row.since)

    def recorded_under_another(self, account: str, epoch: str, limit: int) -> list[tuple[str, int]]:
        """Return (order_id, partition) of rows recorded under another epoch than ``epoch``, the oldest ``limit``."""
        found = heapq.nsmallest(limit, self._others(account, epoch))
        return [(order_id, partition) for _, order_id, partition in found]

    def _others(self, account: str, epoch: str) -> Iterator[tuple[datetime, str, int]]:
        for (owner, recorded), rows in self._recorded.items():
            if owner == account and recorded != epoch:
                yield from ((since, order_id, partition) for order_id, (since, partition) in rows.items())

    def counts(self) -> Counter[tuple[str, str]]:
        """Return the number of waiting rows by account and state."""
        return Counter((row.account, row.state) for rows in self._waiting.values() for row in rows.values())
