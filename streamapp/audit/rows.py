"""The rows of the desk as the archive alone makes them (design: rebuild).

Facts become orders and positions by the desk's own projection, decisions become the rows of their signals. What the
archive does not say is decided here so that nothing is sent twice: an exit that was under way is over, an account opens
nothing until a person has looked, and its reports count as durable no further than their facts are here.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from typing import Any, TypeVar

from pydantic import ValidationError

from streamapp.audit.archive import ArchiveEntry, ArchiveFold, Key
from streamapp.audit.bindings import BindingFold
from streamapp.audit.evidence import OrderView, PositionView, folded_order, folded_position
from streamapp.desk.policy import Policy
from streamapp.desk.projection import add_fact
from streamapp.desk.state import Draft, Rows
from streamapp.domain.facts import Fact, OrderCreated, SubmitClaimed
from streamapp.domain.identifiers import partition_of
from streamapp.domain.reports import ReportProgress
from streamapp.domain.signals import Verdict, fingerprint_of
from streamapp.domain.trading import TRADING, TradingState
from streamapp.messages.account import AccountMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.command import CommandContent, CommandRequest, CommandResultMessage, is_command
from streamapp.messages.commit import CommitMessage
from streamapp.messages.decision import DecisionMessage
from tables.accounts import AccountRow, RebuildNote, account_key
from tables.breaks import BreakRow, break_key, place_of
from tables.cache import RowCache
from tables.commands import CommandRow, command_key
from tables.orders import HANDED_OVER, OrderRow, order_key
from tables.positions import PositionRow, position_key
from tables.row import OVER, Row
from tables.signals import SignalRow, signal_key
from tables.store import KeyValue

RowT = TypeVar("RowT", bound=Row)

KINDS = {
    b"a/": "accounts",
    b"b/": "bindings",
    b"c/": "commands",
    b"d/": "breaks",
    b"o/": "orders",
    b"p/": "positions",
    b"s/": "signals",
}
UNKNOWN = "rebuilt"
"""The reason of a decision that the archive does not have, and the fingerprint of a signal that nobody has any more:
whoever sends it again is told that it conflicts."""
NO_REPORTS = ReportProgress("")
_UNFINISHED = (
    "the store was lost before it was decided, and rebuilt from the archive: the orders that it had made stand, and no "
    "more are made for it"
)
_ENDED = (
    "the store was lost while it was under way, and rebuilt from the archive: give it again under another request_id"
)
_TABLES = """
CREATE TABLE rows (partition INTEGER, key BLOB, value BLOB, PRIMARY KEY (partition, key)) WITHOUT ROWID;
CREATE TABLE made (account, signal_id, order_id, at, is_exit INTEGER, PRIMARY KEY (account, signal_id, order_id));
"""


@dataclass(frozen=True, slots=True)
class RebuiltAccount:
    """What is known of an account when the whole archive was read; ``journal`` was the last to be spoken of."""

    progress: ReportProgress = NO_REPORTS
    state: AccountMessage | None = None
    journal: str = ""


class Scratch:
    """Rows in SQLite's hands while they are being made, the ones used last decoded."""

    def __init__(self, db: sqlite3.Connection, partitions: int) -> None:
        self._db = db
        self._cache = RowCache(self)
        self.partitions = partitions

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        """Return a row as it is stored, None if there is none."""
        found = self._db.execute("SELECT value FROM rows WHERE (partition, key) = (?, ?)", (partition, key)).fetchone()
        return None if found is None else bytes(found[0])

    def read(self, of: str, key: bytes, model: type[RowT]) -> RowT | None:
        """Return the row of ``key`` that belongs to an account, or to an id."""
        return self._cache.read(key, model, partition_of(of, self.partitions))

    def put(self, of: str, key: bytes, row: Row) -> None:
        """Write a row."""
        partition = partition_of(of, self.partitions)
        self._db.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (partition, key, row.encode()))
        self._cache.put(partition, key, row)

    def rows(self, partition: int) -> Iterator[KeyValue]:
        """Yield the rows of a partition, by key."""
        found = self._db.execute("SELECT key, value FROM rows WHERE partition = ? ORDER BY key", (partition,))
        return ((bytes(key), bytes(value)) for key, value in found)

    def counts(self) -> dict[str, int]:
        """Return the number of rows of each kind."""
        found = self._db.execute("SELECT substr(key, 1, 2), count(*) FROM rows GROUP BY 1 ORDER BY 1")
        return {KINDS[bytes(prefix)]: count for prefix, count in found}


