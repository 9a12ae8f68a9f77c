"""A table as a terminal sees it: perhaps a little later than the server."""

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

R = TypeVar("R")


class Table(Generic[R]):
    """Rows by ticket. `live` is the server's truth; `seen` is what a terminal with a visibility lag is shown."""

    def __init__(self) -> None:
        """An empty table without lag."""
        self.live: dict[int, R] = {}
        self._before: dict[int, list[tuple[int, R | None]]] = {}

    def put(self, ticket: int, row: R) -> None:
        """Adds a row or confirms a changed one."""
        self.live[ticket] = row

    def remove(self, ticket: int) -> R | None:
        """Takes a row away."""
        return self.live.pop(ticket, None)

    def keep_before(self, ticket: int, until_ms: int) -> None:
        """Until then, terminals see this row as it is now: call it before a change, if there is a lag."""
        row = self.live.get(ticket)
        self._before.setdefault(ticket, []).append((until_ms, copy.copy(row)))

    def seen(self, now_ms: int) -> Iterator[tuple[int, R]]:
        """Tickets and rows as a terminal is shown them at this time."""
        if not self._before:
            return iter(self.live.items())
        return self._seen(now_ms)

    def seen_row(self, ticket: int, now_ms: int) -> R | None:
        """One row as a terminal is shown it."""
        if self._before and (past := self._past(ticket, now_ms)) is not None:
            return past[1]
        return self.live.get(ticket)

    def lagging(self) -> bool:
        """Whether some row may still be shown as it was."""
        return bool(self._before)

    def release(self, until_ms: int) -> None:
        """What is still shown as it was stays so until then and no longer."""
        for kept in self._before.values():
            kept[:] = [(min(due, until_ms), row) for due, row in kept]

    def _past(self, ticket: int, now_ms: int) -> tuple[int, R | None] | None:
        kept = self._before.get(ticket)
        if kept is None:
            return None
        while kept and kept[0][0] <= now_ms:
            kept.pop(0)
        if not kept:
            del self._before[ticket]
            return None
        return kept[0]

    def _seen(self, now_ms: int) -> Iterator[tuple[int, R]]:
        for ticket in list(dict.fromkeys([*self.live, *self._before])):
            row = self.seen_row(ticket, now_ms)
            if row is not None:
                yield ticket, row


class History(Table[R]):
    """A table that only grows, in order of time, and is asked for by time or by position."""

    def __init__(self) -> None:
        """An empty history."""
        super().__init__()
        self._times: list[int] = []
        self._tickets: list[int] = []
        self._of_position: dict[int, list[int]] = {}

    def add(self, ticket: int, row: R, time_ms: int, position_id: int) -> None:
        """Adds a row. Where the machine's clock went back, it counts as being of the row before."""
        self.put(ticket, row)
        self._times.append(max(time_ms, self._times[-1]) if self._times else time_ms)
        self._tickets.append(ticket)
        self._of_position.setdefault(position_id, []).append(ticket)

    def between(self, from_ms: int, to_ms: int, now_ms: int) -> list[R]:
        """The visible rows of a span of server time, both ends included."""
        span = self._tickets[bisect_left(self._times, from_ms) : bisect_right(self._times, to_ms)]
        return self._visible(span, now_ms)

    def of_position(self, position_id: int, now_ms: int) -> list[R]:
        """The visible rows of one position."""
        return self._visible(self._of_position.get(position_id, []), now_ms)

    def _visible(self, tickets: list[int], now_ms: int) -> list[R]:
        if not self.lagging():
            return [self.live[ticket] for ticket in tickets]
        rows = (self.seen_row(ticket, now_ms) for ticket in tickets)
        return [row for row in rows if row is not None]
