"""What the archive comes to, by the domain's own fold, for an archive of any length.

What is folded lies on disk, in a private file of SQLite's that ends with the process; of an account's orders those that
changed last are in memory. A commit counts once, whatever order its copies come in.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from streamapp.audit.evidence import (
    DecisionView,
    View,
    decision_view,
    folded_fill,
    folded_order,
    folded_position,
    operation_view,
)
from streamapp.domain import facts as f
from streamapp.domain.facts import AccountOperation, Fact
from streamapp.domain.fold import apply, content_digest, deal_of
from streamapp.domain.identifiers import fill_id_for
from streamapp.domain.orders import Deal, OrderState, replaced
from streamapp.domain.positions import PositionState, fold_deals
from streamapp.errors import Unusable
from streamapp.messages.commit import CommitMessage

Kind = Literal["order", "fill", "position", "operation", "decision"]
FaultKind = Literal["unreadable", "missing", "two_contents", "conflict"]
"""A record that is no commit/1; a commit that is not there; one that is there with two contents; such a fact."""
Key = tuple[str | int, ...]
"""What a kind's things are known by, and sorted by: see :data:`KEYS`."""

KEYS: dict[Kind, tuple[str, ...]] = {
    "order": ("order_id", "account"),
    "fill": ("account", "fill_id"),
    "position": ("account", "position_id"),
    "operation": ("account", "deal"),
    "decision": ("account", "signal_id", "stream_seq"),
}


class ArchiveEntry(NamedTuple):
    """One thing as the archive has it, and the number of the commit that changed it last (0: no account's).

    ``at``: when an order's last fact was, None for anything else.
    """

    key: Key
    view: View
    commit: int
    at: datetime | None = None


@dataclass(frozen=True)
class ArchiveFault:
    """What is wrong with the archive itself. ``commit`` is None where a record can't be read."""

    account: str
    commit: int | None
    detail: str
    kind: FaultKind

    def __str__(self) -> str:
        """Return it as one line."""
        number = "a record" if self.commit is None else f"commit {self.commit}"
        return f"{number} of {self.account or 'no account'}: {self.detail}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_IN_MEMORY = 4096
_AT_ONCE = 1000
"""Deals of a position that are folded together: a netting account has all of a symbol's in one."""
_ORDER: TypeAdapter[OrderState] = TypeAdapter(OrderState)
_DEAL: TypeAdapter[Deal] = TypeAdapter(Deal)
_TABLES = """
PRAGMA journal_mode = OFF;
CREATE TABLE commits (account, number INTEGER, digest, place, PRIMARY KEY (account, number)) WITHOUT ROWID;
CREATE TABLE facts (account, fact_id, digest, number INTEGER, PRIMARY KEY (account, fact_id)) WITHOUT ROWID;
CREATE TABLE orders (order_id, account, body, number INTEGER, PRIMARY KEY (order_id, account));
CREATE TABLE fills (account, fill_id, order_id, position_id INTEGER, at INTEGER, deal INTEGER, body, number INTEGER,
    PRIMARY KEY (account, fill_id));
CREATE INDEX fills_of_position ON fills (account, position_id, at, deal);
CREATE TABLE operations (account, deal INTEGER, position_id INTEGER, body, number INTEGER,
    PRIMARY KEY (account, deal));
CREATE INDEX operations_of_position ON operations (account, position_id);
CREATE TABLE decisions (account, signal_id, stream_seq INTEGER, decision, reason, order_id, number INTEGER,
    PRIMARY KEY (account, signal_id, stream_seq)) WITHOUT ROWID;
CREATE TABLE faults (account, number INTEGER, detail, kind);
"""


