"""The store's contract on the one in memory, the faults that this one plays, and what the fence makes of a log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.application import build_app
from tables.memory import MemoryStore
from tables.store import BEGUN, DONE, MOST_ASTRAY_BYTES, Store, fenced, in_place, is_foreign
from tests.tables.stores import CONTRACT, PARTITIONS, Listening


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
async def test_the_store_in_memory_holds_the_contract(promise: Callable[[Store], Awaitable[None]]) -> None:
    await promise(MemoryStore(partitions=PARTITIONS))


async def test_a_refused_commit_is_not_written_and_the_next_one_is() -> None:
    store = MemoryStore()
    store.refuse = Definite("refused")
    with pytest.raises(Definite, match="refused"):
        await store.commit(0, {b"k": b"1"})
    store.refuse = None
    await store.commit(0, {b"k": b"2"})
    assert store.commits == [(0, {b"k": b"2"})]


async def test_silence_is_ambiguous() -> None:
    store = MemoryStore(ack_timeout_s=0.01)
    store.silent = True
    with pytest.raises(Ambiguous, match="no acknowledgement"):
        await store.commit(0, {b"k": b"1"})
    assert store.get(b"k", partition=0) is None


async def test_from_a_revocation_to_the_end_of_the_recovery_nothing_is_read_or_written() -> None:
    store, listening = MemoryStore(partitions=3), Listening()
    store.attach(listening)
    await store.commit(1, {b"k": b"1", b"l": b"1"})
    rows = store.scan(1, b"")
    next(rows)
    committing = asyncio.ensure_future(store.commit(1, {b"k": b"2"}))
    await asyncio.sleep(0)
    store.revoke()
    assert store.owned == frozenset()
    for refused in (lambda: store.get(b"k", partition=1), lambda: store.find(b"k"), lambda: next(rows)):
        with pytest.raises(Transient, match="expected to own"):
            refused()
    with pytest.raises(Transient):
        await committing
    store.recover([1, 2])
    assert store.owned == {1, 2}
    assert store.get(b"k", partition=1) == b"1"
    assert listening.calls == [("revoked", [0, 1, 2]), ("recovered", [1, 2])]
    store.recover()
    assert listening.calls[2:] == [("revoked", [1, 2]), ("recovered", [0, 1, 2])]


def test_a_record_is_in_place_where_its_writer_expected_it() -> None:
    records = [
        SimpleNamespace(value=value, offset=7 + place) for place, (_, value) in enumerate(fenced([(b"k", b"")] * 3, 7))
    ]
    assert [in_place(record) for record in records] == [True, True, True]
    assert not in_place(SimpleNamespace(value=records[0].value, offset=8))
    assert not in_place(SimpleNamespace(value=b"short", offset=0))
    assert not in_place(SimpleNamespace(value=None, offset=0))


@pytest.mark.parametrize(
    ("settled", "astray_bytes", "adoption", "foreign"),
    [
        (False, 0, None, False),  # an empty log
        (True, 0, None, False),
        (True, MOST_ASTRAY_BYTES, None, False),  # a zombie's batch and the batch of whoever found it
        (True, MOST_ASTRAY_BYTES + 1, None, True),  # still mirrored from somewhere else
        (False, 1, None, True),  # copied: nothing is in place
        (True, 0, BEGUN, True),  # an adoption that was interrupted
        (True, 0, DONE, False),
    ],
)
def test_a_log_is_foreign_when_more_is_out_of_place_than_a_zombie_leaves(
    settled: bool, astray_bytes: int, adoption: bytes | None, foreign: bool
) -> None:
    assert is_foreign(settled=settled, astray_bytes=astray_bytes, adoption=adoption) is foreign


def test_the_table_refuses_what_a_dict_could_do(tmp_path: Path) -> None:
    app = build_app("x", bootstrap="127.0.0.1:1", data_dir=tmp_path, partitions=4, replication_factor=1, web_port=1)
    table = app.Table("desk")
    with pytest.raises(TypeError, match="await commit"):
        table[b"k"] = b"v"
    with pytest.raises(TypeError, match="await commit"):
        table.send_changelog(0, b"k", b"v")
    with pytest.raises(TypeError, match="can't be deleted"):
        table.on_key_del(b"k")
    with pytest.raises(TypeError, match="can't be cleared"):
        table.clear()
