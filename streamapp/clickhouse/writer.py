"""The writer: records in, rows in ClickHouse, whatever happens in between.

One batch goes like this, be it of one partition or of several:

1. Every record becomes its rows; what of it can't is a dead letter, with its reason.
2. The rows of each table are one insert, or several where they are very many.
3. ClickHouse away: the same insert again, for ever, with back-off. Nothing is acked meanwhile, so nothing is lost. An
   insert whose answer was lost is repeated as well, and its rows replace themselves. No deduplication token keeps the
   second one out: the engine remembers a token longer than its rows. Killed at the wrong moment it has the token and
   not the rows, and after rows were deleted it drops what is read from the archive again, each time without a word.
4. An insert that is refused for its content is halved until the bad rows stand alone; those are dead letters, the
   others are stored.

When :meth:`Writer.write` returns, everything is stored or a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from streamapp.clickhouse.rows import Refusal, SourceRecord, TableRow, columns, rows_of
from streamapp.errors import Transient, Unusable
from streamapp.settings import Role

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
# ClickHouse restarts in seconds; a longer pause would only add to the outage.
_LONGEST_PAUSE_S = 5.0

_SLICE = 25  # records between two turns of the event loop, some 0.2 ms each

Bury = Callable[[Refusal], Awaitable[None]]
"""Makes a dead letter of what was refused; returns when that is durable."""


class Inserts(Protocol):
    """What the writer needs of a ClickHouse client."""

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Insert all rows or none; see :meth:`streamapp.clickhouse.client.ClickHouse.insert`."""


class Writer:
    """Writes batches of records; safe to share between partitions.

    Args:
        clickhouse: where the rows go.
        role: which tables this deployment writes.
        bury: makes a dead letter.
        on_insert: told table and number of rows after each insert (for metrics).
        most_rows: of one insert.
    """

    def __init__(
        self,
        clickhouse: Inserts,
        role: Role,
        bury: Bury,
        on_insert: Callable[[str, int], None] = lambda *_: None,
        *,
        most_rows: int = 2000,
    ) -> None:
        self._clickhouse = clickhouse
        self._role = role
        self._bury = bury
        self._on_insert = on_insert
        self._most_rows = most_rows
        self._troubles: dict[str, str] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why inserts are waiting at this moment, one text for each table; empty when all is well."""
        return tuple(self._troubles.values())

    async def write(self, records: Sequence[SourceRecord]) -> None:
        """Store the records, those of a partition in offset order; waits for as long as ClickHouse is away."""
        tables: dict[str, list[TableRow]] = {}
        buried: set[tuple[SourceRecord, str]] = set()
        for number, record in enumerate(records):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            rows, refusals = rows_of(record, self._role)
            for refusal in refusals:
                await self._bury(refusal)
            for row in rows:
                waiting = tables.setdefault(row.table, [])
                waiting.append(row)
                if len(waiting) >= self._most_rows:
                    await self._store(tables.pop(row.table), buried)
        for waiting in tables.values():
            await self._store(waiting, buried)

    async def _store(self, rows: list[TableRow], buried: set[tuple[SourceRecord, str]]) -> None:
        try:
            await self._insert(rows[0].table, [row.values for row in rows])
        except Unusable as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._store(rows[:middle], buried)
                await self._store(rows[middle:], buried)
                return
            entry = rows[0].entry
            if (entry.record, entry.path) not in buried:  # an order has rows in two tables, and is one dead letter
                buried.add((entry.record, entry.path))
                await self._bury(Refusal(entry, error.reason, f"{entry.path} {error.detail}".strip()))

    async def _insert(self, table: str, rows: list[tuple[object, ...]]) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._clickhouse.insert(table, columns(table), rows)
                    break
                except Transient as error:
                    self._note(table, len(rows), str(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            self._troubles.pop(table, None)
        self._on_insert(table, len(rows))

    def _note(self, table: str, rows: int, trouble: str) -> None:
        if self._troubles.get(table) != trouble:
            logger.warning("%s rows for %s wait: %s", rows, table, trouble)
        self._troubles[table] = trouble
