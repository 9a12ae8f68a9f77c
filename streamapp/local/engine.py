"""The ClickHouse engine in this process (chdb), one fresh session a request.

chdb knows one process a path and hangs after a fork: the process that opens it (streamapp.local.clickhouse) is spawned
and never forks.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamapp.errors import Definite

_CODE = re.compile(r"Code: (\d+)\.")
_INSERT_DATA = re.compile(rb"\s*(INSERT\s+INTO\s.*?)\s+FORMAT\s+(\w+)[ \t]*(?:\r?\n|$)", re.IGNORECASE | re.DOTALL)
_INLINE_VALUES = re.compile(rb"\b(SELECT|VALUES)\b", re.IGNORECASE)
_COLUMNS = re.compile(rb"\([^)]*\)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EngineError(Definite):
    """The engine refused a statement; ``code`` is ClickHouse's own number (60 unknown table, 469 failed CHECK)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = _CODE.search(text)
        self.code = int(found.group(1)) if found else 1002  # UNKNOWN_EXCEPTION


@dataclass(frozen=True)
class QueryResult:
    """Result bytes in the format the statement asked for, and what was read or written."""

    body: bytes
    read_rows: int
    written_rows: int


class Engine:
    """The engine over one folder. Thread-safe: each request has a connection, settings and a database of its own."""

    def __init__(self, path: Path) -> None:
        from chdb.state.sqlitelike import connect

        self._connect = connect
        self._path = str(path)
        self._spool = path.parent / "spool"
        self._spool.mkdir(parents=True, exist_ok=True)
        for orphan in self._spool.iterdir():  # of requests in flight at a SIGKILL
            orphan.unlink()
        self._keeper = connect(self._path)  # the engine shuts down with its last connection

    def close(self) -> None:
        """Shut the engine down."""
        self._keeper.close()

    def run(
        self, statement: bytes, database: str, settings: Mapping[str, str], parameters: Mapping[str, str]
    ) -> QueryResult:
        """Run one statement; an INSERT may carry its data after ``FORMAT name`` and a line end.

        Raises:
            EngineError: the engine refused it; nothing was stored.
        """
        connection = self._connect(self._path)
        try:
            if database:
                _ask(connection, f"USE {quoted_name(database)}")
            for name, value in settings.items():
                _ask(connection, f"SET {plain_name(name)} = {quoted(value)}")
            # A column may be called `values`.
            insert = _INSERT_DATA.match(statement)
            if insert and not _INLINE_VALUES.search(_COLUMNS.sub(b"", insert.group(1), count=1)):
                return self._insert(
                    connection, insert.group(1).decode(), insert.group(2).decode(), statement[insert.end() :]
                )
            return _ask(connection, statement.decode(), parameters)
        finally:
            connection.close()

    def _insert(self, connection: Any, insert: str, data_format: str, data: bytes) -> QueryResult:
        # By a file: chdb's streaming insert reports success for rows that a CHECK constraint has refused.
        with tempfile.NamedTemporaryFile(dir=self._spool) as file:
            file.write(data)
            file.flush()
            head, separator, settings = insert.partition(" SETTINGS ")
            return _ask(connection, f"{head} FROM INFILE {quoted(file.name)}{separator}{settings} FORMAT {data_format}")


def quoted(text: str) -> str:
    """Return a SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def quoted_name(name: str) -> str:
    """Return a quoted SQL identifier."""
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def plain_name(name: str) -> str:
    """Return the name of a setting if it is one.

    Raises:
        EngineError: it is not a name; SET would run it as SQL.
    """
    if not _NAME.fullmatch(name):
        raise EngineError(
            f"Code: 115. DB::Exception: Setting {name!r} is neither a builtin setting nor a name. (UNKNOWN_SETTING)"
        )
    return name


def _ask(connection: Any, statement: str, parameters: Mapping[str, str] | None = None) -> QueryResult:
    from chdb import ChdbError

    try:
        result = connection.query(statement, "TabSeparated", params=dict(parameters or {}))
    except (ChdbError, RuntimeError) as error:
        raise EngineError(str(error)) from None
    return QueryResult(result.bytes() or b"", int(result.rows_read()), int(result.rows_written()))
