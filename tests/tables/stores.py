"""The contract of a Store, which every implementation's tests run against it: call each of ``CONTRACT`` with one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from streamapp.errors import Definite, Transient
from tables.store import COMMIT_BYTES, ENDED, ROW_BYTES, Store

PARTITIONS = 2


class Listening:
    """A listener that remembers, and says when the partitions are there."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.ready = asyncio.Event()

    def revoked(self, partitions: Iterable[int]) -> None:
        self.calls.append(("revoked", list(partitions)))
        self.ready.clear()

    def recovered(self, partitions: Iterable[int]) -> None:
        self.calls.append(("recovered", list(partitions)))
        self.ready.set()


async def a_commit_is_read_when_it_is_durable_and_not_before(store: Store) -> None:
    assert store.owned == frozenset(range(PARTITIONS))
    assert store.get(b"o/1", partition=0) is None
    committing = asyncio.ensure_future(store.commit(0, {b"o/1": b"a", b"p/1": b"b"}))
    await asyncio.sleep(0)
    assert store.get(b"o/1", partition=0) is None, "a row on its way is not durable"
    await committing
    assert (store.get(b"o/1", partition=0), store.get(b"p/1", partition=0)) == (b"a", b"b")
    assert store.get(b"o/1", partition=1) is None


async def a_row_is_found_in_whichever_partition_has_it(store: Store) -> None:
    await store.commit(1, {b"o/1": b"a"})
    assert store.find(b"o/1") == (1, b"a")
    assert store.find(b"o/2") is None


async def commits_become_durable_in_the_order_in_which_they_were_asked_for(store: Store) -> None:
    finished: list[int] = []

    async def commit(number: int) -> None:
        await store.commit(0, {b"newest": b"%d" % number, b"n/%d" % number: b"-"})
        finished.append(number)

    await asyncio.gather(*(commit(number) for number in range(100)))
    assert finished == list(range(100))
    assert store.get(b"newest", partition=0) == b"99"
    assert len(list(store.scan(0, b"n/"))) == 100


async def a_scan_yields_the_rows_of_a_prefix_by_key_as_they_were_when_it_began(store: Store) -> None:
    await store.commit(0, {b"o/2": b"b", b"o/1": b"a", b"p/1": b"c", b"n/9": b"d", b"o": b"e"})
    rows = store.scan(0, b"o/")
    await store.commit(0, {b"o/1": b"later", b"o/3": b"later"})
    assert list(rows) == [(b"o/1", b"a"), (b"o/2", b"b")]
    assert [key for key, _ in store.scan(0, b"")] == [b"n/9", b"o", b"o/1", b"o/2", b"o/3", b"p/1"]
    assert list(store.scan(1, b"o/")) == list(store.scan(0, b"q/")) == []


async def a_scan_goes_on_after_a_key(store: Store) -> None:
    await store.commit(0, {b"n/9": b"-", b"o/1": b"a", b"o/2": b"b", b"o/21": b"c", b"p/1": b"d"})
    assert [key for key, _ in store.scan(0, b"o/", b"o/1")] == [b"o/2", b"o/21"]
    assert [key for key, _ in store.scan(0, b"", b"o/2")] == [b"o/21", b"p/1"], "also one that begins like it"
    assert [key for key, _ in store.scan(0, b"", b"o/15")] == [b"o/2", b"o/21", b"p/1"], "also if there is no such key"
    assert list(store.scan(0, b"", b"p/1")) == []


async def an_empty_value_ends_a_row(store: Store) -> None:
    await store.commit(0, {b"o/1": b"a", b"o/2": b"b"})
    await store.commit(0, {b"o/1": ENDED, b"o/3": ENDED})
    assert (store.get(b"o/1", partition=0), store.find(b"o/1"), store.find(b"o/3")) == (None, None, None)
    assert list(store.scan(0, b"")) == [(b"o/2", b"b")]
    await store.commit(0, {b"o/1": b"anew"})
    assert store.get(b"o/1", partition=0) == b"anew"


async def what_another_worker_owns_is_neither_read_nor_written(store: Store) -> None:
    with pytest.raises(Transient, match="expected to own partition 5"):
        store.get(b"k", partition=5)
    with pytest.raises(Transient, match="expected to own partition 5"):
        await store.commit(5, {b"k": b"v"})
    with pytest.raises(Transient, match="expected to own partition 5"):
        store.scan(5, b"")


async def a_commit_that_is_too_large_is_refused_and_nothing_of_it_is_written(store: Store) -> None:
    largest = {b"%07d" % number: b"x" * 1000 for number in range(COMMIT_BYTES // (1007 + ROW_BYTES))}
    with pytest.raises(Definite, match=f"expected {COMMIT_BYTES} at most"):
        await store.commit(0, largest | {b"more": b"x" * 1000})
    assert list(store.scan(0, b"")) == []
    await store.commit(0, largest)
    assert len(list(store.scan(0, b""))) == len(largest)


async def a_commit_of_nothing_is_nothing(store: Store) -> None:
    await store.commit(0, {})
    assert list(store.scan(0, b"")) == []


async def a_caller_that_is_cancelled_disturbs_no_other(store: Store) -> None:
    first, second = (asyncio.ensure_future(store.commit(0, {b"k%d" % number: b"v"})) for number in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await store.commit(0, {b"k2": b"v"})
    assert store.get(b"k1", partition=0) == store.get(b"k2", partition=0) == b"v"


CONTRACT: tuple[Callable[[Store], Awaitable[None]], ...] = (
    a_commit_is_read_when_it_is_durable_and_not_before,
    a_row_is_found_in_whichever_partition_has_it,
    commits_become_durable_in_the_order_in_which_they_were_asked_for,
    a_scan_yields_the_rows_of_a_prefix_by_key_as_they_were_when_it_began,
    a_scan_goes_on_after_a_key,
    an_empty_value_ends_a_row,
    what_another_worker_owns_is_neither_read_nor_written,
    a_commit_that_is_too_large_is_refused_and_nothing_of_it_is_written,
    a_commit_of_nothing_is_nothing,
    a_caller_that_is_cancelled_disturbs_no_other,
)
