"""The archive, folded from its beginning, against the tables of all workers and against ClickHouse.

The system may be at work meanwhile: what is in flight differs, so each difference is looked at again, with what the
archive has by then, until it is gone or nothing has changed about it for :data:`SETTLED_S`.

::

    archive ──fold──▶ ArchiveFold ──┬── compared with ClickHouse, sorted, side by side ──┐
       ▲                            └── compared with the tables, order by order ────────┴─▶ differences ─┐
       └────────────── read on, compare what differed again, until it is settled ◀────────────────────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice

from streamapp import topics
from streamapp.audit.agreement import difference
from streamapp.audit.archive import ArchiveEntry, ArchiveFault, ArchiveFold, Key, Kind
from streamapp.audit.evidence import OrderView, PositionView, View
from streamapp.audit.places import WarehouseRows, WorkerTables
from streamapp.clock import utc_now
from streamapp.domain.vocabulary import FINAL_STATUSES
from streamapp.kafka.reader import Progress, TopicReader, place_of
from streamapp.settings import Role, Settings

SETTLED_S = 5.0
"""For so long a difference must stand unchanged. A row is in ClickHouse some 1.6 s after its commit."""
GIVEN_UP_S = 60.0
"""So long what goes on changing is looked at again without one difference less; then it is called one."""
_PAUSE_S = 1.0
CLICKHOUSE, TABLES = "ClickHouse", "tables"
_CHUNK = 256
MOST_OPEN = 100_000
"""Differences that are looked at again. Of a busy system with a long archive thousands are in flight at first."""
MOST_NAMED = 1000
"""Faults, and differences; of all others the number is told."""

_OF_WAREHOUSE: dict[Role, tuple[Kind, ...]] = {
    "both": ("order", "fill", "position", "operation", "decision"),
    "execution": ("order", "fill", "position", "operation", "decision"),
    "connector": ("fill",),  # the other tables are the execution service's
}


@dataclass(frozen=True)
class Discrepancy:
    """One thing about which the archive and another place do not say the same.

    Attributes:
        key: What it is known by within its account, in words.
        place: ``ClickHouse`` or ``tables``.
        commit: The commit that changed it last; None where the archive does not have it.
        detail: What the archive has and what is there.
    """

    kind: Kind
    account: str
    key: str
    place: str
    commit: int | None
    detail: str

    def __str__(self) -> str:
        """Return it as one line."""
        commit = "" if self.commit is None else f", commit {self.commit}"
        return f"{self.kind} {self.key} of {self.account or 'no account'}{commit}: {self.detail}"


@dataclass(frozen=True)
class Verification:
    """What was read and what was compared; what is wrong in the archive itself, and where it and another place differ.

    ``commits`` counts those of each account, ``compared`` the things of each kind in each place that was asked, and
    ``unnamed`` the faults and differences that were too many to be named.
    """

    records: int
    commits: dict[str, int]
    compared: dict[str, int]
    faults: tuple[ArchiveFault, ...]
    differences: tuple[Discrepancy, ...]
    unnamed: int

    @property
    def agrees(self) -> bool:
        """Whether nothing is wrong and nothing differs."""
        return not self.count

    @property
    def count(self) -> int:
        """How much is wrong or differs."""
        return len(self.faults) + len(self.differences) + self.unnamed


_Place = tuple[str, Kind, Key]
"""Where, and of what."""


async def verify(
    settings: Settings,
    *,
    account: str | None = None,
    progress: Progress | None = None,
    settled_s: float = SETTLED_S,
) -> Verification:
    """Return whether the archive, the tables and ClickHouse agree, and where not.

    Args:
        settings: Of the deployment; its role says which tables are ours.
        account: Only this one.
        progress: Told how much of the archive has been read.
        settled_s: How long a difference must stand unchanged.

    Raises:
        Transient: one of them does not answer; nothing is said then.
    """
    archive, warehouse = ArchiveFold(), WarehouseRows(settings, account)
    try:
        async with (
            TopicReader(settings, topics.ARCHIVE, account=account, progress=progress) as reader,
            WorkerTables(settings, account) as tables,
        ):
            comparison = _Comparison(
                archive, reader, tables, warehouse, _OF_WAREHOUSE[settings.role], kept_since=_kept_since(settings)
            )
            await comparison.compare()
            await comparison.settle(settled_s)
            return comparison.verdict()
    finally:
        archive.close()
        await warehouse.close()


async def compare_tables(
    settings: Settings, archive: ArchiveFold, reader: TopicReader, *, settled_s: float = SETTLED_S
) -> Verification:
    """Return whether a fold, into which ``reader`` is read on, and the tables agree, and where not.

    Raises:
        Transient: as of :func:`verify`.
    """
    async with WorkerTables(settings) as tables:
        comparison = _Comparison(archive, reader, tables, kept_since=_kept_since(settings))
        await comparison.compare()
        await comparison.settle(settled_s)
        return comparison.verdict()


def _kept_since(settings: Settings) -> datetime:
    """Return since when an order's last fact must be, for it to be in the tables for certain."""
    return utc_now() - timedelta(days=settings.retention.keys_days)


