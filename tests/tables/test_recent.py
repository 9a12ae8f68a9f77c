from __future__ import annotations

import pytest

from streamapp.domain.vocabulary import Frozen
from streamapp.errors import Ambiguous, Definite
from tables.durable import DurableTable
from tables.memory import MemoryChangelog, memory_table
from tables.recent import RecentRows


class Row(Frozen):
    number: int


async def watched(kept: int = 10, partitions: int = 1) -> tuple[DurableTable[Row], MemoryChangelog, RecentRows[Row]]:
    table, log = memory_table("rows", Row, partitions=partitions)
    recent = RecentRows(table, kept)
    log.recover()
    await table.indexed.wait()
    return table, log, recent


async def test_a_row_that_is_durable_is_not_read_again() -> None:
    table, _, recent = await watched()
    assert recent.get(b"a", 0) is None
    row = Row(number=1)
    await table.put(b"a", row, partition=0)
    assert recent.get(b"a", 0) is row


async def test_only_the_last_rows_are_kept_and_the_others_read() -> None:
    table, _, recent = await watched(kept=1)
    rows = [Row(number=1), Row(number=2)]
    await table.put_all(zip([b"a", b"b"], rows, strict=True), partition=0)
    assert recent.get(b"b", 0) is rows[1]
    assert recent.get(b"a", 0) is not rows[0]
    assert recent.get(b"a", 0) == rows[0]


async def test_a_partition_that_went_to_another_worker_is_forgotten() -> None:
    table, log, recent = await watched(partitions=2)
    rows = [Row(number=1), Row(number=2)]
    await table.put(b"a", rows[0], partition=0)
    await table.put(b"b", rows[1], partition=1)
    log.recover({1})
    log.recover({0, 1})
    assert recent.get(b"a", 0) is not rows[0]
    assert recent.get(b"b", 1) is rows[1]


async def test_a_row_that_was_not_confirmed_is_not_remembered() -> None:
    table, log, recent = await watched()
    log.refuse = Definite("no")
    with pytest.raises(Ambiguous):
        await table.put(b"a", Row(number=1), partition=0)
    assert recent._rows == {}
