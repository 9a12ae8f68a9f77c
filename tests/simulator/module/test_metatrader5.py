"""The module itself, over a real socket: argument rules, results, last_error, types."""

from __future__ import annotations

import pickle
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import HEDGING, NETTING, MarketProcess, send

FUNCTIONS = (
    "initialize",
    "login",
    "shutdown",
    "version",
    "last_error",
    "terminal_info",
    "account_info",
    "symbols_total",
    "symbols_get",
    "symbol_info",
    "symbol_info_tick",
    "symbol_select",
    "market_book_add",
    "market_book_get",
    "market_book_release",
    "copy_rates_from",
    "copy_rates_from_pos",
    "copy_rates_range",
    "copy_ticks_from",
    "copy_ticks_range",
    "orders_total",
    "orders_get",
    "order_calc_margin",
    "order_calc_profit",
    "order_check",
    "order_send",
    "positions_total",
    "positions_get",
    "history_orders_total",
    "history_orders_get",
    "history_deals_total",
    "history_deals_get",
)
DAY = 86_400


def now() -> int:
    return int(time.time())


def test_it_has_the_32_functions() -> None:
    assert len(FUNCTIONS) == 32
    assert all(callable(getattr(mt5, name)) for name in FUNCTIONS)


def test_without_a_connection_every_call_says_so() -> None:
    mt5.shutdown()
    assert mt5.version() == (0, 0, "")
    for name in ("terminal_info", "account_info", "symbols_total", "orders_get", "positions_get", "positions_total"):
        assert getattr(mt5, name)() is None
        assert mt5.last_error() == (-10004, "No IPC connection")
    assert send() is None
    assert mt5.last_error()[0] == -10004


