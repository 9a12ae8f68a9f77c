from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

from streamapp.demo.signals import SYMBOLS, WEIGHTED, Script
from streamapp.domain.signals import ACCEPTED, Rules, judge
from streamapp.errors import Unusable
from streamapp.messages.dialect import read_signal
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import Signal

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MIDS = {"EURUSD": "1.1", "GBPUSD": "1.3", "USDJPY": "150", "XAUUSD": "2400"}
QUOTES = {symbol: (Decimal(MIDS[symbol]), Decimal(MIDS[symbol])) for symbol in SYMBOLS}


def played(seed: int, pending: float = 0.0) -> list[tuple[str, str, bytes]]:
    script = Script("run", ("a", "b"), seed, pending=pending)
    return [(planned.kind, *script.due(planned, NOW, QUOTES)) for planned in script.plan(60, 5)]


def test_the_same_seed_plays_the_same_stream() -> None:
    assert played(3) == played(3)
    assert played(3) != played(4)


def test_every_kind_occurs_within_a_minute() -> None:
    kinds = {kind for kind, _, _ in played(1)}
    assert kinds == {"good", "exit", "weighted", "repeated", "conflicting", "refused", "rejected", "broken"}


def test_every_intent_occurs_within_two_minutes_and_is_about_what_was_sent_before() -> None:
    strategies, intents = set(), set()
    for kind, _, payload in played(1) + played(2):
        if kind in {"good", "exit"}:
            content = json.loads(payload)
            if kind == "exit" and "intent" in content:
                signal = read_signal(content)
                intents.add(content["intent"])
                assert (signal.strategy, signal.symbol) in strategies
            strategies.add((content["strategy"], content["symbol"]))
    assert intents == {"close", "reduce", "reverse", "modify"}


def test_a_weighted_signal_names_no_account_and_is_routed_by_its_strategy() -> None:
    weighted = [json.loads(payload) for kind, _, payload in played(1) if kind == "weighted"]
    assert weighted
    assert {(signal["account"], signal["strategy"]) for signal in weighted} == {(None, WEIGHTED)}


def test_good_signals_are_well_formed_and_their_ids_carry_the_run() -> None:
    for kind, symbol, payload in played(1):
        if kind == "good":
            signal = read_signal(json_object(payload))
            assert signal.symbol == symbol
            assert signal.signal_id.startswith("run-")


def test_a_repeated_signal_is_an_earlier_one_and_a_conflicting_one_differs_in_volume() -> None:
    seen: dict[str, dict[str, object]] = {}
    for kind, _, payload in played(1):
        if kind == "good":
            content = json.loads(payload)
            seen[content["signal_id"]] = content
        if kind in {"repeated", "conflicting"}:
            content = json.loads(payload)
            same = seen[content["signal_id"]] == content
            assert same == (kind == "repeated")


def test_broken_ones_can_not_be_executed() -> None:
    for kind, _, payload in played(1):
        if kind == "broken":
            try:
                read_signal(json_object(payload))
            except Unusable:
                continue
            raise AssertionError(payload)


def test_pending_orders_of_every_type_and_lifetime_are_good_signals() -> None:
    read = [read_signal(json_object(payload)) for kind, _, payload in played(1, pending=1.0) if kind == "good"]
    signals = [signal for signal in read if isinstance(signal, Signal)]
    assert len(signals) == len(read)
    rules = Rules(accounts=frozenset({"a", "b"}))
    assert all(judge(signal, rules, stream_time=NOW, now=NOW) == ACCEPTED for signal in signals)
    assert {(signal.order_type, signal.time_in_force) for signal in signals} == {
        (kind, lifetime) for kind in ("limit", "stop", "stop_limit") for lifetime in ("gtc", "day", "until")
    }
    for signal in signals:
        assert signal.price is not None
        above = signal.price > Decimal(MIDS[signal.symbol])
        assert above == ((signal.side == "buy") == (signal.order_type != "limit"))
