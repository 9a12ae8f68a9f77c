"""Money worked out by hand, from the formulas and not from the code.

Sources: MQL5 reference, ENUM_SYMBOL_CALC_MODE (margin, profit), ENUM_SYMBOL_SWAP_MODE and SYMBOL_SWAP_ROLLOVER3DAYS,
ENUM_DEAL_ENTRY (a reversal is one deal); the terminal's help on margin of hedged positions and on Stop Out. Quotes
unless a test says otherwise: EURUSD 1.10000/1.10010, GBPUSD 1.25000/1.25010, USDJPY 150.000/150.014.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.prices.server_clock import NEW_YORK, VirtualClock
from streamapp.simulator.server.market import Market, MarketSettings
from tests.simulator.markets import last_deal, new_market, order, pin

DAY_MS = 86_400_000


def priced(mode: str = "hedging", **fields: Any) -> tuple[Market, SimulatedAccount]:
    market, account = new_market(mode, **fields)
    pin(market, "1.10000", "1.10010")
    pin(market, "1.25000", "1.25010", "GBPUSD")
    pin(market, "150.000", "150.014", "USDJPY")
    return market, account


def change(account: SimulatedAccount, name: str, **values: Any) -> None:
    account.symbols[name] = replace(account.symbols[name], **values)


# -- margin


@pytest.mark.parametrize(
    ("name", "side", "lots", "price", "values", "held"),
    [
        ("EURUSD", 0, "1", "1.10010", {}, "1100.10"),
        ("EURUSD", 1, "1", "1.10000", {}, "1100.00"),
        ("USDJPY", 0, "1", "150.014", {}, "1000.00"),
        ("EURGBP", 0, "1", "0.85010", {}, "1100.10"),
        ("EURUSD", 0, "0.1", "1.10010", {"calc": mt5.SYMBOL_CALC_MODE_FOREX_NO_LEVERAGE}, "11001.00"),
        ("BTCUSD", 0, "0.5", "65000.00", {}, "3250.00"),
        ("XAUUSD", 0, "1", "2350.20", {}, "2350.20"),
        ("US500", 0, "1", "5300.0", {}, "2650.00"),
        ("GER40", 0, "2", "18500.0", {}, "2035.19"),
        ("GER40", 1, "2", "18500.0", {"tick_price": Decimal("0.5")}, "10175.00"),
        ("US30", 0, "3", "39000.0",
         {"calc": mt5.SYMBOL_CALC_MODE_FUTURES, "margin_initial": Decimal(1500), "margin_rate": Decimal(1)}, "4500.00"),
        ("AAPL.EX", 0, "10", "190.02", {}, "1900.20"),
    ],
)  # fmt: skip
def test_margin_of_each_way_of_reckoning(  # noqa: PLR0917  # its parameters are a table's columns
    name: str, side: int, lots: str, price: str, values: dict[str, Any], held: str
) -> None:
    """A purchase's margin converts at Ask, a sale's at Bid. Leverage is 100.

    FOREX, lots x contract / leverage x rate: 1 x 100,000 / 100 = 1,000 EUR, x 1.10010 = 1,100.10, x 1.10000 = 1,100.00;
    USDJPY 1,000 USD; EURGBP holds euros too. FOREX_NO_LEVERAGE: 0.1 x 100,000 = 10,000 EUR x 1.10010 = 11,001.00.
    CFD, lots x contract x price x rate: 0.5 x 1 x 65,000 x 0.1 = 3,250. CFDLEVERAGE, the same / leverage: 1 x 100 x
    2,350.20 / 100 = 2,350.20. CFDINDEX, lots x contract x price x tick price / tick size x rate: 1 x 10 x 5,300 x 1 x
    0.05 = 2,650; 2 x 1 x 18,500 x 1 x 0.05 = 1,850 EUR x 1.10010 = 2,035.185; with a tick price of 0.5 for the tick of
    0.1: 2 x 1 x 18,500 x 5 x 0.05 = 9,250 EUR x 1.10000 = 10,175. FUTURES, lots x initial margin x rate: 3 x 1,500.
    EXCH_STOCKS, lots x contract x price: 10 x 190.02.
    """
    market, account = priced(leverage=100)
    change(account, name, **values)
    got = market.books.margin(account, name, side, Decimal(lots), Decimal(price))
    assert account.round(got) == Decimal(held)


@pytest.mark.parametrize(("hedged", "held"), [("100000", "1100.09"), ("50000", "880.07"), ("0", "660.06")])
def test_margin_of_a_partly_hedged_pair(hedged: str, held: str) -> None:
    """Uncovered lots hold their side's average, covered ones ``margin_hedged`` of a lot's average.

    1 lot bought at 1.10010 holds 1,100.10, 0.4 sold at 1.10000 hold 440.00. Uncovered 0.6 x 1,100.10 = 660.06.
    Covered 0.4 x (1,540.10 / 1.4 = 1,100.0714) = 440.03 with a hedged contract of 100,000; half with 50,000; nothing
    with 0.
    """
    market, account = priced(leverage=100)
    change(account, "EURUSD", margin_hedged=Decimal(hedged))
    order(market, account, volume=Decimal(1))
    order(market, account, volume=Decimal("0.4"), type=1)
    assert account.margin() == Decimal(held)


# -- profit


@pytest.mark.parametrize(
    ("name", "side", "opened", "closed", "currency", "profit"),
    [
        ("EURGBP", 0, "0.85010", "0.85210", "USD", "250.00"),
        ("EURGBP", 0, "0.85010", "0.84910", "USD", "-125.01"),
        ("GBPJPY", 1, "190.000", "189.500", "USD", "333.30"),
        ("GBPJPY", 1, "190.000", "190.500", "USD", "-333.33"),
        ("EURUSD", 0, "1.10000", "1.10100", "EUR", "90.90"),
        ("EURUSD", 1, "1.10000", "1.10100", "EUR", "-90.91"),
        ("US500", 0, "5300.0", "5310.0", "USD", "100.00"),
    ],
)
def test_profit_converts_at_the_price_that_is_worse_for_the_client(  # noqa: PLR0917  # a table's columns
    name: str, side: int, opened: str, closed: str, currency: str, profit: str
) -> None:
    """Profit = (close - open) x contract x lots in the profit currency; here of one lot.

    EURGBP: 0.00200 x 100,000 = 200 GBP, sold at 1.25000 = 250.00; -100 GBP are bought at 1.25010 = -125.01.
    GBPJPY sold: 0.5 x 100,000 = 50,000 JPY / 150.014 = 333.302; -50,000 JPY / 150.000 = -333.333.
    In euros: 100 USD / 1.10010 = 90.901; -100 USD / 1.10000 = -90.909. US500: 10 x 10 = 100.
    """
    market, account = priced(currency=currency)
    got = market.books.profit(account, name, side, Decimal(1), Decimal(opened), Decimal(closed))
    assert got == Decimal(profit)


def test_profit_of_an_index_is_by_contract_and_that_of_a_future_by_its_tick() -> None:
    """CFDINDEX: 10.0 x contract 1 x 2 lots = 20 EUR, whatever a tick is worth, x 1.10000 = 22.00 USD.

    FUTURES: (close - open) x tick price / tick size x lots = 0.25 x 12.50 / 0.25 x 3 = 37.50.
    """
    market, account = priced()
    change(account, "GER40", tick_price=Decimal("0.5"))
    change(account, "US30", calc=mt5.SYMBOL_CALC_MODE_FUTURES, tick_size=Decimal("0.25"), tick_price=Decimal("12.50"))
    index = market.books.profit(account, "GER40", 0, Decimal(2), Decimal(18500), Decimal(18510))
    future = market.books.profit(account, "US30", 0, Decimal(3), Decimal("110.00"), Decimal("110.25"))
    assert (index, future) == (Decimal("22.00"), Decimal("37.50"))


# -- commission


@pytest.mark.parametrize(
    ("currency", "lots", "paid"),
    [("USD", "0.3", "-1.05"), ("EUR", "0.3", "-0.95"), ("JPY", "1", "-525")],
)
def test_commission_is_taken_by_lot_and_side_in_the_accounts_currency(currency: str, lots: str, paid: str) -> None:
    """3.50 USD a lot: 0.3 x 3.50 = 1.05 USD, / 1.10000 = 0.9545 EUR; 3.50 x 150.014 = 525.05 JPY, to whole yen."""
    market, account = priced(currency=currency, balance="1000000")
    order(market, account, volume=Decimal(lots))
    assert last_deal(account).commission == Decimal(paid)


# -- netting


def test_a_reversal_takes_profit_swap_and_one_commission_and_opens_the_rest() -> None:
    """Bought 0.30 at 1.10010, a night later (Monday's) sold 0.50 at 1.10200.

    Profit 0.00190 x 100,000 x 0.30 = 57.00; swap -0.7 x 0.00001 x 100,000 x 0.30 = -0.21; commission of the one deal
    0.50 x 3.50 = 1.75, that of the opening 1.05. 1,000,000 - 1.05 + 57.00 - 0.21 - 1.75 = 1,000,053.99. The rest of
    0.20 lots holds 0.20 x 100,000 / 500 x 1.10200 = 44.08.
    """
    market, account = priced("netting")
    first = order(market, account, volume=Decimal("0.30"))
    market.timeline.run_until(market.clock.utc_ms() + DAY_MS)
    pin(market, "1.10200", "1.10210")
    second = order(market, account, volume=Decimal("0.50"), type=1)
    deal = last_deal(account)
    assert (deal.entry, deal.volume, deal.profit, deal.swap, deal.commission) == (
        mt5.DEAL_ENTRY_INOUT, Decimal("0.50"), Decimal("57.00"), Decimal("-0.21"), Decimal("-1.75"),
    )  # fmt: skip
    assert account.balance == Decimal("1000053.99")
    (position,) = account.positions.live.values()
    assert (position.ticket, position.identifier) == (second.order, first.order)
    assert (position.side, position.volume, position.price_open) == (1, Decimal("0.20"), Decimal("1.10200"))
    assert (position.swap, account.margin()) == (Decimal(0), Decimal("44.08"))


def test_a_part_that_is_closed_takes_its_share_of_the_swap() -> None:
    """Swap of a night for 0.30 lots is -0.21; a third of the lots takes -0.07 with it and leaves -0.14."""
    market, account = priced("netting")
    order(market, account, volume=Decimal("0.30"))
    market.timeline.run_until(market.clock.utc_ms() + DAY_MS)
    order(market, account, volume=Decimal("0.10"), type=1)
    (position,) = account.positions.live.values()
    assert (last_deal(account).swap, position.swap) == (Decimal("-0.07"), Decimal("-0.14"))


# -- swap


@pytest.mark.parametrize(
    ("name", "values", "swap"),
    [
        ("GBPUSD", {}, "-4.20"),
        ("EURGBP", {}, "-3.00"),
        ("EURUSD", {"swap_mode": mt5.SYMBOL_SWAP_MODE_CURRENCY_SYMBOL, "swap_long": Decimal(-5)}, "-11.00"),
        ("EURUSD", {"swap_mode": mt5.SYMBOL_SWAP_MODE_CURRENCY_DEPOSIT, "swap_long": Decimal("-7.5")}, "-15.00"),
        ("XAUUSD", {"swap_mode": mt5.SYMBOL_SWAP_MODE_INTEREST_CURRENT, "swap_long": Decimal("-3.5")}, "-45.69"),
        ("XAUUSD", {"swap_mode": mt5.SYMBOL_SWAP_MODE_INTEREST_OPEN, "swap_long": Decimal("-3.5")}, "-44.72"),
        ("GBPUSD", {"swap_mode": mt5.SYMBOL_SWAP_MODE_DISABLED}, "0"),
    ],
)
def test_swap_of_one_night(name: str, values: dict[str, Any], swap: str) -> None:
    """Two lots bought, over Monday night.

    Points: -2.1 x 0.00001 x 100,000 x 2 = -4.20 USD; EURGBP -1.2 points = -2.40 GBP x 1.25010 = -3.00024. In the base
    currency: -5 EUR x 2 x 1.10010 = -11.001; in that of the deposit: -7.5 x 2. Interest of a year of 360 days on the
    current price: 2,350.00 x 100 x 2 x -3.5 % / 360 = -45.694; on the opening price of 2,300.00: -44.722.
    """
    market, account = priced()
    pin(market, "2299.80", "2300.00", "XAUUSD")
    change(account, name, **values)
    opened = order(market, account, symbol=name, volume=Decimal(2), type_filling=1)
    pin(market, "2350.00", "2350.20", "XAUUSD")
    market.timeline.run_until(market.clock.utc_ms() + DAY_MS)
    assert account.positions.live[opened.order].swap == Decimal(swap)


@pytest.mark.parametrize(
    ("day", "nights"), [(mt5.DAY_OF_WEEK_WEDNESDAY, "1 1 3 1 1 0 0"), (mt5.DAY_OF_WEEK_FRIDAY, "1 1 1 1 3 0 0")]
)
def test_the_triple_day_stands_for_the_weekend(day: int, nights: str) -> None:
    """The nights after Monday to Sunday of one lot at -0.70 each: seven days' interest are charged in five nights."""
    market, account = priced()
    change(account, "EURUSD", rollover3days=day)
    opened = order(market, account, volume=Decimal(1))
    charged, before = [], Decimal(0)
    for _ in range(7):
        market.timeline.run_until(market.clock.utc_ms() + DAY_MS)
        after = account.positions.live[opened.order].swap
        charged.append((before - after) / Decimal("0.70"))
        before = after
    assert charged == [int(night) for night in nights.split()]


# -- stop out


def test_stop_out_comes_at_its_level_and_not_a_point_before() -> None:
    """Stop out at 50 % of margin, leverage 100, 2,000 USD.

    1 lot of EURUSD at 1.10000 holds 1,100.00, 0.1 of GBPUSD at 1.25000 hold 125.00; commissions of 3.50 and 0.35 leave
    1,996.15. Out at an equity of 612.50. EURUSD at 1.08617 loses 1,383.00: equity 613.15, 50.05 %. At 1.08616 it loses
    1,384.00: equity 612.15, 49.97 %. Closing it leaves 1,996.15 - 1,384.00 - 3.50 = 608.65, which is 487 % of 125.00.
    """
    market, account = priced(balance="2000", leverage=100)
    pin(market, "1.10000", "1.10000")
    pin(market, "1.25000", "1.25000", "GBPUSD")
    order(market, account, volume=Decimal(1))
    kept = order(market, account, symbol="GBPUSD", volume=Decimal("0.1"))
    pin(market, "1.08617", "1.08617")
    assert len(account.positions.live) == 2
    pin(market, "1.08616", "1.08616")
    assert list(account.positions.live) == [kept.order]
    deal = last_deal(account)
    assert (deal.reason, deal.profit, account.balance) == (mt5.DEAL_REASON_SO, Decimal("-1384.00"), Decimal("608.65"))
    assert deal.comment == "[so 50.0%/612.15/1225.00]"


def test_stop_out_takes_the_largest_loss_first_and_no_more_than_it_needs() -> None:
    """1,000 USD, leverage 100, no commission: 0.5 EURUSD hold 550, 0.3 GBPUSD hold 375; out at an equity of 462.50.

    GBPUSD at 1.24000 loses 300: equity 700. EURUSD at 1.09500 loses 250: equity 450, 48.6 %. The pound's loss is the
    larger one, whichever price has moved and whichever margin is larger; without it 450 are 81.8 % of 550.
    """
    market, account = priced(balance="1000", leverage=100)
    account.profile = replace(account.profile, commission_per_lot=Decimal(0))
    pin(market, "1.10000", "1.10000")
    pin(market, "1.25000", "1.25000", "GBPUSD")
    euro = order(market, account, volume=Decimal("0.5"))
    pound = order(market, account, symbol="GBPUSD", volume=Decimal("0.3"))
    pin(market, "1.24000", "1.24000", "GBPUSD")
    assert len(account.positions.live) == 2
    pin(market, "1.09500", "1.09500")
    assert list(account.positions.live) == [euro.order]
    assert (last_deal(account).position_id, account.balance) == (pound.order, Decimal("700.00"))


# -- sessions and the server's clock


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("name", "at", "is_open"),
    [
        ("EURUSD", "2026-01-09T21:59", True), ("EURUSD", "2026-01-09T22:00", False),
        ("EURUSD", "2026-01-11T21:59", False), ("EURUSD", "2026-01-11T22:00", True),
        ("EURUSD", "2026-07-10T20:59", True), ("EURUSD", "2026-07-10T21:00", False),
        ("US500", "2026-01-06T20:59", True), ("US500", "2026-01-06T21:30", False), ("US500", "2026-01-06T22:00", True),
        ("AAPL.EX", "2026-01-06T14:29", False), ("AAPL.EX", "2026-01-06T14:30", True),
        ("AAPL.EX", "2026-07-07T13:29", False), ("AAPL.EX", "2026-07-07T13:30", True),
        ("AAPL.EX", "2026-07-07T20:00", False), ("BTCUSD", "2026-01-10T12:00", True),
    ],
)  # fmt: skip
def test_trading_hours_are_the_servers_who_goes_with_new_york(name: str, at: str, is_open: bool) -> None:
    """The server is at UTC+2, in the summer of the United States at UTC+3, so that New York closes at its midnight.

    Forex: Monday 00:00 to Friday 24:00 of the server, so Friday 22:00 UTC in winter and 21:00 UTC in summer. The index
    rests from 23:00 to 24:00. The stock trades from 16:30 to 23:00, which is 9:30 to 16:00 in New York all year.
    """
    clock = VirtualClock(NEW_YORK, utc(at))
    market = Market([], clock=clock, settings=MarketSettings(always_open=False))
    assert market.feed.is_open(market.feed.quotes[name].symbol, clock.utc_ms()) is is_open


