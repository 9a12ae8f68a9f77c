from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.reconciliation import (
    AccountBooks,
    BookDifference,
    BookedOrder,
    BookedPosition,
    cause_of,
    compare,
    differing_deals,
)
from tests.kit.examples import accepted, busted, claimed, created, filled, order_of

LOTS = st.integers(min_value=1, max_value=500).map(lambda lots: Decimal(lots) / 100)
ANYBODYS = st.booleans()
SIGNED = st.tuples(LOTS, st.sampled_from((1, -1))).map(lambda one: one[0] * one[1])


@st.composite
def books(draw: st.DrawFn, ours: Any = ANYBODYS) -> AccountBooks:
    positions = [
        BookedPosition(number, draw(st.sampled_from(("EURUSD", "XAUUSD"))), draw(SIGNED), draw(ours))
        for number in draw(st.sets(st.integers(1, 20), max_size=6))
    ]
    orders = [
        BookedOrder(ticket, "EURUSD", f"o-{ticket}" if draw(ours) else None)
        for ticket in draw(st.sets(st.integers(100, 120), max_size=6))
    ]
    return AccountBooks(tuple(positions), tuple(orders))


def of_ours(known: AccountBooks) -> AccountBooks:
    """What our own books hold of orders is always ours."""
    return replace(known, orders=tuple(order for order in known.orders if order.order_id is not None))


@given(books())
def test_books_that_say_the_same_do_not_differ(known: AccountBooks) -> None:
    assert compare(of_ours(known), known).differences == ()


@given(books(st.just(False)), books())
def test_what_is_nobodys_of_ours_is_foreign_and_never_a_difference(foreign: AccountBooks, known: AccountBooks) -> None:
    own = of_ours(known)
    taken = {each.position_id for each in own.positions} | {each.ticket for each in own.orders}
    theirs = AccountBooks(
        tuple(each for each in foreign.positions if each.position_id not in taken),
        tuple(each for each in foreign.orders if each.ticket not in taken),
    )
    both = AccountBooks((*own.positions, *theirs.positions), (*own.orders, *theirs.orders))
    found = compare(own, both)
    assert found.differences == ()
    assert found.foreign_positions >= {each.position_id for each in theirs.positions}
    assert found.foreign_orders == {each.ticket for each in theirs.orders}


@given(books(), books(), st.randoms())
def test_neither_the_order_of_rows_nor_the_side_that_is_asked_first_matters(
    one: AccountBooks, two: AccountBooks, dice: Any
) -> None:
    def shuffled(known: AccountBooks) -> AccountBooks:
        positions, orders = list(known.positions), list(known.orders)
        dice.shuffle(positions)
        dice.shuffle(orders)
        return AccountBooks(tuple(positions), tuple(orders))

    ours = of_ours(one)
    assert compare(shuffled(ours), shuffled(two)) == compare(ours, two)
    positions, others = AccountBooks(ours.positions), AccountBooks(two.positions)
    forth, back = compare(positions, others).differences, compare(others, positions).differences
    assert {each.place for each in forth} == {each.place for each in back}


@given(books(st.just(True)), books(st.just(True)))
def test_every_place_where_our_books_differ_is_named_once_and_no_other(
    ours: AccountBooks, theirs: AccountBooks
) -> None:
    mine = {each.position_id: each for each in ours.positions}
    there = {each.position_id: each for each in theirs.positions}
    wanted = {f"position:{one}" for one in mine.keys() | there.keys() if mine.get(one) != there.get(one)}
    wanted |= {f"ticket:{one.ticket}" for one in {*ours.orders} ^ {*theirs.orders}}
    places = [each.place for each in compare(ours, theirs).differences]
    assert len(places) == len(set(places))
    assert set(places) == wanted


MINE = BookedPosition(7, "EURUSD", Decimal("0.10"), ours=True, order_id="o-1")


