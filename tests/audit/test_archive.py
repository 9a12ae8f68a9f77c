from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp import topics
from streamapp.audit.archive import KEYS, ArchiveFault, ArchiveFold, Kind
from streamapp.audit.evidence import (
    PositionView,
    View,
    decision_view,
    fill_view,
    folded_fill,
    folded_order,
    operation_view,
    order_view,
    position_view,
)
from streamapp.desk.rendering import current_order
from streamapp.domain import facts as f
from streamapp.domain.facts import Fact
from streamapp.domain.fold import fold
from streamapp.domain.orders import OrderState
from streamapp.messages.commit import encode_commit
from streamapp.messages.fact import FactMessage
from tests.audit.reports import corrected, traded
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import START, created, deal, fact_sets, filled


@contextmanager
def archive_of(records: Sequence[bytes]) -> Iterator[ArchiveFold]:
    archive = ArchiveFold()
    try:
        for offset, record in enumerate(records):
            archive.take(record, f"offset {offset}")
        yield archive
    finally:
        archive.close()


def commit(number: int, *facts: Fact, account: str = "demo") -> bytes:
    return encode_commit(account, number, START, [FactMessage.of(fact).encode() for fact in facts], ())


def views(archive: ArchiveFold, kind: Kind) -> list[View]:
    return [entry.view for entry in archive.entries(kind)]


# --- a worker's own archive


@pytest.fixture
async def world() -> AsyncIterator[DeskWorld]:
    """A desk whose account has traded, been charged, corrected and refused."""
    world = await DeskWorld().start()
    filled_id = await world.signal("s-1", volume="0.3", expected_price="1.08")
    await world.signal("s-1", volume="0.3", expected_price="1.08")
    await world.signal("s-2", volume="NaN")
    working = await world.signal("s-3", order_type="limit", price="1.01")
    await world.report(
        *traded(filled_id),
    )
    await world.report(
        *corrected(filled_id, working),
        first_seq=9,
    )
    row = world.account_row()
    assert row is not None
    assert row.watermark == 13
    yield world
    assert world.failures == []
    await world.broker.close()


def newest(world: DeskWorld, schema: str, key: str) -> list[dict[str, Any]]:
    """Return the archived messages of a schema, of each thing the one that counts now."""
    found: dict[Any, dict[str, Any]] = {}
    for message in world.archived(schema):
        known = found.get(message[key])
        rank = "rev" if "rev" in message else "revision"
        if known is None or message.get(rank, 0) >= known.get(rank, 0):
            found[message[key]] = message
    return [found[name] for name in sorted(found)]


def archived(world: DeskWorld) -> list[bytes]:
    return [record.value for record in world.producer.on(topics.ARCHIVE)]


async def test_the_fold_of_an_archive_is_what_its_worker_has_in_its_rows_and_has_said(world: DeskWorld) -> None:
    with archive_of(archived(world)) as archive:
        assert list(archive.faults()) == []
        row_number = world.account_row()
        assert row_number is not None
        assert archive.commits() == {ACCOUNT: row_number.number}
        ids = sorted({str(message["order_id"]) for message in world.archived("order/1")})
        rows = [current_order(world.order_row(order_id)) for order_id in ids]
        assert views(archive, "order") == [order_view(json.loads(row.encode())) for row in rows if row is not None]
        assert views(archive, "fill") == [fill_view(message) for message in newest(world, "fill/1", "fill_id")]
        positions = [position_view(message) for message in newest(world, "position/1", "position_id")]
        assert views(archive, "position") == positions
        assert views(archive, "operation") == [
            operation_view(message) for message in newest(world, "account_operation/1", "deal")
        ]
        decided = sorted(map(decision_view, world.archived("signal/1")), key=lambda view: view.stream_seq)
        assert sorted(views(archive, "decision"), key=lambda view: view.stream_seq) == decided  # type: ignore[union-attr]
        assert {position.position_id: position.volume for position in positions} == {7: Decimal("0.2"), 8: Decimal(0)}


async def test_a_worker_that_died_and_said_its_words_again_has_changed_nothing(world: DeskWorld) -> None:
    records = archived(world)
    with archive_of(records) as once, archive_of([*records, *records[-3:]]) as again:
        for kind in KEYS:
            assert list(once.entries(kind)) == list(again.entries(kind))
        assert list(again.faults()) == []


async def test_what_the_archive_has_is_found_by_its_key(world: DeskWorld) -> None:
    with archive_of(archived(world)) as archive:
        for kind in KEYS:
            entries = list(archive.entries(kind))
            assert [archive.entry(kind, entry.key) for entry in entries] == entries
            assert sorted(entry.key for entry in entries) == [entry.key for entry in entries]
            assert archive.entry(kind, ("nobody", *entries[0].key[1:])) is None


