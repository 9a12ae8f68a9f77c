"""Durable tables without Kafka: what a put promises, what a reader sees, and what indexes are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import BaseModel

from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.application import build_app
from streamapp.kafka.producer import MAX_RECORD_BYTES
from streamapp.kafka.receipts import settle
from tables.durable import SLICE, DurableTable
from tables.memory import MemoryChangelog, memory_table


class Row(BaseModel, frozen=True):
    text: str


class Keys:
    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], str] = {}
        self.told = 0

    def added(self, key: bytes, row: Row, partition: int) -> None:
        self.rows[partition, key] = row.text
        self.told += 1

    def dropped(self, partition: int) -> None:
        self.rows = {where: text for where, text in self.rows.items() if where[0] != partition}


async def test_a_put_row_is_read_again_and_replaces_the_one_before() -> None:
    table, log = memory_table("rows", Row)
    assert table.get(b"k") is None
    await table.put(b"k", Row(text="a"))
    await table.put(b"k", Row(text="b"))
    assert table.get(b"k") == table.confirmed(b"k") == Row(text="b")
    assert [value for _, _, value in log.appended] == [b'{"text":"a"}', b'{"text":"b"}']


async def test_a_row_on_its_way_is_seen_by_get_and_not_by_confirmed() -> None:
    table, _ = memory_table("rows", Row)
    await table.put(b"k", Row(text="a"))
    receipt = table.begin(b"k", Row(text="b"))
    assert table.get(b"k") == Row(text="b")
    assert table.confirmed(b"k") == Row(text="a")
    await settle([receipt])
    assert table.confirmed(b"k") == Row(text="b")


async def test_many_rows_are_written_in_order_with_one_await() -> None:
    table, log = memory_table("rows", Row)
    await table.put_all([(b"k%d" % number, Row(text=str(number))) for number in range(50)])
    assert [key for _, key, _ in log.appended] == [b"k%d" % number for number in range(50)]


async def test_silence_is_ambiguous_and_a_refusal_is_definite() -> None:
    from aiokafka.errors import MessageSizeTooLargeError

    table, log = memory_table("rows", Row)
    log.silent = True
    with pytest.raises(Ambiguous, match="1 are missing"):
        await table.put(b"k", Row(text="a"), timeout_s=0.01)
    log.silent, log.refuse = False, MessageSizeTooLargeError()
    with pytest.raises(Definite, match="Kafka refused 1 of 1"):
        await table.put(b"j", Row(text="a"))
    assert table.get(b"j") is None
    log.refuse = ConnectionResetError()
    with pytest.raises(Ambiguous, match="ConnectionResetError"):
        await table.put(b"j", Row(text="a"))


async def test_a_row_that_is_too_large_is_refused_before_anything_is_written() -> None:
    table, log = memory_table("rows", Row)
    with pytest.raises(Definite, match="expected 900000 at most"):
        await table.put(b"k", Row(text="x" * MAX_RECORD_BYTES))
    assert log.appended == []


async def test_what_belongs_to_another_worker_is_neither_read_nor_written() -> None:
    table, log = memory_table("rows", Row, partitions=2)
    await table.put(b"k", Row(text="a"), partition=1)
    log.recover([0])
    with pytest.raises(Transient, match="expected to own partition 1"):
        table.get(b"k", partition=1)
    with pytest.raises(Transient, match="expected to own partition 1"):
        await table.put(b"k", Row(text="b"), partition=1)


async def test_outside_of_an_event_the_partition_must_be_named_to_write_and_all_are_searched_to_read() -> None:
    table, log = memory_table("rows", Row, partitions=3)
    log.event_partition = None
    with pytest.raises(Transient, match="name the partition"):
        await table.put(b"k", Row(text="a"))
    await table.put(b"k", Row(text="a"), partition=2)
    assert table.get(b"k") == Row(text="a")


async def test_an_index_holds_what_was_there_and_is_told_of_what_comes() -> None:
    log, keys = MemoryChangelog(partitions=2), Keys()
    table = DurableTable(log, Row)
    log.recover()
    await table.put_all([(b"k%d" % number, Row(text="old")) for number in range(3 * SLICE)], partition=1)
    log.recover([])
    table.watch(keys)
    log.recover([0, 1])
    assert table.recovered.is_set()
    assert not table.indexed.is_set()
    await table.put(b"k0", Row(text="new"), partition=1)
    await asyncio.wait_for(table.indexed.wait(), 5)
    await table.put(b"k1", Row(text="newer"), partition=1)
    assert len(keys.rows) == 3 * SLICE
    assert {keys.rows[1, key] for key in (b"k0", b"k1", b"k2")} == {"new", "newer", "old"}


async def test_an_index_is_not_told_of_an_old_row_after_a_newer_one() -> None:
    log, keys = MemoryChangelog(), Keys()
    table = DurableTable(log, Row)
    log.recover()
    await table.put_all([(b"k%d" % number, Row(text="old")) for number in range(9 * SLICE)])
    log.recover([])
    table.watch(keys)
    log.recover([0])
    await asyncio.sleep(0)  # the first slice is indexed, the last is not
    last = b"k%d" % (9 * SLICE - 1)
    assert (0, last) not in keys.rows
    await table.put(last, Row(text="new"))
    await asyncio.wait_for(table.indexed.wait(), 5)
    assert keys.rows[0, last] == "new"
    assert keys.told == 9 * SLICE


async def test_an_index_forgets_what_another_worker_owns_now() -> None:
    log, keys = MemoryChangelog(partitions=2), Keys()
    table = DurableTable(log, Row)
    table.watch(keys)
    log.recover()
    await asyncio.wait_for(table.indexed.wait(), 5)
    await table.put(b"a", Row(text="a"), partition=0)
    await table.put(b"b", Row(text="b"), partition=1)
    log.recover([1])
    assert set(keys.rows) == {(1, b"b")}
    log.recover([0, 1])
    await asyncio.wait_for(table.indexed.wait(), 5)
    assert set(keys.rows) == {(0, b"a"), (1, b"b")}


def test_the_tables_of_an_app_refuse_what_a_dict_could_do(tmp_path: Path) -> None:
    app = build_app("x", bootstrap="127.0.0.1:1", data_dir=tmp_path, partitions=4, replication_factor=1, web_port=1)
    table = app.Table("rows")
    with pytest.raises(TypeError, match="await put"):
        table[b"k"] = b"v"
    with pytest.raises(TypeError, match="can't be deleted"):
        table.on_key_del(b"k")
    with pytest.raises(TypeError, match="can't be cleared"):
        table.clear()
