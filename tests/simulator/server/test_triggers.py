"""What prices and time set off."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount, entry_from
from streamapp.simulator.prices.server_clock import NEW_YORK, VirtualClock
from streamapp.simulator.server.market import Market
from tests.simulator.markets import last_deal, new_market, order, pin

PENDING = {"action": mt5.TRADE_ACTION_PENDING, "type_filling": 2}


@pytest.fixture
def traded() -> tuple[Market, SimulatedAccount]:
    market, account = new_market("hedging")
    pin(market, "1.10000", "1.10010")
    return market, account


@pytest.mark.parametrize(
    ("level", "bid", "reason", "price", "comment"),
    [
        ({"sl": Decimal("1.09900")}, "1.09880", mt5.DEAL_REASON_SL, "1.09880", "[sl 1.09900]"),
        ({"tp": Decimal("1.10100")}, "1.10120", mt5.DEAL_REASON_TP, "1.10100", "[tp 1.10100]"),
    ],
)  # fmt: skip
def test_a_level_closes_its_position_with_its_reason(  # noqa: PLR0917  # its parameters are a table's columns
    traded: tuple[Market, SimulatedAccount], level: dict[str, Decimal], bid: str, reason: int, price: str, comment: str
) -> None:
    market, account = traded
    opened = order(market, account, magic=77, **level)
    pin(market, bid, str(Decimal(bid) + Decimal("0.0001")))
    deal = last_deal(account)
    assert not account.positions.live
    assert (deal.reason, deal.price, deal.comment, deal.magic) == (reason, Decimal(price), comment, 77)
    assert (deal.entry, deal.position_id) == (mt5.DEAL_ENTRY_OUT, opened.order)
    assert market.books.ledger.invariants()["one_order_per_intent"]


@pytest.mark.parametrize(
    ("kind", "price", "bid", "filled"),
    [
        (mt5.ORDER_TYPE_BUY_LIMIT, "1.09900", "1.09880", "1.09890"),
        (mt5.ORDER_TYPE_SELL_LIMIT, "1.10100", "1.10120", "1.10120"),
        (mt5.ORDER_TYPE_BUY_STOP, "1.10100", "1.10100", "1.10110"),
        (mt5.ORDER_TYPE_SELL_STOP, "1.09900", "1.09890", "1.09890"),
    ],
)
def test_a_pending_order_fills_when_its_price_comes(
    traded: tuple[Market, SimulatedAccount], kind: int, price: str, bid: str, filled: str
) -> None:
    market, account = traded
    placed = order(market, account, type=kind, price=Decimal(price), comment="limit order", **PENDING)
    assert (placed.retcode, placed.deal, placed.text()) == (mt5.TRADE_RETCODE_DONE, 0, "limit order")
    assert not account.positions.live
    pin(market, bid, str(Decimal(bid) + Decimal("0.0001")))
    done = account.history_orders.live[placed.order]
    assert (done.state, done.type) == (mt5.ORDER_STATE_FILLED, kind)
    assert last_deal(account).price == Decimal(filled)
    assert list(account.positions.live) == [placed.order]


def test_a_stop_limit_becomes_a_limit_with_the_same_ticket(traded: tuple[Market, SimulatedAccount]) -> None:
    market, account = traded
    kind = mt5.ORDER_TYPE_BUY_STOP_LIMIT
    placed = order(market, account, type=kind, price=Decimal("1.10100"), stoplimit=Decimal("1.10050"), **PENDING)
    pin(market, "1.10100", "1.10110")
    working = account.orders.live[placed.order]
    assert (working.type, working.price_open) == (mt5.ORDER_TYPE_BUY_LIMIT, Decimal("1.10050"))
    pin(market, "1.10030", "1.10040")
    assert last_deal(account).price == Decimal("1.10040")


def test_an_order_expires_in_server_time(traded: tuple[Market, SimulatedAccount]) -> None:
    market, account = traded
    until = market.clock.server_ms() // 1000 + 60
    placed = order(market, account, type=2, price=Decimal("1.05000"), type_time=2, expiration=until, **PENDING)
    market.timeline.run_until(market.clock.utc_ms() + 59_000)
    assert placed.order in account.orders.live
    market.timeline.run_until(market.clock.utc_ms() + 1_000)
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_EXPIRED


def test_an_order_of_the_day_ends_with_the_servers_day(traded: tuple[Market, SimulatedAccount]) -> None:
    market, account = traded
    placed = order(market, account, type=2, price=Decimal("1.05000"), type_time=mt5.ORDER_TIME_DAY, **PENDING)
    left_ms = 86_400_000 - market.clock.server_ms() % 86_400_000
    market.timeline.run_until(market.clock.utc_ms() + left_ms - 1)
    assert placed.order in account.orders.live
    market.timeline.run_until(market.clock.utc_ms() + 1)
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_EXPIRED


def test_an_order_expires_by_a_clock_that_was_put_back() -> None:
    eve = int(datetime(2026, 11, 1, 5, 30, tzinfo=UTC).timestamp() * 1000)
    market = Market([entry_from({"name": "a", "login": 1})], clock=VirtualClock(NEW_YORK, eve))
    account = market.books.accounts["a"]
    until = market.clock.server_ms() // 1000 + 3600
    placed = order(market, account, type=2, price=Decimal("0.90000"), type_time=2, expiration=until, **PENDING)
    market.timeline.run_until(market.clock.utc_ms() + 3_600_000)
    assert placed.order in account.orders.live
    market.timeline.run_until(market.clock.utc_ms() + 3_600_000)
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_EXPIRED


def test_an_order_can_be_changed_and_cancelled(traded: tuple[Market, SimulatedAccount]) -> None:
    market, account = traded
    placed = order(market, account, type=2, price=Decimal("1.05000"), **PENDING)
    change = {"action": mt5.TRADE_ACTION_MODIFY, "order": placed.order}
    assert order(market, account, price=Decimal("1.05000"), **change).retcode == mt5.TRADE_RETCODE_NO_CHANGES
    assert order(market, account, price=Decimal("1.06000"), **change).retcode == mt5.TRADE_RETCODE_DONE
    assert account.orders.live[placed.order].price_open == Decimal("1.06000")
    removal = {"action": mt5.TRADE_ACTION_REMOVE, "order": placed.order}
    assert order(market, account, **removal).retcode == mt5.TRADE_RETCODE_DONE
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_CANCELED
    assert order(market, account, **removal).retcode == mt5.TRADE_RETCODE_INVALID_ORDER


def test_stop_out_closes_the_worst_position_first() -> None:
    market, account = new_market("hedging", balance="2000", leverage=100)
    pin(market, "1.10000", "1.10000")
    pin(market, "1.25000", "1.25000", "GBPUSD")
    euro = order(market, account, volume=Decimal(1))
    pound = order(market, account, symbol="GBPUSD", volume=Decimal("0.10"))
    pin(market, "1.08600", "1.08600")
    assert list(account.positions.live) == [pound.order]
    deal = last_deal(account)
    assert (deal.position_id, deal.reason) == (euro.order, mt5.DEAL_REASON_SO)
    assert deal.comment.startswith("[so ")


def test_swap_is_charged_at_midnight_and_three_times_on_its_day(traded: tuple[Market, SimulatedAccount]) -> None:
    market, account = traded
    opened = order(market, account, volume=Decimal(1))
    day = 86_400_000
    swaps = []
    for _ in range(7):
        market.timeline.run_until(market.clock.utc_ms() + day)
        swaps.append(account.positions.live[opened.order].swap)
    nightly = [after - before for before, after in zip([Decimal(0), *swaps], swaps, strict=False)]
    # Monday to Sunday night of a long position at -0.7 points of 1 USD.
    assert nightly == [Decimal(text) for text in ("-0.70", "-0.70", "-2.10", "-0.70", "-0.70", "0", "0")]
    order(market, account, volume=Decimal(1), type=1, position=opened.order)
    assert last_deal(account).swap == Decimal("-4.90")


def test_an_exchange_says_placed_and_fills_later() -> None:
    market, account = new_market("netting", profile="exchange", leverage=1)
    placed = order(market, account, symbol="AAPL.EX", volume=Decimal(10), type_filling=2)
    assert (placed.retcode, placed.deal) == (mt5.TRADE_RETCODE_PLACED, 0)
    assert account.orders.live[placed.order].state == mt5.ORDER_STATE_PLACED
    market.timeline.run_until(market.clock.utc_ms() + 60)
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_FILLED


@pytest.mark.parametrize(
    ("filling", "retcode", "filled"),
    [
        (mt5.ORDER_FILLING_FOK, mt5.TRADE_RETCODE_REJECT, []),
        (mt5.ORDER_FILLING_IOC, mt5.TRADE_RETCODE_DONE_PARTIAL, ["4"]),
        (mt5.ORDER_FILLING_RETURN, mt5.TRADE_RETCODE_DONE_PARTIAL, ["4", "4", "2"]),
    ],
)
def test_thin_liquidity_fills_as_the_filling_mode_says(filling: int, retcode: int, filled: list[str]) -> None:
    market, account = new_market("netting")
    account.symbols["AAPL.EX"] = replace(account.symbols["AAPL.EX"], liquidity=Decimal(4))
    result = order(market, account, symbol="AAPL.EX", volume=Decimal(10), type_filling=filling)
    for bid in ("190.10", "190.20", "190.30"):
        pin(market, bid, bid, "AAPL.EX")
    assert result.retcode == retcode
    deals = [d for d in account.history_deals.live.values() if d.order and d.order == result.order]
    assert [str(d.volume) for d in deals] == filled
    assert not account.orders.live


@pytest.mark.parametrize(
    ("filling", "filled"),
    [
        (mt5.ORDER_FILLING_FOK, []),
        (mt5.ORDER_FILLING_IOC, ["4"]),
        (mt5.ORDER_FILLING_RETURN, ["4", "4", "2"]),
    ],
)
def test_a_pending_order_meets_thin_liquidity_as_its_filling_mode_says(filling: int, filled: list[str]) -> None:
    market, account = new_market("netting")
    account.symbols["AAPL.EX"] = replace(account.symbols["AAPL.EX"], liquidity=Decimal(4))
    limit = {**PENDING, "symbol": "AAPL.EX", "volume": Decimal(10), "price": Decimal("180.00"), "type_filling": filling}
    placed = order(market, account, type=mt5.ORDER_TYPE_BUY_LIMIT, **limit)
    assert placed.retcode == mt5.TRADE_RETCODE_DONE
    for price in ("179.90", "179.80", "179.70"):
        pin(market, price, price, "AAPL.EX")
    deals = [d for d in account.history_deals.live.values() if d.order == placed.order]
    assert [str(d.volume) for d in deals] == filled
    assert bool(account.orders.live) == (filling == mt5.ORDER_FILLING_FOK)
