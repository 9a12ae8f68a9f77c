"""What the archive and the broker log come to, row by row, for an archive of any length.

The rows are those of the ClickHouse tables (:mod:`streamapp.clickhouse.rows`), and of two rows the same one stays as
there, under ``FINAL``. Each has a day for life: the UTC day of what was said of it first. An order that is filled, or a
deal that the broker corrects, on a later day is changed where it stands, so that it is never on two days.

What was read lies on disk, in a private file of SQLite's.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from streamapp.clickhouse.rows import PLACE, SourceRecord, TableRow, columns, row_values, rows_of
from streamapp.domain.vocabulary import LARGEST_INTEGER


class Kind(NamedTuple):
    """A kind of rows, as its ClickHouse table is made.

    Attributes:
        key: The columns that a row is known by: the table's sorting key.
        time: The column by which a row has its day.
        version: Of two rows the one in which this is higher stays; None: they are the same.
    """

    key: tuple[str, ...]
    time: str = "at"
    version: str | None = None


KINDS = {
    "orders": Kind(("order_id", "account"), "signal_at", "rev"),
    "order_events": Kind(("order_id", "account", "rev"), "updated_at"),
    "executions": Kind(("account", "fill_id"), version="revision"),
    "positions": Kind(("account", "symbol", "position_id"), version="rev"),
    "accounts": Kind(("account",), version="at"),
    "account_operations": Kind(("account", "deal"), version="revision"),
    "account_history": Kind(("account", "at")),
    "position_history": Kind(("account", "position_id", "at")),
    "breaks": Kind(("account", "break_id"), version="revision"),
    "commands": Kind(("request_id", "stream_seq"), version="revision"),
    "signals": Kind(("account", "signal_id", "stream_seq")),
    "facts": Kind(("order_id", "account", "fact_id")),
    "broker_log": Kind(("account", "epoch", "seq")),
}
# What one id has but one content of: another one is a fault (docs/operations.md, "conflict"), and the first counts.
_CONTENT_OF: dict[str, Callable[[Any], Any]] = {"facts": lambda said: said["body"], "broker_log": lambda said: said}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JSON = json.JSONDecoder()
_TABLES = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE rows (kind, key, version INTEGER, day, at INTEGER, raw, place, PRIMARY KEY (kind, key));
"""
_BY_DAY = "CREATE INDEX IF NOT EXISTS rows_by_day ON rows (kind, day, at, key) WHERE raw IS NOT NULL"


class Day(NamedTuple):
    """The rows of a kind that one file has."""

    kind: str
    day: date
    rows: int


class RowHistory:
    """The rows of some days; records are given in the order in which they stand.

    Args:
        path: The file to keep them in.
        first: The first day; None: from the beginning.
        last: The last one, None: to the end.
    """

    def __init__(self, path: Path, first: date | None = None, last: date | None = None) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript(_TABLES)
        self.first, self.last = first or date.min, last or date.max

    def close(self) -> None:
        """Close the file; it is of no more use."""
        self._db.close()

    def add(self, record: SourceRecord) -> list[str]:
        """Add the rows of a record; one that came before, in this record's place or another, changes nothing.

        Returns:
            What of it can be no row, and why; empty if nothing is wrong.
        """
        # Of a connector as well: no table is shared with an execution service here.
        rows, refusals = rows_of(record, "both")
        faults = [f"{each.reason}: {each.detail}" for each in refusals]
        texts = texts_of(record.value.decode("utf-8-sig")) if rows else {}
        return faults + [fault for row in rows if (fault := self._add(row, texts[row.entry.path])) is not None]

    def _add(self, row: TableRow, raw: str) -> str | None:
        kind, content = KINDS[row.table], dict(zip(columns(row.table), row.values, strict=True))
        where = f"{row.entry.path} {row.table}".strip()
        if large := [name for name, value in content.items() if type(value) is int and abs(value) > LARGEST_INTEGER]:
            return f"out_of_range: {where}: {large[0]}: expected at most {LARGEST_INTEGER}"
        key = json.dumps([content[name] for name in kind.key], ensure_ascii=False, default=_number)
        version = 0 if kind.version is None else _number(content[kind.version])
        at = content[kind.time]
        is_wanted = self.first <= at.date() <= self.last
        values = (row.table, key, version, at.date().isoformat(), _number(at), raw if is_wanted else None)
        place = json.dumps([content[name] for name in PLACE]) if row.table == "facts" else None
        added = self._db.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, place))
        return None if added.rowcount else self._repeat(row.table, key, version, raw, where)

    def _repeat(self, kind: str, key: str, version: int, raw: str, where: str) -> str | None:
        """Replace the row that is there by a later one; its day, and on a day that is not wanted its absence, stays."""
        known, there = self._db.execute(
            "SELECT version, raw FROM rows WHERE (kind, key) = (?, ?)", (kind, key)
        ).fetchone()
        if there is None or version < known or (version == known and raw == there):
            return None
        if kind in _CONTENT_OF:
            content = _CONTENT_OF[kind]
            is_same = content(json.loads(raw)) == content(json.loads(there))
            return None if is_same else f"two_contents: {where} {key}: it has another content before, which counts"
        self._db.execute("UPDATE rows SET version = ?, raw = ? WHERE (kind, key) = (?, ?)", (version, raw, kind, key))
        return None

    def days(self) -> list[Day]:
        """Return what there is to write, by kind and day."""
        self._db.execute(_BY_DAY)
        found = self._db.execute(
            "SELECT kind, day, count(*) FROM rows WHERE raw IS NOT NULL GROUP BY kind, day ORDER BY kind, day"
        )
        return [Day(kind, date.fromisoformat(day), count) for kind, day, count in found]

    def rows(self, kind: str, day: date) -> Iterator[tuple[Any, ...]]:
        """Yield a day's rows, by time and key: the values of :func:`columns`, and the message's own text."""
        found = self._db.execute(
            "SELECT raw, place FROM rows WHERE (kind, day) = (?, ?) AND raw IS NOT NULL ORDER BY at, key",
            (kind, day.isoformat()),
        )
        for raw, place in found:
            yield (*row_values(kind, json.loads(raw), json.loads(place or "[]")), raw)


def texts_of(record: str) -> dict[str, str]:
    """Return the text of each fact, message and log entry of a record as it stands there, by its path in the record.

    Args:
        record: JSON that :func:`rows_of` has read.
    """
    start = record.index("{")
    found = {"": record[start:].rstrip()}
    for name, at, _ in _members(record, start):
        if name in {"facts", "messages", "entries"} and record[at] == "[":
            for number, (_, begin, end) in enumerate(_members(record, at)):
                inner = _members(record, begin) if name == "messages" and record[begin] == "{" else ()
                place = next((slice(*ends) for field, *ends in inner if field == "message"), slice(begin, end))
                found[f"{name}.{number}"] = record[place]
    return found


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Yield the name (of an object's), the start and the end of each value of the object or array that begins there."""
    is_object, at = text[at] == "{", _next(text, at + 1)
    while text[at] not in "]}":
        name = ""
        if is_object:
            name, at = _JSON.raw_decode(text, at)
            at = _next(text, _next(text, at) + 1)
        _, end = _JSON.raw_decode(text, at)
        yield name, at, end
        at = _next(text, end)
        if text[at] == ",":
            at = _next(text, at + 1)


def _next(text: str, at: int) -> int:
    """Return where the next thing begins that is no space."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def _number(value: Any) -> int:
    """Return a version or a time as an integer: of a time its microseconds since 1970."""
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else int(value)
