from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from streamapp.domain import facts
from streamapp.domain.fold import apply
from streamapp.domain.status import (
    average_price_of,
    bad_modifications,
    detail_of,
    doubts_of,
    filled_of,
    is_overfilled,
    parameters_of,
    reason_of,
    status_of,
)
from tests.kit.examples import (
    absent,
    accepted,
    busted,
    cancelled,
    claimed,
    created,
    doubt,
    expired,
    fact_sets,
    filled,
    modified,
    order_of,
    refused,
    rejected,
    returned,
    says,
    started,
    unprotected,
)

F = "foreign:1"
CANCEL = says(facts.CancelRequested(request_id="r1"))
CANCEL_REJECTED = says(facts.CancelRejected(request_id="r1"))
MODIFY = says(facts.ModifyRequested(request_id="r2", changes={"price": "1.1"}))
MODIFY_REJECTED = says(facts.ModifyRejected(request_id="r2"))


@pytest.mark.parametrize(
    ("several", "status", "detail", "reason"),
    [
        ([], "pending", "created", None),
        ([claimed()], "submitted", "claimed", None),
        ([claimed(), started()], "submitted", "in_flight", None),
        ([claimed(), started(), returned()], "submitted", "in_flight", None),
        ([returned()], "submitted", "in_flight", None),
        ([claimed(), doubt("no_answer")], "submitted", "in_doubt", "no_answer"),
        ([claimed(), doubt("no_answer"), started()], "submitted", "in_flight", None),
        ([claimed(), started(), returned(), doubt("ambiguous_answer")], "submitted", "in_doubt", "ambiguous_answer"),
        ([claimed(), started(), doubt(), accepted()], "submitted", "working", None),
        ([claimed(), started(), accepted(), doubt("no_deals")], "submitted", "in_doubt", "no_deals"),
        ([claimed(), started(), accepted(), doubt("no_deals"), filled(1, "0.5")], "partially_filled", "working", None),
        ([claimed(), started(), accepted(), unprotected()], "submitted", "working", None),
        ([claimed(), started(), returned(), started(2), rejected()], "submitted", "in_flight", None),
        ([claimed(), started(), started(2), rejected(), rejected(2)], "rejected", "NO_MONEY", "NO_MONEY"),
        ([claimed(), started(), doubt(), absent()], "failed", "absent", "absent"),
        ([claimed(), started(), doubt(), rejected()], "rejected", "NO_MONEY", "NO_MONEY"),
        ([claimed(), doubt(), refused()], "failed", "stale", "stale"),
        ([claimed(), doubt("foreign_timeout")], "submitted", "in_doubt", "foreign_timeout"),
        (
            [claimed(), doubt("foreign_timeout"), filled(1, "0.5", cause="foreign:")],
            "partially_filled",
            "in_doubt",
            "foreign_timeout",
        ),
        ([claimed(), doubt("foreign_timeout"), filled(1, "1", cause=F)], "filled", "", None),
        ([claimed(), accepted()], "submitted", "working", None),
        ([claimed(), accepted(), CANCEL], "submitted", "cancel_pending", None),
        ([claimed(), accepted(), CANCEL, CANCEL_REJECTED], "submitted", "working", None),
        ([claimed(), accepted(), MODIFY], "submitted", "modify_pending", None),
        ([claimed(), accepted(), MODIFY, MODIFY_REJECTED], "submitted", "working", None),
        ([claimed(), accepted(), MODIFY, modified("r2", price="1.1")], "submitted", "working", None),
        ([claimed(), accepted(), filled(1, "0.4")], "partially_filled", "working", None),
        ([claimed(), accepted(), filled(1, "0.4"), CANCEL], "partially_filled", "cancel_pending", None),
        ([claimed(), accepted(), filled(1, "0.4"), cancelled()], "cancelled", "user", "user"),
        ([claimed(), accepted(), cancelled(reason="ioc_remainder")], "cancelled", "ioc_remainder", "ioc_remainder"),
        ([claimed(), accepted(), expired()], "cancelled", "expired", "expired"),
        ([claimed(), accepted(), cancelled(), filled(1, "1")], "filled", "", None),
        ([claimed(), accepted(), cancelled(), accepted(8)], "submitted", "working", None),
        ([claimed(), rejected(message="not enough money")], "rejected", "NO_MONEY", "not enough money"),
        ([claimed(), rejected(name="")], "rejected", "10019", "10019"),
        ([claimed(), accepted(), rejected(ticket=7)], "rejected", "NO_MONEY", "NO_MONEY"),
        ([claimed(), rejected(), accepted()], "submitted", "working", None),
        ([claimed(), refused(message="stops too near")], "failed", "stale", "stops too near"),
        ([claimed(), refused(), claimed(2)], "submitted", "claimed", None),
        ([claimed(), doubt(), refused(), claimed(2)], "submitted", "claimed", None),
        ([claimed(), CANCEL, refused(reason="cancelled")], "cancelled", "user", "user"),
        ([claimed(), rejected(), claimed(2), refused(2)], "failed", "stale", "stale"),
        ([claimed(), absent(), accepted(), filled(1, "1")], "filled", "", None),
        ([claimed(), accepted(), filled(1, "0.6"), filled(2, "0.6")], "filled", "overfilled", None),
    ],
)
def test_status_detail_and_reason_by_the_first_line_that_holds(
    several: list[Any], status: str, detail: str, reason: str | None
) -> None:
    state = order_of(created("1"), *several)
    assert (status_of(state), detail_of(state), reason_of(state)) == (status, detail, reason)