class ArchiveFold:
    """The fold; records are given in the order in which they stand."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.executescript(_TABLES)
        self._states: OrderedDict[Key, tuple[OrderState, int]] = OrderedDict()
        self.records = 0

    def close(self) -> None:
        """Drop it."""
        self._db.close()

    # --- in

    def take(self, payload: bytes, place: str) -> CommitMessage | None:
        """Add a record of the archive that stands at ``place``; a copy of one that was taken changes nothing.

        Returns:
            What counts: None for a copy, and for a record that can't be read.
        """
        self.records += 1
        try:
            commit = CommitMessage.decode(payload)
        except Unusable as error:
            self._blame("", None, f"{place}: expected commit/1, got what is {error}", "unreadable")
            return None
        if commit.number and not self._is_first(commit, payload, place):
            return None
        for fact in commit.facts:
            self._add(fact, commit.number)
        for each in commit.messages:
            if each.message.get("schema") == "signal/1":
                self._decided(each.message, commit.number)
        return commit

    def _is_first(self, commit: CommitMessage, payload: bytes, place: str) -> bool:
        account, number, digest = commit.account, commit.number, hashlib.sha256(payload).digest()
        if self._run("INSERT OR IGNORE INTO commits VALUES (?, ?, ?, ?)", account, number, digest, place).rowcount:
            return True
        known, first = self._run(
            "SELECT digest, place FROM commits WHERE (account, number) = (?, ?)", account, number
        ).fetchone()
        if known != digest:
            detail = f"there with two contents, at {first} and at {place}: the first one counts"
            self._blame(account, number, detail, "two_contents")
        return False

    def _add(self, fact: Fact, number: int) -> None:
        account, fact_id, digest = fact.account, fact.fact_id, content_digest(fact.body)
        if not self._run("INSERT OR IGNORE INTO facts VALUES (?, ?, ?, ?)", account, fact_id, digest, number).rowcount:
            known, first = self._run(
                "SELECT digest, number FROM facts WHERE (account, fact_id) = (?, ?)", account, fact_id
            ).fetchone()
            if known != digest:
                detail = f"fact {fact_id} has another content than in commit {first}, which counts"
                self._blame(account, number, detail, "conflict")
            return
        if fact.order_id is not None:
            key = (fact.order_id, fact.account)
            self._keep(key, apply(self._state(key), fact), number)
        if isinstance(fact.body, f.Filled | f.FillCorrected | f.FillBusted):
            self._add_deal(fact, number)
        elif isinstance(fact.body, AccountOperation):
            self._add_operation(account, fact.body, number)

    def _state(self, key: Key) -> OrderState:
        if (known := self._states.pop(key, None)) is not None:
            return known[0]
        row = self._run("SELECT body FROM orders WHERE (order_id, account) = (?, ?)", *key).fetchone()
        return OrderState() if row is None else _ORDER.validate_json(row[0])

    def _keep(self, key: Key, state: OrderState, number: int) -> None:
        self._states[key] = (state, number)
        if len(self._states) > _IN_MEMORY:
            self._write(*self._states.popitem(last=False))

    def _write(self, key: Key, known: tuple[OrderState, int]) -> None:
        state, number = known
        self._run("INSERT OR REPLACE INTO orders VALUES (?, ?, ?, ?)", *key, _ORDER.dump_json(state), number)

    def _add_deal(self, fact: Fact, number: int) -> None:
        deal, said = deal_of(fact)
        if isinstance(fact.body, f.FillBusted) and fact.body.was is not None:
            said = replaced(said, filled=fact.body.was)  # of no revision: whatever was seen of the deal is newer
        place = (fact.account, fill_id_for(fact.account, deal))
        row = self._run("SELECT body FROM fills WHERE (account, fill_id) = (?, ?)", *place).fetchone()
        known = said if row is None else _DEAL.validate_json(row[0]).merged(said)
        # A deal that nobody saw before it was taken back moves no position.
        position_id = known.filled.position_id if known.filled is not None and known.revision >= 0 else 0
        at = 0 if known.filled is None else (known.filled.time - _EPOCH) // timedelta(microseconds=1)
        values = (*place, fact.order_id, position_id, at, deal, _DEAL.dump_json(known), number)
        self._run("INSERT OR REPLACE INTO fills VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)

    def _add_operation(self, account: str, said: AccountOperation, number: int) -> None:
        row = self._run("SELECT body FROM operations WHERE (account, deal) = (?, ?)", account, said.deal).fetchone()
        if row is None or said.revision > AccountOperation.model_validate_json(row[0]).revision:
            values = (account, said.deal, said.position_id or 0, said.model_dump_json(), number)
            self._run("INSERT OR REPLACE INTO operations VALUES (?, ?, ?, ?, ?)", *values)

    def _decided(self, said: dict[str, Any], number: int) -> None:
        values = (*astuple(decision_view(said)), number)
        self._run("INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)", *values)

    def _blame(self, account: str, number: int | None, detail: str, kind: FaultKind) -> None:
        self._run("INSERT INTO faults VALUES (?, ?, ?, ?)", account, number, detail, kind)

    # --- out

    def entries(self, kind: Kind) -> Iterator[ArchiveEntry]:
        """Yield everything of a kind, sorted by key.

        An order is there from its OrderCreated on: before that nobody is told of it.
        """
        return self._entries(kind, "", ())

    def entry(self, kind: Kind, key: Key) -> ArchiveEntry | None:
        """Return one thing, None if the archive does not have it."""
        names = KEYS[kind]
        return next(self._entries(kind, f"WHERE {_columns(names)} = ({', '.join('?' * len(names))})", key), None)

    def commits(self) -> dict[str, int]:
        """Return how many commits each account has."""
        return dict(self._run("SELECT account, count(*) FROM commits GROUP BY account ORDER BY account"))

    def faults(self) -> Iterator[ArchiveFault]:
        """Yield what is wrong with the archive itself: commits that are missing, or that contradict an earlier one."""
        gaps = (
            "SELECT account, number, before FROM (SELECT account, number, lag(number, 1, 0)"
            " OVER (PARTITION BY account ORDER BY number) AS before FROM commits) WHERE number != before + 1"
        )
        for account, number, before in self._run(gaps):
            missing = f"{before + 1}" if number == before + 2 else f"{before + 1} to {number - 1}"
            detail = f"missing: expected commit {missing}, got {number} after {before}"
            yield ArchiveFault(account, before + 1, detail, "missing")
        for row in self._run("SELECT account, number, detail, kind FROM faults ORDER BY rowid"):
            yield ArchiveFault(*row)

    def _entries(self, kind: Kind, where: str, key: Key) -> Iterator[ArchiveEntry]:
        self._flush()
        match kind:
            case "order":
                return self._orders(where, key)
            case "fill":
                return self._fills(where, key)
            case "position":
                return self._positions(where, key)
            case "operation":
                return self._operations(where, key)
            case "decision":
                return self._decisions(where, key)

    def _flush(self) -> None:
        while self._states:
            self._write(*self._states.popitem())

    def _orders(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        for order_id, account, body, number in self._run(
            f"SELECT order_id, account, body, number FROM orders {where} ORDER BY order_id, account", *key
        ):
            state = _ORDER.validate_json(body)
            if state.created is not None:
                view = folded_order(order_id, account, state)
                yield ArchiveEntry((order_id, account), view, number, state.latest_at)

    def _fills(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        for account, fill_id, order_id, body, number in self._run(
            f"SELECT account, fill_id, order_id, body, number FROM fills {where} ORDER BY account, fill_id", *key
        ):
            view = folded_fill(fill_id, order_id, _DEAL.validate_json(body))
            if view is not None:
                yield ArchiveEntry((account, fill_id), view, number)

    def _positions(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        for account, position_id, traded in self._run(
            "SELECT account, position_id, last FROM (SELECT account, position_id, max(number) AS last FROM fills"
            f" WHERE position_id != 0 GROUP BY account, position_id) {where} ORDER BY account, position_id",
            *key,
        ):
            state, charged = self._position(account, position_id)
            yield ArchiveEntry(
                (account, position_id), folded_position(account, position_id, state), max(traded, charged)
            )

    def _position(self, account: str, position_id: int) -> tuple[PositionState, int]:
        place, state = (account, position_id), PositionState()
        rows = self._run("SELECT body FROM fills WHERE (account, position_id) = (?, ?) ORDER BY at, deal", *place)
        while several := rows.fetchmany(_AT_ONCE):
            state = fold_deals((_DEAL.validate_json(body) for (body,) in several), state)
        charges = self._run(
            "SELECT body, number FROM operations WHERE (account, position_id) = (?, ?)", *place
        ).fetchall()
        operations = [AccountOperation.model_validate_json(body) for body, _ in charges]
        return fold_deals((), state, operations), max((number for _, number in charges), default=0)

    def _operations(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        for account, deal, body, number in self._run(
            f"SELECT account, deal, body, number FROM operations {where} ORDER BY account, deal", *key
        ):
            operation = AccountOperation.model_validate_json(body)
            yield ArchiveEntry((account, deal), operation_view(operation.model_dump()), number)

    def _decisions(self, where: str, key: Key) -> Iterator[ArchiveEntry]:
        for row in self._run(f"SELECT * FROM decisions {where} ORDER BY account, signal_id, stream_seq", *key):
            *view, number = row
            yield ArchiveEntry(tuple(view[:3]), DecisionView(*view), number)

    def _run(self, sql: str, *values: object) -> sqlite3.Cursor:
        return self._db.execute(sql, values)


def _columns(names: tuple[str, ...]) -> str:
    return f"({', '.join(names)})"
