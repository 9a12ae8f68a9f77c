"""Routing has an answer for any bytes, and the answer is the design's table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp import subjects, topics
from streamapp.domain.identifiers import murmur2, order_id_for, partition_of
from streamapp.mirror.routing import Arrival, Dropped, MirrorRecord, RoutingRules, route
from streamapp.settings import ExecutionSettings, Role

AT = datetime(2026, 11, 20, 12, 0, 0, 123456, UTC)
ROLES: tuple[Role, ...] = ("both", "execution", "connector")
FAMILIES = [
    subject.removesuffix(".>")
    for spec in (subjects.EXECUTION_IN, subjects.ACCOUNT_SNAPSHOTS)
    for subject in spec.subjects
]


def rules(role: Role = "both", **execution: Any) -> RoutingRules:
    return RoutingRules(role, subjects.origin("streamapp", role), 8, ExecutionSettings(**execution))


def arrival(subject: str, payload: Any, headers: dict[str, str] | None = None) -> Arrival:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Arrival(subject, body, "EXECUTION_IN", 17, AT, headers or {})


def record(
    subject: str, payload: Any, at: RoutingRules | None = None, headers: dict[str, str] | None = None
) -> MirrorRecord:
    routed = route(arrival(subject, payload, headers), at or rules())
    assert isinstance(routed, MirrorRecord)
    return routed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
named = st.dictionaries(
    st.sampled_from(["signal_id", "account", "order_id", "symbol", "status", "executor"]), json_values, max_size=6
)
payloads = (
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | named.map(lambda value: json.dumps(value).encode())
)


@given(
    subject=st.builds(lambda family, rest: f"{family}.{rest}", st.sampled_from(FAMILIES), st.text(max_size=20))
    | st.text(),
    payload=payloads,
    headers=st.dictionaries(st.sampled_from([subjects.ORIGIN_HEADER, "traceparent", "x"]), st.text(max_size=20)),
    role=st.sampled_from(ROLES),
)
def test_any_bytes_on_any_subject_have_one_place_and_the_same_one_when_they_come_again(
    subject: str, payload: bytes, headers: dict[str, str], role: Role
) -> None:
    message = Arrival(subject, payload, "EXECUTION_IN", 17, AT, headers)
    first = route(message, rules(role))
    assert first == route(message, rules(role))
    if isinstance(first, MirrorRecord):
        assert 0 <= first.partition < 8
        assert first.value == payload[:65536]
        assert first.timestamp_ms == 1_795_176_000_123
        assert all(isinstance(value, bytes) for value in first.headers.values())


def test_a_signal_goes_to_its_account_untouched_with_where_it_came_from() -> None:
    payload = b'{"signal_id": "s-1",  "account": "demo-hedging", "volume": 0.10}'
    headers = {subjects.ORIGIN_HEADER: "streamapp/both", "traceparent": "00-ab-cd-01", "x": "y"}
    sent = record("signals.approved.EURUSD", payload, headers=headers)
    assert (sent.topic, sent.key, sent.value) == (topics.SIGNALS_APPROVED, b"demo-hedging", payload)
    assert sent.partition == partition_of("demo-hedging", 8)
    assert sent.timestamp_ms == 1_795_176_000_123
    assert sent.headers == {
        "nats-subject": b"signals.approved.EURUSD",
        "nats-stream": b"EXECUTION_IN",
        "nats-stream-seq": b"17",
        "nats-time": b"2026-11-20T12:00:00.123456Z",
        "streamapp-family": b"signal",
        "streamapp-id": b"s-1",
        "streamapp-account": b"demo-hedging",
        "Streamapp-Origin": b"streamapp/both",
        "traceparent": b"00-ab-cd-01",
    }


def test_the_risk_engines_own_names_are_understood() -> None:
    theirs = rules(field_names={"signal_id": "id", "account": "login"})
    assert record("signals.approved.X", {"id": "s-1", "login": "a"}, theirs).key == b"a"
    assert record("signals.approved.X", {"id": "s-1", "account": "a"}, theirs).topic == topics.INCOMPLETE


@pytest.mark.parametrize("payload", [{"signal_id": "s-1"}, {"signal_id": "s-1", "account": None, "symbol": "EURUSD"}])
def test_a_signal_without_an_account_is_incomplete(payload: dict[str, Any]) -> None:
    sent = record("signals.approved.EURUSD", payload)
    assert (sent.topic, sent.key) == (topics.INCOMPLETE, b"s-1")


@pytest.mark.parametrize("account", ["", 7, [], {"a": 1}])
def test_an_account_that_is_no_name_is_refused_by_execution_and_not_routed(account: Any) -> None:
    assert record("signals.approved.X", {"signal_id": "s", "account": account}).topic == topics.SIGNALS_APPROVED


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b'{"signal_id": NaN}', "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"signal_id": "s", "account": "\xed\xa0\x80"}', "not_json"),
        (b'{"signal_id": "s", "account": "\\ud800"}', "not_json"),
        ('{"signal_id": "s", "account": "a"}'.encode("utf-16"), "not_json"),
        (b"[" * 5000, "not_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not_json"),
        (b"[]", "not_an_object"),
        (b"null", "not_an_object"),
        (b"{}", "no_signal_id"),
        (b'{"signal_id": ""}', "no_signal_id"),
        (b'{"signal_id": [7]}', "no_signal_id"),
        (b'{"signal_id": true}', "no_signal_id"),
        (b'{"signal_id": "s", "signal_id": "s"}', "no_signal_id"),
        (b'{"signal_id": "a b"}', "no_signal_id"),
        (b'{"signal_id": "' + b"x" * 129 + b'"}', "no_signal_id"),
        (b'{"signal_id": "s", "account": "' + b"x" * 600 + b'"}', "bad_field"),
        (b'{"signal_id": "s", "account": "a", "metadata": {"x": "' + b"x" * 70_000 + b'"}}', "too_long"),
    ],
)
def test_a_signal_that_nobody_can_use_is_a_dead_letter_on_its_way_to_completion_which_answers_its_sender(
    payload: bytes, reason: str
) -> None:
    sent = record("signals.approved.EURUSD", payload)
    assert (sent.topic, sent.key, sent.reason) == (topics.INCOMPLETE, None, None)
    assert sent.value == payload[:65536]
    assert sent.headers["reason"] == reason.encode()
    assert (sent.headers["subject"], sent.headers["sequence"]) == (b"signals.approved.EURUSD", b"17")
    assert sent.headers["length"] == str(len(payload)).encode()
    assert (sent.headers[topics.FAMILY], sent.headers[topics.NATS_SEQUENCE]) == (b"signal", b"17")


def test_a_dead_letter_of_another_family_goes_to_its_topic_at_once() -> None:
    sent = record("orders.submitted.EURUSD", b"{", rules("connector"))
    assert (sent.topic, sent.key, sent.reason) == (topics.DEAD_LETTERS, None, "not_json")
    assert sent.headers["reason"] == b"not_json"


@pytest.mark.parametrize(
    "payload",
    [
        {"signal_id": "s", "account": "a", "volume": "-1", "side": 3, "price": "1e400"},
        {"signal_id": "s", "account": "nobody", "symbol": "US 500.x>*", "approved_at": "2999-01-01T00:00:00Z"},
    ],
)
def test_what_execution_must_refuse_passes(payload: dict[str, Any]) -> None:
    assert record("signals.approved.X", payload).topic == topics.SIGNALS_APPROVED


@pytest.mark.parametrize("role", ROLES)
def test_our_own_words_are_dropped_on_three_subjects_only(role: Role) -> None:
    ours = {subjects.ORIGIN_HEADER: f"streamapp/{role}"}
    body = {"order_id": "o-1", "signal_id": "s-1", "account": "a"}
    outcomes = {
        family: route(arrival(f"{family}.EURUSD", body, ours), rules(role))
        for family in FAMILIES
        if not isinstance(route(arrival(f"{family}.EURUSD", body), rules(role)), Dropped)
    }
    dropped = {family for family, outcome in outcomes.items() if outcome == Dropped("own_origin")}
    assert dropped == outcomes.keys() & {"orders.submitted", "broker.fill", "broker.error"}


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (
            "both",
            {
                "signals_approved",
                "broker_reports",
                "broker_communication_log",
                "account_snapshots",
                "order_commands",
            },
        ),
        ("execution", {"signals_approved", "broker_reports"}),
        (
            "connector",
            {
                "orders_submitted",
                "broker_reports",
                "broker_communication_log",
                "account_snapshots",
                "order_commands",
            },
        ),
    ],
)
def test_each_role_takes_what_is_its_own(role: Role, expected: set[str]) -> None:
    body = {"order_id": "o-1", "signal_id": "s-1", "account": "a"}
    outcomes = {family: route(arrival(f"{family}.X", body), rules(role)) for family in FAMILIES}
    assert {outcome.topic for outcome in outcomes.values() if isinstance(outcome, MirrorRecord)} == expected
    if role == "connector":
        assert outcomes["broker.fill"] == Dropped("not_our_role")
    if role == "execution":
        assert outcomes["mt5.report"] == Dropped("not_our_role")


def test_a_foreign_order_needs_an_id_and_may_lack_the_account() -> None:
    at = rules("connector")
    assert record("orders.submitted.X", {"order_id": "o", "account": "a"}, at).key == b"a"
    assert record("orders.submitted.X", {"order_id": "o"}, at).topic == topics.INCOMPLETE
    assert record("orders.submitted.X", {"account": "a"}, at).reason == "no_order_id"


def test_a_foreign_fill_without_an_account_goes_where_its_order_is() -> None:
    at = rules("execution")
    ours = order_id_for("streamapp", "demo-netting", "s-1")
    assert record("broker.fill.X", {"order_id": ours}, at).partition == partition_of("demo-netting", 8)
    theirs = record("broker.fill.X", {"order_id": "o-77"}, at)
    assert (theirs.key, theirs.partition) == (b"o-77", (murmur2(b"o-77") & 0x7FFFFFFF) % 8)
    assert record("broker.fill.X", {"volume": 1}, at).reason == "no_order_id"


WHO = [
    ("both", "signals.approved.X", {"signal_id": 7, "account": 77}, (b"signal", b"7", b"77")),
    ("connector", "orders.submitted.X", {"order_id": 7, "account": 77}, (b"order", b"7", b"77")),
    ("both", "broker.fill.X", {"order_id": "o", "account": 77}, (b"fill", b"o", b"77")),
    ("both", "signals.approved.X", {"signal_id": "s"}, (b"signal", b"s", None)),
    ("both", "signals.approved.X", {"signal_id": "s", "account": ""}, (b"signal", b"s", b"")),
    ("connector", "orders.submitted.X", {"order_id": "o", "account": "ä"}, (b"order", b"o", "ä".encode())),
    ("both", "broker.fill.X", {"order_id": "o"}, (b"fill", b"o", None)),
    ("both", "broker.fill.X", {"account": "a", "order_id": [7]}, (b"fill", None, b"a")),
    ("both", "broker.error.X", {"order_id": "o", "account": "a"}, (b"error", b"o", b"a")),
    ("both", "mt5.report.a", {"account": "a", "order_id": "o"}, (b"reports", None, b"a")),
    ("both", "mt5.log.a", {"account": "a"}, (b"log", None, b"a")),
    ("both", "mt5.snapshot.a", {"account": "a"}, (b"snapshot", None, b"a")),
    ("both", "signals.approved.X", {"account": "a"}, (b"signal", None, None)),
    ("both", "mt5.log.a", {}, (None, None, None)),
]


@pytest.mark.parametrize(("role", "subject", "payload", "expected"), WHO)
def test_the_headers_name_the_family_and_who_it_is_for_but_on_dead_letters(
    role: Role, subject: str, payload: dict[str, Any], expected: tuple[bytes | None, ...]
) -> None:
    headers = record(subject, payload, rules(role)).headers
    assert tuple(headers.get(name) for name in (topics.FAMILY, topics.MESSAGE_OF, topics.ACCOUNT)) == expected


def test_a_publisher_cannot_name_the_account_in_a_header() -> None:
    headers = {topics.FAMILY: "reports", topics.MESSAGE_OF: "x", topics.ACCOUNT: "somebody"}
    sent = record("signals.approved.X", {"signal_id": "s"}, headers=headers)
    assert (sent.headers[topics.FAMILY], sent.headers[topics.MESSAGE_OF]) == (b"signal", b"s")
    assert topics.ACCOUNT not in sent.headers


def test_a_command_goes_to_its_account_or_to_that_of_its_order() -> None:
    order_id = order_id_for("default", "demo", "s-1")
    named = record("commands.account.halt.demo", {"request_id": "r", "account": "demo"})
    led = record("commands.order.cancel.EURUSD", {"request_id": "r", "order_id": order_id})
    assert (named.topic, named.key, led.topic, led.key) == (
        topics.ORDER_COMMANDS,
        b"demo",
        topics.ORDER_COMMANDS,
        order_id.encode(),
    )
    assert (named.partition, named.headers[topics.MESSAGE_OF]) == (led.partition, b"r")


def test_a_command_for_nobody_goes_to_completion_to_be_answered() -> None:
    sent = record("commands.order.cancel.EURUSD", {"request_id": "r"})
    assert (sent.topic, sent.headers[topics.FAMILY], sent.headers["reason"]) == (
        topics.INCOMPLETE,
        b"command",
        b"no_account",
    )


def test_a_terminal_may_say_more_than_a_stranger() -> None:
    long = {"account": "a", "positions": ["x" * 100] * 1000}
    assert record("mt5.snapshot.a", long).topic == topics.ACCOUNT_SNAPSHOTS
    assert record("mt5.log.a", {"no": "account"}).reason == "no_account"
