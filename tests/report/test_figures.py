from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from streamapp.domain.vocabulary import time_text
from streamapp.report.figures import SlippageRow, report_of
from streamapp.report.records import LastPrice, OrderRecord, Records, Refusals
from tests.report.examples import at, fill, market, order, slipped

DAY = date(2026, 11, 20)


def of(*orders: OrderRecord, **more: Any) -> Any:
    return report_of(Records(DAY, DAY, orders=orders, **more))


def rows(report: Any, dimension: str, benchmark: str = "expected") -> dict[str, SlippageRow]:
    return {row.key: row for row in report.slippage if (row.dimension, row.benchmark) == (dimension, benchmark)}


def test_slippage_is_spread_by_symbol_strategy_hour_and_order_type() -> None:
    report = of(
        slipped("o-1", "1", points="10"),
        slipped("o-2", "2", points="20", strategy="carry", submitted_at=at(3600)),
        slipped("o-3", "6", points="60", order_type="limit", price=Decimal(1)),
    )
    # Of 1, 2, 6: mean 3, median 2, and the 95th percentile 2 + 0.9 * 4.
    whole = rows(report, "symbol")["EURUSD"]
    assert (whole.n, whole.bps.mean, whole.bps.median, whole.bps.p95) == (3, Decimal(3), Decimal(2), Decimal("5.6"))
    assert whole.points is not None
    assert (whole.points.mean, whole.points.p95) == (Decimal(30), Decimal(56))
    assert whole.money == whole.bps
    assert {key: (row.n, row.bps.mean) for key, row in rows(report, "strategy").items()} == {
        "breakout": (2, Decimal("3.5")),
        "carry": (1, Decimal(2)),
    }
    assert {key: row.n for key, row in rows(report, "hour").items()} == {"12:00": 2, "13:00": 1}
    assert {key: row.n for key, row in rows(report, "order_type").items()} == {"market": 2, "limit": 1}
    assert rows(report, "symbol", "touch") == {}


def test_points_of_several_symbols_are_never_one_figure() -> None:
    report = of(slipped("o-1", "1"), slipped("o-2", "3", symbol="XAUUSD"))
    [row] = rows(report, "strategy").values()
    assert (row.n, row.points, row.bps.mean) == (2, None, Decimal(2))


def test_money_of_two_currencies_is_never_one_figure() -> None:
    report = of(slipped("o-1", "1"), slipped("o-2", "3", currency="EUR"))
    found = [row for row in report.slippage if row.dimension == "symbol"]
    assert [(row.key, row.currency, row.n, row.bps.mean) for row in found] == [
        ("EURUSD", "EUR", 1, 3),
        ("EURUSD", "USD", 1, 1),
    ]
    costly = (OrderRecord(order(name), (fill("102", "2"),), market(currency=name)) for name in ("EUR", "USD"))
    assert [(row.currency, row.orders) for row in of(*costly).shortfall] == [("EUR", 1), ("USD", 1)]


def test_slippage_of_which_no_points_and_no_money_are_known_is_in_basis_points() -> None:
    [row] = rows(of(slipped("o-1", "1", points=None)), "symbol").values()
    assert (row.points, row.money, row.bps.mean) == (None, None, Decimal(1))


