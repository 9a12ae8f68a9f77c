"""Where the market keeps its state: SQLite in a folder, or nowhere.

Durable against the end of the process (SIGKILL included), not against the loss of power: ``synchronous=OFF``, because
the judge of crash tests must outlive a process, and an fsync an order would make it the slowest part of each test.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows(kind TEXT, account TEXT, ticket INTEGER, body TEXT,
    PRIMARY KEY(kind, account, ticket)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ledger(seq INTEGER PRIMARY KEY, account TEXT, line TEXT);
"""


class MarketStore(Protocol):
    """What the market needs of a store. Writes wait in memory until ``commit``."""

    def put(self, kind: str, account: str, ticket: int, body: str) -> None:
        """Write a row, in place of one with the same key."""

    def delete(self, kind: str, account: str, ticket: int) -> None:
        """Remove a row."""

    def append(self, account: str, line: str) -> None:
        """Add a line of the ledger."""

    def commit(self) -> None:
        """Make all that waits durable, together."""

    def rows(self, kind: str) -> Iterator[tuple[str, int, str]]:
        """Return account, ticket and body of every row of a kind, by account and ticket."""

    def lines(self) -> Iterator[tuple[str, str]]:
        """Return account and line of the whole ledger, in order."""

    def close(self) -> None:
        """Commit and lets go of the files."""


class NoStore:
    """Keeps nothing: a market that begins anew with each start."""

    def put(self, kind: str, account: str, ticket: int, body: str) -> None:
        """Forget."""

    def delete(self, kind: str, account: str, ticket: int) -> None:
        """Forget."""

    def append(self, account: str, line: str) -> None:
        """Forget."""

    def commit(self) -> None:
        """Have nothing to do."""

    def rows(self, kind: str) -> Iterator[tuple[str, int, str]]:  # noqa: ARG002  # the protocol's
        """Nothing was kept."""
        return iter(())

    def lines(self) -> Iterator[tuple[str, str]]:
        """Nothing was kept."""
        return iter(())

    def close(self) -> None:
        """Have nothing to do."""


class SqliteStore:
    """Keeps the state in ``market.sqlite3`` of a folder. One process at a time: a second one is refused."""

    def __init__(self, folder: Path) -> None:
        """Open or creates the file and takes its lock.

        Raises:
            sqlite3.OperationalError: another market is running on this folder.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._base = sqlite3.connect(folder / "market.sqlite3", isolation_level=None, timeout=1)
        for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=OFF"):
            self._base.execute(f"PRAGMA {pragma}")
        self._base.executescript(_SCHEMA)
        self._puts: dict[tuple[str, str, int], str | None] = {}
        self._lines: list[tuple[str, str]] = []

    def put(self, kind: str, account: str, ticket: int, body: str) -> None:
        """Write a row at the next commit."""
        self._puts[kind, account, ticket] = body

    def delete(self, kind: str, account: str, ticket: int) -> None:
        """Remove a row at the next commit."""
        self._puts[kind, account, ticket] = None

    def append(self, account: str, line: str) -> None:
        """Add a line of the ledger at the next commit."""
        self._lines.append((account, line))

    def commit(self) -> None:
        """One transaction for all that waits; nothing when nothing waits."""
        if not self._puts and not self._lines:
            return
        puts, lines, self._puts, self._lines = self._puts, self._lines, {}, []
        execute = self._base.execute
        execute("BEGIN")
        for key, body in puts.items():
            if body is None:
                execute("DELETE FROM rows WHERE kind=? AND account=? AND ticket=?", key)
            else:
                execute("INSERT OR REPLACE INTO rows VALUES(?,?,?,?)", (*key, body))
        self._base.executemany("INSERT INTO ledger(account, line) VALUES(?,?)", lines)
        execute("COMMIT")

    def rows(self, kind: str) -> Iterator[tuple[str, int, str]]:
        """Return account, ticket and body of every row of a kind, by account and ticket."""
        yield from self._base.execute(
            "SELECT account, ticket, body FROM rows WHERE kind=? ORDER BY account, ticket", (kind,)
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """Return account and line of the whole ledger, in order."""
        yield from self._base.execute("SELECT account, line FROM ledger ORDER BY seq")

    def close(self) -> None:
        """Commit and closes."""
        self.commit()
        self._base.close()
