from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.desk.inputs import (
    COMPLETED,
    ForeignReport,
    Incoming,
    NewSignal,
    RecordInput,
    Snapshot,
    Spoiled,
    TerminalReport,
    kind_of,
    parse,
)
from streamapp.desk.policy import Policy
from streamapp.domain.identifiers import partition_of
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.messages.report import Report, ReportBatch
from streamapp.settings import ExecutionSettings, Settings
from tests.kit.desk import ACCOUNT, NOW, SIGNAL
from tests.kit.examples import accepted
from tests.kit.records import event

POLICY = Policy.of(Settings(deployment="ours"))
ELSEWHERE = next(name for name in "bcdefgh" if partition_of(name, 8) != partition_of(ACCOUNT, 8))
TOPICS = {"signal": topics.SIGNALS_APPROVED, "order": topics.ORDERS_SUBMITTED, "snapshot": topics.ACCOUNT_SNAPSHOTS}


def read(payload: bytes | dict[str, Any], family: str = "signal", policy: Policy = POLICY, **options: Any) -> Any:
    """Return the one input of a record."""
    [new] = read_all(payload, family, policy, **options)
    return new


def read_all(
    payload: bytes | dict[str, Any],
    family: str,
    policy: Policy = POLICY,
    headers: dict[str, bytes] | None = None,
    **options: Any,
) -> list[RecordInput]:
    value = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    known = {topics.FAMILY: family.encode()} | (headers or {})
    topic = TOPICS.get(family, topics.BROKER_REPORTS)
    return parse(Incoming.of(event(value, topic=topic, headers=known, **options)), policy)


def signal(**changes: Any) -> dict[str, Any]:
    return {"signal_id": "s-1", "account": ACCOUNT} | SIGNAL | changes


def order(**changes: Any) -> dict[str, Any]:
    return {"order_id": "x-1", "account": ACCOUNT} | SIGNAL | changes


# --- a record's place


def test_a_mirrored_record_stands_where_it_stood_in_its_stream() -> None:
    at = datetime(2026, 11, 20, 11, 0, 0, 1, tzinfo=UTC)
    incoming = Incoming.of(event(b"", sequence=7, at=at))
    assert (incoming.sequence, incoming.at) == (7, at)


@pytest.mark.parametrize("sequence", [b"x", b"-1", b"1" * 19, b""])
@pytest.mark.parametrize("time", [b"yesterday", b"2026-11-20T12:00:00", b"\xff", b"0001-01-01T00:00:00+14:00"])
def test_a_record_made_by_hand_stands_where_its_topic_has_it(sequence: bytes, time: bytes) -> None:
    made = event(b"", headers={topics.NATS_SEQUENCE: sequence, topics.NATS_TIME: time})
    incoming = Incoming.of(made)
    assert (incoming.sequence, incoming.at) == (made.message.offset, NOW)


def test_a_dead_letter_keeps_the_record_and_where_it_came_from() -> None:
    headers = {topics.NATS_SUBJECT: b"signals.approved.EURUSD"}
    incoming = Incoming.of(event(b"x", sequence=7, headers=headers))
    letter = incoming.dead("not_json", "expected JSON")
    assert (letter.value, letter.source, letter.subject, letter.sequence, letter.at) == (
        b"x",
        topics.SIGNALS_APPROVED,
        "signals.approved.EURUSD",
        7,
        NOW,
    )


# --- signals


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"signal_id": "s-1", "volume": NaN}', "not_json"),
        (b"5", "not_an_object"),
        (signal(signal_id="a b"), "no_signal_id"),
        (signal(signal_id="x" * 129), "no_signal_id"),
        (signal(account=None), "no_account"),
        (signal(account=ELSEWHERE), "wrong_key"),
    ],
)
def test_what_names_no_signal_of_this_account_is_spoiled(payload: bytes | dict[str, Any], reason: str) -> None:
    new = read(payload)
    assert isinstance(new, Spoiled)
    assert new.error.reason == reason


@pytest.mark.parametrize("family", ["signal", "order"])
def test_what_stands_in_another_accounts_partition_is_spoiled(family: str) -> None:
    elsewhere = partition_of(ELSEWHERE, 8)
    new = read(signal() | order(), family, partition=elsewhere)
    assert isinstance(new, Spoiled)
    assert new.error.reason == "wrong_partition"


def test_a_bound_account_and_completed_fields_count_where_the_payload_says_nothing() -> None:
    found = {"side": "sell", "symbol": "EURUSD", "order_type": "market", "volume": "1", "status": "approved"}
    headers = {topics.ACCOUNT: ACCOUNT.encode(), COMPLETED: json.dumps(found).encode()}
    new = read({"signal_id": "s-1", "volume": "2", "symbol": None}, headers=headers)
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert (new.account, new.signal.account, new.signal.side) == (ACCOUNT, ACCOUNT, "sell")
    assert (new.signal.volume, new.symbol) == (Decimal(2), "EURUSD")


def test_a_payload_is_read_by_the_risk_engines_names_and_words() -> None:
    names = ExecutionSettings(field_names={"side": "direction"}, value_names={"LONG": "buy"})
    policy = Policy.of(Settings(execution=names))
    new = read(signal(side="sell", direction="LONG"), policy=policy)
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert new.signal.side == "buy"


