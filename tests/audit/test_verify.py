from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from streamapp.audit.archive import ArchiveEntry, Key
from streamapp.audit.evidence import DecisionView, OperationView, OrderView, PositionView, View
from streamapp.audit.verify import Discrepancy, difference_at, side_by_side

ORDER = OrderView("o1", "a", "s1", "filled", "", Decimal("0.1"), Decimal("1.1"), 6, 77, "asked", "digest")
OPERATION = OperationView("charge", 4, Decimal(-5))


async def listed(keys: list[Key]) -> AsyncIterator[tuple[Key, View]]:
    for key in keys:
        yield key, OPERATION


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
async def test_two_sorted_places_are_compared_thing_by_thing(ours: set[int], theirs: set[int]) -> None:
    entries = iter([ArchiveEntry(("a", number), OPERATION, 1) for number in sorted(ours)])
    found = [
        (key[1], entry is not None, view is not None)
        async for key, entry, view in side_by_side(entries, listed([("a", number) for number in sorted(theirs)]))
    ]
    assert found == [(number, number in ours, number in theirs) for number in sorted(ours | theirs)]


def test_what_is_the_same_is_no_difference() -> None:
    assert difference_at("tables", "order", ("o1", "a"), ArchiveEntry(("o1", "a"), ORDER, 3), replace(ORDER)) is None
    assert difference_at("tables", "order", ("o1", "a"), None, None) is None


def test_what_differs_is_named_with_account_order_commit_and_both_values() -> None:
    other = replace(ORDER, filled_volume=Decimal("0.2"), digest="other")
    found = difference_at("ClickHouse", "order", ("o1", "a"), ArchiveEntry(("o1", "a"), ORDER, 3), other)
    detail = "archive and ClickHouse differ: filled_volume 0.1 / 0.2, digest digest / other"
    assert found == Discrepancy("order", "a", "o1", "ClickHouse", 3, detail)
    assert str(found) == f"order o1 of a, commit 3: {detail}"


def test_what_is_in_one_place_only_is_named() -> None:
    position = PositionView("a", 4, Decimal("0.1"))
    missing = difference_at("tables", "position", ("a", 4), ArchiveEntry(("a", 4), position, 9), None)
    assert str(missing) == "position 4 of a, commit 9: in the archive, not in tables"
    decision = DecisionView("", "s-1", 5, "refused", "stale", None)
    surplus = difference_at("ClickHouse", "decision", ("", "s-1", 5), None, decision)
    assert str(surplus) == "decision s-1 5 of no account: in ClickHouse, not in the archive"
