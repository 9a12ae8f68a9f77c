from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.signals import (
    ACCEPTED,
    LAST_MOMENT,
    Recorded,
    Rules,
    Verdict,
    fingerprint_of,
    judge,
    judge_again,
    not_after,
    signal_time,
    size_of,
    traded,
)
from streamapp.messages.signal import ExitSignal, Signal

NOW = datetime(2026, 11, 20, 12, 0, 10, tzinfo=UTC)
STREAM = NOW - timedelta(milliseconds=3)
RULES = Rules(accounts=frozenset({"a"}))


def signal(**changes: Any) -> Signal:
    return Signal(
        **(
            {
                "signal_id": "s-1",
                "status": "approved",
                "account": "a",
                "symbol": "EURUSD",
                "side": "buy",
                "order_type": "market",
                "volume": "0.1",
            }
            | changes
        )
    )


def verdict(rules: Rules = RULES, halted: str | None = None, **changes: Any) -> Verdict:
    return judge(signal(**changes), rules, stream_time=STREAM, now=NOW, halted=halted)


def test_an_approved_well_formed_valid_signal_is_accepted() -> None:
    assert verdict() == ACCEPTED
    assert verdict(expected_price="1.085", stop_loss="1.079", take_profit="1.091") == ACCEPTED
    assert verdict(side="sell", expected_price="1.085", stop_loss="1.091", take_profit="1.079") == ACCEPTED


@pytest.mark.parametrize(
    "changes",
    [
        {"order_type": "limit", "price": "1.08"},
        {"order_type": "limit", "price": "1.08", "time_in_force": "day", "fill_policy": "return"},
        {"order_type": "stop", "price": "1.08", "stop_loss": "1.07", "take_profit": "1.09"},
        {"order_type": "stop_limit", "price": "1.08", "stop_limit_price": "1.07", "stop_loss": "1.06"},
        {"order_type": "stop_limit", "side": "sell", "price": "1.08", "stop_limit_price": "1.08"},
        {"order_type": "stop", "price": "1.08", "time_in_force": "until", "expiration": NOW + timedelta(seconds=1)},
    ],
)
def test_every_order_type_and_lifetime_is_accepted(changes: dict[str, Any]) -> None:
    assert verdict(**changes) == ACCEPTED


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("not_approved", {"status": "pending"}),
        ("not_approved", {"status": None}),
        ("unknown_account", {"account": "b"}),
        ("from_future", {"approved_at": NOW + timedelta(seconds=2.001)}),
        ("stale", {"approved_at": NOW - timedelta(seconds=30)}),
        ("stale", {"valid_until": NOW}),
        ("stale", {"time_in_force": "until", "expiration": NOW}),
        ("stale", {"order_type": "limit", "price": "1.08", "time_in_force": "until", "expiration": STREAM}),
        ("bad_field", {"expected_price": "1.085", "stop_loss": "1.085"}),
        ("bad_field", {"expected_price": "1.085", "take_profit": "1.08"}),
        ("bad_field", {"side": "sell", "expected_price": "1.085", "stop_loss": "1.08"}),
        ("bad_field", {"side": "sell", "expected_price": "1.085", "take_profit": "1.09"}),
        ("bad_field", {"stop_loss": "1.09", "take_profit": "1.08"}),
        ("bad_field", {"order_type": "limit", "price": "1.08", "stop_loss": "1.09"}),
        ("bad_field", {"order_type": "stop_limit", "price": "1.08", "stop_limit_price": "1.07", "stop_loss": "1.075"}),
        ("bad_field", {"order_type": "stop_limit", "price": "1.08", "stop_limit_price": "1.081"}),
        ("bad_field", {"order_type": "stop_limit", "side": "sell", "price": "1.08", "stop_limit_price": "1.079"}),
    ],
)
def test_each_fault_has_its_reason(reason: str, changes: dict[str, Any]) -> None:
    outcome = verdict(**changes)
    assert (outcome.decision, outcome.reason) == ("refused", reason)
    assert outcome.detail


def test_what_is_older_than_decisions_are_remembered_is_refused_however_long_it_is_good() -> None:
    long: dict[str, Any] = {"approved_at": NOW - timedelta(seconds=30), "valid_until": NOW + timedelta(days=1000)}
    remembering = replace(RULES, remembered_s=30.0)
    assert verdict(**long) == verdict(replace(RULES, remembered_s=30.1), **long) == ACCEPTED
    assert verdict(remembering, **long).reason == "stale"
    # As its stream knows it, whenever it says that it was approved.
    stale = judge(signal(**long | {"approved_at": NOW}), remembering, stream_time=NOW - timedelta(30), now=NOW)
    assert (stale.reason, "longer ago than decisions are remembered" in (stale.detail or "")) == ("stale", True)