def test_nobody_listening_fails_initialize(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_SIMULATOR_ADDRESS", "127.0.0.1:1")
    assert mt5.initialize() is False
    code, text = mt5.last_error()
    assert code == -10003
    assert text.startswith("IPC initialize failed, ")


def test_a_wrong_login_or_server_is_refused(market: MarketProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMAPP_SIMULATOR_ADDRESS", market.address)
    for credentials in ({"login": 1}, {"login": HEDGING, "server": "Elsewhere"}):
        assert mt5.initialize(**credentials) is False
        assert mt5.last_error() == (-6, "Terminal: Authorization failed")
        assert mt5.account_info() is None


def test_login_changes_the_account_and_a_failed_one_keeps_the_connection(hedging: MarketProcess) -> None:
    assert mt5.login(NETTING)
    assert mt5.account_info().login == NETTING
    assert mt5.login(1) is False
    assert mt5.account_info().login == NETTING
    assert mt5.login(login=HEDGING, server="Simulated-Demo")
    assert mt5.account_info().margin_mode == mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING


def test_an_account_with_a_password_wants_it(start_market: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    accounts = tmp_path / "accounts.json"
    accounts.write_text('[{"name": "x", "login": 5, "password": "secret", "currency": "EUR", "balance": "5000"}]')
    market = start_market("--accounts", str(accounts))
    monkeypatch.setenv("STREAMAPP_SIMULATOR_ADDRESS", market.address)
    for credentials in ({}, {"login": 5}, {"login": 5, "password": "guess"}):
        assert mt5.initialize(**credentials) is False
        assert mt5.last_error()[0] == -6
    assert mt5.initialize(login=5, password="secret")
    info = mt5.account_info()
    assert (info.balance, info.currency, info.name) == (5000.0, "EUR", "x")
    mt5.shutdown()


def test_structs_are_tuples_that_are_as_unfriendly_as_the_originals(hedging: MarketProcess) -> None:
    tick = mt5.symbol_info_tick("EURUSD")
    assert isinstance(tick, tuple)
    assert isinstance(tick, mt5.Tick)
    assert (tick.n_fields, tick.n_sequence_fields, tick.n_unnamed_fields) == (8, 8, 0)
    assert tick._asdict()["bid"] == tick.bid == tick[1] == 1.1
    assert tick.__match_args__[:3] == ("time", "bid", "ask")
    for missing in ("_fields", "_replace", "_make"):
        assert not hasattr(tick, missing)
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(tick)
    with pytest.raises(AttributeError):
        tick.bid = 2.0


def test_a_market_order_opens_a_position_that_every_table_knows(hedging: MarketProcess) -> None:
    result = send(magic=123456789, comment="a comment", sl=1.09, tp=1.12)
    assert (result.retcode, result.comment) == (mt5.TRADE_RETCODE_DONE, "Request executed")
    assert (result.volume, result.price, result.bid, result.ask) == (0.1, 1.1001, 1.1, 1.1001)
    assert result.request.symbol == "EURUSD"
    assert type(result.request) is mt5.TradeRequest
    assert repr(result).startswith(f"OrderSendResult(retcode=10009, deal={result.deal}, order={result.order}, ")
    (position,) = mt5.positions_get(ticket=result.order)
    assert (position.identifier, position.magic, position.comment) == (result.order, 123456789, "a comment")
    assert (position.sl, position.tp, position.profit, position.reason) == (1.09, 1.12, -1.0, 3)
    (deal,) = mt5.history_deals_get(position=result.order)
    assert (deal.ticket, deal.order, deal.entry, deal.magic) == (result.deal, result.order, 0, 123456789)
    assert deal.commission == -0.35
    (order,) = mt5.history_orders_get(ticket=result.order)
    assert (order.state, order.volume_initial, order.volume_current) == (mt5.ORDER_STATE_FILLED, 0.1, 0.0)
    lines = [row for row in hedging.ledger() if row["magic"] == 123456789]
    assert [(row["kind"], row["side"], row["volume"]) for row in lines] == [
        ("order", "buy", "0.1"),
        ("deal", "buy", "0.1"),
    ]


def test_closing_by_position_on_hedging_and_without_it_opens_the_opposite(hedging: MarketProcess) -> None:
    opened = send()
    opposite = send(type=1)
    assert {p.ticket for p in mt5.positions_get(symbol="EURUSD")} >= {opened.order, opposite.order}
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.positions_get(ticket=opened.order) == ()
    assert send(type=1, position=opened.order).retcode == mt5.TRADE_RETCODE_POSITION_CLOSED
    assert send(type=0, position=opposite.order, volume=0.2).retcode == mt5.TRADE_RETCODE_INVALID_CLOSE_VOLUME


def test_a_netting_account_has_one_position_a_symbol(netting: MarketProcess) -> None:
    send(volume=0.3)
    send(type=1, volume=0.1)
    (position,) = mt5.positions_get(symbol="EURUSD")
    assert (position.type, position.volume) == (0, 0.2)
    send(type=1, volume=0.5)
    (position,) = mt5.positions_get(symbol="EURUSD")
    assert (position.type, position.volume) == (1, 0.3)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"volume": 1}, 'Invalid "volume" argument'),
        ({"sl": 0}, 'Invalid "sl" argument'),
        ({"magic": 1.0}, 'Invalid "magic" argument'),
        ({"magic": None}, 'Invalid "magic" argument'),
        ({"comment": "x" * 30}, 'Invalid "comment" argument'),
        ({"comment": "\U0001f600" * 15}, 'Invalid "comment" argument'),
        ({"symbol": 5}, 'Invalid "symbol" argument'),
        ({"expiration": datetime.now(tz=UTC)}, 'Invalid "expiration" argument'),
    ],
)
def test_a_wrong_field_is_refused_by_the_module_and_not_sent(
    hedging: MarketProcess, fields: dict[str, Any], text: str
) -> None:
    before = len(hedging.ledger())
    assert send(**fields) is None
    assert mt5.last_error() == (-2, text)
    assert len(hedging.ledger()) == before


