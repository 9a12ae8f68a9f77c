from __future__ import annotations

from decimal import Decimal

import pytest

from streamapp.terminal.account.request import RefusedError, fillings
from tests.terminal.scripted import submit_request, symbol


@pytest.mark.parametrize(
    ("execution", "flags", "policy", "chosen"),
    [
        (2, 2, "any", (1,)),
        (2, 1, "any", (0,)),
        (2, 3, "any", (1,)),
        (2, 0, "any", (0, 1, 2)),
        (2, 3, "fok", (0,)),
        (2, 3, "ioc", (1,)),
        (1, 1, "any", (0,)),
        (1, 0, "any", (0,)),
        (0, 1, "return", (2,)),
        (3, 0, "any", (2,)),
        (3, 2, "any", (1,)),
        (3, 2, "return", (2,)),
    ],
)
def test_the_filling_mode_follows_the_symbols_flags(
    execution: int, flags: int, policy: str, chosen: tuple[int, ...]
) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    assert fillings(wanted, symbol(trade_exemode=execution, filling_mode=flags)) == chosen


@pytest.mark.parametrize(("flags", "policy"), [(2, "fok"), (1, "ioc"), (3, "return"), (0, "return")])
def test_a_fill_policy_that_the_symbol_does_not_allow_is_invalid(flags: int, policy: str) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    with pytest.raises(RefusedError):
        fillings(wanted, symbol(filling_mode=flags))


@pytest.mark.parametrize(
    ("execution", "flags", "policy", "chosen"),
    [
        (2, 2, "any", (2, 1)),
        (2, 3, "any", (2, 1, 0)),
        (2, 0, "any", (2, 0, 1)),
        (2, 2, "ioc", (1,)),
        (2, 2, "return", (2,)),
        (1, 1, "any", (2,)),
        (3, 3, "any", (2,)),
        (3, 3, "fok", (0,)),
    ],
)
def test_a_pending_works_until_it_is_filled_where_the_broker_takes_that(
    execution: int, flags: int, policy: str, chosen: tuple[int, ...]
) -> None:
    wanted = submit_request(epoch="e", order_type="limit", price=Decimal("1.08"), fill_policy=policy).parameters
    assert fillings(wanted, symbol(trade_exemode=execution, filling_mode=flags)) == chosen


def test_a_pending_with_a_policy_that_is_not_flagged_is_invalid() -> None:
    wanted = submit_request(epoch="e", order_type="limit", price=Decimal("1.08"), fill_policy="fok").parameters
    with pytest.raises(RefusedError):
        fillings(wanted, symbol(filling_mode=2))


@pytest.mark.parametrize(
    ("flags", "policy", "denied", "left"),
    [
        (1, "any", {0}, (1,)),
        (3, "any", {1}, (0,)),
        (3, "any", {0, 1}, (2,)),
        (2, "any", {1, 2}, (0,)),
    ],
)
def test_where_the_flags_were_wrong_the_next_mode_is_taken(
    flags: int, policy: str, denied: set[int], left: tuple[int, ...]
) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    assert fillings(wanted, symbol(filling_mode=flags), denied) == left


@pytest.mark.parametrize(("policy", "denied"), [("any", {0, 1, 2}), ("fok", {0}), ("ioc", {1})])
def test_a_policy_that_was_asked_for_is_never_replaced_by_another(policy: str, denied: set[int]) -> None:
    wanted = submit_request(epoch="e", fill_policy=policy).parameters
    with pytest.raises(RefusedError, match="denied"):
        fillings(wanted, symbol(filling_mode=3), denied)