@pytest.mark.parametrize(
    ("start", "midnight"), [("2026-03-08T03:00", "2026-03-08T21:00"), ("2026-11-01T03:00", "2026-11-01T22:00")]
)
def test_the_day_ends_once_at_the_servers_midnight_when_summer_time_changes(start: str, midnight: str) -> None:
    """Sunday 8 March: the clock goes to UTC+3 at 07:00 UTC. Sunday 1 November: back to UTC+2 at 06:00 UTC."""
    market, account = new_market("hedging", clock=VirtualClock(NEW_YORK, utc(start)))
    account.profile = replace(account.profile, reopen_at_rollover=True)
    order(market, account)
    tickets = []
    for at in (utc(midnight) - 1, utc(midnight), utc(midnight) + 7_200_000):
        market.timeline.run_until(at)
        tickets.append(next(iter(account.positions.live)))
    assert tickets[0] != tickets[1] == tickets[2]


@pytest.mark.parametrize(
    ("start", "ends"), [("2026-03-08T06:00", "2026-03-08T09:00"), ("2026-11-01T05:00", "2026-11-01T10:00")]
)
def test_an_order_ends_when_the_servers_clock_says_so_over_a_change_of_summer_time(start: str, ends: str) -> None:
    """At 12:00 of the server: in March it is at UTC+3 by then, 09:00 UTC; in November at UTC+2, 10:00 UTC."""
    market, account = new_market("hedging", clock=VirtualClock(NEW_YORK, utc(start)))
    noon = {"type_time": mt5.ORDER_TIME_SPECIFIED, "expiration": utc(ends[:10] + "T12:00") // 1000}
    placed = order(market, account, action=mt5.TRADE_ACTION_PENDING, type=2, price=Decimal("0.90000"), **noon)
    market.timeline.run_until(utc(ends) - 1)
    assert placed.order in account.orders.live
    market.timeline.run_until(utc(ends))
    assert account.history_orders.live[placed.order].state == mt5.ORDER_STATE_EXPIRED
