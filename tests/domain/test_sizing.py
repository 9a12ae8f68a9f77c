from __future__ import annotations

from decimal import ROUND_DOWN, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from streamapp.domain.sizing import AS_ASKED, Sizing, sized
from streamapp.domain.vocabulary import Lots

LOTS = st.decimals(min_value=Decimal("1e-10"), max_value=Decimal("1e27"), places=10)
SMALL = st.decimals(min_value=Decimal("0.001"), max_value=100, places=3)
Z = "0" * 27
SIZINGS = st.builds(Sizing, SMALL, st.none() | SMALL, st.none() | SMALL)


@given(LOTS)
def test_a_volume_that_nothing_changes_is_what_was_asked_to_the_last_zero(asked: Decimal) -> None:
    same = sized(asked, AS_ASKED)
    assert (str(same.volume), same.how, same.refusal) == (str(asked), None, None)


@given(LOTS, SIZINGS, SMALL)
def test_a_volume_is_never_more_than_its_share_and_less_than_one_step_below_it(
    asked: Decimal, sizing: Sizing, weight: Decimal
) -> None:
    with localcontext(prec=200):
        share = asked * weight * sizing.factor
        volume = sized(asked, sizing, weight).volume
        step = sizing.step or Decimal("1e-10")
        assert 0 <= share - volume < step
        assert volume % step == 0


@given(LOTS, SIZINGS, SMALL)
def test_a_volume_is_refused_or_can_be_traded_and_kept(asked: Decimal, sizing: Sizing, weight: Decimal) -> None:
    result = sized(asked, sizing, weight)
    if result.refusal is None:
        assert TypeAdapter(Lots).validate_python(result.volume) == result.volume
        assert result.volume >= (sizing.smallest or 0)
    else:
        assert result.volume < max(sizing.smallest or 0, sizing.step or Decimal("1e-10")) or result.volume >= 10**27
        assert result.refusal.startswith("volume: expected ")


@given(LOTS, SMALL, SMALL, SMALL)
def test_weight_and_factor_are_rounded_once_and_their_order_does_not_matter(
    asked: Decimal, one: Decimal, other: Decimal, step: Decimal
) -> None:
    assert sized(asked, Sizing(one, step), other).volume == sized(asked, Sizing(other, step), one).volume


@pytest.mark.parametrize(
    ("asked", "sizing", "weight", "volume", "how"),
    [
        ("0.10", Sizing(Decimal("0.5")), "1", "0.05", "volume 0.05: 0.1 asked, weight 1, volume_factor 0.5"),
        (
            "0.15",
            Sizing(Decimal("0.5"), Decimal("0.01"), Decimal("0.01")),
            "0.5",
            "0.03",
            "volume 0.03: 0.15 asked, weight 0.5, volume_factor 0.5, volume_step 0.01, volume_min 0.01",
        ),
        ("0.10", Sizing(step=Decimal("0.01")), "1", "0.10", None),
        ("100", Sizing(Decimal(2)), "0.5", "100", None),
    ],
)
def test_how_a_volume_came_about_is_said_where_it_is_not_what_was_asked(
    asked: str, sizing: Sizing, weight: str, volume: str, how: str | None
) -> None:
    result = sized(Decimal(asked), sizing, Decimal(weight))
    assert (str(result.volume), result.how, result.refusal) == (volume, how, None)


@pytest.mark.parametrize(
    ("asked", "sizing", "refusal"),
    [
        (
            "0.01",
            Sizing(Decimal("0.5"), Decimal("0.01")),
            "volume: expected at least 0.01 lots, got 0: 0.01 asked, weight 1, volume_factor 0.5, volume_step 0.01",
        ),
        (
            "0.10",
            Sizing(Decimal("0.5"), smallest=Decimal("0.1")),
            "volume: expected at least 0.1 lots, got 0.05: 0.1 asked, weight 1, volume_factor 0.5, volume_min 0.1",
        ),
        (
            "9e26",
            Sizing(Decimal(10)),
            f"volume: expected less than 1{Z} lots, got 9{Z}: {9 * 10**26} asked, weight 1, volume_factor 10",
        ),
    ],
)
def test_a_volume_that_can_not_be_traded_is_refused_with_everything_that_made_it(
    asked: str, sizing: Sizing, refusal: str
) -> None:
    assert sized(Decimal(asked), sizing).refusal == refusal


def test_rounding_goes_down_whatever_the_contexts_rounding_is() -> None:
    with localcontext(prec=3, rounding=ROUND_DOWN):
        assert sized(Decimal("12345.678"), Sizing(step=Decimal("0.01"))).volume == Decimal("12345.67")
