from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.slippage import Cost, cost, expected_price, order_slippage, slippage
from tests.kit.examples import accepted, claimed, created, deal, filled, order_of, says, started


def _cost(points: str | None, bps: str, money: str | None) -> Cost:
    return Cost(None if points is None else Decimal(points), Decimal(bps), None if money is None else Decimal(money))


def test_a_five_digit_pair_bought_above_the_expected_price() -> None:
    # Buy 0.10 EURUSD at 1.08520, expected 1.08512, ask 1.08515; point 0.00001, contract 100 000 EUR, account in USD.
    # expected: 1.08520 - 1.08512 = 0.00008: 8.0 points; 10^4 * 0.00008 / 1.08512 = 0.737245...: 0.7372 bps;
    #           0.00008 * 0.10 * 100 000 * 1 = 0.80 USD
    # touch:    1.08520 - 1.08515 = 0.00005: 5.0 points; 0.5 / 1.08515 = 0.460766...: 0.4608 bps; 0.50 USD
    market: dict[str, Any] = {"bid": Decimal("1.08505"), "ask": Decimal("1.08515")}
    state = order_of(
        created("0.10", expected="1.08512"), claimed(), started(**market), accepted(), filled(1, "0.10", "1.08520")
    )
    costs = order_slippage(state)
    assert costs is not None
    assert costs.expected == _cost("8.0", "0.7372", "0.8000")
    assert costs.touch == _cost("5.0", "0.4608", "0.5000")
    assert costs.currency == "USD"


def test_a_yen_pair_sold_below_the_arrival_mid() -> None:
    # Sell 0.50 USDJPY at 149.995 with bid 150.000, ask 150.010 and no expected price: the mid is 150.005.
    # Point 0.001, contract 100 000 USD, account in USD: one yen is worth 1 / 150 = 0.00666667 USD.
    # expected: -(149.995 - 150.005) = 0.010: 10.0 points; 10^4 * 0.010 / 150.005 = 0.666644...: 0.6666 bps;
    #           0.010 * 0.50 * 100 000 = 500 JPY * 0.00666667 = 3.333335: 3.3333 USD
    # touch:    -(149.995 - 150.000) = 0.005: 5.0 points; 50 / 150 = 0.333333...: 0.3333 bps; 250 JPY = 1.6666675 USD
    market: dict[str, Any] = {
        "bid": Decimal("150.000"),
        "ask": Decimal("150.010"),
        "point": Decimal("0.001"),
        "account_rate": Decimal("0.00666667"),
    }
    state = order_of(
        created("0.50", symbol="USDJPY", side="sell"),
        started(**market),
        accepted(),
        filled(1, "0.50", "149.995", side="sell"),
    )
    assert expected_price(state) == (Decimal("150.005"), "arrival_mid")
    costs = order_slippage(state)
    assert costs is not None
    assert costs.expected == _cost("10.0", "0.6666", "3.3333")
    assert costs.touch == _cost("5.0", "0.3333", "1.6667")


def test_gold_bought_better_than_expected_is_negative() -> None:
    # Buy 2 lots XAUUSD in two deals: 1.5 at 2400.10, 0.5 at 2400.50; expected 2400.40, bid 2399.90, ask 2400.20.
    # Point 0.01, contract 100 ounces, account in USD.
    # average: (1.5 * 2400.10 + 0.5 * 2400.50) / 2 = (3600.15 + 1200.25) / 2 = 2400.20
    # expected: 2400.20 - 2400.40 = -0.20: -20.0 points; -2000 / 2400.40 = -0.833194...: -0.8332 bps;
    #           -0.20 * 2 * 100 = -40 USD
    # touch:    2400.20 - 2400.20 = 0: no cost
    market: dict[str, Any] = {
        "bid": Decimal("2399.90"),
        "ask": Decimal("2400.20"),
        "point": Decimal("0.01"),
        "contract_size": Decimal(100),
    }
    state = order_of(
        created("2", symbol="XAUUSD", expected="2400.40"),
        started(**market),
        accepted(),
        filled(1, "1.5", "2400.10"),
        filled(2, "0.5", "2400.50"),
    )
    costs = order_slippage(state)
    assert costs is not None
    assert costs.expected == _cost("-20.0", "-0.8332", "-40.0000")
    assert costs.touch == _cost("0.0", "0.0000", "0.0000")


