from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streamapp.domain import facts
from streamapp.domain.fold import apply, content_digest, deal_of, facts_digest, fold
from streamapp.domain.orders import OrderState, filled_volume
from streamapp.domain.status import detail_of, status_of
from tests.kit.examples import (
    accepted,
    busted,
    cancelled,
    corrected,
    created,
    deal,
    fact_sets,
    filled,
    order_of,
    says,
)

_JSON = TypeAdapter(OrderState)


def _repeats(several: list[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(several) if several else st.nothing())


@given(fact_sets, st.data())
def test_any_permutation_and_repetition_of_facts_gives_the_same_order(several: list[Any], data: Any) -> None:
    shuffled = data.draw(
        st.permutations([*several, *data.draw(st.lists(st.sampled_from(several) if several else st.nothing()))])
    )
    one, other = order_of(*several), order_of(*shuffled)
    assert one == other
    assert facts_digest(one) == facts_digest(other)
    assert (status_of(one), detail_of(one)) == (status_of(other), detail_of(other))


@given(fact_sets, st.integers(0, 14))
def test_folding_in_two_parts_is_folding_at_once(several: list[Any], cut: int) -> None:
    assert fold(order_of(*several[:cut]), several[cut:]) == order_of(*several)


@given(fact_sets)
def test_the_folded_state_survives_its_own_json(several: list[Any]) -> None:
    state = order_of(*several)
    assert _JSON.validate_json(_JSON.dump_json(state)) == state


@given(fact_sets)
def test_rev_is_the_number_of_distinct_facts(several: list[Any]) -> None:
    assert len(order_of(*several, *several).facts) == len(several)


@given(fact_sets)
def test_no_standing_deal_of_an_accepted_ticket_is_ever_lost(several: list[Any]) -> None:
    state = order_of(*several)
    counted = {fill.deal for fill in state.fills}
    for number, known in state.deals.items():
        ours = known.filled is not None and (known.foreign or known.filled.ticket in state.accepted_tickets)
        assert (number in counted) == (known.stands and ours)


def test_the_same_deal_with_another_content_is_kept_as_a_conflict_and_changes_nothing() -> None:
    state = order_of(created(), accepted(), filled(9, "0.5"))
    again = apply(state, filled(9, "0.7"))
    assert again.conflicts == (filled(9).fact_id,)
    assert filled_volume(again.fills) == filled_volume(state.fills)
    assert apply(again, filled(9, "0.7")) == again


def test_a_comment_the_broker_rewrote_and_other_spellings_of_a_number_are_no_conflict() -> None:
    state = order_of(created(), filled(9, "0.5"))
    assert apply(state, filled(9, "0.50", comment="[sl 1.08]")) == state


def test_a_second_wording_of_a_weightless_fact_is_no_conflict() -> None:
    first = facts.SubmitRefused(attempt=1, reason="stale", message="a")
    state = order_of(says(first))
    assert apply(state, says(first.model_copy(update={"message": "b"}))) == state


def test_a_deal_counts_only_once_its_ticket_is_accepted() -> None:
    state = order_of(created(), filled(9, "0.5", ticket=8))
    assert state.fills == []
    assert [fill.deal for fill in apply(state, accepted(8)).fills] == [9]


def test_a_foreign_fill_names_the_order_itself_and_counts() -> None:
    assert len(order_of(created(), filled(9, "0.5", ticket=0, cause="foreign:1")).fills) == 1


@pytest.mark.parametrize(
    ("changes", "volume"),
    [
        ([corrected(9, 1, "0.4")], "0.4"),
        ([corrected(9, 2, "0.3"), corrected(9, 1, "0.4")], "0.3"),
        ([busted(9, 0)], "0"),
        ([busted(9, 1), corrected(9, 1, "0.4")], "0"),
        ([busted(9, 1), corrected(9, 2, "0.4")], "0.4"),
    ],
)
def test_the_highest_revision_of_a_deal_counts(changes: list[Any], volume: str) -> None:
    several = [created(), accepted(), filled(9, "0.5"), *changes]
    assert str(filled_volume(order_of(*several).fills)) == volume
    assert str(filled_volume(order_of(*reversed(several)).fills)) == volume


def test_a_correction_counts_even_where_the_deal_itself_was_never_seen() -> None:
    assert str(filled_volume(order_of(created(), accepted(), corrected(9, 1, "0.4")).fills)) == "0.4"


def test_the_content_of_an_order_is_its_parameters() -> None:
    assert content_digest(created("1").body) == content_digest(created("1", seconds=9).body)
    assert content_digest(created("1").body) != content_digest(created("2").body)


def test_a_fact_that_is_no_deal_has_no_deal() -> None:
    with pytest.raises(TypeError, match="expected a fact about a deal, got BrokerCancelled"):
        deal_of(cancelled())


def test_fills_are_in_the_order_of_their_time() -> None:
    state = order_of(created(), accepted(), says(deal(2, "0.1", seconds=9)), says(deal(3, "0.1", seconds=8)))
    assert [fill.deal for fill in state.fills] == [3, 2]
