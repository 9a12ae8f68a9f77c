from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamapp.domain.limits import (
    NO_OVERRIDES,
    AccountLimits,
    LimitOverrides,
    Limits,
    QuoteLimits,
    SymbolLimits,
    needs_terminal,
    quote_overrides,
    said,
    strictest,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
numbers = st.none() | st.integers(1, 99)
several = st.lists(
    st.builds(Limits, max_volume=numbers, max_open_orders=numbers, max_daily_loss=numbers, max_tick_age_s=numbers),
    min_size=1,
    max_size=3,
)


@given(several)
def test_the_strictest_of_several_limits_keeps_each_of_them(limits: list[Limits]) -> None:
    holds = strictest(Limits, limits)
    for name in ("max_volume", "max_open_orders", "max_daily_loss", "max_tick_age_s"):
        given = [getattr(each, name) for each in limits if getattr(each, name) is not None]
        assert getattr(holds, name) == (min(given) if given else None)


@given(st.lists(st.none() | st.just("off") | st.integers(1, 99), min_size=1, max_size=3))
def test_off_takes_a_limit_away_and_is_the_widest_of_several(given: list[Any]) -> None:
    holds = strictest(Limits, [Limits(max_order_leverage=each) for each in given]).max_order_leverage
    numbers, is_said = [each for each in given if isinstance(each, int)], any(each is not None for each in given)
    assert holds == (min(numbers) if numbers else "off" if is_said else None)


def test_windows_add_up_and_symbols_are_those_that_all_allow() -> None:
    house = Limits(no_trade=("21:00-22:00", "fri 20:00-24:00"), symbols=("EURUSD", "GBPUSD"))
    own = Limits(no_trade=("21:00-22:00", "mon 00:00-01:00"), symbols=("GBPUSD",))
    holds = strictest(Limits, (house, own))
    assert holds.no_trade == ("21:00-22:00", "fri 20:00-24:00", "mon 00:00-01:00")
    assert holds.symbols == ("GBPUSD",)


def test_what_a_person_sets_stands_in_place_of_the_files_stricter_or_not() -> None:
    file = AccountLimits(Limits(max_volume=Decimal(1), max_open_orders=5), {"XAUUSD": SymbolLimits(max_open_orders=2)})
    overrides = LimitOverrides(
        account=Limits(max_volume=Decimal(3)),
        by_symbol={"EURUSD": SymbolLimits(max_spread_points=9), "XAUUSD": SymbolLimits(max_open_orders=7)},
        by="mara",
        at=NOW,
    )
    holds = file.replaced(overrides)
    assert said(holds.account) == {"max_volume": 3, "max_open_orders": 5}
    assert said(holds.of_symbol("EURUSD")) == {"max_spread_points": 9}
    assert said(holds.of_symbol("XAUUSD")) == {"max_open_orders": 7}
    assert said(holds.of_order("XAUUSD")) == {"max_volume": 3, "max_open_orders": 5}
    assert file.replaced(NO_OVERRIDES) is file


def test_a_terminal_hears_what_a_person_has_set_and_nothing_else_of_it() -> None:
    file = AccountLimits(Limits(max_volume=Decimal(1), max_tick_age_s=60))
    overrides = LimitOverrides(
        account=Limits(max_volume=Decimal(3), max_open_orders=1),
        by_symbol={"EURUSD": SymbolLimits(max_volume=Decimal(2), max_spread_points=9)},
        at=NOW,
    )
    told: dict[str, Any] = {}
    for symbol in ("EURUSD", "GBPUSD"):
        limits = quote_overrides(overrides, file.replaced(overrides), symbol)
        assert limits is not None
        told[symbol] = said(limits)
    assert told == {"EURUSD": {"max_volume": 2, "max_spread_points": 9}, "GBPUSD": {"max_volume": 3}}
    only_desks = LimitOverrides(account=Limits(max_open_orders=1), at=NOW)
    assert quote_overrides(only_desks, file.replaced(only_desks), "EURUSD") is None
    assert quote_overrides(NO_OVERRIDES, file, "EURUSD") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_volume": 0},
        {"max_open_orders": -1},
        {"max_order_leverage": 0},
        {"max_order_leverage": "never"},
        {"max_drawdown_share": "1.5"},
        {"max_daily_loss": "NaN"},
        {"no_trade": ["22:00"]},
        {"max_volumes": 1},
    ],
)
def test_a_limit_that_means_nothing_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Limits.model_validate(wrong)


def test_a_terminal_reads_limits_of_a_newer_desk() -> None:
    assert said(QuoteLimits.model_validate({"max_volume": 1, "max_of_tomorrow": 2})) == {"max_volume": 1}


def test_what_quotes_equity_or_the_brokers_clock_decide_needs_a_terminal() -> None:
    limits = Limits(max_volume=Decimal(1), max_open_orders=3, max_daily_loss=Decimal(100), max_tick_age_s=2)
    assert needs_terminal(limits) == {"max_daily_loss", "max_tick_age_s"}
    assert needs_terminal(Limits(no_trade=("fri 20:00-24:00",))) == frozenset()
    assert needs_terminal(Limits(no_trade=("23:55-00:10 broker",))) == {"no_trade"}
