"""What deals do to balance and positions, for any sequence of orders and prices."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.prices.server_clock import VirtualClock
from streamapp.simulator.server.market import Market
from streamapp.simulator.server.third_party import DealCorrections
from tests.simulator.markets import ZERO, new_market, order

SYMBOLS = ("EURUSD", "USDJPY", "EURGBP", "GBPJPY", "XAUUSD")


steps = st.lists(
    st.tuples(
        st.sampled_from(SYMBOLS),
        st.integers(0, 1),
        st.integers(1, 30).map(lambda hundredths: Decimal(hundredths) / 100),
        st.integers(-40, 40),
        st.booleans(),
    ),
    max_size=25,
)


def play(market: Market, account: SimulatedAccount, script: list[Any]) -> None:
    for symbol, side, volume, move, closes in script:
        info = account.symbols[symbol]
        bid, ask = market.feed.quote(symbol)
        market.feed.pin(symbol, bid + move * info.point, ask + move * info.point, market.clock.utc_ms())
        held = [p for p in account.positions.live.values() if p.symbol == symbol]
        if closes and held and account.hedging:
            lots = min(volume, held[0].volume)
            order(market, account, symbol=symbol, type=1 - held[0].side, volume=lots, position=held[0].ticket)
        else:
            order(market, account, symbol=symbol, type=side, volume=volume)


@pytest.mark.parametrize("mode", ["hedging", "netting", "exchange"])
@given(script=steps)
@settings(max_examples=40, deadline=None)
def test_the_balance_is_the_sum_of_all_deals(mode: str, script: list[Any]) -> None:
    market, account = new_market(mode)
    play(market, account, script)
    deals = account.history_deals.live.values()
    assert account.balance == sum((d.profit + d.commission + d.swap + d.fee for d in deals), ZERO)


@pytest.mark.parametrize("mode", ["hedging", "netting"])
@given(script=steps)
@settings(max_examples=40, deadline=None)
def test_open_volume_is_what_was_bought_less_what_was_sold(mode: str, script: list[Any]) -> None:
    market, account = new_market(mode)
    play(market, account, script)
    net: dict[str, Decimal] = defaultdict(Decimal)
    for deal in account.history_deals.live.values():
        if deal.symbol:
            net[deal.symbol] += deal.volume if deal.type == mt5.DEAL_TYPE_BUY else -deal.volume
    held: dict[str, Decimal] = defaultdict(Decimal)
    for position in account.positions.live.values():
        held[position.symbol] += position.volume if position.side == 0 else -position.volume
    assert {name: v for name, v in net.items() if v} == {name: v for name, v in held.items() if v}
    if mode == "netting":
        assert len({p.symbol for p in account.positions.live.values()}) == len(account.positions.live)


class TickingClock(VirtualClock):
    """A clock that goes on a millisecond whenever it is read."""

    def utc_ms(self) -> int:
        self.move_to(super().utc_ms() + 1)
        return super().utc_ms()


@pytest.mark.parametrize("mode", ["hedging", "netting"])
def test_a_position_is_dated_as_the_last_deal_that_changed_it(mode: str) -> None:
    market, account = new_market(mode, TickingClock())
    for side, volume in ((0, "0.3"), (0, "0.2"), (1, "0.1"), (1, "0.9")):
        order(market, account, type=side, volume=Decimal(volume))
        deal = list(account.history_deals.live.values())[-1]
        (position,) = [row for row in account.positions.live.values() if row.identifier == deal.position_id]
        assert position.time_update_msc == deal.time_msc


@given(script=steps)
@settings(max_examples=40, deadline=None)
def test_the_running_sums_equal_the_sums_over_positions(script: list[Any]) -> None:
    market, account = new_market("hedging")
    play(market, account, script)
    held = list(account.positions.live.values())
    equity, _, profit = market.books.money(account)
    floating = sum((market.books.floating(account, p) for p in held), ZERO)
    assert abs(profit - floating) <= Decimal("0.01") * max(len(held), 1)
    assert equity == account.balance + profit
    for name in SYMBOLS:
        for side in (0, 1):
            volume = sum((p.volume for p in held if p.symbol == name and p.side == side), ZERO)
            assert account.exposure(name).volume[side] == volume


@pytest.mark.parametrize("mode", ["hedging", "netting"])
@given(script=steps, picks=st.lists(st.integers(0, 1000), max_size=10))
@settings(max_examples=40, deadline=None)
def test_busts_and_corrections_keep_the_running_sums(mode: str, script: list[Any], picks: list[int]) -> None:
    market, account = new_market(mode)
    play(market, account, script)
    corrections = DealCorrections(market.books, market.positions)
    for pick in picks:
        deals = [d for d in account.history_deals.live.values() if d.type <= 1 and d.entry <= 1]
        if deals and pick % 3:
            # On a netting account a deal of a position that was turned round or followed can't be taken back.
            with suppress(ValueError):
                corrections.bust(account, deals[pick % len(deals)])
        elif deals:
            deal = deals[pick % len(deals)]
            corrections.correct(account, deal, deal.price + account.symbols[deal.symbol].point)
    held = list(account.positions.live.values())
    assert all(position.volume > 0 and position.price_open > 0 for position in held)
    for name in SYMBOLS:
        for side in (0, 1):
            volume = sum((p.volume for p in held if p.symbol == name and p.side == side), ZERO)
            assert account.exposure(name).volume[side] == volume
    if mode == "netting":
        assert len({p.symbol for p in held}) == len(held)


@given(script=steps)
@settings(max_examples=20, deadline=None)
def test_the_same_seed_and_calls_give_the_same_ledger(script: list[Any]) -> None:
    ledgers = []
    for _ in range(2):
        market, account = new_market("hedging")
        for quoted in market.feed.quotes.values():
            quoted.pinned = False
        for symbol, side, volume, move, _closes in script:
            market.timeline.run_until(market.clock.utc_ms() + 100 * abs(move))
            order(market, account, symbol=symbol, type=side, volume=volume)
        ledgers.append(market.books.ledger.lines())
    assert ledgers[0] == ledgers[1]


def test_a_hedging_close_pays_the_price_difference_and_two_commissions() -> None:
    market, account = new_market("hedging")
    market.feed.pin("EURUSD", Decimal("1.10000"), Decimal("1.10010"), 0)
    opened = order(market, account, volume=Decimal("0.50"))
    market.feed.pin("EURUSD", Decimal("1.10110"), Decimal("1.10120"), 0)
    order(market, account, volume=Decimal("0.50"), type=1, position=opened.order)
    # 100 points of 0.5 lots are 50 USD; 3.50 USD a lot and side are 3.50 in all.
    assert account.balance == Decimal("1000046.50")


def test_a_yen_profit_converts_at_ask_and_a_loss_at_bid() -> None:
    market, account = new_market("hedging", profile="metaquotes_demo")
    market.feed.pin("USDJPY", Decimal("150.000"), Decimal("150.000"), 0)
    won, lost = order_instant(market, account, 0), order_instant(market, account, 1)
    market.feed.pin("USDJPY", Decimal("151.000"), Decimal("152.000"), 0)
    close_instant(market, account, won, 1, "151.000")
    assert account.balance == Decimal(1000000) + Decimal("657.89")  # 100,000 JPY / 152
    before = account.balance
    close_instant(market, account, lost, 0, "152.000")
    assert account.balance - before == Decimal("-1324.50")  # -200,000 JPY / 151


def order_instant(market: Market, account: SimulatedAccount, side: int) -> int:
    price = market.feed.quote("USDJPY")[1 - side]
    return order(market, account, symbol="USDJPY", volume=Decimal(1), type=side, price=price, type_filling=0).order


def close_instant(market: Market, account: SimulatedAccount, ticket: int, side: int, price: str) -> None:
    fields = {"symbol": "USDJPY", "volume": Decimal(1), "type": side, "price": Decimal(price), "type_filling": 0}
    order(market, account, position=ticket, **fields)


def test_a_reversal_on_netting_is_one_deal_and_keeps_the_identifier() -> None:
    market, account = new_market("netting")
    first = order(market, account, volume=Decimal("0.30"))
    second = order(market, account, volume=Decimal("0.50"), type=1)
    (position,) = account.positions.live.values()
    deal = account.history_deals.live[second.deal]
    assert (deal.entry, deal.volume, deal.position_id) == (mt5.DEAL_ENTRY_INOUT, Decimal("0.50"), first.order)
    assert (position.ticket, position.identifier) == (second.order, first.order)
    assert (position.side, position.volume) == (1, Decimal("0.20"))


def test_averaging_on_netting_keeps_ticket_and_weighs_the_price() -> None:
    market, account = new_market("netting")
    market.feed.pin("EURUSD", Decimal("1.10000"), Decimal("1.10000"), 0)
    first = order(market, account, volume=Decimal("0.10"))
    market.feed.pin("EURUSD", Decimal("1.10400"), Decimal("1.10400"), 0)
    order(market, account, volume=Decimal("0.30"))
    (position,) = account.positions.live.values()
    assert (position.ticket, position.price_open) == (first.order, Decimal("1.10300"))


def test_an_order_without_levels_takes_those_of_a_netting_position_with_it() -> None:
    market, account = new_market("netting")
    order(market, account, sl=Decimal("1.00000"), tp=Decimal("1.20000"))
    order(market, account, type=1, volume=Decimal("0.05"))
    (position,) = account.positions.live.values()
    assert (position.sl, position.tp) == (Decimal("1.00000"), Decimal("1.20000"))
    order(market, account, sl=Decimal("1.01000"))
    assert (position.sl, position.tp) == (Decimal("1.01000"), ZERO)
    order(market, account)
    assert (position.sl, position.tp) == (ZERO, ZERO)
    market.feed.pin("EURUSD", Decimal("0.90000"), Decimal("0.90010"), 0)
    assert list(account.positions.live) == [position.ticket]


def test_close_by_makes_one_order_two_deals_and_leaves_the_rest() -> None:
    market, account = new_market("hedging")
    long, short = order(market, account, volume=Decimal("0.30")), order(market, account, type=1)
    result = order(market, account, action=mt5.TRADE_ACTION_CLOSE_BY, position=long.order, position_by=short.order)
    assert result.retcode == mt5.TRADE_RETCODE_DONE
    deals = [d for d in account.history_deals.live.values() if d.order == result.order]
    assert [d.entry for d in deals] == [mt5.DEAL_ENTRY_OUT_BY] * 2
    assert result.deal == deals[0].ticket
    (left,) = account.positions.live.values()
    assert (left.identifier, left.volume) == (long.order, Decimal("0.20"))


def test_margin_of_a_hedged_pair_is_that_of_one_leg() -> None:
    market, account = new_market("hedging", leverage=100)
    market.feed.pin("EURUSD", Decimal("1.10000"), Decimal("1.10000"), 0)
    order(market, account, volume=Decimal(1))
    assert account.margin() == Decimal("1100.00")
    order(market, account, volume=Decimal(1), type=1)
    assert account.margin() == Decimal("1100.00")


SOAK = """
import random
from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import entry_from
from streamapp.simulator.control.fault_script import set_faults
from streamapp.simulator.prices.server_clock import VirtualClock
from streamapp.simulator.server.faults import OUTCOMES, REFUSALS
from streamapp.simulator.prices.server_clock import VirtualClock
from streamapp.simulator.server.market import Market, MarketSettings
from streamapp.simulator.server.requests import request_from

