"""From records to rows: pure, and the same whenever the record is redelivered.

A record of the archive is a commit: each of its facts is a row of ``facts``, each of its messages a row of the tables
of its schema. A record of the broker log is a batch of entries, each of them a row; before log/2 it was one entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from streamapp import topics
from streamapp.clickhouse.columns import columns_of, json_text, values_of
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage, AccountOperationMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.command import CommandResultMessage
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.fact import FactMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.history import AccountHistoryMessage, PositionHistoryMessage
from streamapp.messages.log import BrokerLogEntry
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.settings import Role


@dataclass(frozen=True)
class SourceRecord:
    """A Kafka record as the warehouse reads it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes


class Entry(NamedTuple):
    """What rows are made of: a fact or a message of a commit, or a record as a whole.

    Attributes:
        record: Where it stands.
        path: Its place in the record, as ``facts.2``; empty for the record as a whole.
        content: Its parsed JSON, for an entry with a path.
    """

    record: SourceRecord
    path: str = ""
    content: Any = None

    @property
    def payload(self) -> bytes:
        """Its own bytes: of a part of a record, its content written again."""
        return json_text(self.content).encode() if self.path else self.record.value


class TableRow(NamedTuple):
    """One row: the table, its values in the order of :func:`columns`, and what it was made of."""

    table: str
    values: tuple[Any, ...]
    entry: Entry


class Refusal(NamedTuple):
    """An entry that fits no table, and why."""

    entry: Entry
    reason: str
    detail: str


MODELS: dict[str, type[Message]] = {
    "orders": OrderMessage,
    "order_events": OrderMessage,
    "executions": FillMessage,
    "positions": PositionMessage,
    "accounts": AccountMessage,
    "account_operations": AccountOperationMessage,
    "account_history": AccountHistoryMessage,
    "position_history": PositionHistoryMessage,
    "breaks": BreakMessage,
    "commands": CommandResultMessage,
    "signals": DecisionMessage,
    "facts": FactMessage,
    "broker_log": BrokerLogEntry,
}
# Of the messages in a commit. Tables of one schema have the same columns.
_TABLES: dict[str, tuple[str, ...]] = {
    "order/1": ("orders", "order_events"),
    "fill/1": ("executions",),
    "position/1": ("positions",),
    "account/1": ("accounts",),
    "account_operation/1": ("account_operations",),
    "account_history/1": ("account_history",),
    "position_history/1": ("position_history",),
    "break/1": ("breaks",),
    "command_result/1": ("commands",),
    "signal/1": ("signals",),
    "error/1": (),  # what it says is in the facts
    "accepted/1": (),  # and of these in signals
    "refused/1": (),
    "copy/1": (),
    "answer/1": (),
}
_SCHEMAS = {topics.ARCHIVE: ("commit/1",), topics.BROKER_LOG: ("log/2", "log/1")}
PLACE = ("archive_partition", "archive_offset", "commit_number", "commit_place")
# A connector keeps no orders: they are the execution service's, and so are positions, accounts, decisions and facts.
_CONNECTOR_TABLES = frozenset({"executions", "broker_log", "commands"})


class _Part(NamedTuple):
    """An entry, its tables (None: nobody knows its schema), and the values that only its place in the record gives."""

    entry: Entry
    tables: tuple[str, ...] | None
    place: tuple[int, ...] = ()


def rows_of(record: SourceRecord, role: Role) -> tuple[list[TableRow], list[Refusal]]:
    """Return the rows of one record, in the record's order, and what of it can't be one.

    What can't is refused alone: the other facts and messages of its commit have their rows. Messages without a table,
    or with none in this role, are neither.
    """
    rows: list[TableRow] = []
    refusals: list[Refusal] = []
    try:
        parts = _parts(record)
    except Unusable as error:
        return rows, [Refusal(Entry(record), error.reason, error.detail)]
    for part in parts:
        try:
            rows += _rows(part, role)
        except Unusable as error:
            refusals.append(Refusal(part.entry, error.reason, f"{part.entry.path} {error.detail}".strip()))
    return rows, refusals


@cache
def columns(table: str) -> tuple[str, ...]:
    """Return the columns that are written, in the order of a row's values."""
    names = tuple(column.name for column in columns_of(MODELS[table]))
    return (*names, *PLACE) if table == "facts" else names


def row_values(table: str, content: Any, place: Sequence[int] = ()) -> tuple[Any, ...]:
    """Return a row's values, in the order of :func:`columns`.

    Args:
        table: Its table.
        content: The fact or message as parsed JSON, its fractions as floats.
        place: Of a fact, the values of :data:`PLACE`.

    Raises:
        Unusable: As of :func:`streamapp.clickhouse.columns.values_of`.
    """
    found = values_of(MODELS[table], content)
    if table == "facts":
        order_id = columns("facts").index("order_id")
        found[order_id] = found[order_id] or ""  # a sorting key holds no NULL
    return (*found, *place)


def _parts(record: SourceRecord) -> list[_Part]:
    content = json_object(record.value, parse_float=float)
    expected = _SCHEMAS[record.topic]
    if (schema := content.get("schema")) not in expected:
        raise Unusable("unknown_schema", f"expected {expected[0]} in {record.topic}, got {schema!r:.80}")
    if schema == "log/1":
        return [_Part(Entry(record, content=content), ("broker_log",))]
    if schema == "log/2":
        return _log_entries(record, content.get("entries"))
    number, facts, messages = content.get("number"), content.get("facts", []), content.get("messages", [])
    if not (type(number) is int and isinstance(facts, list) and isinstance(messages, list)):
        raise Unusable("invalid", "expected an integer number and lists of facts and messages")
    place = (record.partition, record.offset, number)
    return [
        *(_Part(Entry(record, f"facts.{n}", fact), ("facts",), (*place, n)) for n, fact in enumerate(facts)),
        *(_message(Entry(record, f"messages.{n}", each)) for n, each in enumerate(messages)),
    ]


def _log_entries(record: SourceRecord, entries: Any) -> list[_Part]:
    if not isinstance(entries, list):
        raise Unusable("invalid", "expected a list of entries")
    return [_Part(Entry(record, f"entries.{n}", entry), ("broker_log",)) for n, entry in enumerate(entries)]


def _message(archived: Entry) -> _Part:
    message = archived.content.get("message") if isinstance(archived.content, dict) else None
    schema = message.get("schema") if isinstance(message, dict) else None
    if not isinstance(schema, str) or schema not in _TABLES:
        return _Part(archived, None)
    return _Part(archived._replace(content=message), _TABLES[schema])


def _rows(part: _Part, role: Role) -> list[TableRow]:
    if part.tables is None:
        raise Unusable("unknown_schema", f"expected a message of {', '.join(_TABLES)}, got another")
    tables = [table for table in part.tables if role != "connector" or table in _CONNECTOR_TABLES]
    if not tables:
        return []
    made = row_values(tables[0], part.entry.content, part.place)
    return [TableRow(table, made, part.entry) for table in tables]