@pytest.mark.parametrize(
    ("ours", "theirs", "kind", "texts"),
    [
        (MINE, None, "position_missing", ("buy 0.1 EURUSD", None)),
        (None, MINE, "position_unknown", (None, "buy 0.1 EURUSD")),
        (MINE, replace(MINE, net=Decimal("0.40"), ours=False), "volume", ("buy 0.1 EURUSD", "buy 0.4 EURUSD")),
        (replace(MINE, ours=False), replace(MINE, net=Decimal(10)), "volume", ("buy 0.1 EURUSD", "buy 10 EURUSD")),
        (MINE, replace(MINE, net=Decimal("-0.10")), "side", ("buy 0.1 EURUSD", "sell 0.1 EURUSD")),
        (MINE, replace(MINE, symbol="XAUUSD"), "symbol", ("buy 0.1 EURUSD", "buy 0.1 XAUUSD")),
    ],
)
def test_a_difference_of_a_position_says_what_each_side_has(ours: Any, theirs: Any, kind: str, texts: Any) -> None:
    (found,) = compare(
        AccountBooks(tuple(filter(None, [ours]))), AccountBooks(tuple(filter(None, [theirs])))
    ).differences
    assert (found.kind, found.place, (found.ours, found.theirs)) == (kind, "position:7", texts)
    assert (found.position_id, found.order_id) == (7, "o-1")


def test_an_order_that_works_on_one_side_only_differs_unless_its_ticket_is_still_to_be_reported() -> None:
    order = BookedOrder(5, "EURUSD", "o-1")
    (missing,) = compare(AccountBooks(orders=(order,)), AccountBooks()).differences
    assert (missing.kind, missing.ours, missing.theirs, missing.order_id) == ("order_missing", "working", None, "o-1")
    (unexpected,) = compare(AccountBooks(), AccountBooks(orders=(order,))).differences
    assert (unexpected.kind, unexpected.ours, unexpected.theirs) == ("order_unexpected", None, "working")
    assert compare(AccountBooks(), AccountBooks(orders=(order,)), unfinished=frozenset({"o-1"})).differences == ()


@pytest.mark.parametrize(("now", "cause"), [("b", "late_report"), ("a", "broker"), (None, "both")])
def test_the_cause_of_an_end_is_the_side_that_moved(now: str | None, cause: str) -> None:
    assert cause_of("a", "b", now) == cause


def deals_of(*several: Any) -> list[tuple[str, str | None, str | None]]:
    state = order_of(created("1"), claimed(), accepted(), *several)
    return [(each.place, each.ours, each.theirs) for each in differing_deals(state)]


def test_a_difference_is_the_same_by_its_lots_or_without_any_by_what_both_sides_say() -> None:
    position = BookDifference("volume", "position:7", "EURUSD", "buy 1 EURUSD", "buy 3 EURUSD", lots=Decimal(2))
    assert position.is_same(replace(position, ours="buy 2 EURUSD", theirs="buy 4 EURUSD"))
    assert not position.is_same(replace(position, lots=Decimal(3)))
    order = BookDifference("order_missing", "order:7", "EURUSD", "working", None, ticket=7)
    assert order.is_same(replace(order, rev=4))
    assert not order.is_same(replace(order, ours=None, theirs="working"))


def test_a_deal_of_another_symbol_or_side_or_larger_than_its_order_differs() -> None:
    assert deals_of(filled(1, "1")) == []
    assert deals_of(filled(1, "0.4", side="sell")) == [("deal:1", "buy 1 EURUSD", "sell 0.4 EURUSD")]
    assert deals_of(filled(1, "1", symbol="GBPUSD")) == [("deal:1", "buy 1 EURUSD", "buy 1 GBPUSD")]
    assert deals_of(filled(1, "1.5"), filled(2, "1")) == [("deal:1", "buy 1 EURUSD", "buy 1.5 EURUSD")]


def test_a_deal_that_was_taken_back_and_a_foreign_connectors_differ_from_nothing() -> None:
    assert deals_of(filled(1, "1", side="sell"), busted(1, 1)) == []
    assert deals_of(filled(1, "1", symbol="EURUSD.x", cause="foreign:1")) == []
    assert differing_deals(order_of(filled(1, "1"))) == ()
