from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streamapp.domain.guards import (
    AccountFacts,
    OpenExposure,
    OrderToOpen,
    QuotedOrder,
    before_quote,
    notional,
    with_quote,
)
from streamapp.domain.limits import AccountLimits, Limits, SymbolLimits
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import Side

FRIDAY = datetime(2026, 11, 27, 21, 59, 30, tzinfo=UTC)
SYMBOLS = ("EURUSD", "GBPUSD", "XAUUSD")
SET_THE_CLOCK = "set the clock of the terminal's machine, or restart the terminal if it is right now"


@dataclass(frozen=True)
class Account(AccountFacts):
    """An account in a dict of lots; ``orders`` are the open ones by symbol."""

    lots: dict[str, OpenExposure] = field(default_factory=dict)
    orders: dict[str, int] = field(default_factory=dict)
    orders_today: int = 0
    orders_last_second: int = 0
    server_offset_s: int | None = 0

    def open_orders(self, symbol: str | None) -> int:
        return sum(self.orders.values()) if symbol is None else self.orders.get(symbol, 0)

    def symbols(self) -> Iterable[str]:
        return self.lots

    def exposure(self, symbol: str) -> OpenExposure:
        return self.lots.get(symbol, OpenExposure())

    def after(self, order: OrderParameters) -> Account:
        """Return the account with one more order on its way."""
        symbol = order.symbol
        return replace(
            self,
            lots=self.lots | {symbol: self.exposure(symbol).plus(order.side, order.volume)},
            orders=self.orders | {symbol: self.open_orders(symbol) + 1},
            orders_today=self.orders_today + 1,
            orders_last_second=self.orders_last_second + 1,
        )


def order(volume: str | Decimal = "0.5", side: Side = "buy", symbol: str = "EURUSD", **more: Any) -> OrderParameters:
    values = {"order_type": "market", **more}
    return OrderParameters(symbol=symbol, side=side, volume=Decimal(volume), **values)


def refusal(
    asked: OrderParameters, limits: AccountLimits, account: Account | None = None, *, age_s: float = 0
) -> str | None:
    approved_at = FRIDAY - timedelta(seconds=age_s)
    opening = OrderToOpen(asked, approved_at, FRIDAY, limits, limits.of_order(asked.symbol), account or Account())
    broken = before_quote(opening)
    return None if broken is None else str(broken)


def holding(net: str, buying: str = "0", selling: str = "0", symbol: str = "EURUSD") -> Account:
    return Account({symbol: OpenExposure(Decimal(net), Decimal(buying), Decimal(selling))})


@pytest.mark.parametrize(
    ("limits", "account", "said"),
    [
        ({"max_volume": "0.4"}, Account(), "max_volume: expected 0.4 lots at most for EURUSD, got 0.5"),
        ({"symbols": ("XAUUSD", "GBPUSD")}, Account(), "symbols: expected one of XAUUSD, GBPUSD, got EURUSD"),
        ({"max_signal_age_s": 1.5}, Account(), "max_signal_age_s: expected a signal of 1.5 s at most, got 2.0 s"),
        (
            {"no_trade": ("fri 21:55-22:10",)},
            Account(),
            "no_trade: expected EURUSD at a time out of fri 21:55-22:10, got 2026-11-27T21:59:30.000000Z",
        ),
        (
            {"no_trade": ("23:55-00:10 broker",)},
            Account(server_offset_s=7200),
            "no_trade: expected EURUSD at a time out of 23:55-00:10 broker, got 2026-11-27T21:59:30.000000Z",
        ),
        (
            {"no_trade": ("12:00-12:01 broker",)},
            Account(server_offset_s=None),
            "no_trade: expected the server's clock known, got none yet: its terminal has not shown it",
        ),
        (
            {"max_orders_per_second": 3},
            Account(orders_last_second=3),
            "max_orders_per_second: expected 3 at most for the account, got 4",
        ),
        (
            {"max_orders_per_day": 100},
            Account(orders_today=100),
            "max_orders_per_day: expected 100 at most for the account, got 101",
        ),
        (
            {"max_open_orders": 2},
            Account(orders={"EURUSD": 1, "GBPUSD": 1}),
            "max_open_orders: expected 2 at most for the account, got 3",
        ),
        (
            {"max_position_volume": "2"},
            holding("1", buying="0.6", selling="9"),
            "max_position_volume: expected 2 lots at most for EURUSD, got 2.1 long",
        ),
        (
            {"max_total_volume": "3"},
            Account({"GBPUSD": OpenExposure(Decimal(-2)), "EURUSD": OpenExposure(Decimal(1))}),
            "max_total_volume: expected 3 lots at most, got 3.5",
        ),
    ],
)
def test_each_refusal_names_its_guard_the_limit_and_the_value(
    limits: dict[str, Any], account: Account, said: str
) -> None:
    own = Limits.model_validate(limits)
    assert refusal(order(), AccountLimits(own), account, age_s=2) == said
    assert refusal(order(), AccountLimits(), account, age_s=2) is None