class _Comparison:
    """Without a warehouse the tables alone are compared; no order is with them that is over since ``kept_since``."""

    def __init__(
        self,
        archive: ArchiveFold,
        reader: TopicReader,
        tables: WorkerTables,
        warehouse: WarehouseRows | None = None,
        kinds: tuple[Kind, ...] = (),
        *,
        kept_since: datetime,
    ) -> None:
        self._archive, self._reader = archive, reader
        self._warehouse, self._tables = warehouse, tables
        self._kinds = kinds
        self._kept_since = kept_since
        self._compared: Counter[str] = Counter()
        self._unnamed = 0
        self._open: dict[_Place, tuple[Discrepancy, float]] = {}  # and since when it has stood unchanged

    async def compare(self) -> None:
        await self._read_on()
        if self._warehouse is not None:
            await self._compare_warehouse(self._warehouse)
        await self._read_on()
        await self._compare_orders()
        await self._read_on()
        await self._compare_positions()

    async def _compare_warehouse(self, warehouse: WarehouseRows) -> None:
        for kind in self._kinds:
            await self._read_on()  # the archive has grown meanwhile
            ours, theirs = self._archive.entries(kind), warehouse.entries(kind)
            async for key, entry, view in side_by_side(ours, theirs):
                self._note(CLICKHOUSE, kind, key, entry, view)

    async def _read_on(self) -> None:
        async for record in self._reader.read():
            self._archive.take(record.value, place_of(record))

    async def _compare_orders(self) -> None:
        for entries in _chunks(filter(self._is_kept, self._archive.entries("order")), _CHUNK):
            found = await self._tables.orders([str(entry.key[0]) for entry in entries])
            for entry, view in zip(entries, found, strict=True):
                self._note(TABLES, "order", entry.key, entry, view)
        for order in await self._tables.open_orders():
            key = (order.order_id, order.account)
            if self._archive.entry("order", key) is None:
                self._note(TABLES, "order", key, None, order)

    def _is_kept(self, entry: ArchiveEntry) -> bool:
        """Return whether the tables must have an order: what is over for long has left them, or may at any moment."""
        assert isinstance(entry.view, OrderView)
        return entry.view.status not in FINAL_STATUSES or entry.at is None or entry.at > self._kept_since

    async def _compare_positions(self) -> None:
        there = await self._shown()
        for entry in self._archive.entries("position"):
            self._note(TABLES, "position", entry.key, _open_only(entry), there.pop(entry.key, None))
        for key, view in there.items():
            self._note(TABLES, "position", key, None, view)

    async def settle(self, settled_s: float) -> None:
        """Look at what differs again, until it is gone or has stood unchanged for so long."""
        fewer_s = time.monotonic()
        self._open = {place: (found, fewer_s) for place, (found, _) in self._open.items()}
        while self._open and time.monotonic() - fewer_s < GIVEN_UP_S:
            count = len(self._open)
            await asyncio.sleep(min(_PAUSE_S, settled_s))
            await self._read_on()
            for place in list(self._open):
                await self._look_again(place)
            now_s = time.monotonic()
            if all(now_s - since_s >= settled_s for _, since_s in self._open.values()):
                return
            if len(self._open) < count:
                fewer_s = now_s

    async def _look_again(self, place: _Place) -> None:
        where, kind, key = place
        entry = self._archive.entry(kind, key)
        if where == CLICKHOUSE and self._warehouse is not None:
            self._judge(place, entry, await self._warehouse.entry(kind, key))
        elif kind == "order":
            [order] = await self._tables.orders([str(key[0])])
            self._judge(place, entry, order)
        else:
            shown = await self._shown()
            self._judge(place, entry and _open_only(entry), shown.get(key))

    async def _shown(self) -> dict[Key, PositionView]:
        return {(each.account, each.position_id): each for each in await self._tables.positions()}

    def _note(self, where: str, kind: Kind, key: Key, entry: ArchiveEntry | None, view: View | None) -> None:
        self._compared[kind] += 1
        self._judge((where, kind, key), entry, view)

    def _judge(self, place: _Place, entry: ArchiveEntry | None, view: View | None) -> None:
        found = difference_at(*place, entry, view)
        known = self._open.get(place)
        if found is None:
            self._open.pop(place, None)
        elif known is None and len(self._open) >= MOST_OPEN:
            self._unnamed += 1
        elif known is None or known[0] != found:
            self._open[place] = (found, time.monotonic())

    def verdict(self) -> Verification:
        faults, differences = self._archive.faults(), iter(self._open.values())
        return Verification(
            records=self._archive.records,
            commits=self._archive.commits(),
            compared=dict(self._compared),
            faults=tuple(islice(faults, MOST_NAMED)),
            differences=tuple(found for found, _ in islice(differences, MOST_NAMED)),
            unnamed=self._unnamed + sum(1 for _ in chain(faults, differences)),
        )


