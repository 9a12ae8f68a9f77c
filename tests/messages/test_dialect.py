"""What senders write is used, is nothing, or is refused in words: by kind, one line a case that somebody had."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from streamapp.errors import Unusable
from streamapp.messages.dialect import read_signal, renamed, require_known_fields, translated
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import NAMES, ExitSignal, Signal, account_of, signal_id_of
from streamapp.settings import ExecutionSettings

OURS = ExecutionSettings()
MARKET = {
    "signal_id": "s-1",
    "account": "a",
    "symbol": "EURUSD",
    "side": "buy",
    "order_type": "market",
    "volume": "0.1",
}
LIMIT = MARKET | {"order_type": "limit", "price": "1.08"}
AT = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def read(payload: dict[str, Any] | bytes, execution: ExecutionSettings = OURS) -> Signal:
    """Return the signal that a payload means, as the desk reads it."""
    content = json_object(payload if isinstance(payload, bytes) else json.dumps(payload).encode())
    require_known_fields(content, execution)
    signal = read_signal(translated(renamed(content, execution), execution))
    assert isinstance(signal, Signal)
    return signal


def fault(payload: dict[str, Any] | bytes, execution: ExecutionSettings = OURS) -> str:
    """Return what the sender of a payload is told."""
    with pytest.raises(Unusable) as error:
        read(payload, execution)
    assert error.value.reason == "bad_field"
    return error.value.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
near_words = st.sampled_from(
    ["buy", "SELL", "buy_limit", "market", "0", "1.5", "1_0", "-1", "1e400", "NaN", "GTD", "2026-11-20T12:00:00Z"]
)
near_fields = st.sampled_from([*NAMES, "sl", "Side", "accont", "note"])


@given(st.dictionaries(near_fields, near_words | json_values, max_size=8))
def test_whatever_is_written_is_a_signal_or_is_refused_in_the_same_words_every_time(fields: dict[str, Any]) -> None:
    def outcome() -> Signal | tuple[str, str]:
        try:
            return read(MARKET | fields)
        except Unusable as error:
            return error.reason, error.detail

    found = outcome()
    assert found == outcome()
    assert isinstance(found, Signal) or (found[0] == "bad_field" and found[1])


@given(st.dictionaries(near_fields, near_words | json_values, max_size=8))
def test_what_was_read_once_reads_the_same_from_its_own_words(fields: dict[str, Any]) -> None:
    try:
        signal = read(MARKET | fields)
    except Unusable:
        return
    again = read(signal.model_dump_json().encode())
    assert again.model_dump(exclude={"metadata"}) == signal.model_dump(exclude={"metadata"})


# --- no value


@pytest.mark.parametrize(
    "field",
    [
        "strategy", "price", "stop_limit_price", "stop_loss", "take_profit", "expected_price", "time_in_force",
        "expiration", "fill_policy", "max_slippage_points", "approved_at", "valid_until", "metadata",
    ],
)  # fmt: skip
@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_null_and_an_empty_text_say_nothing_in_every_optional_field(field: str, nothing: str | None) -> None:
    assert read(MARKET | {field: nothing}) == read(MARKET)


@pytest.mark.parametrize("zero", [0, 0.0, "0", "0.00000", -0.0, 1e-12])
@pytest.mark.parametrize("field", ["price", "stop_limit_price", "stop_loss", "take_profit", "expected_price"])
def test_a_price_of_zero_is_none(field: str, zero: Any) -> None:
    assert read(MARKET | {field: zero}) == read(MARKET)


def test_the_words_for_none_of_mt4_and_mt5_are_none() -> None:
    assert read(MARKET | {"max_slippage_points": -1, "expiration": 0}) == read(MARKET)


def test_zero_is_a_slippage_and_no_volume() -> None:
    assert read(MARKET | {"max_slippage_points": 0}).max_slippage_points == 0
    assert fault(MARKET | {"volume": 0}).startswith("volume: ")


def test_a_limit_order_with_the_price_zero_has_no_price() -> None:
    assert fault(LIMIT | {"price": 0}) == "price: expected one for a limit order, got none"


def test_an_account_that_is_an_empty_text_is_no_account_to_be_routed() -> None:
    assert account_of(renamed({"account": ""}, OURS)) == ""
    assert account_of(renamed({"account": None}, OURS)) is None


def test_a_level_of_zero_is_none_where_a_signal_reverses_and_taken_away_where_it_modifies() -> None:
    reverse = {"signal_id": "s-1", "account": "a", "symbol": "EURUSD", "intent": "reverse"}
    assert read_signal(reverse | {"stop_loss": 0, "take_profit": -30}) == read_signal(reverse | {"take_profit": "-30"})
    modified = read_signal(reverse | {"intent": "modify", "stop_loss": 0})
    assert isinstance(modified, ExitSignal)
    assert modified.stop_loss == 0


# --- numbers


def test_the_noise_of_a_float_is_rounded_to_what_can_be_held() -> None:
    raw = json.dumps(LIMIT).replace('"1.08"', "1.0947000000000002").replace('"0.1"', "0.30000000000000004")
    signal = read(raw.encode())
    assert (signal.price, signal.volume) == (Decimal("1.0947"), Decimal("0.3"))
    assert read(MARKET | {"max_slippage_points": 20.000000000000004}).max_slippage_points == 20


@pytest.mark.parametrize("text", ["1_0", "1,000", "1 000", "1'000", "\uff11", "0x10", "ten", "", "1.2.3"])
def test_a_volume_that_is_no_plain_number_is_refused(text: str) -> None:
    assert fault(MARKET | {"volume": text}).startswith("volume: ")


@pytest.mark.parametrize("points", ["1_0", 20.5, -2, "x", True, [5]])
def test_slippage_points_that_are_no_whole_number_are_refused(points: Any) -> None:
    assert fault(MARKET | {"max_slippage_points": points}).startswith("max_slippage_points: ")


def test_prices_may_be_below_zero_as_oils_were() -> None:
    signal = read(LIMIT | {"price": "-37.66", "stop_loss": "-40", "take_profit": "-30"})
    assert (signal.price, signal.stop_loss, signal.take_profit) == (Decimal("-37.66"), Decimal(-40), Decimal(-30))


def test_a_charts_price_at_a_market_order_is_the_expected_one() -> None:
    signal = read(MARKET | {"price": 1.0851})
    assert (signal.price, signal.expected_price) == (None, Decimal("1.0851"))
    assert signal.parameters == read(MARKET | {"price": 1.0852}).parameters
    assert read(MARKET | {"price": "1.0850", "expected_price": 1.085}).expected_price == Decimal("1.085")
    told = fault(MARKET | {"price": 1.0851, "expected_price": 1.085})
    assert told == "price: expected none at a market order beside expected_price 1.085, got 1.0851"


# --- bytes


def test_a_byte_order_mark_says_nothing() -> None:
    assert read(b"\xef\xbb\xbf" + json.dumps(MARKET).encode()) == read(MARKET)


# --- ids and names


@pytest.mark.parametrize(("given", "text"), [(7, "7"), (10**17, "1" + "0" * 17), ("7", "7")])
def test_an_id_or_account_that_is_a_whole_number_is_its_digits(given: Any, text: str) -> None:
    named = renamed({"signal_id": given, "account": given, "strategy": given}, OURS)
    assert (signal_id_of(named), account_of(named), named["strategy"]) == (text, text, text)


@pytest.mark.parametrize("given", [7.5, True, "Long Entry", "s-1 ", "\u0455-1", "", [], {}, None])
def test_what_is_no_id_is_not_made_one(given: Any) -> None:
    assert signal_id_of(renamed({"signal_id": given}, OURS)) is None


def test_a_symbol_is_trimmed_and_one_that_can_not_be_seen_is_shown() -> None:
    assert read(MARKET | {"symbol": " EURUSD "}).symbol == "EURUSD"
    assert read(MARKET | {"symbol": "US 500"}).symbol == "US 500"
    told = fault(MARKET | {"symbol": "EUR\u200bUSD"})
    assert told == r"symbol: expected characters that can be seen, got 'EUR\u200bUSD'"


# --- fields


def test_a_field_that_is_given_twice_is_refused() -> None:
    twice = json.dumps(MARKET).replace('"volume": "0.1"', '"volume": "0.1", "volume": "10"').encode()
    assert fault(twice) == "'volume': expected once, it is given more than once"
    unknown = json.dumps(MARKET).replace("{", '{"note": 1, "note": 1, ').encode()
    assert fault(unknown) == "'note': expected once, it is given more than once"


def test_metadata_in_which_a_key_is_given_twice_is_refused() -> None:
    told = fault(json.dumps(MARKET)[:-1].encode() + b', "metadata": {"a": 1, "a": 2}}')
    assert told == "metadata: expected each key once and no deep nesting, got what can't be sent on"


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("stoploss", "stop_loss"),
        ("stopLoss", "stop_loss"),
        ("Stop-Loss", "stop_loss"),
        ("stop_los", "stop_loss"),
        ("stop_losss", "stop_loss"),
        ("sotp_loss", "stop_loss"),
        ("sl", "stop_loss"),
        ("SL", "stop_loss"),
        ("tp", "take_profit"),
        ("take_profti", "take_profit"),
        ("expiry", "expiration"),
        ("tif", "time_in_force"),
        ("deviation", "max_slippage_points"),
        ("limit_price", "price"),
        ("aproved_at", "approved_at"),
        ("Strategy", "strategy"),
        ("reduceOnly", "intent"),
        ("position_effect", "intent"),
    ],
)
def test_a_field_that_looks_like_one_of_ours_is_refused_and_named(field: str, meant: str) -> None:
    told = fault(MARKET | {field: "1.07"})
    assert told == f"'{field}': not read here, expected {meant} (execution.field_names maps others)"


def test_an_account_under_another_name_is_not_routed_elsewhere() -> None:
    routed = {name: value for name, value in MARKET.items() if name != "account"}
    for field in ("accont", "login", "Account"):
        assert fault(routed | {field: "b"}).startswith(f"'{field}': not read here, expected account")


@pytest.mark.parametrize(
    "fields",
    [
        {"comment": "x", "exchange": "OANDA", "time": "now", "timeframe": "5", "stop": "x", "type": "entry"},
        {"size": 10_000, "qty": 5, "prices": [1, 2], "symbols": ["EURUSD"], "sides": 2},
        {"sl": None, "tp": "", "stoploss": None},
        {"stop_loss": "1.07", "sl": "1.07"},
        {"reduce_only": False, "stoploss": False},
        {"ticket": 7, "position": "long", "magic": 5, "percent": 50, "order_id": "Entry"},
    ],
)
def test_other_fields_are_the_senders_own_and_ignored(fields: dict[str, Any]) -> None:
    assert read(MARKET | fields).symbol == "EURUSD"


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("ticket", "position_id"),
        ("position", "position_id"),
        ("positionTicket", "position_id"),
        ("order_id", "position_id"),
        ("magic", "strategy"),
        ("strategyId", "strategy"),
        ("percent", "volume"),
        ("qty_percent", "volume"),
        ("amount", "volume"),
    ],
)
def test_what_narrows_an_exit_and_is_not_understood_is_refused_for_it_would_close_more(field: str, meant: str) -> None:
    close = {"signal_id": "x-1", "account": "a", "symbol": "EURUSD", "intent": "close"}
    assert fault(close | {field: 50}).startswith(f"'{field}': not read here, expected {meant} ")
    right = {"position_id": 7} if meant == "position_id" else {meant: "1"}
    require_known_fields(close | {field: 50} | right, OURS)


def test_a_truth_value_is_no_ticket() -> None:
    close = {"signal_id": "x-1", "account": "a", "symbol": "EURUSD", "intent": "close", "position_id": True}
    assert fault(close) == "position_id: expected a position's ticket, got True"


def test_the_senders_own_names_are_those_to_look_like() -> None:
    theirs = ExecutionSettings(field_names={"volume": "size", "stop_loss": "stop"})
    payload = {name: value for name, value in MARKET.items() if name != "volume"}
    assert read(payload | {"size": 2, "stop": "1.07"}, theirs).stop_loss == Decimal("1.07")
    told = fault(payload | {"size": 2, "stop_loss": "1.07"}, theirs)
    assert told.startswith("'stop_loss': not read here, expected stop ")


# --- words


@pytest.mark.parametrize(
    ("word", "side", "order_type"),
    [
        ("ORDER_TYPE_BUY", "buy", "market"),
        ("ORDER_TYPE_SELL_LIMIT", "sell", "limit"),
        ("order_type_buy_stop", "buy", "stop"),
        ("ORDER_TYPE_SELL_STOP_LIMIT", "sell", "stop_limit"),
        ("buylimit", "buy", "limit"),
        ("Sell Stop", "sell", "stop"),
        ("BUY", "buy", "market"),
        (0, "buy", "market"),
        (1, "sell", "market"),
        (2, "buy", "limit"),
        (3, "sell", "limit"),
        (4, "buy", "stop"),
        (5, "sell", "stop"),
        ("6", "buy", "stop_limit"),
        (7, "sell", "stop_limit"),
    ],
)
def test_one_word_may_say_side_and_order_type(word: Any, side: str, order_type: str) -> None:
    named = translated({"order_type": word}, OURS)
    assert named == {"side": side, "order_type": order_type}


def test_a_word_for_both_may_stand_in_the_side() -> None:
    assert translated({"side": "ORDER_TYPE_BUY_LIMIT"}, OURS) == {"side": "buy", "order_type": "limit"}
    assert translated({"side": "Buy", "order_type": "Market"}, OURS) == {"side": "buy", "order_type": "market"}


@pytest.mark.parametrize(
    ("side", "order_type", "told"),
    [
        ("sell", "ORDER_TYPE_BUY_LIMIT", "side: expected one, got 'sell' by side and 'buy' by order_type"),
        ("buy_stop", "limit", "order_type: expected one, got 'stop' by side and 'limit' by order_type"),
    ],
)
def test_a_side_and_a_type_that_disagree_are_refused(side: str, order_type: str, told: str) -> None:
    assert fault(LIMIT | {"side": side, "order_type": order_type}) == told


def test_a_side_that_is_no_word_is_refused_also_beside_a_word_for_both() -> None:
    told = fault(MARKET | {"side": True, "order_type": "ORDER_TYPE_BUY"})
    assert told == "side: expected one, got True by side and 'buy' by order_type"


@pytest.mark.parametrize("side", [0, 1, "1", "long", "b", True, ["buy"]])
def test_a_side_that_others_may_mean_otherwise_is_refused(side: Any) -> None:
    assert fault(MARKET | {"side": side}).startswith("side: ")


@pytest.mark.parametrize("order_type", [8, -1, "close_by", "ORDER_TYPE_CLOSE_BY", "trailing", True])
def test_an_order_type_that_we_do_not_have_is_refused(order_type: Any) -> None:
    assert fault(MARKET | {"order_type": order_type}).startswith("order_type: ")


@pytest.mark.parametrize(
    ("field", "word", "ours"),
    [
        ("status", "Approved", "approved"),
        ("order_type", "Stop-Limit", "stop_limit"),
        ("time_in_force", "GTC", "gtc"),
        ("time_in_force", "GTD", "until"),
        ("time_in_force", "ORDER_TIME_SPECIFIED", "until"),
        ("fill_policy", "FOK", "fok"),
        ("fill_policy", "ORDER_FILLING_IOC", "ioc"),
    ],
)
def test_words_are_compared_without_case_and_mt5s_are_known(field: str, word: str, ours: str) -> None:
    assert translated({field: word}, OURS) == {field: ours}


def test_the_senders_words_are_ours_in_any_field_or_by_field() -> None:
    theirs = ExecutionSettings(
        value_names={"LONG": "buy", "Enter Short": "sell_limit", "side": {"1": "buy", "2": "sell"}, "good": "gtc"}
    )
    assert translated({"side": "long", "time_in_force": "Good"}, theirs) == {"side": "buy", "time_in_force": "gtc"}
    assert translated({"side": 2}, theirs) == {"side": "sell"}
    assert translated({"order_type": 2}, theirs) == {"side": "buy", "order_type": "limit"}
    assert translated({"order_type": "ENTER SHORT"}, theirs) == {"side": "sell", "order_type": "limit"}


def test_words_that_trade_places_do_so_once() -> None:
    contrarian = ExecutionSettings(value_names={"buy": "sell", "sell": "buy"})
    assert translated({"side": "BUY"}, contrarian) == {"side": "sell"}


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"Long": "buy", "LONG": "sell"}, "expected each word once"),
        ({"side": {"B": "buy", "b": "sell"}}, "expected each word once"),
        ({"volume": {"all": "1"}}, "got a table for volume"),
    ],
)
def test_a_map_of_words_that_can_be_read_in_two_ways_is_no_setting(names: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ExecutionSettings(value_names=names)


# --- times


@pytest.mark.parametrize("field", ["approved_at", "valid_until"])
@pytest.mark.parametrize(
    "number", [1795176000, "1795176000", 1795176000.0, 1795176000000, 1795176000000000, 1795176000000000000]
)
def test_the_digits_of_a_time_show_its_unit(field: str, number: Any) -> None:
    assert getattr(read(MARKET | {field: number}), field) == AT


def test_parts_of_a_second_are_kept_to_the_microsecond() -> None:
    for number in (1795176000.123456, 1795176000123.456, 1795176000123456, 1795176000123456789):
        assert read(MARKET | {"approved_at": number}).approved_at == AT.replace(microsecond=123456)
    assert read(MARKET | {"approved_at": "2026-11-20T12:00:00.123456789Z"}).approved_at == AT.replace(
        microsecond=123456
    )


@pytest.mark.parametrize("number", [1, 3600, 20261120, 20261120120000, 10**11, -1795176000, 1e30, True, []])
def test_a_number_whose_unit_nobody_knows_is_refused_with_the_units_named(number: Any) -> None:
    told = fault(MARKET | {"valid_until": number})
    assert told.startswith("valid_until: expected RFC 3339 text, or the seconds, milliseconds, microseconds or nano")
    assert "since 1970 of a time after 2001-09-09, got " in told


@pytest.mark.parametrize("text", ["2026-11-20T12:00:00", "2026-11-20", "yesterday"])
def test_a_time_without_an_offset_is_refused(text: str) -> None:
    assert fault(MARKET | {"approved_at": text}).startswith("approved_at: ")