def test_wrong_forms_of_order_send_are_refused(hedging: MarketProcess) -> None:
    request = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0, "type_filling": 1}
    assert mt5.order_send() is None
    assert mt5.last_error() == (-2, "Invalid number of arguments")
    assert mt5.order_send(request, volume=0.1) is None
    assert mt5.last_error() == (-2, "Unnamed arguments not allowed")
    assert mt5.order_send([1]) is None
    assert mt5.last_error()[0] == -2
    assert mt5.order_send(**request).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.order_send({**request, "stop_loss": 1.0}).retcode == mt5.TRADE_RETCODE_DONE
    with pytest.raises(SystemError):
        mt5.order_send({**request, "magic": -1})


def test_a_bool_is_an_int_and_omitted_fields_are_zero(hedging: MarketProcess) -> None:
    result = mt5.order_send({"action": True, "symbol": "AUDUSD", "volume": 0.1})
    assert result.retcode == mt5.TRADE_RETCODE_DONE
    assert result.request.type_filling == mt5.ORDER_FILLING_FOK
    assert mt5.order_send({"symbol": "EURUSD", "volume": 0.1}).retcode == mt5.TRADE_RETCODE_INVALID


def test_last_error_is_reset_by_every_call_but_itself(hedging: MarketProcess) -> None:
    send(volume=1)
    assert mt5.last_error()[0] == mt5.last_error()[0] == -2
    mt5.terminal_info()
    assert mt5.last_error() == (1, "Success")


@pytest.mark.parametrize("function", ["positions_get", "orders_get"])
def test_tables_take_keywords_only_and_nothing_found_is_empty(hedging: MarketProcess, function: str) -> None:
    get = getattr(mt5, function)
    assert get("EURUSD") is None
    assert mt5.last_error() == (-2, "Unnamed arguments not allowed")
    for keywords in ({"ticket": 42}, {"symbol": "NOSUCH"}, {"group": "NOSUCH*"}):
        assert get(**keywords) == ()
        assert mt5.last_error() == (1, "Success")
    assert get(ticket="42") is None
    assert mt5.last_error() == (-2, 'Invalid "ticket" argument')


def test_ticket_beats_symbol_beats_group(hedging: MarketProcess) -> None:
    euro, yen = send(), send(symbol="USDJPY", type_filling=0)
    assert [p.ticket for p in mt5.positions_get(ticket=euro.order, symbol="USDJPY")] == [euro.order]
    assert {p.symbol for p in mt5.positions_get(symbol="USDJPY", group="*EUR*")} == {"USDJPY"}
    tickets = {p.ticket for p in mt5.positions_get(group="*USD*, !*JPY*")}
    assert euro.order in tickets
    assert yen.order not in tickets


def test_history_wants_two_dates_or_one_keyword(hedging: MarketProcess) -> None:
    result = send()
    for wrong in ((), (now(),)):
        assert mt5.history_deals_get(*wrong) is None
        assert mt5.last_error() == (-2, "Invalid arguments")
    assert mt5.history_deals_get(ticket=1, position=1) is None
    everything = mt5.history_deals_get(now() - DAY, now() + 2 * DAY)
    assert result.deal in {deal.ticket for deal in everything}
    assert mt5.history_deals_total(now() - DAY, now() + 2 * DAY) == len(everything)
    aware = datetime.now(tz=UTC)
    assert len(mt5.history_orders_get(aware - timedelta(days=1), aware + timedelta(days=2))) > 0
    assert len(mt5.history_deals_get(ticket=result.order)) == 1
    assert mt5.history_deals_get(now() - DAY, now() + 2 * DAY, group="NOSUCH") == ()
    assert mt5.history_deals_get(0, now() + 2 * DAY) == ()


def test_history_is_in_server_time_which_is_ahead_of_utc(hedging: MarketProcess) -> None:
    result = send()
    (deal,) = mt5.history_deals_get(position=result.order)
    assert abs(deal.time - now() - 2 * 3600) <= 5
    assert deal.ticket not in {d.ticket for d in mt5.history_deals_get(now() - DAY, now() + 3600)}
    assert abs(mt5.symbol_info_tick("GBPJPY").time - now() - 2 * 3600) <= 10


