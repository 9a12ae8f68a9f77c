"""What a source's mapping makes of a body: one signal, that the desk reads as it was meant, or a sentence."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.errors import ConfigurationError, Unusable
from streamapp.messages.dialect import read_signal, renamed, translated
from streamapp.messages.envelope import json_object
from streamapp.messages.outgoing import OutgoingSignal
from streamapp.messages.signal import ExitSignal, Signal, signal_id_of
from streamapp.messages.source import Source, SourceSignal, load_sources
from streamapp.settings import ExecutionSettings

OTHER_NAMES = ExecutionSettings.model_validate({"field_names": {"volume": "size", "side": "direction"}})
ROUTED = ExecutionSettings.model_validate({"routing": {"spread/*": {"a": 1, "b": "0.5"}, "*/*": "a"}})
SHIPPED = load_sources(None, ExecutionSettings())
ALERT = {"secret": "s3cret", "time": "2026-11-27T10:00:00Z", "symbol": "EURUSD", "action": "buy", "volume": "0.10"}


def read(body: dict[str, Any], source: Source = SHIPPED["tradingview"]) -> tuple[Signal | ExitSignal, SourceSignal]:
    """Return the signal as the desk reads it of what is published, and what the source made of the body."""
    meant = source.signal(json_object(json.dumps(body).encode()), "bob")
    sent = json_object(OutgoingSignal.of(meant.fields, source.execution.field_names).payload)
    return read_signal({"account": "-", **translated(renamed(sent, source.execution), source.execution)}), meant


@pytest.mark.parametrize(
    ("said", "intent", "side"),
    [
        ({"action": "buy", "position": "long"}, "open", "buy"),
        ({"action": "sell", "position": "short"}, "open", "sell"),
        ({"action": "Long"}, "open", "buy"),
        ({"action": "sell", "position": "flat"}, "close", "sell"),
        ({"action": "sell", "position": "long"}, "reduce", "sell"),
        ({"action": "buy", "position": "short"}, "reduce", "buy"),
        ({"action": "flat"}, "close", None),
        ({"action": "close"}, "close", None),
        ({"action": "reverse"}, "reverse", None),
    ],
)
def test_what_a_tradingview_strategy_orders_and_then_holds_says_what_is_meant(
    said: dict[str, str], intent: str, side: str | None
) -> None:
    signal, _ = read(ALERT | said)
    assert (getattr(signal, "intent", "open"), signal.side) == (intent, side)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            {"actionType": "ORDER_TYPE_BUY_STOP", "volume": 0.07, "openPrice": 1.1, "stopLoss": 1.0, "magic": 17},
            {"side": "buy", "order_type": "stop", "volume": Decimal("0.07"), "price": Decimal("1.1"), "strategy": "17"},
        ),
        (
            {"actionType": "POSITION_CLOSE_ID", "positionId": "46870472"},
            {"intent": "close", "position_id": 46870472, "scope": "strategy"},
        ),
        ({"actionType": "POSITIONS_CLOSE_SYMBOL"}, {"intent": "close", "scope": "symbol"}),
        ({"actionType": "POSITION_MODIFY", "stopLoss": 1}, {"intent": "modify", "stop_loss": Decimal(1)}),
    ],
)
def test_a_trade_of_metaapi_is_read(said: dict[str, Any], expected: dict[str, Any]) -> None:
    signal, _ = read({"clientId": "T_1", "symbol": "EURUSD", **said}, SHIPPED["metaapi"])
    assert signal.signal_id == "metaapi:T_1"
    assert {name: getattr(signal, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("source", "body", "told"),
    [
        ("tradingview", ALERT | {"action": "up"}, r"intent: .* \(in the body: action, position\)"),
        ("tradingview", ALERT | {"volume": "lots"}, r"volume: .* \(in the body: volume\)"),
        ("tradingview", ALERT | {"volume": True}, "volume: expected a text or a number, got a bool"),
        ("tradingview", ALERT | {"symbol": ["EURUSD"]}, "symbol: expected a text or a number, got a list"),
        ("tradingview", ALERT | {"stoploss": 1}, "stoploss: not read by the source tradingview"),
        ("tradingview", ALERT | {"a.b": 1}, r"a\.b: not read by the source"),
        ("tradingview", ALERT | {"account": " "}, "account: expected an account, got an empty text"),
        ("tradingview", ALERT | {"id": "a b"}, "expected 1 to 128 visible ASCII characters"),
        ("tradingview", ALERT | {"time": None}, "expected an id in the field id, or the sender's time in time"),
        ("tradingview", ALERT | {"time": "yesterday"}, r"approved_at: .* \(in the body: time\)"),
        ("metaapi", {"clientId": "T", "symbol": "X", "actionType": "ORDER_CANCEL"}, "in the body: actionType"),
        (
            "metaapi",
            {
                "clientId": "T",
                "symbol": "X",
                "actionType": "ORDER_TYPE_BUY",
                "volume": 1,
                "stopLossUnits": "RELATIVE_PIPS",
            },
            "stopLossUnits: expected ABSOLUTE_PRICE, got RELATIVE_PIPS",
        ),
        (
            "metaapi",
            {"clientId": "T", "symbol": "X", "actionType": "ORDER_TYPE_BUY", "volume": 1, "expiration": {"at": "noon"}},
            r"expiration\.at: not read by the source",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_the_name_of_its_field(
    source: str, body: dict[str, Any], told: str
) -> None:
    with pytest.raises(Unusable, match=told):
        read(body, SHIPPED[source])


def test_a_field_that_is_given_twice_is_refused_wherever_it_stands() -> None:
    for body in (b'{"id": 1, "symbol": "A", "symbol": "B"}', b'{"id": 1, "symbol": "A", "comment": {"x": 1, "x": 2}}'):
        with pytest.raises(Unusable, match="given more than once"):
            SHIPPED["tradingview"].signal(json_object(body), "bob")


def test_what_nests_too_deep_is_refused_in_words() -> None:
    depth = 900
    body = b'{"id": 1, "symbol": "A", "action": "buy", "volume": 1, "comment": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(Unusable, match=r"deep nesting|expected JSON"):
        SHIPPED["tradingview"].signal(json_object(body), "bob")


SCALARS = st.one_of(st.text(max_size=8), st.integers(), st.booleans(), st.none(), st.decimals(allow_nan=False))
VALUES = st.one_of(SCALARS, st.dictionaries(st.text(max_size=4), SCALARS, max_size=2), st.lists(SCALARS, max_size=2))
KNOWN = st.sampled_from(sorted({"expiration", *(path for each in SHIPPED.values() for path in each.mapping.paths)}))
BODIES = st.dictionaries(KNOWN, VALUES, max_size=6)


@given(BODIES, st.sampled_from(sorted(SHIPPED)), st.booleans())
def test_any_body_is_a_sentence_or_a_signal_that_the_desk_reads_the_same_and_never_has_the_secret(
    body: dict[str, Any], name: str, is_good: bool
) -> None:
    good: dict[str, dict[str, Any]] = {
        "tradingview": ALERT,
        "metaapi": {"clientId": "T", "symbol": "X", "actionType": "ORDER_TYPE_BUY", "volume": 1},
    }
    body = {**good[name], **body} if is_good else {**body, "secret": "s3cret"}
    for execution in (ExecutionSettings(), OTHER_NAMES):
        source = load_sources(None, execution)[name]
        try:
            meant = source.signal(body, "bob")
        except Unusable:
            continue
        sent = OutgoingSignal.of(meant.fields, execution.field_names)
        assert b"s3cret" not in sent.payload
        named = renamed(json_object(sent.payload), execution)
        assert signal_id_of(named) == sent.signal_id
        again = read_signal({"account": "-", **translated(named, execution)})
        first = read_signal({"account": "-", **translated(renamed(meant.fields, ExecutionSettings()), execution)})
        assert again.fingerprint == first.fingerprint
        assert again.symbol == sent.symbol


@given(st.permutations(sorted(ALERT.items())), st.sampled_from(sorted(ALERT)))
def test_the_same_alert_is_the_same_signal_in_any_order_and_another_one_is_another(
    items: list[tuple[str, str]], changed: str
) -> None:
    first = read(ALERT)[0].signal_id
    assert read(dict(items))[0].signal_id == first
    others = {
        "secret": "rotated",
        "time": "2026-11-27T10:00:01Z",
        "symbol": "GBPUSD",
        "action": "sell",
        "volume": "0.11",
    }
    is_same = read(ALERT | {changed: others[changed]})[0].signal_id == first
    assert is_same == (changed == "secret")  # a new token does not make yesterday's alert another one


def test_routing_says_whether_a_signal_goes_to_several_accounts() -> None:
    source = load_sources(None, ROUTED)["tradingview"]
    split = {strategy: read(ALERT | {"strategy": strategy}, source)[1].is_split for strategy in ("spread", "other")}
    assert split == {"spread": True, "other": False}
    assert not read(ALERT | {"strategy": "spread", "account": "a"}, source)[1].is_split


def test_a_setting_that_calls_two_fields_alike_is_named_and_not_guessed_at() -> None:
    execution = ExecutionSettings.model_validate({"field_names": {"side": "what", "order_type": "what"}})
    source = load_sources(None, execution)["tradingview"]
    assert source.signal(ALERT, "bob").fields["side"] == "buy"  # one word says both
    with pytest.raises(Unusable, match=r"execution.field_names has one name for several fields"):
        source.signal(ALERT | {"type": "limit", "price": "1.08"}, "bob")


def test_a_mapping_of_ones_own_goes_before_ours_and_has_names_for_symbols_and_accounts(tmp_path: Path) -> None:
    (tmp_path / "tradingview.toml").write_text(
        '[field_names]\nsignal_id = "n"\nsymbol = "meta.pair"\naccount = "who"\n'
        '[defaults]\nside = "buy"\norder_type = "market"\nvolume = 0.30\n'
        '[value_names.symbol]\n"eur / usd" = "EURUSD.x"\n[value_names.account]\n"*" = "demo"\n'
    )
    source = load_sources(tmp_path, ExecutionSettings())["tradingview"]
    signal, _ = read({"n": 7, "meta": {"pair": "EUR / USD"}, "who": "me"}, source)
    assert (signal.signal_id, signal.symbol, signal.account) == ("tradingview:7", "EURUSD.x", "demo")
    assert signal.volume == Decimal("0.30")
    assert "account" not in read({"n": 7, "meta": {"pair": "X"}}, source)[1].fields  # nothing said is no other word


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[field_names\n", r"tv\.toml: .*at line 1, column 13"),
        ("field_names = 3\n", r"tv\.toml: field_names: "),
        ("[field_names]\nsied = 'x'\n", r"tv\.toml: field_names: expected fields of signal_id, .*, got 'sied'"),
        ("[field_names]\nstatus = 'x'\n", "got 'status'"),
        ("[fields]\nsymbol = 'x'\n[field_names]\nsymbol = 'x'\nsignal_id = 'y'\n", "fields: there is no such setting"),
        ("[field_names]\nsymbol = 'x'\n", "field_names: expected signal_id or approved_at"),
        ("[field_names]\nsignal_id = 'x'\n", "field_names: expected symbol, got none"),
        (
            "[field_names]\nsignal_id = 'x'\nsymbol = 'y'\n[defaults]\nsignal_id = 'always'\n",
            "defaults: expected neither signal_id nor approved_at",
        ),
        ("[field_names]\nsignal_id = 'x.'\nsymbol = 'y'\n", r"expected names with dots between them, got 'x\.'"),
        ("secret = 'x'\n[field_names]\nsignal_id = 'x'\nsymbol = 'y'\n", "secret: expected a field of its own"),
        (
            "[field_names]\nsignal_id = 'x'\nsymbol = 'y'\n[value_names.side]\nL = 'buy'\nl = 'sell'\n",
            "value_names: expected each word once",
        ),
    ],
)
def test_a_mapping_that_can_not_be_used_is_one_sentence_with_its_file_and_place(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "tv.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=told) as raised:
        load_sources(tmp_path, ExecutionSettings())
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_none_and_a_name_that_no_path_has_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"web\.sources: expected a folder"):
        load_sources(tmp_path / "nowhere", ExecutionSettings())
    (tmp_path / "Trading View.toml").write_text("")
    with pytest.raises(ConfigurationError, match=r"Trading View\.toml: expected a name of a-z"):
        load_sources(tmp_path, ExecutionSettings())