def test_shortfalls_are_added_up_by_strategy_and_listed_by_order_the_costliest_first() -> None:
    # 2 lots at 102 of which the mid was 101 and the decision 100: 20 of delay, 20 of execution, 3 of fees.
    filled = OrderRecord(order("o-1"), (fill("102", "2"),), market())
    missed = OrderRecord(order("o-2", status="failed", detail="stale"))
    unmeasured = OrderRecord(order("o-3", status="submitted"))
    unknown = OrderRecord(order("o-4", status="cancelled", signal_at=at(120)), (fill("101"),), market())
    report = of(
        missed, filled, unmeasured, unknown, deals={("demo-hedging", "EURUSD"): LastPrice(Decimal(104), at(60))}
    )
    # Missed: (104 - 100) * 2 * 10. The one whose last price is older than its signal: 10 of delay, 3 of fees.
    by_order = [(row.order_id, row.total) for row in report.shortfall_by_order]
    assert by_order == [("o-2", 80), ("o-1", 43), ("o-4", 13)]
    [whole] = report.shortfall
    assert (whole.orders, whole.not_known, whole.total) == (3, 1, 136)
    assert (whole.delay, whole.execution, whole.fees, whole.opportunity) == (30, 20, 6, 80)
    assert whole.bps == Decimal("226.6667")  # of 6000
    assert report.unmeasured == {"still open": 1}


def test_the_last_price_is_the_newest_of_the_deals_and_of_the_quotes_at_sending() -> None:
    missed = OrderRecord(order("o-1", status="failed", detail="stale"))
    later = OrderRecord(order("o-2"), (fill("102", "2"),), market("108", "110", sent_at=at(90)))
    deals = {("demo-hedging", "EURUSD"): LastPrice(Decimal(104), at(60))}
    cost = {row.order_id: row for row in of(missed, later, deals=deals).shortfall_by_order}["o-1"]
    assert cost.opportunity == 180  # (109 - 100) * 2 * 10


def test_ratios_are_of_the_orders_that_are_over_and_lots_of_those_that_were_at_the_broker() -> None:
    half = order("o-2", status="cancelled", detail="user", filled_volume=Decimal(1))
    several = (
        order("o-1", filled_volume=Decimal(2)),
        half,
        order("o-3", status="rejected", detail="NO_MONEY"),
        order("o-4", status="failed", detail="stale"),
        order("o-5", status="submitted"),
    )
    [row] = of(*map(OrderRecord, several)).ratios
    assert (row.orders, row.sent, row.filled, row.rejected) == (4, 3, 1, 2)
    assert (row.volume, row.filled_volume, row.fill_ratio, row.reject_ratio) == (6, 3, Decimal("0.5"), Decimal("0.5"))
    [nothing] = of(OrderRecord(several[3])).ratios
    assert (nothing.sent, nothing.fill_ratio, nothing.reject_ratio) == (0, None, 1)


def test_reasons_are_counted_for_orders_and_for_signals_that_never_became_one() -> None:
    several = (order("o-1", status="rejected", detail="NO_MONEY"), order("o-2", status="rejected", detail="NO_MONEY"))
    report = of(*map(OrderRecord, several), refusals=(Refusals(reason="stale", count=3),))
    assert [(one.what, one.reason, one.count) for one in report.reasons] == [
        ("signal refused", "stale", 3),
        ("rejected", "NO_MONEY", 2),
    ]


def test_latency_is_by_step_and_to_the_fill_of_market_orders_alone() -> None:
    waiting = order("o-2", order_type="limit", price=Decimal(1), created_at=at(0.020), submitted_at=None)
    report = of(
        OrderRecord(order("o-1"), (fill("102", at=at(0.4)), fill("102", deal=12, at=at(0.1))), market()),
        OrderRecord(waiting, (fill("102", at=at(900)),)),
    )
    # 10 and 20 ms: the median halfway, and the 95th percentile 95 hundredths of the way.
    assert [(row.step, row.n, row.p50, row.p95) for row in report.latency] == [
        ("signal to created", 2, 15, Decimal("19.5")),
        ("created to order_send", 1, 5, 5),
        ("order_send to fill", 1, 85, 85),
        ("signal to fill", 1, 100, 100),
    ]


def test_a_report_is_json_whose_amounts_are_exact_text() -> None:
    text = of(OrderRecord(order("o-1"), (fill("102.00001", "2"),), market())).model_dump_json()
    assert '"total":"43.00020"' in text
    assert f'"first":"{DAY}"' in text
    assert time_text(at(0)) not in text
