"""The writer: records in, rows in ClickHouse, whatever happens in between.

One batch goes like this, be it of one partition or of several:

1. Every record becomes its rows; one that can't is a dead letter, with its reason.
2. The rows of each table are one insert, or several where they are very many. Its token names the records and their
   content, so that the same insert, sent again because its answer was lost, inserts nothing. That only keeps retries
   cheap: in other batches the same rows replace themselves.
3. ClickHouse away: the same insert again, for ever, with back-off. Nothing is acked meanwhile, so nothing is lost.
4. An insert that is refused for its content is halved until the bad rows stand alone; those are dead letters, the
   others are stored.

When :meth:`Writer.write` returns, every record is stored or a dead letter.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from streamapp.clickhouse.rows import Record, Row, columns, rows_of
from streamapp.errors import Transient, Unusable
from streamapp.settings import Role

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.1
# ClickHouse restarts in seconds; a longer pause would only add to the outage.
_LONGEST_PAUSE_S = 5.0

_SLICE = 200  # records between two turns of the event loop, 50 us each

Bury = Callable[[Record, str, str], Awaitable[None]]
"""Makes a record a dead letter, for a reason and with a detail; returns when that is durable."""


class Inserts(Protocol):
    """What the writer needs of a ClickHouse client."""

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, token: str) -> None:
        """Insert all rows or none; see :meth:`streamapp.clickhouse.client.ClickHouse.insert`."""


class Writer:
    """Writes batches of records; safe to share between partitions.

    Args:
        clickhouse: where the rows go.
        role: which tables this deployment writes.
        bury: makes a dead letter of a record.
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

    async def write(self, records: Sequence[Record]) -> None:
        """Store the records, those of a partition in offset order; waits for as long as ClickHouse is away."""
        tables: dict[str, list[Row]] = {}
        for number, record in enumerate(records):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            try:
                for row in rows_of(record, self._role):
                    tables.setdefault(row.table, []).append(row)
            except Unusable as error:
                await self._bury(record, error.reason, error.detail)
        buried: set[tuple[str, int, int]] = set()
        for table, rows in tables.items():
            for first in range(0, len(rows), self._most_rows):
                await self._store(table, rows[first : first + self._most_rows], buried)

    async def _store(self, table: str, rows: list[Row], buried: set[tuple[str, int, int]]) -> None:
        try:
            await self._insert(table, rows)
        except Unusable as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._store(table, rows[:middle], buried)
                await self._store(table, rows[middle:], buried)
            elif rows[0].record.place not in buried:  # an order has rows in two tables, and is one dead letter
                buried.add(rows[0].record.place)
                await self._bury(rows[0].record, error.reason, error.detail)

    async def _insert(self, table: str, rows: list[Row]) -> None:
        values = [row.values for row in rows]
        token = token_of(rows)
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    await self._clickhouse.insert(table, columns(table), values, token=token)
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


def token_of(rows: Sequence[Row]) -> str:
    """Return the deduplication token of an insert: the first row's place, the last one's offset, a digest of all.

    Without the digest, a topic that was made anew (its offsets start again at 0) would meet the tokens of its former
    life, and its rows would be dropped without a word.
    """
    first, last = rows[0].record, rows[-1].record
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.record.place}".encode())
        digest.update(row.record.value)
        digest.update(b"\x00")
    return f"{first.topic}:{first.partition}:{first.offset}-{last.offset}:{digest.hexdigest()[:16]}"
