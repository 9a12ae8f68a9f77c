"""Our words agree with what other modules may say."""

from __future__ import annotations

from typing import get_args

import pytest

from streamapp.domain.vocabulary import DealEntry, DealReason, FillPolicy, OrderType
from streamapp.messages.reading import Account, ExecutionMode, Lifetime, MarginMode, TradeMode, WorkingState
from streamapp.mt5 import constants as mt5
from streamapp.mt5 import enums

KIND = Account.model_fields["kind"].annotation


@pytest.mark.parametrize(
    ("prefix", "words", "known"),
    [
        ("DEAL_ENTRY_", enums.ENTRIES, DealEntry),
        ("DEAL_REASON_", enums.REASONS, DealReason),
        ("ACCOUNT_MARGIN_MODE_", enums.MARGIN_MODES, MarginMode),
        ("ACCOUNT_TRADE_MODE_", enums.ACCOUNT_KINDS, KIND),
        ("SYMBOL_TRADE_MODE_", enums.TRADE_MODES, TradeMode),
        ("SYMBOL_TRADE_EXECUTION_", enums.EXECUTIONS, ExecutionMode),
        ("ORDER_TIME_", enums.LIFETIMES, Lifetime),
    ],
)
def test_every_number_of_a_group_has_a_word_and_every_word_a_number(
    prefix: str, words: dict[int, str], known: object
) -> None:
    assert sorted(words) == sorted(number for name, number in vars(mt5).items() if name.startswith(prefix))
    assert sorted(words.values()) == sorted(set(get_args(known)) - {"other"})


def test_every_word_of_a_fill_policy_an_order_type_and_a_working_state_is_a_known_one() -> None:
    assert set(enums.FILL_POLICIES.values()) == set(get_args(FillPolicy)) - {"any"}
    assert {kind for kind, _ in enums.ORDER_TYPES.values()} == set(get_args(OrderType)) == enums.ORDER_MODES.keys()
    assert set(enums.WORKING_STATES.values()) == set(get_args(WorkingState)) - {"other"}


def test_a_state_of_an_order_is_a_working_or_an_ended_one_and_partial_can_be_both() -> None:
    states = {number for name, number in vars(mt5).items() if name.startswith("ORDER_STATE_")}
    assert enums.WORKING_STATES.keys() | enums.ENDED_STATES.keys() == states
    assert enums.WORKING_STATES.keys() & enums.ENDED_STATES.keys() == {mt5.ORDER_STATE_PARTIAL}


def test_the_lowest_bit_of_a_type_is_its_side() -> None:
    sides = {number: side for number, (_, side) in enums.ORDER_TYPES.items()}
    assert sides == {number: enums.SIDES[number & 1] for number in sides}
    assert [enums.SIDES[number] for number in enums.TRADES] == ["buy", "sell"]


def test_reasons_of_orders_and_positions_have_the_numbers_of_deals() -> None:
    reasons = {
        name.rpartition("_REASON_")[2].lower(): number
        for name, number in vars(mt5).items()
        if name.startswith(("ORDER_REASON_", "POSITION_REASON_"))
    }
    assert reasons.items() <= {word: number for number, word in enums.REASONS.items()}.items()