@given(fact_sets)
def test_every_set_of_facts_has_a_status_a_detail_and_perhaps_a_reason(several: list[Any]) -> None:
    state = order_of(*several)
    assert (detail_of(state) == "") <= (status_of(state) == "filled")
    assert reason_of(state) != ""
    assert (average_price_of(state) is None) == (filled_of(state) == 0)


@given(fact_sets)
def test_a_filled_order_leaves_that_status_only_by_a_bust_a_correction_or_a_modification(several: list[Any]) -> None:
    state = order_of()
    for fact in several:
        after = apply(state, fact)
        if status_of(state) == "filled" and status_of(after) != "filled":
            assert fact.fact in {"FillBusted", "FillCorrected", "Modified"}
        state = after


def test_silence_never_closes_an_order() -> None:
    state = order_of(created(), claimed(), started(), doubt(), doubt("restarted"), doubt("no_answer"))
    assert status_of(state) == "submitted"
    assert doubts_of(state) == ["deadline", "restarted"]


def test_an_order_without_its_creation_has_a_status_but_is_never_filled() -> None:
    state = order_of(accepted(), filled(1, "1"))
    assert status_of(state) == "partially_filled"
    assert parameters_of(state) is None
    assert not is_overfilled(state)
    assert not bad_modifications(state)


def test_modifications_hold_in_the_order_of_their_time() -> None:
    state = order_of(
        created("1"),
        accepted(),
        modified("b", 6, volume="0.5", stop_loss="1.07"),
        modified("a", 7, volume="0.4"),
        filled(1, "0.4"),
    )
    parameters = parameters_of(state)
    assert parameters is not None
    assert (parameters.volume, parameters.stop_loss) == (Decimal("0.4"), Decimal("1.07"))
    assert status_of(state) == "filled"


def test_a_modification_no_order_can_have_is_passed_over() -> None:
    state = order_of(created("1"), accepted(), modified("a", volume="-1"), modified("b", 6, stop_loss="1.07"))
    parameters = parameters_of(state)
    assert parameters is not None
    assert (parameters.volume, parameters.stop_loss) == (Decimal(1), Decimal("1.07"))
    assert bad_modifications(state)


def test_the_average_price_is_weighted_by_volume_and_exact_where_it_can_be() -> None:
    one = order_of(created(), accepted(), filled(1, "0.3", "1.08510"), filled(2, "0.1", "1.08510"))
    assert str(average_price_of(one)) == "1.08510"
    two = order_of(created(), accepted(), filled(1, "0.3", "1.08510"), filled(2, "0.1", "1.08530"))
    # (0.3 * 1.08510 + 0.1 * 1.08530) / 0.4 = 0.434060 / 0.4
    assert average_price_of(two) == Decimal("1.08515")


def test_numbers_as_large_as_the_edge_lets_in_break_nothing() -> None:
    huge = "9" * 27 + ".9999999999"
    state = order_of(created(), accepted(), filled(1, huge, huge), filled(2, huge, "1.1"))
    assert status_of(state) == "filled"
    assert average_price_of(state) is not None


def test_a_bust_after_filled_opens_the_order_again() -> None:
    assert status_of(order_of(created(), claimed(), accepted(), filled(1, "1"), busted(1, 1))) == "submitted"


def test_the_tickets_of_an_order_are_those_the_broker_accepted() -> None:
    assert order_of(accepted(8), filled(1, "0.5"), accepted(7)).accepted_tickets == [7, 8]
