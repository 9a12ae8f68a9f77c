"""An order's row: the same when it is read again, small, and clear about where the order stands."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from streamapp.domain.facts import Fact
from streamapp.domain.fold import fold
from streamapp.domain.identifiers import order_id_for
from tables.orders import HANDED_OVER, OrderIndex, OrderRow
from tables.row import OVER
from tests.kit.examples import (
    ACCOUNT,
    ORDER,
    accepted,
    busted,
    cancelled,
    claimed,
    created,
    doubt,
    fact_sets,
    filled,
    refused,
)

EMPTY = OrderRow(open=True, order_id=ORDER, account=ACCOUNT)


def row_of(*several: Fact, order_id: str = ORDER, **more: Any) -> OrderRow:
    return EMPTY.changed(state=fold(EMPTY.state, several), order_id=order_id, **more)


@settings(max_examples=60, deadline=None)
@given(fact_sets)
def test_a_row_is_the_same_after_it_was_read_again(several: list[Fact]) -> None:
    row = row_of(*several, waiting=tuple(several), journal_epoch="e1")
    again = OrderRow.decode(row.encode())
    assert again == row
    assert list(again.state.facts) == list(row.state.facts)
    assert (again.encode(), again.status, again.anomalies) == (row.encode(), row.status, row.anomalies)


def test_a_row_keeps_no_more_of_a_fact_than_its_id_and_what_corrections_need() -> None:
    deals = [filled(number, "0.01", comment="c" * 30) for number in range(100, 200)]
    assert len(row_of(created("9"), claimed(), accepted(), *deals).encode()) < 40_000


def test_a_conflict_survives_the_row() -> None:
    row = OrderRow.decode(row_of(created(), filled(1, "1"), filled(1, "2")).encode())
    assert row.state.conflicts == (filled(1).fact_id,)
    assert "conflict" in row.anomalies


@pytest.mark.parametrize(
    ("several", "is_closed"),
    [
        ([created("1"), claimed()], False),
        ([created("1"), claimed(), refused()], True),
        ([created("1"), claimed(), accepted(), filled(9, "1")], True),
        ([accepted(), cancelled()], False),  # its OrderCreated has not come
        ([created("1"), claimed(), accepted(), filled(9, "1"), filled(10, "1")], False),  # it halts its account
        ([created("1"), claimed(), accepted(), filled(9, "1"), filled(10, "1"), busted(10, 1)], True),
    ],
)
def test_only_a_row_that_nobody_must_look_at_again_begins_as_closed(several: list[Fact], is_closed: bool) -> None:
    assert row_of(*several).encode().startswith(OVER) == is_closed


@pytest.mark.parametrize(
    ("several", "more", "standing"),
    [
        ([created()], {}, "held"),
        ([created(), claimed()], {"claim_epoch": "e1"}, "unanswered"),
        ([created(), claimed(), doubt("no_answer")], {"claim_epoch": "e1"}, "unanswered"),
        ([created(), claimed(), accepted()], {"claim_epoch": "e1", "journal_epoch": "e1"}, "recorded"),
        ([created(), claimed(), refused()], {"claim_epoch": "e1", "journal_epoch": "e1"}, "over"),
        ([created(), claimed()], {"claim_epoch": HANDED_OVER}, "handed_over"),
        ([created(), claimed(), doubt("no_answer")], {"claim_epoch": HANDED_OVER}, "over"),
        ([created(), claimed(), filled(9, "0.1", cause="foreign:1")], {"claim_epoch": HANDED_OVER}, "over"),
        ([accepted()], {"journal_epoch": "e1"}, "over"),
    ],
)
def test_where_an_order_stands_is_read_from_its_row_alone(
    several: list[Fact], more: dict[str, Any], standing: str
) -> None:
    assert OrderRow.decode(row_of(*several, **more).encode()).standing == standing


# --- the index


def an_order(name: str, *, seconds: float = 0, **more: Any) -> OrderRow:
    facts = [created(seconds=seconds), *([claimed(seconds=seconds + 1)] if more else [])]
    return row_of(*facts, order_id=order_id_for("test", ACCOUNT, name), **more)


def test_the_index_knows_who_waits_and_for_how_long() -> None:
    index = OrderIndex()
    late, early = an_order("late", seconds=9), an_order("early", claim_epoch="e1")
    for row in (late, early, an_order("recorded", claim_epoch="e1", journal_epoch="e1")):
        index.put(row, 3)
    assert [order_id for order_id, _ in index.waiting(ACCOUNT)] == [early.order_id, late.order_id]
    assert index.standings == {(ACCOUNT, "held"): 1, (ACCOUNT, "unanswered"): 1}
    assert index.accounts() == {ACCOUNT}
    index.put(row_of(created(), claimed(), refused(), order_id=early.order_id), 3)
    assert [order_id for order_id, _ in index.waiting(ACCOUNT)] == [late.order_id]


def test_the_index_finds_the_oldest_orders_of_another_journal() -> None:
    index = OrderIndex()
    rows = [
        an_order(str(second), seconds=second, claim_epoch="e1", journal_epoch="e2" if second == 3 else "e1")
        for second in (2, 1, 3)
    ]
    for row in rows:
        index.put(row, 3)
    assert index.recorded_elsewhere(ACCOUNT, "e2", 9) == [rows[1].order_id, rows[0].order_id]
    assert index.recorded_elsewhere(ACCOUNT, "e2", 1) == [rows[1].order_id]
    assert index.recorded_elsewhere("other", "e2", 9) == []


def test_an_answer_is_remembered_until_the_journals_report_comes() -> None:
    index = OrderIndex()
    row = an_order("one", claim_epoch="e1")
    index.answered(row.order_id, "e1")  # not of an order it knows
    assert not index.is_answered(row.order_id, "e1")
    index.put(row, 3)
    index.answered(row.order_id, "e1")
    assert index.is_answered(row.order_id, "e1")
    assert not index.is_answered(row.order_id, "e2")
    index.put(row.changed(journal_epoch="e1"), 3)
    assert not index.is_answered(row.order_id, "e1")


def test_partitions_that_are_lost_leave_nothing_in_the_index() -> None:
    index = OrderIndex()
    kept, lost = an_order("kept", claim_epoch="e1"), an_order("lost", claim_epoch="e1")
    index.put(kept, 1)
    index.put(lost, 2)
    index.answered(lost.order_id, "e1")
    index.drop(frozenset({2}))
    assert (list(index.open), [name for name, _ in index.waiting(ACCOUNT)]) == ([kept.order_id], [kept.order_id])
    assert not index.is_answered(lost.order_id, "e1")
