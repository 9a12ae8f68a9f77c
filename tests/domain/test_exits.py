"""Which positions bear an exit, and what makes two exits the same."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.exits import ExitParameters, Holding, Part, exit_hash, in_parts, parts_of

LOTS = st.decimals("0.01", "5", places=2)
HOLDINGS = st.lists(st.tuples(st.sampled_from(["buy", "sell"]), LOTS), max_size=6).map(
    lambda several: [Holding(number, side, lots) for number, (side, lots) in enumerate(several, start=1)]  # type: ignore[arg-type]
)


def test_the_oldest_position_is_closed_first_and_the_last_one_in_part() -> None:
    held = [Holding(3, "buy", Decimal(2)), Holding(1, "buy", Decimal(1)), Holding(2, "sell", Decimal(1))]
    assert parts_of(held, Decimal("1.5")) == [Part(1, "sell", Decimal(1)), Part(2, "buy", Decimal("0.5"))]
    assert parts_of(held, None)[-1] == Part(3, "sell", Decimal(2))


@given(HOLDINGS, st.none() | LOTS)
def test_no_position_is_closed_beyond_what_it_holds_and_no_more_than_is_wanted(
    held: list[Holding], wanted: Decimal | None
) -> None:
    parts = parts_of(held, wanted)
    known = {holding.position_id: holding for holding in held}
    assert len({part.position_id for part in parts}) == len(parts)
    for part in parts:
        assert 0 < part.volume <= known[part.position_id].lots
        assert part.side != known[part.position_id].side
    total = sum((holding.lots for holding in held), Decimal(0))
    assert sum((part.volume for part in parts), Decimal(0)) == (total if wanted is None else min(total, wanted))


def test_the_spelling_of_a_number_does_not_make_another_exit() -> None:
    one = ExitParameters(symbol="EURUSD", intent="close", volume=Decimal("0.10"))
    same = one.model_copy(update={"volume": Decimal("0.1")})
    other = one.model_copy(update={"scope": "symbol"})
    assert exit_hash(one) == exit_hash(same)
    assert exit_hash(one) != exit_hash(other)


@given(LOTS, LOTS)
def test_parts_are_the_largest_that_one_order_may_have_and_the_rest(volume: Decimal, largest: Decimal) -> None:
    *whole, rest = in_parts(volume, largest)
    assert sum(whole, rest) == volume
    assert set(whole) <= {largest}
    assert 0 < rest <= largest


def test_without_a_largest_order_there_is_one_part() -> None:
    assert in_parts(Decimal(7), Decimal(0)) == [Decimal(7)]