def difference_at(
    place: str, kind: Kind, key: Key, entry: ArchiveEntry | None, view: View | None
) -> Discrepancy | None:
    """Return how a place differs from the archive about one thing, None if it does not."""
    if entry is None and view is None:
        return None
    if entry is None:
        detail = f"in {place}, not in the archive"
    elif view is None:
        detail = f"in the archive, not in {place}"
    else:
        found = difference(entry.view, view)
        if found is None:
            return None
        detail = f"archive and {place} differ: {found}"
    account = str(key[1] if kind == "order" else key[0])
    name = str(key[0]) if kind == "order" else " ".join(map(str, key[1:]))
    return Discrepancy(kind, account, name, place, None if entry is None else entry.commit, detail)


async def side_by_side(
    ours: Iterator[ArchiveEntry], theirs: AsyncIterator[tuple[Key, View]]
) -> AsyncIterator[tuple[Key, ArchiveEntry | None, View | None]]:
    """Yield what either has, with what the other has under the same key; both are sorted by it."""
    entry = next(ours, None)
    async for key, view in theirs:
        while entry is not None and entry.key < key:
            yield entry.key, entry, None
            entry = next(ours, None)
        if entry is not None and entry.key == key:
            yield key, entry, view
            entry = next(ours, None)
        else:
            yield key, None, view
    while entry is not None:
        yield entry.key, entry, None
        entry = next(ours, None)


def _open_only(entry: ArchiveEntry) -> ArchiveEntry | None:
    assert isinstance(entry.view, PositionView)
    return entry if entry.view.volume else None


def _chunks(entries: Iterable[ArchiveEntry], size: int) -> Iterator[list[ArchiveEntry]]:
    several = iter(entries)
    while chunk := list(islice(several, size)):
        yield chunk