def test_a_bad_field_leaves_what_can_be_shown_and_no_more() -> None:
    new = read(signal(volume="NaN", symbol="S" * 70, strategy="x" * 200))
    assert isinstance(new, NewSignal)
    assert new.signal is None
    assert new.fault == "symbol: String should have at most 64 characters"
    assert (len(new.symbol), len(new.strategy or "")) == (64, 128)


def test_the_same_parameters_have_one_fingerprint_and_unreadable_ones_that_of_their_bytes() -> None:
    written = [read(signal(volume=volume, metadata={"n": volume})).fingerprint for volume in ("0.1", "0.10", "0.2")]
    assert written[0] == written[1] != written[2]
    unreadable = [read(signal(volume=volume)).fingerprint for volume in ("x", "x", "y")]
    assert unreadable[0] == unreadable[1] != unreadable[2]


# --- foreign orders


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not_json"),
        (b"5", "not_an_object"),
        (order(order_id=None), "no_order_id"),
        (order(order_id=["x"]), "no_order_id"),
        (order(account=None), "no_account"),
        (order(account=ELSEWHERE), "wrong_key"),
    ],
)
def test_what_names_no_order_of_this_account_is_spoiled(payload: bytes | dict[str, Any], reason: str) -> None:
    new = read(payload, "order")
    assert isinstance(new, Spoiled)
    assert new.error.reason == reason


def test_an_orders_ids_may_be_whole_numbers() -> None:
    new = read(order(order_id=7, signal_id=8, strategy=9), "order")
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert (new.order_id, new.signal_id, new.strategy) == ("7", "8", "9")


@pytest.mark.parametrize("executor", ["theirs", 5, ["ours"]])
def test_an_order_that_names_another_executor_says_nothing_to_us(executor: Any) -> None:
    assert read_all(order(executor=executor), "order") == []


def test_an_order_with_only_its_id_is_what_completion_found() -> None:
    headers = {topics.ACCOUNT: ACCOUNT.encode(), COMPLETED: json.dumps(order(side="sell", account=None)).encode()}
    new = read({"order_id": "x-1"}, "order", headers=headers)
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert (new.order_id, new.id, new.signal_id, new.account) == ("x-1", "x-1", "x-1", ACCOUNT)
    assert new.signal.side == "sell"


def test_an_orders_times_are_its_signals() -> None:
    new = read(order(signal_at="2026-11-20T11:59:59Z", not_after="2026-11-20T12:00:07Z", signal_id="s-9"), "order")
    assert isinstance(new, NewSignal)
    assert new.signal is not None
    assert new.signal_id == "s-9"
    assert new.signal.approved_at == datetime(2026, 11, 20, 11, 59, 59, tzinfo=UTC)
    assert new.signal.valid_until == datetime(2026, 11, 20, 12, 0, 7, tzinfo=UTC)


# --- what comes from brokers


def test_a_batch_is_its_reports_in_their_order_and_a_bad_one_keeps_its_number() -> None:
    batch = json.loads(
        ReportBatch(
            account=ACCOUNT,
            epoch="e1",
            first_seq=5,
            reports=tuple(
                Report(seq=seq, at=NOW, kind="accepted", order_id="o", body=accepted().body) for seq in (5, 6, 7)
            ),
        ).encode()
    )
    batch["reports"][1]["body"] = {"ticket": "none"}
    news = read_all(batch, "reports")
    assert [(type(new), getattr(new, "seq", None)) for new in news] == [(TerminalReport, seq) for seq in (5, 6, 7)]
    assert [isinstance(new, TerminalReport) and new.bad is None for new in news] == [True, False, True]


@pytest.mark.parametrize(
    ("payload", "family"),
    [
        (b"5", "reports"),
        (b"5", "fill"),
        ({"order_id": "x-1"}, "fill"),
        ({"order_id": "x-1", "kind": "unheard_of"}, "error"),
        (b"", "snapshot"),
    ],
)
def test_what_is_not_of_its_model_is_spoiled(payload: bytes | dict[str, Any], family: str) -> None:
    assert isinstance(read(payload, family), Spoiled)


def test_a_snapshot_must_be_of_the_account_that_it_is_kept_under() -> None:
    state = AccountMessage(account=ACCOUNT, connection="ready", at=NOW)
    right = SnapshotMessage(account=ACCOUNT, state=state, at=NOW)
    wrong = right.model_copy(update={"state": state.model_copy(update={"account": ELSEWHERE})})
    assert isinstance(read(right.encode(), "snapshot"), Snapshot)
    new = read(wrong.encode(), "snapshot")
    assert isinstance(new, Spoiled)
    assert new.error.reason == "wrong_key"


def test_every_input_has_a_word_for_what_it_is() -> None:
    error = read({"order_id": "x-1", "kind": "rejected", "final": True}, "error")
    assert isinstance(error, ForeignReport)
    assert [kind_of(new) for new in (read(signal()), read(order(), "order"), error, read(b""))] == [
        "signal",
        "order",
        "foreign",
        "spoiled",
    ]