def test_a_limit_of_one_symbol_counts_its_orders_and_holds_for_it_alone() -> None:
    limits = AccountLimits(
        Limits(max_open_orders=9), {"EURUSD": SymbolLimits(max_open_orders=1, max_volume=Decimal(1))}
    )
    account = Account(orders={"EURUSD": 1, "GBPUSD": 4})
    assert refusal(order(), limits, account) == "max_open_orders: expected 1 at most for EURUSD, got 2"
    assert refusal(order(symbol="GBPUSD"), limits, account) is None
    assert refusal(order("2"), limits) == "max_volume: expected 1 lots at most for EURUSD, got 2"
    assert refusal(order("2", symbol="GBPUSD"), limits) is None


def test_what_makes_less_of_a_position_that_is_too_large_passes() -> None:
    limits = AccountLimits(Limits(max_position_volume=Decimal(1), max_total_volume=Decimal(1)))
    short = Account({"EURUSD": OpenExposure(Decimal(-5)), "GBPUSD": OpenExposure(Decimal(3))})
    assert refusal(order("5"), limits, short) is None
    assert refusal(order("7"), limits, short) == "max_position_volume: expected 1 lots at most for EURUSD, got 2 long"
    assert "5.5 short" in str(refusal(order(side="sell"), limits, short))


def test_what_is_open_is_not_looked_at_where_nobody_limits_it() -> None:
    class Untouched(Account):
        def open_orders(self, symbol: str | None) -> int:
            raise AssertionError(symbol)

        def exposure(self, symbol: str) -> OpenExposure:
            raise AssertionError(symbol)

        def symbols(self) -> Iterable[str]:
            raise AssertionError

    limits = Limits(max_volume=Decimal(1), max_orders_per_day=5, max_signal_age_s=9, no_trade=("12:00-12:01",))
    assert refusal(order(), AccountLimits(limits), Untouched()) is None


volumes = st.integers(1, 400).map(lambda cents: Decimal(cents) / 100)
orders = st.builds(order, volumes, st.sampled_from(["buy", "sell"]), st.sampled_from(SYMBOLS))
lots = st.integers(-300, 300).map(lambda cents: Decimal(cents) / 100)
amounts = st.integers(0, 300).map(lambda cents: Decimal(cents) / 100)
accounts = st.builds(
    Account,
    st.dictionaries(st.sampled_from(SYMBOLS), st.builds(OpenExposure, lots, amounts, amounts)),
    st.dictionaries(st.sampled_from(SYMBOLS), st.integers(0, 4)),
    st.integers(0, 6),
    st.integers(0, 4),
)
own_limits = st.fixed_dictionaries(
    {},
    optional={
        "max_volume": volumes,
        "max_position_volume": volumes,
        "max_open_orders": st.integers(0, 5),
    },
)
account_limits = st.builds(
    lambda account, several, by_symbol: AccountLimits(
        Limits(**account, **several), {name: SymbolLimits(**one) for name, one in by_symbol.items()}
    ),
    own_limits,
    st.fixed_dictionaries(
        {},
        optional={
            "max_total_volume": volumes,
            "max_orders_per_second": st.integers(0, 4),
            "max_orders_per_day": st.integers(0, 6),
        },
    ),
    st.dictionaries(st.sampled_from(SYMBOLS), own_limits),
)


@given(orders, account_limits, accounts)
def test_no_order_that_the_guards_let_pass_breaks_a_limit_once_it_is_there(
    asked: OrderParameters, limits: AccountLimits, account: Account
) -> None:
    assume(refusal(asked, limits, account) is None)
    after, symbol = account.after(asked), asked.symbol
    whole, own = limits.account, limits.of_symbol(symbol)
    for each, of in ((whole, None), (own, symbol)):
        assert each.max_volume is None or asked.volume <= each.max_volume
        assert each.max_open_orders is None or after.open_orders(of) <= each.max_open_orders
        assert each.max_position_volume is None or after.exposure(symbol).side(asked.side) <= each.max_position_volume
    assert whole.max_orders_per_second is None or after.orders_last_second <= whole.max_orders_per_second
    assert whole.max_orders_per_day is None or after.orders_today <= whole.max_orders_per_day
    grows = after.exposure(symbol).largest > account.exposure(symbol).largest
    total = sum((each.largest for each in after.lots.values()), Decimal(0))
    assert whole.max_total_volume is None or not grows or total <= whole.max_total_volume


# --- with a quote


def quoted(asked: OrderParameters | None = None, **changes: Any) -> QuotedOrder:
    known: dict[str, Any] = {
        "market": Decimal("1.25"),
        "price": Decimal("1.25"),
        "spread_points": Decimal(12),
        "contract_size": Decimal(100_000),
        "rate": Decimal(1),
        "currency": "USD",
        "equity": Decimal(10_000),
        "age_s": 0.5,
    }
    limits, asked = Limits.model_validate(changes.pop("limits", {})), asked or order("1")
    return QuotedOrder(asked, limits, **({"opens": asked.volume} | known | changes))


