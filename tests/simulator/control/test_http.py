"""What a test can do to the market over HTTP, as the module sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import HEDGING, NETTING, MarketProcess, send

FAR_AHEAD = 2**31 - 1


def test_a_price_below_zero_trades_like_any_other(hedging: MarketProcess) -> None:
    metal = {"symbol": "XAUUSD", "volume": 1.0}
    pending = {"action": mt5.TRADE_ACTION_PENDING, "type": mt5.ORDER_TYPE_BUY_LIMIT, "price": -40.0}
    hedging.pin("XAUUSD", "10.00", "10.10")
    opened = send(**metal)
    assert send(**metal, **pending).retcode == mt5.TRADE_RETCODE_INVALID_PRICE
    hedging.pin("XAUUSD", "-37.66", "-37.56")
    assert mt5.symbol_info_tick("XAUUSD").bid == -37.66
    (position,) = mt5.positions_get(ticket=opened.order)
    assert (position.price_current, position.profit) == (-37.66, -4776.0)
    placed = send(**metal, **pending, sl=-50.0)
    assert placed.retcode == mt5.TRADE_RETCODE_DONE
    closed = send(**metal, type=1, position=opened.order)
    assert (closed.retcode, closed.price) == (mt5.TRADE_RETCODE_DONE, -37.66)
    hedging.pin("XAUUSD", "-40.10", "-40.00")
    assert mt5.positions_get(ticket=placed.order)[0].sl == -50.0
    hedging.pin("XAUUSD", "-50.00", "-49.90")
    assert mt5.history_deals_get(position=placed.order)[-1].comment == "[sl -50.00]"
    hedging.http("DELETE", "/quotes/XAUUSD")
    assert hedging.http("GET", "/health")["status"] == "ok"


def test_money_is_never_converted_at_a_price_of_nothing(hedging: MarketProcess) -> None:
    for bid in ("0", "-1"):
        assert "expected 0 < bid" in hedging.http("POST", "/quotes/EURUSD", {"bid": bid, "ask": "1"})["error"]


def test_a_number_that_no_market_has_is_no_price_below_zero_either(hedging: MarketProcess) -> None:
    hedging.pin("XAUUSD", "-1.00", "-0.90")
    try:
        for sl in (1e300, float("nan"), float("-inf")):
            assert send(symbol="XAUUSD", sl=sl).retcode == mt5.TRADE_RETCODE_INVALID_STOPS
    finally:
        hedging.pin("XAUUSD", "2350.00", "2350.20")


@pytest.mark.parametrize("shift_ms", [-3_600_000, 3_600_000, 1_234_567])
def test_the_servers_clock_can_change_while_a_symbol_trades(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None], tmp_path: Path, shift_ms: int
) -> None:
    market = start_market("--virtual-clock", "--data", str(tmp_path / "market"))
    market.pin("EURUSD", "1.10000", "1.10010")
    connect(market)
    before, rested = market.http("GET", "/clock"), mt5.symbol_info_tick("EURUSD")
    opened = send()
    after = market.http("POST", "/clock", {"shift_ms": shift_ms})
    assert (after["utc_ms"], after["server_ms"]) == (before["utc_ms"], before["server_ms"] + shift_ms)
    market.http("POST", "/clock", {"advance_ms": 5000})
    moving, now = mt5.symbol_info_tick("BTCUSD"), market.http("GET", "/clock")["server_ms"]
    assert now - 5000 <= moving.time_msc <= now
    assert mt5.symbol_info_tick("EURUSD") == rested
    later = send()
    (first,), (second,) = mt5.history_deals_get(position=opened.order), mt5.history_deals_get(position=later.order)
    assert second.time_msc - first.time_msc == shift_ms + 5000
    since = second.time if shift_ms > 0 else first.time
    assert (opened.deal in [deal.ticket for deal in mt5.history_deals_get(since, FAR_AHEAD)]) is (shift_ms < 0)
    market.kill()
    market.start()
    shown = market.http("GET", "/clock")
    assert shown["server_ms"] - shown["utc_ms"] == before["server_ms"] - before["utc_ms"] + shift_ms


def test_what_waits_for_a_server_time_goes_with_its_clock(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None]
) -> None:
    market = start_market("--virtual-clock")
    connect(market)
    fields = {"action": mt5.TRADE_ACTION_PENDING, "type": 2, "price": 0.9, "type_time": mt5.ORDER_TIME_SPECIFIED}
    in_two_hours = market.http("GET", "/clock")["server_ms"] // 1000 + 7200
    placed = send(**fields, expiration=in_two_hours)
    market.http("POST", "/clock", {"shift_ms": 5_400_000})
    market.http("POST", "/clock", {"advance_ms": 1_799_000})
    assert mt5.orders_get(ticket=placed.order)
    market.http("POST", "/clock", {"advance_ms": 1000})
    assert mt5.history_orders_get(ticket=placed.order)[0].state == mt5.ORDER_STATE_EXPIRED


def test_a_day_that_a_changed_clock_shows_again_is_charged_once(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None]
) -> None:
    market = start_market("--virtual-clock")
    connect(market)
    opened, day_ms = send(volume=1.0), 86_400_000

    def swap() -> float:
        return float(mt5.positions_get(ticket=opened.order)[0].swap)

    market.http("POST", "/clock", {"advance_ms": day_ms})
    assert swap() == -0.7
    market.http("POST", "/clock", {"shift_ms": -3 * 3_600_000})
    market.http("POST", "/clock", {"advance_ms": 3 * 3_600_000})
    assert swap() == -0.7
    market.http("POST", "/clock", {"advance_ms": day_ms})
    assert swap() == -1.4


def test_a_clock_that_makes_no_sense_is_refused(market: MarketProcess) -> None:
    for body in ({}, {"shift_ms": 10**15}, {"shift_ms": "soon"}, {"advance_ms": 1}):
        assert "expected" in market.http("POST", "/clock", body)["error"]


def test_a_symbol_can_be_changed_while_the_market_runs(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None]
) -> None:
    market = start_market()
    connect(market, NETTING)
    assert [send(volume=1.0).retcode for _ in range(3)] == [mt5.TRADE_RETCODE_DONE] * 3
    assert mt5.symbol_info("EURUSD").volume_max == 500.0
    market.http("POST", "/symbols/EURUSD", {"volume_max": "1"})
    assert mt5.symbol_info("EURUSD").volume_max == 1.0
    assert send(volume=3.0, type=1).retcode == mt5.TRADE_RETCODE_INVALID_VOLUME
    assert [send(volume=1.0, type=1).retcode for _ in range(3)] == [mt5.TRADE_RETCODE_DONE] * 3
    assert mt5.positions_get() == ()
    senseless: list[Any] = [
        {"name": "X"},
        {"colour": 1},
        {"volume_max": "much"},
        {"stops_level": []},
        [],
        {"volume_step": 0},
        {"tick_ms": 0},
        {"contract": "NaN"},
        {"spread": [5]},
        {"sigma": 1e300},
        {"profit": "SEK"},
    ]
    for body in senseless:
        assert "expected" in market.http("POST", "/symbols/EURUSD", body)["error"]
    assert "expected" in market.http("POST", "/symbols/NOSUCH", {"volume_max": "1"})["error"]


def test_a_whole_position_is_closed_whatever_the_grid_of_volumes_and_a_part_is_not(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None]
) -> None:
    market = start_market()
    for login in (HEDGING, NETTING):
        connect(market, login)
        opened = send(volume=0.55)
        market.http("POST", "/symbols/EURUSD", {"volume_min": "0.1", "volume_step": "0.1"})
        out = {"type": 1, "position": opened.order}
        assert send(**out, volume=0.35).retcode == mt5.TRADE_RETCODE_INVALID_VOLUME
        assert send(**out, volume=0.55).retcode == mt5.TRADE_RETCODE_DONE
        assert mt5.positions_get() == ()
        market.http("POST", "/symbols/EURUSD", {"volume_min": "0.01", "volume_step": "0.01"})


def test_filling_flags_can_lie(start_market: Callable[..., MarketProcess], connect: Callable[..., None]) -> None:
    market = start_market()
    connect(market)
    market.http("POST", "/symbols/EURUSD", {"refused_fillings": [mt5.ORDER_FILLING_FOK]})
    assert mt5.symbol_info("EURUSD").filling_mode == 3
    request = {"action": mt5.TRADE_ACTION_DEAL, "symbol": "EURUSD", "volume": 0.1, "type_filling": 0}
    assert mt5.order_check(request).retcode == 0
    refused = send(type_filling=mt5.ORDER_FILLING_FOK)
    assert (refused.retcode, refused.order) == (mt5.TRADE_RETCODE_INVALID_FILL, 0)
    assert refused.request_id > 0
    assert send(type_filling=mt5.ORDER_FILLING_IOC).retcode == mt5.TRADE_RETCODE_DONE


def test_an_empty_market_watch_shows_a_symbol_some_time_after_its_selection(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None], tmp_path: Path
) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text('[{"name": "a", "login": 5, "profile": "empty_watch"}]')
    market = start_market("--virtual-clock", "--accounts", str(accounts))
    connect(market, 5)
    assert not any(symbol.visible for symbol in mt5.symbols_get())
    assert mt5.symbol_info_tick("EURUSD") is None
    assert mt5.symbol_select("EURUSD")
    tick, info = mt5.symbol_info_tick("EURUSD"), mt5.symbol_info("EURUSD")
    assert (tick.time, tick.bid, tick.ask) == (0, 0.0, 0.0)
    assert (info.visible, info.time, info.bid) == (True, 0, 0.0)
    market.http("POST", "/clock", {"advance_ms": 1500})
    assert mt5.symbol_info_tick("EURUSD").bid > 0
    assert mt5.symbol_select("EURUSD")
    assert mt5.symbol_info_tick("EURUSD").bid > 0
    assert mt5.symbol_select("GBPUSD")
    market.http("POST", "/symbols/GBPUSD", {"first_tick_ms": 0})
    assert mt5.symbol_info_tick("GBPUSD").bid > 0


@pytest.mark.parametrize(
    ("kind", "deal_type"),
    [("balance", mt5.DEAL_TYPE_BALANCE), ("charge", mt5.DEAL_TYPE_CHARGE), ("correction", mt5.DEAL_TYPE_CORRECTION),
     ("bonus", mt5.DEAL_TYPE_BONUS), ("commission", mt5.DEAL_TYPE_COMMISSION),
     ("commission_daily", mt5.DEAL_TYPE_COMMISSION_DAILY), ("commission_monthly", mt5.DEAL_TYPE_COMMISSION_MONTHLY),
     ("commission_agent_daily", mt5.DEAL_TYPE_COMMISSION_AGENT_DAILY),
     ("commission_agent_monthly", mt5.DEAL_TYPE_COMMISSION_AGENT_MONTHLY), ("interest", mt5.DEAL_TYPE_INTEREST),
     ("dividend", mt5.DEAL_DIVIDEND), ("dividend_franked", mt5.DEAL_DIVIDEND_FRANKED), ("tax", mt5.DEAL_TAX)],
)  # fmt: skip
def test_a_broker_books_money_by_itself(hedging: MarketProcess, kind: str, deal_type: int) -> None:
    before, lines = mt5.account_info(), hedging.ledger()
    operation = {"account": "demo-hedging", "type": kind, "amount": "-12.345", "comment": "by hand"}
    booked = hedging.http("POST", "/operations", operation)
    after, deal = mt5.account_info(), mt5.history_deals_get(1000, FAR_AHEAD)[-1]
    assert (deal.ticket, deal.type, deal.profit, deal.comment) == (booked["deal"], deal_type, -12.35, "by hand")
    assert (deal.symbol, deal.volume, deal.order, deal.position_id) == ("", 0.0, 0, 0)
    assert after.balance == pytest.approx(before.balance - 12.35)
    assert after.credit == before.credit
    (line,) = hedging.ledger()[len(lines) :]
    assert (line["kind"], line["ticket"], line["type"], line["amount"]) == ("operation", deal.ticket, kind, "-12.35")


def test_an_operation_may_name_a_position_open_or_closed(hedging: MarketProcess) -> None:
    opened = send()
    charge = {"account": "demo-hedging", "type": "commission", "amount": "-3.5", "position": opened.order}
    first = hedging.http("POST", "/operations", charge)["deal"]
    closed = send(type=1, position=opened.order)
    second = hedging.http("POST", "/operations", charge)["deal"]
    deals = [deal for deal in mt5.history_deals_get(position=opened.order) if deal.type == mt5.DEAL_TYPE_COMMISSION]
    assert [(deal.ticket, deal.order, deal.profit) for deal in deals] == [
        (first, opened.order, -3.5),
        (second, closed.order, -3.5),
    ]
    assert {(deal.symbol, deal.volume) for deal in deals} == {("EURUSD", 0.0)}


def test_an_operation_may_be_corrected(hedging: MarketProcess) -> None:
    before = mt5.account_info().balance
    charge = {"account": "demo-hedging", "type": "charge", "amount": "-5"}
    booked = hedging.http("POST", "/operations", charge)
    hedging.http("POST", "/operations", {**charge, "deal": booked["deal"], "amount": "-4"})
    (deal,) = [deal for deal in mt5.history_deals_get(1000, FAR_AHEAD) if deal.ticket == booked["deal"]]
    assert (deal.type, deal.profit) == (mt5.DEAL_TYPE_CHARGE, -4.0)
    assert mt5.account_info().balance == pytest.approx(before - 4)
    assert [row["amount"] for row in hedging.ledger() if row["ticket"] == booked["deal"]] == ["-5.00", "-4.00"]


def test_a_broker_may_charge_commission_by_deals_of_their_own(
    start_market: Callable[..., MarketProcess], connect: Callable[..., None], tmp_path: Path
) -> None:
    accounts, profiles = tmp_path / "accounts.json", tmp_path / "profiles.json"
    accounts.write_text('[{"name": "a", "login": 5, "profile": "apart", "balance": "1000"}]')
    profiles.write_text('{"apart": {"commission": ["3.5", "USD"], "commission_apart": true}}')
    connect(start_market("--accounts", str(accounts), "--profiles", str(profiles)), 5)
    opened = send()
    trade, charge = mt5.history_deals_get(position=opened.order)
    assert (trade.type, trade.commission, charge.type, charge.profit) == (0, 0.0, mt5.DEAL_TYPE_COMMISSION, -0.35)
    assert (charge.order, charge.symbol) == (opened.order, "EURUSD")
    assert mt5.account_info().balance == pytest.approx(999.65)


def test_credit_counts_for_equity_and_not_for_balance(hedging: MarketProcess) -> None:
    before = mt5.account_info()
    hedging.http("POST", "/operations", {"account": HEDGING, "type": "credit", "amount": 500})
    after = mt5.account_info()
    assert (after.balance, after.credit) == (before.balance, before.credit + 500.0)
    assert after.equity - after.profit == pytest.approx(before.equity - before.profit + 500.0)
    assert mt5.history_deals_get(1000, FAR_AHEAD)[-1].type == mt5.DEAL_TYPE_CREDIT


def test_an_operation_that_makes_no_sense_is_refused(market: MarketProcess) -> None:
    good = {"account": "demo-hedging", "amount": "1"}
    for wrong in ({"account": "x"}, {"type": "gift"}, {"amount": "much"}, {"amount": "1e50"}, {"amount": "NaN"}):
        assert "expected" in market.http("POST", "/operations", {**good, **wrong})["error"]
    unknown: dict[str, Any]
    for unknown in ({"position": 1}, {"position": "x"}, {"deal": 1}, {"deal": {}}):
        assert "expected" in market.http("POST", "/operations", {**good, **unknown})["error"]
    assert "expected" in market.http("POST", "/operations", {})["error"]