@pytest.mark.parametrize(
    ("fields", "retcode"),
    [
        ({"symbol": "NOSUCH"}, mt5.TRADE_RETCODE_INVALID),
        ({"volume": 0.015}, mt5.TRADE_RETCODE_INVALID_VOLUME),
        ({"volume": 0.0}, mt5.TRADE_RETCODE_INVALID_VOLUME),
        ({"volume": float("nan")}, mt5.TRADE_RETCODE_INVALID_VOLUME),
        ({"volume": 501.0}, mt5.TRADE_RETCODE_INVALID_VOLUME),
        ({"type_filling": 2}, mt5.TRADE_RETCODE_INVALID_FILL),
        ({"symbol": "GBPUSD", "type_filling": 0}, mt5.TRADE_RETCODE_INVALID_FILL),
        ({"sl": 1.2}, mt5.TRADE_RETCODE_INVALID_STOPS),
        ({"tp": 1.0}, mt5.TRADE_RETCODE_INVALID_STOPS),
        ({"sl": 1.0990005}, mt5.TRADE_RETCODE_INVALID_STOPS),
        ({"type": 2}, mt5.TRADE_RETCODE_INVALID),
        ({"action": 5, "type": 2, "price": 1.2}, mt5.TRADE_RETCODE_INVALID_PRICE),
        ({"action": 5, "type": 2, "price": 1.05, "type_time": 2}, mt5.TRADE_RETCODE_INVALID_EXPIRATION),
        ({"action": 10, "symbol": "USDJPY"}, mt5.TRADE_RETCODE_INVALID_ORDER),
    ],
)
def test_the_terminal_refuses_without_any_number(hedging: MarketProcess, fields: dict[str, Any], retcode: int) -> None:
    result = send(**fields)
    assert result.retcode == retcode
    assert result[1:7] == (0, 0, 0.0, 0.0, 0.0, 0.0)
    assert (result.request_id, result.retcode_external) == (0, 0)
    assert mt5.last_error() == (1, "Success")


def test_the_server_refuses_with_its_request_id_and_quote(hedging: MarketProcess) -> None:
    hedging.pin("AAPL.EX", "190.00", "190.02")
    result = send(symbol="AAPL.EX", volume=10000.0)
    assert (result.retcode, result.comment) == (mt5.TRADE_RETCODE_NO_MONEY, "No money")
    assert result.request_id > 0
    assert (result.bid, result.ask, result.order) == (190.0, 190.02, 0)
    check = mt5.order_check({"action": 1, "symbol": "AAPL.EX", "volume": 10000.0, "type_filling": 1})
    assert check.retcode == mt5.TRADE_RETCODE_NO_MONEY


def test_order_check_projects_the_margin_and_executes_nothing(hedging: MarketProcess) -> None:
    before = mt5.positions_total()
    check = mt5.order_check({"action": 1, "symbol": "EURUSD", "volume": 1.0, "type_filling": 1, "type": 0})
    info = mt5.account_info()
    assert (check.retcode, check.comment) == (0, "Done")
    assert check.balance == info.balance
    # 100,000 EUR at 1.1001 and leverage 500.
    assert round(check.margin - info.margin, 2) == mt5.order_calc_margin(0, "EURUSD", 1.0, 1.1001) == 220.02
    assert mt5.positions_total() == before


def test_calculated_profit_converts_the_profit_currency(hedging: MarketProcess) -> None:
    assert mt5.order_calc_profit(0, "EURUSD", 1.0, 1.1, 1.101) == 100.0
    # 10,000 JPY at 150.014, and 100 GBP at 1.25.
    assert mt5.order_calc_profit(0, "USDJPY", 1.0, 150.0, 150.1) == 66.66
    assert mt5.order_calc_profit(1, "EURGBP", 1.0, 0.851, 0.85) == 125.0
    with pytest.raises(TypeError):
        mt5.order_calc_margin(action=0)


