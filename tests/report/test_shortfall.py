"""The parts of an implementation shortfall, by hand, and that they add up whatever the figures."""

from __future__ import annotations

import doctest
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.report import figures
from streamapp.report.records import LastPrice, OrderRecord
from streamapp.report.shortfall import Shortfall, shortfall
from tests.report.examples import at, fill, market, order

LATER = LastPrice(Decimal(105), at(60))


def measured(record: OrderRecord, last: LastPrice | None) -> Shortfall:
    cost = shortfall(record, last, None)
    assert isinstance(cost, Shortfall)
    return cost


def test_the_examples_in_the_docstrings_hold() -> None:
    done = doctest.testmod(figures)
    assert (done.failed, done.attempted > 4) == (0, True)


def test_a_partly_filled_order_costs_its_delay_its_execution_its_fees_and_what_it_missed() -> None:
    """The example of shortfall's docstring."""
    record = OrderRecord(order(status="cancelled"), (fill("102"),), market())
    assert shortfall(record, LATER, None) == Shortfall(
        delay=Decimal(10), execution=Decimal(10), fees=Decimal(3), opportunity=Decimal(50), paper=Decimal(2000)
    )
    cost = measured(record, LATER)
    assert (str(cost.total), cost.bps) == ("73", Decimal(365))


def test_a_sell_gains_where_a_buy_loses() -> None:
    # The mid rose from 100 to 101 before the sending, and the fills are 1 above it: a gain of 2 * 10 each.
    record = OrderRecord(order(side="sell"), (fill("102", "1.5"), fill("102", "0.5", 12)), market())
    cost = measured(record, LATER)
    assert cost[:4] == (Decimal(-20), Decimal(-20), Decimal(6), Decimal(0))


@pytest.mark.parametrize("last", [None, LastPrice(Decimal(105), at(-1))])
def test_what_was_missed_costs_nobody_knows_what_without_a_price_after_the_signal(last: LastPrice | None) -> None:
    cost = measured(OrderRecord(order(status="cancelled"), (fill("102"),), market()), last)
    assert (cost.opportunity, cost.total) == (None, Decimal(23))


def test_an_order_that_was_never_sent_costs_what_it_missed_by_its_symbols_last_market() -> None:
    stale = OrderRecord(order(status="failed", detail="stale"))
    # All 2 lots, 5 above the decision.
    assert shortfall(stale, LATER, market()) == Shortfall(
        Decimal(0), Decimal(0), Decimal(0), Decimal(100), Decimal(2000)
    )


@pytest.mark.parametrize(
    ("changes", "fills", "why"),
    [
        ({"status": "submitted"}, (), "still open"),
        ({"status": "failed", "detail": "invalid"}, (), "invalid"),
        ({"expected_price": None}, (fill("102"),), "no expected price"),
        # Of somebody else's connector: what another order's market is worth says nothing of when this one was sent.
        ({}, (fill("102"),), "no market shown"),
    ],
)
def test_an_order_without_a_shortfall_says_why(changes: dict[str, Any], fills: Any, why: str) -> None:
    assert shortfall(OrderRecord(order(**changes), fills), LATER, market()) == why


def test_an_order_at_a_price_of_zero_has_no_basis_points() -> None:
    cost = measured(OrderRecord(order(expected_price=Decimal(0)), (fill("1", "2"),), market("-1", "1")), None)
    assert (cost.total, cost.bps) == (Decimal(23), None)


_prices = st.decimals("-100000", "100000", places=5)
_lots = st.decimals("0.01", "1000", places=2)
_money = st.decimals("-1000", "1000", places=2)
_factors = st.decimals("0.0000000001", "1000000", places=10)


@given(
    st.sampled_from(["buy", "sell"]),
    _lots,
    st.lists(st.tuples(_prices, _lots, _money, _money), max_size=6),
    st.tuples(_prices, _prices, _prices, _prices),
    st.tuples(_factors, _factors),
)
def test_the_parts_add_up_exactly_to_what_paper_has_made_less_what_was_made(
    side: str, asked: Decimal, deals: list[Any], prices: tuple[Decimal, ...], factors: tuple[Decimal, Decimal]
) -> None:
    decision, bid, ask, last = prices
    size, rate = factors
    fills = tuple(
        fill(str(price), str(lots), number, commission=commission, fee=fee)
        for number, (price, lots, commission, fee) in enumerate(deals)
    )
    record = OrderRecord(
        order(side=side, volume=asked, expected_price=decision, status="cancelled"),
        fills,
        market(str(bid), str(ask), contract_size=size, account_rate=rate),
    )
    cost = measured(record, LastPrice(last, at(60)))
    # Perold's definition, in fractions: the paper portfolio has all lots at the decision's price, the real one its
    # fills and their fees; both are worth the last price.
    sign = 1 if side == "buy" else -1
    filled = sum((Fraction(lots) for _, lots, _, _ in deals), Fraction(0))
    lots = max(Fraction(asked), filled)
    unit = Fraction(size) * Fraction(rate)
    paper = sign * lots * (Fraction(last) - Fraction(decision)) * unit
    real = sum((sign * Fraction(q) * (Fraction(last) - Fraction(p)) * unit for p, q, _, _ in deals), Fraction(0))
    real += sum((Fraction(commission) + Fraction(fee) for _, _, commission, fee in deals), Fraction(0))
    assert Fraction(cost.total) == paper - real
    assert cost.opportunity is not None
    parts = (cost.delay, cost.execution, cost.fees, cost.opportunity)
    assert sum(map(Fraction, parts), Fraction(0)) == Fraction(cost.total)