@pytest.mark.parametrize(
    ("given", "said", "may_pass"),
    [
        (
            {"limits": {"max_notional": "100000"}},
            "max_notional: expected 100000 USD at most for EURUSD, got 125000.00",
            False,
        ),
        (
            {"limits": {"max_notional": "100000"}, "rate": None},
            (
                "max_notional: expected 100000 USD at most for EURUSD, "
                "got an order that nobody can value: the rate is not known"
            ),
            True,
        ),
        (
            {"limits": {"max_order_leverage": "12.4"}},
            (
                "max_order_leverage: expected 124000.00 USD at most for EURUSD, 12.4 times the equity, "
                "got 125000.00 by 1 lots of 100000"
            ),
            False,
        ),
        (
            {"limits": {"max_order_leverage": 100}, "rate": None},
            (
                "max_order_leverage: expected 1000000.00 USD at most for EURUSD, 100 times the equity, "
                "got an order that nobody can value: the rate is not known"
            ),
            True,
        ),
        (
            {"limits": {"max_order_leverage": 100}, "equity": Decimal("-12.5")},
            "max_order_leverage: expected an equity above 0 USD to measure what opens by, got -12.50",
            True,
        ),
        (
            {"limits": {"max_order_leverage": 100}, "equity": None},
            "max_order_leverage: expected an equity above 0 USD to measure what opens by, got one that is not known",
            True,
        ),
        (
            {"limits": {"max_spread_points": 10}},
            "max_spread_points: expected 10 points at most for EURUSD, got 12.0",
            True,
        ),
        (
            {"limits": {"max_tick_age_s": 60}, "age_s": 61.2},
            "max_tick_age_s: expected a quote of EURUSD not older than 60 s, got one of 61 s ago",
            True,
        ),
        (
            {"limits": {"max_tick_age_s": 60}, "age_s": -61.2},
            f"max_tick_age_s: expected a clock that is right, got a quote of EURUSD 61 s from now: {SET_THE_CLOCK}",
            True,
        ),
        (
            {"asked": order(order_type="limit", price="1.10"), "limits": {"max_price_distance": "0.1"}},
            "max_price_distance: expected a price within 10 % of the market at 1.25, got 1.1",
            False,
        ),
        (
            {
                "asked": order(order_type="stop_limit", price="1.3", stop_limit_price="1.5"),
                "limits": {"max_price_distance": "0.1"},
            },
            "max_price_distance: expected a price within 10 % of the market at 1.25, got 1.5",
            False,
        ),
    ],
)
def test_each_refusal_with_a_quote_says_as_much_and_whether_it_may_pass(
    given: dict[str, Any], said: str, may_pass: bool
) -> None:
    broken = with_quote(quoted(**given))
    assert broken is not None
    assert (str(broken), broken.may_pass) == (said, may_pass)
    assert with_quote(quoted(**{**given, "limits": {}})) is None


def test_a_pending_order_waits_for_its_price_whatever_the_spread_and_the_age_of_the_quote() -> None:
    pending = order(order_type="limit", price="1.2")
    limits = {"max_spread_points": 1, "max_tick_age_s": 1, "max_price_distance": "0.1"}
    assert with_quote(quoted(pending, limits=limits, age_s=90.0)) is None
    assert with_quote(quoted(pending, limits=limits, market=Decimal(0))) is None


def test_a_quote_that_has_moved_is_fresh() -> None:
    assert with_quote(quoted(limits={"max_tick_age_s": 1}, age_s=90.0, has_moved=True)) is None


@pytest.mark.parametrize(
    "given",
    [
        {"opens": Decimal(0)},
        {"opens": Decimal(0), "equity": Decimal(-1)},
        {"opens": Decimal(0), "rate": None},
        {"opens": Decimal("0.5")},
        {"limits": {"max_order_leverage": "12.5"}},
        {"limits": {"max_order_leverage": "off"}, "rate": None, "equity": Decimal(0)},
    ],
)
def test_an_order_passes_whose_opening_part_is_worth_no_more_than_so_many_times_the_equity(
    given: dict[str, Any],
) -> None:
    assert with_quote(quoted(**{"limits": {"max_order_leverage": 10}, **given})) is None


@given(volumes, lots, st.sampled_from(["1", "0.0066", "150"]), st.integers(1, 10**6).map(Decimal))
def test_no_order_is_worth_more_than_the_guard_lets_pass(
    volume: Decimal, price: Decimal, rate: str, most: Decimal
) -> None:
    asked = quoted(order(volume), price=price, rate=Decimal(rate), limits={"max_notional": most})
    passes = with_quote(asked) is None
    assert passes == (notional(volume, price, Decimal(100_000), Decimal(rate)) <= most)
