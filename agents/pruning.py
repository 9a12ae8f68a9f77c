"""Finding what is over: a walk through the rows of this worker's partitions, some at a time, for as long as it runs.

Nothing is remembered of it but the place: a walk that is broken off begins again, and finds what is still to be done.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

from streamapp.clock import Clock
from streamapp.desk.inputs import Prune
from streamapp.desk.policy import Policy
from streamapp.desk.pruning import step_of
from streamapp.domain.identifiers import partition_of
from tables.row import is_put_away
from tables.store import KeyValue, Store

LOOKED_AT = 500
"""Rows that a step passes at most."""
DECODED = 20
"""Rows that a step decodes at most, two milliseconds; those that are due are decoded, and written, by their lanes."""
WRITTEN_BYTES = 64 << 10
"""What a step may give to lanes, as it is stored now: an eighth of a commit."""
PAUSE_S = 0.1
"""Between two steps."""
REST_S = 5.0
"""Between two walks at least; and four times as long as a walk took, whatever the store's size."""


class PrunedDesk(Protocol):
    """What the walk needs of the desk (:class:`agents.desk.Desk`)."""

    def prune(self, account: str, due: Prune) -> bool:
        """Let rows leave; False while the account has something else to do or to say."""
        ...


class Pruner:
    """One worker's walk.

    Args:
        store: The rows.
        desk: Whose lanes write them.
        policy: When a row is due.
        clock: The time.
    """

    def __init__(self, store: Store, desk: PrunedDesk, policy: Policy, clock: Clock) -> None:
        self._store = store
        self._desk = desk
        self._policy = policy
        self._clock = clock
        self._partition = 0
        self._after = b""
        self._steps = 0

    def step(self) -> float:
        """Look at the next rows, give those that are due to their lanes; return how long to wait for the next step.

        Raises:
            ConfigurationError: Another version wrote a row.
        """
        if not self._store.owned:
            return REST_S
        self._steps += 1
        if self._partition not in self._store.owned:
            return self._next_partition()
        before = self._after
        self._look_at(islice(self._store.scan(self._partition, b"", before), LOOKED_AT))
        return PAUSE_S if self._after != before else self._next_partition()

    def _next_partition(self) -> float:
        self._after = b""
        self._partition = (self._partition + 1) % self._policy.partitions
        if self._partition:
            return PAUSE_S
        steps, self._steps = self._steps, 0
        return max(REST_S, 4 * steps * PAUSE_S)

    def _look_at(self, rows: Iterable[KeyValue]) -> None:
        """Look at rows as far as one step goes; those of an account that is busy are left to the next walk."""
        away, ending = defaultdict[str, list[bytes]](list), defaultdict[str, list[bytes]](list)
        now, decoded, size = self._clock(), 0, 0
        for key, value in rows:
            due = step_of(key, value, self._policy, now)
            if due is not None:
                (away if due[0] == "away" else ending)[due[1]].append(key)
                size += len(value)
            decoded += due is not None or not is_put_away(value)
            self._after = key
            if decoded >= DECODED or size >= WRITTEN_BYTES:
                break
        for account in sorted(away.keys() | ending.keys()):
            if partition_of(account, self._policy.partitions) == self._partition:
                self._desk.prune(account, Prune(tuple(away[account]), tuple(ending[account])))
