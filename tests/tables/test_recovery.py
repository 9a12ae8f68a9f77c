"""What a local copy holds after a log was read: the same, however it was cut, and wherever reading began anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from streamapp.kafka.application import build_app
from tables.changelog import FencedStore
from tables.store import ENDED, EXPECTED, in_place

KEYS = (b"o/1", b"o/2", b"s/1", b"p/1")


@dataclass(frozen=True)
class Logged:
    """A record of a changelog."""

    offset: int
    key: bytes | None
    value: bytes | None


@st.composite
def logs(draw: st.DrawFn) -> list[Logged]:
    """Return a log as compaction may have left it: records in place, and some that are not or are no rows at all."""
    records, offset = [], 0
    for _ in range(draw(st.integers(0, 30))):
        offset += draw(st.integers(1, 3))
        key = draw(st.sampled_from(KEYS))
        row = draw(st.binary(max_size=3))
        match draw(st.sampled_from(("in place", "in place", "in place", "astray", "tombstone", "short", "no key"))):
            case "in place":
                records.append(Logged(offset, key, EXPECTED.pack(offset) + row))
            case "astray":
                records.append(Logged(offset, key, EXPECTED.pack(offset - 1) + row))
            case "tombstone":
                records.append(Logged(offset, key, None))
            case "short":
                records.append(Logged(offset, key, row))
            case _:
                records.append(Logged(offset, None, EXPECTED.pack(offset + 1)))
    return records


def expected_of(log: Sequence[Logged]) -> tuple[dict[bytes, bytes], int | None, set[bytes], int]:
    """Return rows, the offset they reach, keys whose surviving row is to be written again, and bytes out of place."""
    settled = [place for place, record in enumerate(log) if in_place(record)]
    written = {record.key or b"": (record.value or b"")[EXPECTED.size :] for record in log if in_place(record)}
    rows = {key: value for key, value in written.items() if value != ENDED}
    newest = {record.key or b"": in_place(record) for record in log}
    tail = log[settled[-1] + 1 if settled else 0 :]
    astray = sum(len(record.key or b"") + len(record.value or b"") for record in tail)
    reached = log[settled[-1]].offset if settled else None
    return rows, reached, {key for key, there in newest.items() if not there}, astray


class Copy:
    """A partition's local copy: a real RocksDB, and no Kafka."""

    numbers = itertools.count()

    def __init__(self, store: FencedStore) -> None:
        self.store = store
        self.partition = next(self.numbers)
        self.db = store.data._db_for_partition(self.partition)

    def seen(self) -> tuple[dict[bytes, bytes], int | None, set[bytes], int]:
        rows = {key: value for key, value in self.db.items() if key != self.store.data.offset_key}
        offset = self.db.get(self.store.data.offset_key)
        return (
            rows,
            None if offset is None else int(offset),
            set(self.store._overwritten[self.partition]),
            self.store._astray[self.partition],
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FencedStore]:
    folder = tmp_path_factory.mktemp("copies")
    app = build_app("x", bootstrap="127.0.0.1:1", data_dir=folder, partitions=1, replication_factor=1, web_port=1)
    store = app.Table("desk")
    (folder / "v1" / "tables").mkdir(parents=True, exist_ok=True)
    yield store
    store.data._dbs.clear()


def cut(log: Sequence[Logged], places: Sequence[int]) -> Iterator[Sequence[Logged]]:
    """Yield the log in pieces."""
    ends = sorted(min(place, len(log)) for place in places)
    for begin, end in itertools.pairwise([0, *ends, len(log)]):
        if begin < end:
            yield log[begin:end]


@examples(max_examples=60)
@given(log=logs(), places=st.lists(st.integers(0, 30), max_size=4), singly=st.booleans())
def test_a_log_read_in_any_pieces_makes_the_copy_that_it_means(
    store: FencedStore, log: list[Logged], places: list[int], singly: bool
) -> None:
    copy = Copy(store)
    for piece in cut(log, places):
        if singly:
            for record in piece:
                store.take_in(copy.partition, [record])
        else:
            store.take_in(copy.partition, piece)
    assert copy.seen() == expected_of(log)


@examples(max_examples=60)
@given(log=logs(), stops=st.lists(st.integers(0, 30), min_size=1, max_size=3))
def test_a_recovery_that_is_cut_off_begins_where_its_copy_ends_and_comes_to_the_same(
    store: FencedStore, log: list[Logged], stops: list[int]
) -> None:
    copy = Copy(store)
    for stop in [*sorted(stops), len(log)]:
        store._astray.clear()  # as at every rebalance
        reached = copy.seen()[1]
        store.take_in(copy.partition, [each for each in log[:stop] if reached is None or each.offset > reached])
    assert copy.seen() == expected_of(log)


def test_what_comes_after_a_copy_was_closed_is_left_to_the_next_owner(store: FencedStore) -> None:
    copy = Copy(store)
    del store.data._dbs[copy.partition]
    store.take_in(copy.partition, [Logged(0, b"k", EXPECTED.pack(0) + b"v")])
    assert copy.seen() == ({}, None, set(), 0)
    assert copy.partition not in store.data._dbs
