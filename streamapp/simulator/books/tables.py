"""The rows of a trade server's tables (orders, positions, deals), and a table as a lagging terminal sees it.

Money and volume are Decimal, times server time in milliseconds.
"""

from __future__ import annotations

import copy
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any, Generic, TypeVar

from streamapp.mt5 import constants as mt5
from streamapp.simulator.prices.server_clock import DAY_MS

ZERO = Decimal(0)

Row = TypeVar("Row", "BrokerOrder", "BrokerPosition", "BrokerDeal")
R = TypeVar("R")


@dataclass(slots=True)
class BrokerOrder:
    """An order, active or done; ``expiration`` is in seconds.

    ``rendered``: as the terminal showed it, once it is done.
    """

    ticket: int
    symbol: str
    type: int
    state: int
    magic: int
    comment: str
    reason: int
    volume_initial: Decimal
    volume_current: Decimal
    price_open: Decimal
    sl: Decimal
    tp: Decimal
    time_setup_msc: int
    type_filling: int
    stoplimit: Decimal = ZERO
    type_time: int = 0
    expiration: int = 0
    time_done_msc: int = 0
    position_id: int = 0
    position_by_id: int = 0
    price_current: Decimal = ZERO
    external_id: str = ""
    rendered: str | None = field(default=None, repr=False, compare=False)

    @property
    def expires_ms(self) -> int | None:
        """Server time at which the order ends by itself, None for good-till-cancel."""
        if self.type_time == mt5.ORDER_TIME_DAY:
            return (self.time_setup_msc // DAY_MS + 1) * DAY_MS
        if self.type_time == mt5.ORDER_TIME_SPECIFIED:
            return self.expiration * 1000
        if self.type_time == mt5.ORDER_TIME_SPECIFIED_DAY:
            return (self.expiration * 1000 // DAY_MS + 1) * DAY_MS
        return None


@dataclass(slots=True)
class BrokerPosition:
    """An open position. ``margin`` is what it holds, in the account's currency, at the rate of its opening.

    ``rendered``: the values that no price moves, as the terminal showed them, until the position changes.
    """

    ticket: int
    identifier: int
    symbol: str
    side: int
    volume: Decimal
    price_open: Decimal
    sl: Decimal
    tp: Decimal
    magic: int
    comment: str
    reason: int
    time_msc: int
    time_update_msc: int
    margin: Decimal
    swap: Decimal = ZERO
    external_id: str = ""
    rendered: tuple[str, str] | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class BrokerDeal:
    """An execution, or a balance operation. ``rendered``: as the terminal showed it."""

    ticket: int
    order: int
    time_msc: int
    type: int
    entry: int
    magic: int
    position_id: int
    reason: int
    volume: Decimal
    price: Decimal
    commission: Decimal
    swap: Decimal
    profit: Decimal
    fee: Decimal
    symbol: str
    comment: str
    external_id: str = ""
    rendered: str | None = field(default=None, repr=False, compare=False)


def _names(kind: type[Any]) -> tuple[tuple[str, bool], ...]:
    return tuple((column.name, column.type == "Decimal") for column in fields(kind) if column.name != "rendered")


_FIELDS = {kind: _names(kind) for kind in (BrokerOrder, BrokerPosition, BrokerDeal)}


def dump(row: BrokerOrder | BrokerPosition | BrokerDeal) -> str:
    """Return a row as text for the store."""
    return json.dumps([str(getattr(row, name)) if money else getattr(row, name) for name, money in _FIELDS[type(row)]])


def load(kind: type[Row], text: str) -> Row:
    """Return the row that ``dump`` wrote."""
    pairs = zip(json.loads(text), _FIELDS[kind], strict=True)
    values: list[Any] = [Decimal(value) if money else value for value, (_, money) in pairs]
    return kind(*values)


class LaggingTable(Generic[R]):
    """Rows by ticket. ``live`` is the server's truth; ``seen`` is what a terminal with a visibility lag is shown."""

    def __init__(self) -> None:
        """An empty table without lag."""
        self.live: dict[int, R] = {}
        self._before: dict[int, list[tuple[int, R | None]]] = {}

    def put(self, ticket: int, row: R) -> None:
        """Add a row or confirms a changed one."""
        self.live[ticket] = row

    def remove(self, ticket: int) -> R | None:
        """Take a row away."""
        return self.live.pop(ticket, None)

    def keep_before(self, ticket: int, until_ms: int) -> None:
        """Until then, terminals see this row as it is now: call it before a change, if there is a lag."""
        row = self.live.get(ticket)
        self._before.setdefault(ticket, []).append((until_ms, copy.copy(row)))

    def seen(self, now_ms: int) -> Iterator[tuple[int, R]]:
        """Return tickets and rows as a terminal is shown them at this time."""
        if not self._before:
            return iter(self.live.items())
        return self._seen(now_ms)

    def seen_row(self, ticket: int, now_ms: int) -> R | None:
        """Return one row as a terminal is shown it."""
        if self._before and (past := self._past(ticket, now_ms)) is not None:
            return past[1]
        return self.live.get(ticket)

    def lagging(self) -> bool:
        """Return whether some row may still be shown as it was."""
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


class HistoryTable(LaggingTable[R]):
    """A table that only grows, and is asked for by time or by position."""

    def __init__(self) -> None:
        """An empty history."""
        super().__init__()
        self._times: list[int] = []
        self._tickets: list[int] = []
        self._of_position: dict[int, list[int]] = {}

    def add(self, ticket: int, row: R, time_ms: int, position_id: int) -> None:
        """Add a row; where a clock went back, among the rows of its time."""
        self.put(ticket, row)
        place = bisect_right(self._times, time_ms)
        self._times.insert(place, time_ms)
        self._tickets.insert(place, ticket)
        self._of_position.setdefault(position_id, []).append(ticket)

    def between(self, from_ms: int, to_ms: int, now_ms: int) -> list[R]:
        """Return the visible rows of a span of server time, both ends included."""
        span = self._tickets[bisect_left(self._times, from_ms) : bisect_right(self._times, to_ms)]
        return self._visible(span, now_ms)

    def of_position(self, position_id: int, now_ms: int) -> list[R]:
        """Return the visible rows of one position."""
        return self._visible(self._of_position.get(position_id, []), now_ms)

    def _visible(self, tickets: list[int], now_ms: int) -> list[R]:
        if not self.lagging():
            return [self.live[ticket] for ticket in tickets]
        rows = (self.seen_row(ticket, now_ms) for ticket in tickets)
        return [row for row in rows if row is not None]
