"""Which accounts the incomplete signals of the past were given, as rows of completion (design: rebuild).

The archive shows it for what was decided, by the text that came. What was forwarded and not decided yet is on its
topic, with what completion had found.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from streamapp import topics
from streamapp.desk.inputs import COMPLETED, Incoming
from streamapp.errors import Unusable
from streamapp.messages.answer import CopyDecision, CopyMessage
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.dialect import renamed
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import signal_id_of
from streamapp.settings import ExecutionSettings
from tables.bindings import BindingRow, binding_key
from tables.row import Row

RowT = TypeVar("RowT", bound=Row)
_TABLES = "CREATE TABLE copies (signal_id, account, at, body, PRIMARY KEY (signal_id, account)) WITHOUT ROWID;"


class RowsById(Protocol):
    """Rows in the making (:class:`streamapp.audit.rows.Scratch`)."""

    def read(self, of: str, key: bytes, model: type[RowT]) -> RowT | None:
        """Return the row of ``key`` that belongs to an account, or to an id."""
        ...

    def put(self, of: str, key: bytes, row: Row) -> None:
        """Write a row."""
        ...


class BindingFold:
    """Gathers bindings, in any order, and writes them when all is there."""

    def __init__(self, db: sqlite3.Connection, rows: RowsById, execution: ExecutionSettings) -> None:
        self._db = db
        self._db.executescript(_TABLES)
        self._rows = rows
        self._execution = execution

    def take_decision(self, said: DecisionMessage) -> None:
        """Bind a signal that named no account to the one that decided on it, or to none where none was found."""
        if self._names_account(said.payload.encode()):
            return
        if said.account:
            self._bind(said.signal_id, said.account, None, {}, said.at)
        elif said.reason == "unresolved" and self._known(said.signal_id) is None:
            row = BindingRow(
                kind=topics.SIGNALS_APPROVED,
                id=said.signal_id,
                account="",
                detail=said.detail or "",
                bound_at=said.at,
            )
            self._put(row)

    def take_copy(self, message: dict[str, Any]) -> None:
        """Add what an account decided on its copy; its first decision counts."""
        said = CopyMessage.model_validate(message)
        copy = said.copy_
        self._bind(said.signal_id, copy.account, copy.weight, {}, said.at)
        values = (said.signal_id, copy.account, said.at.isoformat(), copy.model_dump_json())
        self._db.execute("INSERT OR IGNORE INTO copies VALUES (?, ?, ?, ?)", values)

    def take_forwarded(self, incoming: Incoming) -> None:
        """Bind a signal on the desk's topic that names no account: completion has found the one it is for."""
        account = incoming.text(topics.ACCOUNT)
        if account is None or self._names_account(incoming.payload):
            return
        signal_id = signal_id_of(renamed(json_object(incoming.payload), self._execution))
        weight = incoming.text(topics.WEIGHT)
        found = json_object(incoming.headers[COMPLETED]) if COMPLETED in incoming.headers else {}
        if signal_id is not None:
            self._bind(signal_id, account, None if weight is None else Decimal(weight), found, incoming.at)

    def finish(self) -> None:
        """Add to the bindings what became of the copies, in the order they were decided."""
        found = self._db.execute("SELECT signal_id, at, body FROM copies ORDER BY signal_id, at, account").fetchall()
        for signal_id, at, body in found:
            row = self._known(signal_id)
            assert row is not None, "a copy binds its signal"
            decision = CopyDecision.model_validate_json(body)
            if decision.account in row.weights:
                self._put(row.with_decision(decision, datetime.fromisoformat(at)))

    def _bind(self, signal_id: str, account: str, weight: Decimal | None, fields: dict[str, Any], at: datetime) -> None:
        row = self._known(signal_id)
        if row is None or not row.is_bound:
            row = BindingRow(kind=topics.SIGNALS_APPROVED, id=signal_id, account="", bound_at=at)
        if weight is not None and not row.account:
            row = row.model_copy(update={"weights": {**row.weights, account: weight}})
        elif not row.is_bound:
            row = row.model_copy(update={"account": account})
        self._put(row.model_copy(update={"fields": row.fields or fields}))

    def _names_account(self, payload: bytes) -> bool:
        """Return whether a signal says whose it is; what can't be read says nothing that binds it."""
        try:
            return renamed(json_object(payload), self._execution).get("account") is not None
        except Unusable:
            return True

    def _known(self, signal_id: str) -> BindingRow | None:
        return self._rows.read(signal_id, binding_key(topics.SIGNALS_APPROVED, signal_id), BindingRow)

    def _put(self, row: BindingRow) -> None:
        self._rows.put(row.id, binding_key(row.kind, row.id), row)
