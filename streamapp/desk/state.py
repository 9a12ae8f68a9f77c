"""A commit in the making: the rows that its inputs need, as they are and as they become, and what it says.

Rows are read once through :class:`Rows`; every later look at them sees what this commit has made of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from streamapp import subjects
from streamapp.desk.effects import Effect
from streamapp.desk.inputs import Snapshot
from streamapp.desk.policy import Policy
from streamapp.domain.day import Cash, TradingDay, day_at
from streamapp.domain.facts import Fact
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.reconciliation import AccountBooks, BookDifference
from streamapp.domain.reports import ReportProgress
from streamapp.domain.vocabulary import FINAL_STATUSES, MarginMode
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.commit import Publication
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.envelope import Message
from tables.accounts import AccountRow, account_key
from tables.breaks import BreakRow, break_key, place_of
from tables.commands import CommandRow, command_key
from tables.orders import OrderRow, order_key
from tables.positions import PositionRow, position_key
from tables.row import Row
from tables.signals import SignalRow, signal_key

RowT = TypeVar("RowT", bound=Row)


class Rows(Protocol):
    """The durable rows of the account's partition."""

    def __call__(self, key: bytes, model: type[RowT], /) -> RowT | None:
        """Return the row of ``key``, None if there is none."""
        ...


class Open(Protocol):
    """What is open at the account, by its durable rows."""

    def orders(self, symbol: str | None) -> frozenset[str]:
        """Return the ids of the orders of a symbol that are not over; of all symbols for None."""
        ...

    def positions(self, symbol: str | None) -> frozenset[int]:
        """Return the ids of the open positions of a symbol; of all symbols for None."""
        ...

    def symbols(self) -> frozenset[str]:
        """Return the symbols that have orders that are not over, or open positions."""
        ...


class NothingOpen(Open):
    """An account without orders and positions."""

    def orders(self, symbol: str | None) -> frozenset[str]:  # noqa: ARG002  the port's
        """See the port."""
        return frozenset()

    def positions(self, symbol: str | None) -> frozenset[int]:  # noqa: ARG002  the port's
        """See the port."""
        return frozenset()

    def symbols(self) -> frozenset[str]:
        """See the port."""
        return frozenset()


@dataclass(frozen=True, slots=True)
class TerminalStatus:
    """What the desk knows of its account's terminal.

    ``ready``: it answers, and its clock agrees with ours. ``reconciled``: the account's books were compared with the
    broker's, so that orders may open.
    """

    ready: bool = False
    epoch: str | None = None
    reconciled: bool = True