def test_a_subject_can_stand_for_the_approval() -> None:
    assert verdict(Rules(accounts=frozenset({"a"}), needs_approval=False), status=None) == ACCEPTED


@pytest.mark.parametrize(
    ("closes", "expected"), [(False, Verdict("refused", "guard", "max_volume: …")), (True, ACCEPTED)]
)
def test_a_guard_and_a_halt_hold_back_what_opens_and_nothing_that_closes(closes: bool, expected: Verdict) -> None:
    asked: list[datetime] = []

    def guards(parameters: OrderParameters, approved_at: datetime) -> str:
        asked.append(approved_at)
        return "max_volume: …"

    known: dict[str, Any] = {"stream_time": STREAM, "now": NOW, "closes": closes}
    assert judge(signal(), RULES, guards=guards, **known) == expected
    assert judge(signal(), RULES, guards=lambda *_: None, **known) == ACCEPTED
    assert asked == ([] if closes else [signal_time(signal(), STREAM)])
    assert judge(signal(), RULES, halted="a person", **known).reason == (None if closes else "halted")


def test_a_halted_account_refuses_with_what_halted_it() -> None:
    assert verdict(halted="overfilled") == Verdict("refused", "halted", "overfilled")


def test_a_signal_from_within_the_clock_skew_is_no_future() -> None:
    assert verdict(approved_at=NOW + timedelta(seconds=2)) == ACCEPTED


def test_not_after_is_a_function_of_the_signal_alone() -> None:
    assert not_after(signal(), RULES, STREAM) == STREAM + timedelta(seconds=30)
    assert not_after(signal(approved_at=NOW), RULES, STREAM) == NOW + timedelta(seconds=30)
    assert not_after(signal(approved_at=NOW, valid_until=STREAM), RULES, STREAM) == STREAM


def test_a_signal_of_the_last_moment_of_time_is_from_the_future_and_nothing_breaks() -> None:
    assert verdict(approved_at=LAST_MOMENT).reason == "from_future"
    assert not_after(signal(approved_at=LAST_MOMENT), RULES, STREAM) == LAST_MOMENT


@pytest.mark.parametrize("first", [ACCEPTED, Verdict("refused", "stale", "too late")])
def test_another_message_with_the_same_fingerprint_is_a_duplicate_of_what_was_recorded(first: Verdict) -> None:
    recorded = Recorded(first, "f", "o" if first is ACCEPTED else None)
    assert judge_again(recorded, "f") == Verdict("duplicate", first.reason, first.detail)
    assert judge_again(recorded, "g").decision == "conflict"
    assert judge_again(recorded, "g").reason == "conflict"


volumes = st.decimals(min_value="0.01", max_value="1000", places=2)


@given(volumes, st.integers(0, 4))
def test_a_volume_written_otherwise_is_the_same_signal(volume: Decimal, zeros: int) -> None:
    written = f"{volume}{'0' * zeros}"
    assert fingerprint_of(signal(volume=volume), "x") == fingerprint_of(signal(volume=written, strategy="other"), "y")


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(timezones=st.just(UTC)),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_an_accepted_signal_is_always_within_its_validity_and_never_from_the_future(
    now: datetime, approved_at: datetime, valid_until: datetime | None
) -> None:
    wish = signal(approved_at=approved_at, valid_until=valid_until)
    if judge(wish, RULES, stream_time=now, now=now) == ACCEPTED:
        assert now < not_after(wish, RULES, now)
        assert approved_at <= now + timedelta(seconds=RULES.skew_s)


def test_what_can_not_be_read_is_known_by_its_payload() -> None:
    assert fingerprint_of(None, "abc") == "payload:abc"


def test_an_order_trades_the_lots_of_its_weight_and_says_how() -> None:
    asked = signal(volume="0.4").parameters
    half = size_of(signal(volume="0.4"), RULES, Decimal("0.5"))
    assert half is not None
    assert (half.volume, traded(asked, half).volume) == (Decimal("0.2"), Decimal("0.2"))
    assert traded(asked, size_of(signal(volume="0.4"), RULES)) == asked
    assert judge(signal(volume="0.4"), RULES, stream_time=STREAM, now=NOW, weight=Decimal("0.5")).detail == half.how


def test_an_exit_that_names_no_volume_trades_all_there_is() -> None:
    leaving = ExitSignal(signal_id="s-1", status="approved", account="a", symbol="EURUSD", intent="close")
    assert size_of(leaving, RULES) is None
    assert traded(leaving.parameters, None) == leaving.parameters


def test_an_order_that_closes_another_position_is_another_order() -> None:
    parameters = signal().parameters
    assert isinstance(parameters, OrderParameters)
    assert len({parameters_hash(parameters), parameters_hash(parameters, 1), parameters_hash(parameters, 2)}) == 3
