"""From the topics to the folder: what is there is read to its end, then written day by day."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from streamapp import topics
from streamapp.clickhouse.rows import SourceRecord
from streamapp.errors import StreamappError
from streamapp.export.history import RowHistory
from streamapp.export.parquet import ExportFolder, unwritable
from streamapp.kafka.reader import Progress, TopicReader, place_of
from streamapp.settings import Settings

Shown = Callable[[str], AbstractContextManager[Progress]]
"""Shows how far something is while the context lasts, under a name."""
MOST_NAMED = 1000
"""Faults; of all others the number is told."""
_TOPICS = {topics.ARCHIVE: "archive", topics.BROKER_LOG: "broker log"}


@dataclass
class Export:
    """What was written, and what was not.

    Attributes:
        rows: How many there are of each kind.
        days: Of which there are rows.
        faults: What was read and is not in the files, or only there and in the topics no more; a sentence each.
        unnamed: How many more faults there are.
    """

    rows: Counter[str] = field(default_factory=Counter)
    days: set[date] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    unnamed: int = 0

    def blame(self, fault: str) -> None:
        """Add a fault."""
        if len(self.faults) < MOST_NAMED:
            self.faults.append(fault)
        else:
            self.unnamed += 1


async def export(
    settings: Settings,
    path: Path,
    shown: Shown,
    *,
    first: date | None = None,
    last: date | None = None,
    account: str | None = None,
) -> Export:
    """Write the rows of some days to a folder; the files of these days are replaced, one by one.

    Args:
        settings: Of the deployment.
        path: The folder.
        shown: Shows how far it is.
        first: The first day (UTC); None: from the beginning.
        last: The last one; None: to the end.
        account: Only this one; None: all.

    Raises:
        ConfigurationError: The folder can't be written, there is no such topic, or Kafka does not let us in.
        Transient: Kafka does not answer. What was written by then is whole.
        StreamappError: There are no records.
    """
    done = Export()
    folder = ExportFolder(path, deployment=settings.kafka_deployment, account=account)
    try:
        with closing(folder), closing(RowHistory(folder.spill, first, last)) as history:
            count = 0
            for topic, name in _TOPICS.items():
                with shown(name) as told:
                    async with TopicReader(settings, topic, account=account, progress=told) as reader:
                        count += await _read(reader, topic, history, done)
            if not count:
                of = "" if account is None else f" of account {account} (settings have {', '.join(settings.accounts)})"
                raise StreamappError(f"expected records{of} in {' and '.join(_TOPICS)}, got none")
            with shown("files") as told:
                _write(folder, history, done, told)
    except sqlite3.Error as error:
        raise unwritable(path, error) from None
    return done


async def _read(reader: TopicReader, topic: str, history: RowHistory, done: Export) -> int:
    count = 0
    async for record in reader.read():
        count += 1
        found = SourceRecord(topic, record.partition, record.offset, record.key, record.value)
        for fault in history.add(found):
            done.blame(f"{topic}, {place_of(record)}: {fault}")
    return count


def _write(folder: ExportFolder, history: RowHistory, done: Export, told: Progress) -> None:
    days = history.days()
    for number, (kind, day, rows) in enumerate(days, 1):
        done.days.add(day)
        # Nothing ever leaves the archive: a topic that has less than it had was cut, and the file is all there is.
        if (before := folder.rows(kind, day)) > rows:
            done.blame(f"{folder.place(kind, day)}: expected its {before} rows in Kafka, got {rows}: the file is kept")
        else:
            folder.write(kind, day, history.rows(kind, day))
            done.rows[kind] += rows
        told(number, len(days))
    for kind, day in sorted({*folder.days()} - {(kind, day) for kind, day, _ in days}):
        if history.first <= day <= history.last:
            done.blame(f"{folder.place(kind, day)}: expected its rows in Kafka, got none: the file is kept")
