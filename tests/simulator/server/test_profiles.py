"""Brokers are different: what the profiles change."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import TRADE_RETCODE_HEDGE_PROHIBITED
from streamapp.simulator.books.accounts import entry_from
from streamapp.simulator.prices.server_clock import NEW_YORK, VirtualClock
from streamapp.simulator.prices.symbols import read_profiles
from streamapp.simulator.server.market import Market, MarketSettings
from streamapp.simulator.server.requests import OrderRequest, context_of
from streamapp.simulator.server.validation import refusal
from tests.simulator.markets import ZERO, new_market, order


def test_every_profile_opens_an_account() -> None:
    for name in read_profiles():
        market, account = new_market("hedging", profile=name)
        assert market.books.money(account)[0] == Decimal(1_000_000)
        assert all(symbol.name.endswith(account.profile.suffix) for symbol in account.symbols.values())


def test_instant_execution_requotes_beyond_the_deviation() -> None:
    market, account = new_market("hedging", profile="metaquotes_demo")
    asked = market.feed.quote("EURUSD")[1]
    market.feed.pin("EURUSD", asked + Decimal("0.00010"), asked + Decimal("0.00015"), 0)
    fields = {"price": asked, "type_filling": 0}
    refused = order(market, account, deviation=14, **fields)
    assert (refused.retcode, refused.ask) == (mt5.TRADE_RETCODE_REQUOTE, asked + Decimal("0.00015"))
    assert order(market, account, deviation=15, **fields).retcode == mt5.TRADE_RETCODE_DONE


def test_a_suffix_broker_has_its_own_names_and_pending_fillings() -> None:
    market, account = new_market("hedging", profile="suffix_broker")
    assert order(market, account, symbol="EURUSD.r").retcode == mt5.TRADE_RETCODE_DONE
    codes = []
    for name, filling in (("EURUSD", 1), ("EURUSD.r", 2), ("EURUSD.r", 1)):
        request = OrderRequest(
            5, 0, 0, name, Decimal("0.1"), Decimal("1.05"), ZERO, ZERO, ZERO, 0, 2, filling, 0, 0, "", 0, 0
        )
        codes.append(refusal(context_of(market.books, account, request), account.profile.terminal_checks))
    assert codes == [mt5.TRADE_RETCODE_INVALID, mt5.TRADE_RETCODE_INVALID_FILL, 0]


def test_a_prop_firm_wants_fifo_and_no_hedges() -> None:
    market, account = new_market("hedging", profile="prop_fifo")
    first, second = order(market, account), order(market, account)
    assert order(market, account, type=1).retcode == TRADE_RETCODE_HEDGE_PROHIBITED
    assert order(market, account, type=1, position=second.order).retcode == mt5.TRADE_RETCODE_FIFO_CLOSE
    assert order(market, account, type=1, position=first.order).retcode == mt5.TRADE_RETCODE_DONE


def test_limits_of_orders_volume_and_freeze() -> None:
    market, account = new_market("hedging", profile="icm_raw")
    account.profile = replace(account.profile, limit_orders=1)
    pending = {"action": mt5.TRADE_ACTION_PENDING, "type": 2, "price": Decimal("1.05"), "type_filling": 1}
    placed = order(market, account, **pending)
    assert order(market, account, **pending).retcode == mt5.TRADE_RETCODE_LIMIT_ORDERS
    account.symbols["EURUSD"] = replace(account.symbols["EURUSD"], volume_limit=Decimal("0.15"))
    assert order(market, account).retcode == mt5.TRADE_RETCODE_LIMIT_VOLUME
    account.symbols["EURUSD"] = replace(account.symbols["EURUSD"], freeze_level=10_000)
    removal = {"action": mt5.TRADE_ACTION_REMOVE, "order": placed.order}
    assert order(market, account, **removal).retcode == mt5.TRADE_RETCODE_FROZEN


def test_trade_modes_bar_what_they_say() -> None:
    market, account = new_market("hedging")
    codes = []
    for mode, side in ((0, 0), (1, 1), (1, 0), (2, 0), (2, 1), (3, 0)):
        account.symbols["EURUSD"] = replace(account.symbols["EURUSD"], trade_mode=mode)
        request = OrderRequest(1, 0, 0, "EURUSD", Decimal("0.1"), ZERO, ZERO, ZERO, ZERO, 0, side, 1, 0, 0, "", 0, 0)
        codes.append(refusal(context_of(market.books, account, request), account.profile.terminal_checks))
    assert codes == [10017, 10042, 0, 10043, 0, 10044]


def test_rollover_may_give_positions_new_tickets_and_keeps_their_identifier() -> None:
    market, account = new_market("hedging")
    account.profile = replace(account.profile, reopen_at_rollover=True)
    opened = order(market, account)
    market.timeline.run_until(market.clock.utc_ms() + 86_400_000)
    (position,) = account.positions.live.values()
    assert position.ticket != opened.order
    assert position.identifier == opened.order
    assert order(market, account, type=1, position=position.ticket).retcode == mt5.TRADE_RETCODE_DONE


@pytest.mark.parametrize(("mode", "stops_left"), [(1, False), (2, True)])
def test_a_broker_of_the_daily_kind_ends_orders_at_midnight(mode: int, stops_left: bool) -> None:
    market, account = new_market("hedging")
    account.symbols["EURUSD"] = replace(account.symbols["EURUSD"], gtc_mode=mode)
    opened = order(market, account, sl=Decimal("1.00"))
    placed = order(market, account, action=mt5.TRADE_ACTION_PENDING, type=2, price=Decimal("1.05"))
    market.timeline.run_until(market.clock.utc_ms() + 86_400_000)
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_EXPIRED
    assert bool(account.positions.live[opened.order].sl) is stops_left


def test_the_server_clock_follows_new_york() -> None:
    hours = []
    for start in ("2026-03-08T06:59", "2026-03-08T07:01", "2026-11-01T05:59", "2026-11-01T06:01"):
        clock = VirtualClock(NEW_YORK, int(datetime.fromisoformat(start + "+00:00").timestamp() * 1000))
        hours.append(clock.offset_ms() // 3_600_000)
    assert hours == [2, 3, 3, 2]


def test_a_closed_market_has_frozen_prices_and_opens_with_another() -> None:
    entry = entry_from({"name": "a", "login": 1})
    market = Market([entry], clock=VirtualClock(), settings=MarketSettings(always_open=False))
    day = 86_400_000
    market.timeline.run_until(market.clock.utc_ms() + 5 * day)
    friday = market.feed.quotes["EURUSD"].utc_ms
    market.timeline.run_until(market.clock.utc_ms() + day)
    assert market.feed.quotes["EURUSD"].utc_ms == friday
    assert market.feed.quotes["BTCUSD"].utc_ms > friday
    market.timeline.run_until(market.clock.utc_ms() + day)
    assert market.feed.quotes["EURUSD"].utc_ms > friday


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"currency": "SEK"}, "SEK"),
        ({"balance": "NaN"}, "balance"),
        ({"balance": "-5"}, "balance"),
        ({"leverage": 0}, "leverage"),
    ],
)
def test_an_account_that_can_not_be_is_refused_before_anybody_trades_on_it(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        new_market("hedging", **fields)
