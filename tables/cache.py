"""The rows of a store that were used last, decoded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol, TypeVar

from pydantic import ValidationError

from streamapp.errors import ConfigurationError
from tables.row import Row

RowT = TypeVar("RowT", bound=Row)

KEPT_ROWS = 4000
"""Decoded rows of a worker: five seconds of 400 new orders a second, and most orders are over within one."""


class Durable(Protocol):
    """Rows as bytes, as :class:`tables.store.Store` returns them."""

    def get(self, key: bytes, *, partition: int) -> bytes | None:
        """Return the row of ``key``, None if there is none."""
        ...


class RowCache:
    """Reads rows of a store; whoever commits rows puts them here once they are durable."""

    def __init__(self, store: Durable) -> None:
        self._store = store
        self._rows: OrderedDict[tuple[int, bytes], Row] = OrderedDict()

    def read(self, key: bytes, model: type[RowT], partition: int) -> RowT | None:
        """Return a row, None if there is none.

        Raises:
            ConfigurationError: Another version wrote it.
            Transient: The partition is another worker's, or not recovered yet.
        """
        row = self._rows.get((partition, key))
        if row is not None:
            assert isinstance(row, model)
            return row
        value = self._store.get(key, partition=partition)
        if value is None:
            return None
        decoded = decode_row(key, value, model)
        self.put(partition, key, decoded)
        return decoded

    def put(self, partition: int, key: bytes, row: Row) -> None:
        """Take over a durable row; the one that was not used for longest goes."""
        self._rows[partition, key] = row
        self._rows.move_to_end((partition, key))
        if len(self._rows) > KEPT_ROWS:
            self._rows.popitem(last=False)

    def drop(self, partition: int, key: bytes) -> None:
        """Forget a row."""
        self._rows.pop((partition, key), None)

    def forget(self, partition: int) -> None:
        """Read the rows of a partition anew."""
        for place in [place for place in self._rows if place[0] == partition]:
            del self._rows[place]


def decode_row(key: bytes, value: bytes, model: type[RowT]) -> RowT:
    """Return a row of a store.

    Raises:
        ConfigurationError: Another version wrote it.
    """
    try:
        return model.decode(value)
    except ValidationError as error:
        raise ConfigurationError(
            f"the row {key!r:.120} is none that this version can read: {error.errors()[0]['msg']}. "
            "Start the version that wrote it, or a newer one"
        ) from None