def test_an_account_whose_currency_is_neither_side_of_the_pair() -> None:
    # Sell 1 EURGBP at 0.85490, expected 0.85500, bid 0.85495, ask 0.85505; account in USD, one pound is 1.2700 USD.
    # expected: -(0.85490 - 0.85500) = 0.00010: 10.0 points; 1 / 0.85500 = 1.169590...: 1.1696 bps;
    #           0.00010 * 1 * 100 000 = 10 GBP * 1.27 = 12.70 USD
    # touch:    -(0.85490 - 0.85495) = 0.00005: 5.0 points; 0.5 / 0.85495 = 0.584829...: 0.5848 bps; 5 GBP = 6.35 USD
    market: dict[str, Any] = {"bid": Decimal("0.85495"), "ask": Decimal("0.85505"), "account_rate": Decimal("1.2700")}
    state = order_of(
        created("1", symbol="EURGBP", side="sell", expected="0.85500"),
        started(**market),
        accepted(),
        filled(1, "1", "0.85490", side="sell"),
    )
    costs = order_slippage(state)
    assert costs is not None
    assert costs.expected == _cost("10.0", "1.1696", "12.7000")
    assert costs.touch == _cost("5.0", "0.5848", "6.3500")


def test_one_fill_is_measured_by_itself() -> None:
    # The second of two deals: 0.4 at 1.08530 against 1.08510: 20 points, 0.0002 * 0.4 * 100 000 = 8 USD.
    state = order_of(created(expected="1.08510"), started(), accepted(), filled(1, "0.6"), filled(2, "0.4", "1.08530"))
    costs = slippage(state, [deal(2, "0.4", "1.08530")])
    assert costs is not None
    assert costs.expected == _cost("20.0", "1.8431", "8.0000")


def test_a_foreign_connector_gives_no_market_so_only_the_ratio_is_known() -> None:
    state = order_of(created(expected="1.08500"), claimed(), filled(1, "1", "1.08608", cause="foreign:1"))
    # 1.08608 - 1.08500 = 0.00108; 10.8 / 1.085 = 9.953917...
    assert order_slippage(state) == ((None, Decimal("9.9539"), None), None, None)


def test_without_an_expected_price_and_a_market_there_is_nothing_to_measure_against() -> None:
    assert order_slippage(order_of(created(), filled(1, cause="foreign:1"))) == (None, None, None)


def test_there_is_no_cost_without_a_fill_or_before_the_order_is_known() -> None:
    assert order_slippage(order_of(created(), started())) is None
    assert order_slippage(order_of(started(), accepted(), filled())) is None
    assert expected_price(order_of(started())) is None


def test_a_benchmark_of_0_measures_nothing() -> None:
    assert cost("buy", [deal(1, "1")], Decimal(0), None) is None


def test_a_price_above_a_negative_benchmark_is_adverse_to_a_buy() -> None:
    bought = [deal(1, "1", price="-37.60")]
    against = cost("buy", bought, Decimal("-37.66"), None)
    assert against is not None
    assert against.bps == Decimal("15.9320")


def test_a_cost_beyond_what_can_be_kept_is_left_out() -> None:
    huge = "9" * 27
    assert cost("buy", [deal(1, "1", huge)], Decimal("0.1"), None) is None
    body: Any = started(point=Decimal(0)).body
    assert cost("buy", [deal(1, huge, huge)], Decimal(huge) - 1, body) == (None, Decimal("0.0000"), None)


_prices = st.decimals("0.5", "2", places=5)


@given(st.lists(st.tuples(st.decimals("0.01", "9", places=2), _prices), min_size=1, max_size=6), _prices)
def test_the_costs_of_the_fills_add_up_to_the_cost_of_the_order(
    fills: list[tuple[Decimal, Decimal]], benchmark: Decimal
) -> None:
    market: Any = started().body
    deals = [deal(number, str(volume), str(price)) for number, (volume, price) in enumerate(fills)]
    whole = cost("buy", deals, benchmark, market)
    parts = [cost("buy", [one], benchmark, market) for one in deals]
    assert whole is not None
    assert whole.money is not None
    total = sum((part.money for part in parts if part is not None and part.money is not None), Decimal(0))
    assert abs(total - whole.money) <= Decimal("0.00005") * (len(parts) + 1)


@given(_prices, _prices)
def test_what_is_adverse_for_a_buy_is_favourable_for_a_sell(price: Decimal, benchmark: Decimal) -> None:
    market: Any = started().body
    bought = cost("buy", [deal(1, "1", str(price))], benchmark, market)
    sold = cost("sell", [deal(1, "1", str(price))], benchmark, market)
    assert bought is not None
    assert sold is not None
    assert (bought.points, bought.bps, bought.money) == tuple(-number for number in sold if number is not None)
    assert (bought.bps > 0) <= (price > benchmark)


def test_an_unaccepted_fill_costs_nothing_yet() -> None:
    assert order_slippage(order_of(created(expected="1"), says(deal(1, "1", ticket=99)))) is None