# --- any archive


def grouped(facts: Sequence[Fact], sizes: Sequence[int]) -> list[bytes]:
    """Return commits of so many facts each, the rest in the last."""
    records: list[bytes] = []
    left = list(facts)
    for size in sizes:
        records.append(commit(len(records) + 1, *left[:size]))
        left = left[size:]
    return [*records, commit(len(records) + 1, *left)]


@given(fact_sets, st.lists(st.integers(1, 5), max_size=6), st.data())
def test_orders_and_fills_are_the_domains_fold_however_commits_group_and_repeat_them(
    facts: list[Fact], sizes: list[int], data: st.DataObject
) -> None:
    facts = [*facts, created("1")] if all(fact.fact != "OrderCreated" for fact in facts) else facts
    records = grouped(facts, sizes)
    at = data.draw(st.integers(0, len(records)))
    with archive_of([*records, *records[at:]]) as archive:
        state = fold(OrderState(), facts)
        [entry] = archive.entries("order")
        assert entry.view == folded_order("6a2f5d1e-0000-8000-8000-000000000001", "demo", state)
        seen = {number: folded_fill(f"demo:{number}", facts[0].order_id, one) for number, one in state.deals.items()}
        assert views(archive, "fill") == [seen[number] for number in sorted(seen) if seen[number] is not None]
        assert list(archive.faults()) == []


@given(st.integers(2, 12), st.data())
def test_any_commit_that_is_missing_is_named(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(1, count - 1))
    with archive_of([commit(number) for number in range(1, count + 1) if number != gone]) as archive:
        [fault] = archive.faults()
        detail = f"missing: expected commit {gone}, got {gone + 1} after {gone - 1}"
        assert fault == ArchiveFault("demo", gone, detail, "missing")


def test_several_commits_that_are_missing_are_one_fault_and_each_account_counts_by_itself() -> None:
    records = [commit(1), commit(5), commit(1, account="other"), commit(2, account="other")]
    with archive_of(records) as archive:
        assert list(map(str, archive.faults())) == ["commit 2 of demo: missing: expected commit 2 to 4, got 5 after 1"]
        assert archive.commits() == {"demo": 2, "other": 2}


def test_a_commit_that_comes_again_with_another_content_is_named_and_the_first_one_counts() -> None:
    with archive_of([commit(1, created("1")), commit(1, created("1"), filled(9, "1"))]) as archive:
        detail = "there with two contents, at offset 0 and at offset 1: the first one counts"
        assert list(archive.faults()) == [ArchiveFault("demo", 1, detail, "two_contents")]
        assert views(archive, "fill") == []


def test_a_fact_that_comes_again_with_another_content_is_named_and_the_first_one_counts() -> None:
    first, other = filled(9, "1"), filled(9, "2")
    with archive_of([commit(1, created("1"), first), commit(2, first), commit(3, other)]) as archive:
        [fault] = archive.faults()
        detail = "fact demo:deal:9 has another content than in commit 1, which counts"
        assert fault == ArchiveFault("demo", 3, detail, "conflict")
        assert [entry.commit for entry in archive.entries("fill")] == [1]
        [fill] = views(archive, "fill")
        assert fill == folded_fill("demo:9", first.order_id, fold(OrderState(), [first]).deals[9])


def test_a_record_that_is_no_commit_is_named_and_disturbs_nothing() -> None:
    with archive_of([commit(1, created("1")), b"{", commit(2, filled(9, "1"))]) as archive:
        [fault] = archive.faults()
        assert (fault.account, fault.commit) == ("", None)
        assert str(fault).startswith("a record of no account: offset 1: expected commit/1, got what is not_json")
        assert len(views(archive, "fill")) == 1


def test_news_that_no_row_keeps_is_no_commit() -> None:
    with archive_of([commit(0), commit(1), commit(0), commit(2)]) as archive:
        assert (list(archive.faults()), archive.commits(), archive.records) == ([], {"demo": 2}, 4)


def test_a_position_of_more_deals_than_are_folded_at_once_is_their_sum() -> None:
    sides = ("sell", "buy")
    facts = [deal_of_nobody(number, profit=Decimal("0.25"), side=sides[number % 2]) for number in range(1, 2502)]
    with archive_of([commit(number, fact) for number, fact in enumerate(facts, start=1)]) as archive:
        [position] = archive.entries("position")
        assert position.commit == 2501
        assert isinstance(position.view, PositionView)
        assert (position.view.volume, position.view.realized_profit) == (Decimal(1), Decimal("625.25"))


def deal_of_nobody(number: int, **more: Any) -> Fact:
    return f.make_fact("demo", None, deal(number, "1", seconds=number, **more), at=START + timedelta(seconds=number))