@dataclass(frozen=True, slots=True)
class Comparing:
    """What the comparisons of our books with the broker's have come to (:mod:`streamapp.desk.reconciliation`).

    Attributes:
        snapshot: The newest of the account, which may still wait for the reports that it was made after.
        at: When the last one that counted was made, in the journal of ``epoch``, after its report ``seq``.
        theirs: What it showed.
        suspected: Differences that only the last one showed, and since when.
    """

    snapshot: SnapshotMessage | None = None
    at: datetime | None = None
    epoch: str | None = None
    seq: int = 0
    theirs: AccountBooks | None = None
    suspected: tuple[tuple[BookDifference, datetime], ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What the lane remembers of its account beyond the rows; losing it costs a replay and a repeated message.

    ``ahead`` are the reports beyond a gap that are durable, ``state`` is the account as it was published last.
    ``opened``: when orders were opened within the last second, where their number is limited. ``cash`` is the money of
    the last seconds, which the day is judged by. ``recorded`` is the snapshot whose positions were archived last, and
    ``recorded_at`` when all of them were.
    """

    ahead: frozenset[int] = frozenset()
    state: AccountMessage | None = None
    state_at: datetime | None = None
    opened: tuple[datetime, ...] = ()
    cash: tuple[Cash, ...] = ()
    comparing: Comparing = Comparing()
    recorded: SnapshotMessage | None = None
    recorded_at: datetime | None = None


NO_TERMINAL, NO_MEMORY, NOTHING_OPEN = TerminalStatus(), Memory(), NothingOpen()


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, with the key and partition of the record that it keeps."""

    letter: DeadLetter
    key: bytes | None
    partition: int


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a person should look at."""

    name: str
    text: str
    order_id: str | None = None


@dataclass(slots=True)
class Draft:
    """A commit in the making, of one account.

    Attributes:
        facts: What the commit adds to the archive, in order.
        publications: What it says to the world, in order.
        effects: What is asked of the world once it is durable.
        letters: Input that nobody can use.
        away: The rows, as they are stored, that are put away or end with the commit; none of them changes in it.
    """

    account: str
    now: datetime
    policy: Policy
    rows: Rows
    terminal: TerminalStatus = NO_TERMINAL
    memory: Memory = NO_MEMORY
    halting: Mapping[str, str] = field(default_factory=dict)
    open: Open = NOTHING_OPEN
    facts: list[Fact] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    alarms: list[Alarm] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    changed: dict[bytes, Row] = field(default_factory=dict)
    away: dict[bytes, bytes] = field(default_factory=dict)
    progress: ReportProgress | None = None
    snapshot: Snapshot | None = None

    # --- rows

    def signal(self, identifier: str) -> SignalRow | None:
        """Return the decision on a signal, None if there is none yet."""
        return self._get(signal_key(self.account, identifier), SignalRow)

    def order(self, order_id: str) -> OrderRow | None:
        """Return an order, None if nothing is known of it."""
        return self._get(order_key(order_id), OrderRow)

    def position(self, position_id: int) -> PositionRow | None:
        """Return a position, None if nothing is known of it."""
        return self._get(position_key(self.account, position_id), PositionRow)

    def command(self, request_id: str) -> CommandRow | None:
        """Return a command, None if it is not known."""
        return self._get(command_key(self.account, request_id), CommandRow)

    def account_row(self) -> AccountRow:
        """Return the account's row, an empty one where there is none."""
        return self._get(account_key(self.account), AccountRow) or AccountRow(account=self.account)

    def break_at(self, place: str) -> BreakRow | None:
        """Return the last break of a place, None if there never was one."""
        return self._get(break_key(self.account, place), BreakRow)

    def break_of(self, break_id: str) -> BreakRow | None:
        """Return a break by its id, None if it is none of the account's, or its place has had another one since."""
        place = place_of(self.account, break_id)
        row = None if place is None else self.break_at(place)
        return row if row is not None and row.message.break_id == break_id else None

    def order_id(self, name: str) -> str:
        """Return the id of the account's order that is made for ``name``: a signal_id, or what is derived from one."""
        return order_id_for(self.policy.deployment, self.account, name)

    def orders_of(self, symbol: str | None) -> list[OrderRow]:
        """Return the orders of a symbol, or of all, that are not over, by id, as this commit has made them."""
        changed = (row for row in self.changed.values() if isinstance(row, OrderRow))
        ids = self.open.orders(symbol) | {row.order_id for row in changed if symbol in {None, _symbol_of(row)}}
        known = (self.order(order_id) for order_id in sorted(ids))
        return [row for row in known if row is not None and row.state.created and row.status not in FINAL_STATUSES]

    def positions_of(self, symbol: str | None) -> list[PositionRow]:
        """Return the open positions of a symbol, or of all, the oldest ticket first."""
        changed = (row for row in self.changed.values() if isinstance(row, PositionRow))
        ids = self.open.positions(symbol) | {row.position_id for row in changed if symbol in {None, row.state.symbol}}
        known = (self.position(position_id) for position_id in sorted(ids))
        return [row for row in known if row is not None and row.state.net]

    def symbols(self) -> frozenset[str]:
        """Return the symbols that have, or had before this commit, orders that are not over or open positions."""
        orders = (_symbol_of(row) for row in self.changed.values() if isinstance(row, OrderRow))
        held = (row.state.symbol for row in self.changed.values() if isinstance(row, PositionRow))
        return self.open.symbols() | {symbol for symbol in (*orders, *held) if symbol}

    def put_signal(self, identifier: str, row: SignalRow) -> None:
        """Change a decision's row."""
        self.changed[signal_key(self.account, identifier)] = row

    def put_order(self, row: OrderRow) -> None:
        """Change an order's row."""
        self.changed[order_key(row.order_id)] = row

    def put_position(self, row: PositionRow) -> None:
        """Change a position's row."""
        self.changed[position_key(row.account, row.position_id)] = row

    def put_break(self, place: str, row: BreakRow) -> None:
        """Change a break's row."""
        self.changed[break_key(self.account, place)] = row

    def put_command(self, row: CommandRow) -> None:
        """Change a command's row."""
        self.changed[command_key(self.account, row.request.request_id)] = row

    def put_account(self, row: AccountRow) -> None:
        """Change the account's row."""
        self.changed[account_key(row.account)] = row

    def _get(self, key: bytes, model: type[RowT]) -> RowT | None:
        changed = self.changed.get(key)
        if changed is None:
            return self.rows(key, model)
        assert isinstance(changed, model)
        return changed

    @property
    def margin_mode(self) -> MarginMode | None:
        """Whether a symbol has one position or many, as the terminal said last; None: it has not."""
        state = self.memory.state or self.account_row().state
        return None if state is None else state.margin_mode

    @property
    def server_offset_s(self) -> int | None:
        """What the server's clock is ahead of UTC by, as its terminal showed it last; None: it has not yet."""
        row = self.account_row()
        states = (None if self.snapshot is None else self.snapshot.snapshot.state, self.memory.state, row.state)
        known = (state.server_offset_s for state in states if state is not None and state.server_offset_s is not None)
        return next(known, None if row.day is None else row.day.offset_s)

    @property
    def today(self) -> TradingDay:
        """The account's trading day as of now, as it is or would begin; nothing is changed by asking."""
        return day_at(self.account_row().day, self.now, self.server_offset_s)

    @property
    def shown_by_orders(self) -> dict[str, str]:
        """Why orders halt the account, by order_id, with those of this very commit."""
        orders = (row for row in self.changed.values() if isinstance(row, OrderRow))
        shown = {**self.halting, **{row.order_id: row.halt_cause for row in orders}}
        return {order_id: cause for order_id, cause in shown.items() if cause is not None}

    @property
    def halted(self) -> str | None:
        """Why the account opens nothing: its trading state, or what orders show and nobody has lifted; None: it may."""
        row = self.account_row()
        if (refusal := row.trading.refusal) is not None:
            return refusal
        return next((why for name, why in self.shown_by_orders.items() if row.lifted.get(name) != why), None)

    # --- words

    def publish(
        self,
        message: Message,
        *,
        subject: str | None = None,
        id_parts: tuple[object, ...] = (),
        trace: str | None = None,
        not_after: datetime | None = None,
        copy_of: str | None = None,
    ) -> None:
        """Add a message. Without a subject, or where it is not our role's to publish, it is for the archive alone.

        ``copy_of``: completion is told as well; it is the decision on a copy of this signal.

        A connector publishes only fills, errors and what becomes of commands. An execution service leaves the fills to
        the foreign connector that published them itself: a second time they would look like a second fill to whoever
        sums up messages.
        """
        if subject is not None and not self._is_ours(subject):
            subject = None
        name = None if subject is None else subjects.message_id(self.policy.deployment, *id_parts)
        self.publications.append(Publication(message.encode(), subject, name, trace, not_after, copy_of))

    def _is_ours(self, subject: str) -> bool:
        is_fill = subject.startswith(f"{subjects.BROKER_FILL}.")
        if self.policy.role == "connector":
            return is_fill or subject.startswith((f"{subjects.BROKER_ERROR}.", f"{subjects.COMMAND_RESULTS}."))
        return self.policy.role != "execution" or not is_fill

    def bury(self, letter: DeadLetter, key: bytes | None, partition: int) -> None:
        """Add a dead letter."""
        self.letters.append(Letter(letter, key, partition))
        self.counts["dead_letters", letter.source, letter.reason] += 1

    def alarm(self, name: str, text: str, order_id: str | None = None) -> None:
        """Add what a person should look at, and the order that it is about."""
        self.alarms.append(Alarm(name, text, order_id))


def _symbol_of(row: OrderRow) -> str | None:
    return None if row.state.created is None else row.state.created.parameters.symbol


def unusable(error: Unusable) -> str:
    """Return what is told to whoever sent what can't be used."""
    return f"{error.reason}: {error.detail}"