modes = ("hedging", "netting", "exchange")
accounts = [entry_from({"name": mode, "login": n, "margin_mode": mode}) for n, mode in enumerate(modes, 1)]
market = Market(accounts, settings=MarketSettings(seed=5, latency_ms=(20.0, 60.0)), clock=VirtualClock("ny"))
set_faults(market, [{"kind": kind, "probability": 0.03} for kind in (*OUTCOMES, *REFUSALS)])
script = random.Random(9)
for number in range(1, 400):
    account = market.books.accounts[script.choice(modes)]
    name = script.choice(("EURUSD", "USDJPY", "AAPL.EX", "XAUUSD"))
    symbol, (bid, ask), kind = account.symbols[name], market.feed.quote(name), script.randint(0, 7)
    far = script.randint(1, 90) * symbol.point * (-1 if kind in (2, 5, 7) else 1)
    price = float((bid if kind % 2 else ask) + (far if kind > 1 else 0))
    limit = float(symbol.rounded(bid - 2 * far)) if kind > 5 else 0.0
    volume = float(symbol.volume_min * script.randint(1, 9))
    action = mt5.TRADE_ACTION_PENDING if kind > 1 else mt5.TRADE_ACTION_DEAL
    values = [action, number, 0, name, volume, price, limit, 0.0, 0.0, 100, kind, script.randint(0, 2), 0, 0, "t", 0, 0]
    struck = market.faults.trigger(account, "order_send")
    market.gateway.send(account, request_from(values), struck, lambda result: print(result))
    market.timeline.run_until(market.clock.utc_ms() + script.choice((0, 10, 700, 60_000, 3_600_000)))
print("".join(market.books.ledger.lines()), {n: str(a.balance) for n, a in market.books.accounts.items()})
"""


@pytest.mark.stack
def test_time_chance_and_pending_orders_give_the_same_ledger_in_another_process() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-c", SOAK],
            env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1
    ledger = told.pop()
    for word in ("10004", "10008", "10010", "10012", '"kind": "deal"'):
        assert word in ledger
