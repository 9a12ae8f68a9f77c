"""A folder of Parquet files, one for each kind and day, as DuckDB, Spark, polars and ClickHouse read them.

::

    FOLDER/orders/day=2026-11-20/orders.parquet
    FOLDER/facts/day=2026-11-20/facts.parquet
    FOLDER/.streamapp/                             what is unfinished, whose export it is, and who is at it

A file is written there, made durable and put in its place under its name, all at once: a reader meets the old one or
the new one, whatever is killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamapp.clickhouse.columns import columns_of
from streamapp.clickhouse.rows import MODELS, PLACE
from streamapp.errors import ConfigurationError
from streamapp.processes.folders import sync_folder
from streamapp.processes.locks import FileLock, LockHeldError

RAW = "raw"
"""The column with the fact's, message's or entry's own JSON: exact, where a column is rounded to 10 places."""
_TYPES = {
    Decimal: pa.decimal128(38, 10),
    datetime: pa.timestamp("us", tz="UTC"),
    int: pa.int64(),
    bool: pa.bool_(),
    str: pa.string(),
}
# Of a row group, which is all of a file that is in memory. A row of the broker log may have 890 kB.
_MOST_ROWS, _MOST_BYTES = 10_000, 16_000_000


@cache
def schema_of(kind: str) -> pa.Schema:
    """Return the columns of a kind's files: those of its ClickHouse table, and :data:`RAW`."""
    fields = [(column.name, _TYPES[column.kind]) for column in columns_of(MODELS[kind])]
    fields += [(name, pa.int64()) for name in PLACE if kind == "facts"]
    return pa.schema([*fields, (RAW, pa.string())])


class ExportFolder:
    """A folder that one process at a time writes to.

    Args:
        path: Made if it is not there.
        deployment: Whose records it is for.
        account: The only one it is for; None: all.

    Raises:
        ConfigurationError: It can't be written, is another deployment's or account's, or another export is at it.
    """

    def __init__(self, path: Path, *, deployment: str, account: str | None) -> None:
        self.path = path
        self._own = path / ".streamapp"
        self._part = self._own / "part"
        try:
            self._lock = FileLock(self._own / "lock")
            self._claim({"deployment": deployment, "account": account})
        except LockHeldError as held:
            raise ConfigurationError(
                f"expected no other export into {path}, got process {held.pid}: wait for it, or name another folder"
            ) from None
        except OSError as error:
            raise unwritable(path, error) from None

    def _claim(self, whose: dict[str, str | None]) -> None:
        note = self._own / "export.json"
        self.spill.unlink(missing_ok=True)  # of an export that was killed
        if not note.exists():
            self._part.write_text(json.dumps(whose), encoding="utf-8")
            self._part.replace(note)
        elif (known := note.read_text(encoding="utf-8")) != json.dumps(whose):
            self._lock.release()
            raise ConfigurationError(
                f"{self.path}: expected a new folder, or one of an export of {json.dumps(whose)}, got one of {known}: "
                "name another folder, since who reads it reads all of it"
            )

    @property
    def spill(self) -> Path:
        """The file for what is not sorted into files yet."""
        return self._own / "rows.sqlite"

    def close(self) -> None:
        """Remove what is unfinished, and let others write."""
        self._part.unlink(missing_ok=True)
        self.spill.unlink(missing_ok=True)
        self._lock.release()

    def place(self, kind: str, day: date) -> Path:
        """Return where the file of a kind and day is."""
        return self.path / kind / f"day={day}" / f"{kind}.parquet"

    def days(self) -> Iterator[tuple[str, date]]:
        """Yield the kind and day of each file that is there."""
        for kind in MODELS:
            for path in self.path.glob(f"{kind}/day=*/{kind}.parquet"):
                with suppress(ValueError):
                    yield kind, date.fromisoformat(path.parent.name.removeprefix("day="))

    def rows(self, kind: str, day: date) -> int:
        """Return how many rows the file of a kind and day has; 0 if it is none, or not there."""
        try:
            return int(pq.read_metadata(self.place(kind, day)).num_rows)
        except (OSError, pa.ArrowInvalid):
            return 0

    def write(self, kind: str, day: date, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write a file, in place of the one that is there; the same rows are the same bytes.

        Args:
            kind: Of the rows.
            day: Of the rows.
            rows: Their values in the order of :func:`schema_of`.

        Raises:
            ConfigurationError: It can't be written; the file that was there still is.
        """
        place = self.place(kind, day)
        try:
            with self._part.open("wb") as file:
                with pq.ParquetWriter(file, schema_of(kind), compression="zstd") as writer:
                    for chunk in _chunks(rows):
                        writer.write_batch(_batch(chunk, schema_of(kind)))
                file.flush()
                os.fsync(file.fileno())
            place.parent.mkdir(parents=True, exist_ok=True)
            self._part.replace(place)
            for folder in (place.parent, place.parent.parent, self.path):
                sync_folder(folder)
        except OSError as error:
            raise unwritable(place, error) from None


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch([*map(pa.array, columns, schema.types)], schema=schema)


def unwritable(path: Path, error: Exception) -> ConfigurationError:
    """Return the error of a folder that can't be written to."""
    reason = error.strerror if isinstance(error, OSError) else error
    return ConfigurationError(f"expected to write to {path}, got: {reason}. Name a folder with room and rights")


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row[-1])
        if len(chunk) == _MOST_ROWS or size >= _MOST_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