class RowFold(ArchiveFold):
    """The archive's fold, and beside it the rows: its orders and positions are those of the rows.

    Args:
        policy: Of the deployment whose archive it is.
        until: Later commits make no rows; their numbers are taken all the same.
    """

    def __init__(self, policy: Policy, *, until: datetime | None = None) -> None:
        super().__init__()
        self._db.executescript(_TABLES)
        self._policy = policy
        self._until = until
        self._accounts: dict[str, RebuiltAccount] = {}
        self._under_way: dict[tuple[str, str], bool] = {}
        self._breaks: dict[str, dict[str, None]] = {}
        self.scratch = Scratch(self._db, policy.partitions)
        self.bindings = BindingFold(self._db, self.scratch, policy.execution)
        self.left_out = 0

    # --- in

    def take(self, payload: bytes, place: str) -> CommitMessage | None:
        """See :class:`ArchiveFold`."""
        commit = super().take(payload, place)
        if commit is not None and self._until is not None and commit.at > self._until:
            self.left_out += 1
        elif commit is not None:
            try:
                self._make_rows(commit)
            except ValidationError as error:
                detail = f"{place}: a message of it is none that this version can read: {error.errors()[0]['msg']}"
                self._blame(commit.account, commit.number, detail, "unreadable")
        return commit

    def _make_rows(self, commit: CommitMessage) -> None:
        account = commit.account
        if account and commit.number:
            draft = Draft(account, commit.at, self._policy, self._rows_of(account))
            for fact in commit.facts:
                self._project(draft, Fact.model_construct(**{name: getattr(fact, name) for name in Fact.model_fields}))
            for key, row in draft.changed.items():
                self.scratch.put(account, key, row)
            self._accounts.setdefault(account, RebuiltAccount())
        for archived in commit.messages:
            match str(archived.message.get("schema")).partition("/")[0]:  # another version is refused by its model
                case "signal":
                    self._take_decision(commit, DecisionMessage.model_validate(archived.message))
                case "account":
                    self._take_state(AccountMessage.model_validate(archived.message))
                case "command_result":
                    self._take_command(CommandResultMessage.model_validate(archived.message))
                case "break":
                    self._take_break(BreakMessage.model_validate(archived.message))
                case "copy":
                    self.bindings.take_copy(archived.message)

    def _rows_of(self, account: str) -> Rows:
        def rows(key: bytes, model: type[RowT]) -> RowT | None:
            return self.scratch.read(account, key, model)

        return rows

    def _project(self, draft: Draft, fact: Fact) -> None:
        epoch, is_current = self._count_report(fact)
        add_fact(draft, fact, journal_epoch=epoch if is_current else None)
        if isinstance(fact.body, SubmitClaimed) and fact.body.epoch != HANDED_OVER:
            self._know(fact.account, journal=fact.body.epoch)
        elif isinstance(fact.body, OrderCreated):
            # An order of a signal names its message as its cause, one of an exit its signal alone (desk/exits.py).
            cause, signal_id = fact.causation_id or "", fact.body.signal_id
            if cause.startswith("signal:"):
                values = (fact.account, signal_id, fact.order_id, fact.at.isoformat())
                is_exit = cause == f"signal:{fact.account}:{signal_id}"
                self._run("INSERT OR IGNORE INTO made VALUES (?, ?, ?, ?, ?)", *values, is_exit)

    def _count_report(self, fact: Fact) -> tuple[str | None, bool]:
        """Return the epoch of the journal that reported a fact, None if none did, and whether it was not over then."""
        place = (fact.causation_id or "").removeprefix(f"report:{fact.account}:")
        epoch, _, number = place.rpartition(":")
        if place == fact.causation_id or not epoch or not number.isdecimal():
            return None, False
        progress = self._seen(fact.account, epoch)
        # In their order only: of what was reported beyond a gap nobody knows whether the gap was closed.
        if progress.epoch == epoch and int(number) == progress.watermark + 1:
            self._know(fact.account, progress=progress.seen(epoch, int(number)))
        return epoch, progress.epoch == epoch

    def _seen(self, account: str, epoch: str) -> ReportProgress:
        """Return the progress when a journal of this epoch was met: the one before it is over."""
        known = self._accounts.get(account, RebuiltAccount()).progress
        progress = known.seen(epoch, 0) if known.epoch else ReportProgress(epoch)
        self._know(account, progress=progress, journal=epoch)
        return progress

    def _know(self, account: str, **changes: Any) -> None:
        self._accounts[account] = replace(self._accounts.get(account, RebuiltAccount()), **changes)

    def _take_state(self, state: AccountMessage) -> None:
        if state.epoch:
            self._seen(state.account, state.epoch)
        known = self._accounts.get(state.account, RebuiltAccount()).state
        if known is None or state.at >= known.at:
            self._know(state.account, state=state)

    def _take_decision(self, commit: CommitMessage, said: DecisionMessage) -> None:
        copied = {each.copy_of for each in commit.messages}
        if said.signal_id and said.signal_id not in copied:
            self.bindings.take_decision(said)
        if not (commit.number and said.account and said.signal_id) or said.decision not in {"accepted", "refused"}:
            return
        known = self._signal(said.account, said.signal_id)
        # A message that nobody could use may have been refused under the id before.
        if known is not None and (known.verdict.decision == "accepted" or said.decision == "refused"):
            return
        readable = said.parameters_hash is not None
        payload_hash = "" if readable else hashlib.sha256(said.payload.encode()).hexdigest()
        row = SignalRow(
            stream_seq=said.stream_seq,
            verdict=Verdict(said.decision, said.reason, said.detail),
            fingerprint=said.parameters_hash or fingerprint_of(None, payload_hash),
            parameters_hash=said.parameters_hash,
            order_id=said.order_id,
            order_ids=self._orders_of(said.account, said.signal_id),
            decided_at=said.at,
        )
        self.scratch.put(said.account, signal_key(said.account, said.signal_id), row)

    def _take_command(self, said: CommandResultMessage) -> None:
        """Keep what a command was answered last; of one that was repeated, under its first message."""
        if not said.account or said.why == "conflict" or not is_command(said.command):
            return
        known = self._command(said.account, said.request_id)
        if known is not None and known.stream_seq != said.stream_seq:
            return
        asked = {name: getattr(said, name) for name in CommandContent.model_fields}
        row = CommandRow(
            name=said.command,
            request=CommandRequest.model_validate({**asked, "request_id": said.request_id, "values": said.asked}),
            stream_seq=said.stream_seq,
            state=said.state,
            revision=said.revision,
            why=said.why,
            detail=said.detail,
            order_ids=said.order_ids,
            made=len(said.order_ids),
            not_after=said.valid_until,
            at=said.at,
        )
        self.scratch.put(said.account, command_key(said.account, said.request_id), row)
        self._under_way[said.account, said.request_id] = said.state == "accepted"

    def _take_break(self, said: BreakMessage) -> None:
        """Keep the last break of each place; a settled one that ended, unsaid, ends with the next comparison."""
        place = place_of(said.account, said.break_id)
        if place is None:
            return
        known = self.scratch.read(said.account, break_key(said.account, place), BreakRow)
        if known is not None and known.message.break_id == said.break_id and known.message.revision > said.revision:
            return  # said again
        stands = said.disposition != "resolved"
        self.scratch.put(said.account, break_key(said.account, place), BreakRow(message=said, stands=stands))
        places = self._breaks.setdefault(said.account, {})
        places.pop(place, None)
        if stands:
            places[place] = None

    def _end_commands(self) -> None:
        """End the commands that were under way: what their terminals were asked meanwhile nobody knows any more."""
        for (account, request_id), is_under_way in self._under_way.items():
            if is_under_way and (row := self._command(account, request_id)) is not None:
                ended = {"state": "failed", "why": UNKNOWN, "detail": _ENDED, "revision": row.revision + 1}
                self.scratch.put(account, command_key(account, request_id), row.model_copy(update=ended))

    def _command(self, account: str, request_id: str) -> CommandRow | None:
        return self.scratch.read(account, command_key(account, request_id), CommandRow)

    def _orders_of(self, account: str, signal_id: str) -> tuple[str, ...]:
        found = self._run(
            "SELECT order_id FROM made WHERE (account, signal_id, is_exit) = (?, ?, 1) ORDER BY rowid",
            account,
            signal_id,
        )
        return tuple(order_id for (order_id,) in found)

    def _signal(self, account: str, signal_id: str) -> SignalRow | None:
        return self.scratch.read(account, signal_key(account, signal_id), SignalRow)

    # --- when all of it was read

    def finish(self, rebuilt_at: datetime, opening: Collection[str] = ()) -> list[tuple[str, str]]:
        """Write what only the whole archive shows, and return the signals whose decision it does not have.

        Args:
            rebuilt_at: Now.
            opening: The accounts that a person says may open orders; the others are halted.
        """
        undecided = self._decide_what_was_not()
        self._end_commands()
        self.bindings.finish()
        for account, number in self.numbers().items():
            known = self._accounts.get(account, RebuiltAccount())
            row = AccountRow(
                account=account,
                number=number,
                epoch=known.progress.epoch,
                watermark=known.progress.watermark,
                earlier=known.progress.earlier,
                state=known.state,
                state_at=None if known.state is None else known.state.at,
                trading=TRADING if account in opening else halted_since(rebuilt_at),
                breaks=tuple(self._breaks.get(account, ())),
                rebuilt=RebuildNote(at=rebuilt_at, epoch=known.journal),
            )
            self.scratch.put(account, account_key(account), row)
        return undecided

    def numbers(self) -> dict[str, int]:
        """Return the number of the last commit of each account, 0 for a configured one that has none."""
        known = dict(self._run("SELECT account, max(number) FROM commits GROUP BY account"))
        return dict(sorted((dict.fromkeys(self._policy.rules.accounts, 0) | known).items()))

    def _decide_what_was_not(self) -> list[tuple[str, str]]:
        found = self._run(
            "SELECT account, signal_id, min(order_id), min(at) FROM made GROUP BY account, signal_id ORDER BY 1, 2"
        ).fetchall()
        undecided = []
        for account, signal_id, order_id, at in found:
            if self._signal(account, signal_id) is None:
                orders = self._orders_of(account, signal_id)
                row = SignalRow(
                    stream_seq=0,
                    verdict=Verdict("refused", UNKNOWN, _UNFINISHED),
                    fingerprint=UNKNOWN,
                    order_id=orders[0] if orders else order_id,
                    order_ids=orders,
                    decided_at=datetime.fromisoformat(at),
                )
                self.scratch.put(account, signal_key(account, signal_id), row)
                undecided.append((account, signal_id))
        return undecided

    # --- out

    def order(self, order_id: str, account: str) -> OrderRow | None:
        """Return an order's row, None if there is none."""
        return self.scratch.read(account, order_key(order_id), OrderRow)

    def standings(self) -> Counter[str]:
        """Return how many orders wait for a terminal, by where they stand."""
        found = self._run("SELECT value FROM rows WHERE key BETWEEN ? AND ?", b"o/", b"o0")
        rows = (OrderRow.decode(bytes(value)) for (value,) in found if not bytes(value).startswith(OVER))
        return Counter(row.standing for row in rows if row.standing in {"held", "unanswered", "handed_over"})

    def _orders(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        return filter(None, map(self._by_rows, super()._orders(where, key)))

    def _positions(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        return filter(None, map(self._by_rows, super()._positions(where, key)))

    def _by_rows(self, entry: ArchiveEntry) -> ArchiveEntry | None:
        """Return an order or a position as its row has it, None if there is no row."""
        view: OrderView | PositionView | None = None
        if isinstance(entry.view, OrderView):
            order = self.order(entry.view.order_id, entry.view.account)
            if order is not None and order.state.created is not None:
                view = folded_order(order.order_id, order.account, order.state)
        elif isinstance(entry.view, PositionView):
            position = self._position_row(entry.view)
            if position is not None:
                view = folded_position(position.account, position.position_id, position.state)
        return None if view is None else entry._replace(view=view)

    def _position_row(self, view: PositionView) -> PositionRow | None:
        return self.scratch.read(view.account, position_key(view.account, view.position_id), PositionRow)

    def contradictions(self) -> Iterator[str]:
        """Yield where the rows don't say what the domain's own fold of the archive says: a fault of ours.

        A deal that was corrected after it was folded away differs, as it does in the desk's rows.
        """
        self._flush()
        for entry in chain(super()._orders("", ()), super()._positions("", ())):
            ours = self._by_rows(entry)
            if ours is not None and ours.view == entry.view:
                continue
            position = self._position_row(entry.view) if isinstance(entry.view, PositionView) else None
            if position is None or not position.missed:
                yield f"rows {None if ours is None else ours.view}, archive {entry.view}"


def halted_since(rebuilt_at: datetime) -> TradingState:
    """Return the trading state of a rebuilt account: what it was before may not be all that a person should look at."""
    cause = "rebuilt from the archive: compare its positions with the broker's first"
    return TradingState(state="halted", cause=cause, by="streamapp", since=rebuilt_at)
