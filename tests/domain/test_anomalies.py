from typing import Any

import pytest

from streamapp.domain.anomalies import anomalies_of, is_allowed
from tests.kit.examples import (
    absent,
    accepted,
    claimed,
    created,
    filled,
    modified,
    order_of,
    refused,
    rejected,
)


@pytest.mark.parametrize(
    ("several", "anomalies"),
    [
        ([], set()),
        ([claimed(), accepted(), filled(1, "1")], set()),
        ([claimed(), accepted(), filled(1, "0.6"), filled(2, "0.6")], {"overfilled"}),
        ([claimed(), accepted(7), accepted(8)], {"duplicate_ticket"}),
        ([claimed(), rejected(), accepted()], {"reject_contradicted"}),
        ([claimed(), accepted(), rejected(ticket=7)], set()),
        ([claimed(), accepted(), filled(1, "0.6"), rejected(ticket=7)], {"reject_contradicted"}),
        ([claimed(), rejected(), claimed(2), accepted()], set()),
        ([claimed(), rejected(), claimed(2), accepted(7), accepted(8)], {"duplicate_ticket"}),
        ([claimed(), accepted(7), rejected(ticket=7), claimed(2), accepted(8)], set()),
        ([claimed(), absent(), accepted()], {"revived"}),
        ([claimed(), refused(), filled(1, "1", cause="foreign:")], {"revived"}),
        ([claimed(), refused(), filled(1, "0.1"), filled(1, "0.2")], {"conflict"}),
        ([claimed(), modified("r", volume="none")], {"bad_modification"}),
        ([claimed(), accepted(), filled(1, "0.1", side="sell")], {"deal_differs"}),
    ],
)
def test_contradicting_facts_are_named(several: list[Any], anomalies: set[str]) -> None:
    assert anomalies_of(order_of(created("1"), *several)) == anomalies


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (None, "pending", True),
        (None, "filled", True),
        ("pending", "filled", True),
        ("submitted", "pending", False),
        ("submitted", "submitted", True),
        ("partially_filled", "submitted", False),
        ("partially_filled", "failed", False),
        ("cancelled", "filled", True),
        ("cancelled", "partially_filled", False),
        ("filled", "partially_filled", False),
        ("failed", "filled", False),
        ("rejected", "submitted", False),
    ],
)
def test_the_monitor_knows_the_changes_of_ordinary_life(before: Any, after: Any, allowed: bool) -> None:
    assert is_allowed(before, after) is allowed


def test_a_bust_may_step_back() -> None:
    assert is_allowed("filled", "partially_filled", busted=True)
    assert is_allowed("partially_filled", "submitted", busted=True)
    assert not is_allowed("failed", "submitted", busted=True)
