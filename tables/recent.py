"""The rows that were written last, decoded and folded, so that the next fact of an order need not read them again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from pydantic import BaseModel

from tables.durable import DurableTable

RowT = TypeVar("RowT", bound=BaseModel)

KEPT = 2000
"""Rows at most, some 20 kB each: five seconds of 400 new orders a second, and most orders are over within one."""


class RecentRows(Generic[RowT]):
    """``table.get`` that remembers. Only what the table has called durable is kept, and dropped with its partition.

    For the one agent that writes the table: somebody else would not see a row that is on its way.
    """

    def __init__(self, table: DurableTable[RowT], kept: int = KEPT) -> None:
        self._table = table
        self._kept = kept
        self._rows: OrderedDict[tuple[int, bytes], RowT] = OrderedDict()
        table.watch(self)

    def get(self, key: bytes, partition: int) -> RowT | None:
        """Return the row of ``key``, None if there is none; errors as of :meth:`DurableTable.get`."""
        row = self._rows.get((partition, key))
        return self._table.get(key, partition=partition) if row is None else row

    def added(self, key: bytes, row: RowT, partition: int) -> None:
        """See :class:`tables.durable.Index`."""
        self._rows[partition, key] = row
        self._rows.move_to_end((partition, key))
        if len(self._rows) > self._kept:
            self._rows.popitem(last=False)

    def dropped(self, partition: int) -> None:
        """See :class:`tables.durable.Index`."""
        for place in [place for place in self._rows if place[0] == partition]:
            del self._rows[place]