def test_an_unknown_symbol_is_not_found_and_a_hidden_one_has_no_tick(hedging: MarketProcess) -> None:
    assert mt5.symbol_info("NOSUCH") is None
    assert mt5.last_error() == (-4, "Terminal: Not found")
    assert mt5.symbol_select("NZDUSD", False)
    assert mt5.symbol_info("NZDUSD").select is False
    assert mt5.symbol_info_tick("NZDUSD") is None
    assert mt5.symbol_select("NZDUSD")
    assert mt5.symbol_info_tick("NZDUSD").ask > 0
    assert mt5.symbols_total() == len(mt5.symbols_get())
    assert {s.name for s in mt5.symbols_get("XA*")} == {"XAUUSD", "XAGUSD"}
    assert mt5.symbol_info() is None
    assert mt5.last_error()[0] == -2
    with pytest.raises(TypeError):
        mt5.symbol_info(symbol="EURUSD")


def test_the_helpers_buy_sell_and_close(netting: MarketProcess) -> None:
    assert mt5.Buy("AUDUSD", 0.2).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.Sell("AUDUSD", 0.1).retcode == mt5.TRADE_RETCODE_DONE
    assert mt5.Close("AUDUSD") is True
    assert mt5.positions_get(symbol="AUDUSD") == ()
    assert mt5.Close("AUDUSD") is False


def test_bars_have_the_originals_columns_and_end_with_the_present(hedging: MarketProcess) -> None:
    bars = mt5.copy_rates_from_pos("EURUSD", mt5.TIMEFRAME_M1, 0, 100)
    assert len(bars) == 100
    assert bars.dtype.names == ("time", "open", "high", "low", "close", "tick_volume", "spread", "real_volume")
    assert bars["close"][-1] == mt5.symbol_info_tick("EURUSD").bid
    assert set(bars["time"][1:] - bars["time"][:-1]) == {60}
    assert (bars["high"] >= bars["low"]).all()
    hours = mt5.copy_rates_from("EURUSD", mt5.TIMEFRAME_H4, int(bars["time"][-1]), 10)
    assert set(hours["time"] % (4 * 3600)) == {0}
    span = mt5.copy_rates_range("EURUSD", mt5.TIMEFRAME_D1, now() - 10 * DAY, now() + DAY)
    assert 9 <= len(span) <= 11
    assert mt5.copy_rates_from_pos("EURUSD", 7, 0, 1) is None
    assert mt5.copy_rates_from_pos("NOSUCH", 1, 0, 1) is None
    assert mt5.last_error()[0] == -4


def test_ticks_have_the_originals_columns(hedging: MarketProcess) -> None:
    ticks = mt5.copy_ticks_from("EURUSD", now() - DAY, 1000, mt5.COPY_TICKS_ALL)
    assert ticks.dtype.names == ("time", "bid", "ask", "last", "volume", "time_msc", "flags", "volume_real")
    assert ticks["bid"][-1] == 1.1
    assert len(mt5.copy_ticks_range("EURUSD", now() - DAY, now() + DAY, mt5.COPY_TICKS_INFO)) >= len(ticks)
    assert len(mt5.copy_ticks_range("EURUSD", now() - DAY, now() + DAY, mt5.COPY_TICKS_TRADE)) == 0


def test_a_depth_of_market_has_to_be_subscribed_to(hedging: MarketProcess) -> None:
    assert mt5.market_book_get("EURUSD") is None
    assert mt5.market_book_add("EURUSD")
    book = mt5.market_book_get("EURUSD")
    assert [level.type for level in book] == [mt5.BOOK_TYPE_SELL] * 5 + [mt5.BOOK_TYPE_BUY] * 5
    assert (book[4].price, book[5].price) == (1.1001, 1.1)
    assert mt5.market_book_release("EURUSD")
    assert mt5.market_book_get("EURUSD") is None


def test_a_refused_order_does_not_keep_its_symbol_in_the_market_watch(hedging: MarketProcess) -> None:
    assert send(symbol="AAPL.EX", volume=10_000.0).retcode == mt5.TRADE_RETCODE_NO_MONEY
    assert mt5.symbol_select("AAPL.EX", False), mt5.last_error()
    assert mt5.symbol_select("AAPL.EX", True)
