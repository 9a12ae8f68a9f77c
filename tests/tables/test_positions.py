from __future__ import annotations

import json
import random
from decimal import Decimal
from itertools import permutations
from typing import Any

from streamapp.domain.orders import Deal, Owner, replaced
from tables.positions import (
    POSITION,
    REMEMBERED,
    WHOLE,
    DealRecord,
    PositionIndex,
    PositionRow,
    position_key,
)
from tables.row import OVER
from tests.kit.examples import at, deal, operation

EMPTY = PositionRow(account="demo", position_id=7)


def of(number: int, volume: str = "0.1", seconds: float | None = None, **more: Any) -> DealRecord:
    content = deal(number, volume, f"1.1{number % 10}", seconds=number if seconds is None else seconds, **more)
    return DealRecord(fact_id=str(number), number=number, deal=Deal(filled=content, revision=0))


def corrected(number: int, revision: int, volume: str) -> DealRecord:
    content = Deal(filled=deal(number, volume, "1.2", seconds=number), revision=revision)
    return DealRecord(fact_id=f"{number}:corrected:{revision}", number=number, deal=content)


def busted(number: int, revision: int) -> DealRecord:
    return DealRecord(fact_id=f"{number}:busted:{revision}", number=number, deal=Deal(busted=revision))


def charged(number: int, amount: str, revision: int = 0) -> DealRecord:
    name = f"{number}:corrected:{revision}" if revision else str(number)
    return DealRecord(
        fact_id=name, number=number, operation=operation(number, amount, revision=revision, at=at(number))
    )


def reread(row: PositionRow) -> PositionRow:
    return PositionRow.decode(row.encode())


def test_deals_one_by_one_or_together_make_the_same_position() -> None:
    deals = [of(number, side="sell" if number % 3 else "buy") for number in range(1, 60)]
    together, single = EMPTY.extended(deals), EMPTY
    for one in deals:
        single = single.extended([one])
    assert together.state == single.state == reread(single).state == reread(together).state
    assert (together.rev, together.known) == (single.rev, single.known)


def test_within_what_is_kept_whole_the_order_of_arrival_does_not_matter() -> None:
    deals = [of(number, side="sell" if number % 3 else "buy") for number in range(1, WHOLE)]
    states = set()
    for seed in range(5):
        row = EMPTY
        for one in random.Random(seed).sample(deals, len(deals)):
            row = row.extended([one])
        states.add(row.state.model_dump_json())
    assert len(states) == 1


def test_a_revision_is_the_same_when_it_is_asked_for_again() -> None:
    row = EMPTY
    published = []
    for number in range(1, 120):
        row = row.extended([of(number)])
        published += row.revisions([str(number)])
    assert [one.rev for one in published] == list(range(1, 120))
    again = reread(row).revisions([str(number) for number in range(1, 120)])
    assert again == published[-WHOLE:]


def test_more_deals_at_once_than_are_kept_can_still_all_be_published() -> None:
    row = EMPTY.extended([of(number) for number in range(200)])
    assert len(row.revisions(map(str, range(200)))) == 200


def test_older_deals_are_folded_away_but_known() -> None:
    row = EMPTY
    for number in range(1, 101):
        row = row.extended([of(number)])
    assert (len(row.newest), len(row.older), row.rev) == (WHOLE, 100 - WHOLE, 100)
    assert {"1", "100"} <= reread(row).known
    assert str(row.state.volume) == "10.0"


def test_a_correction_counts_while_its_deal_is_whole_and_is_a_miss_after() -> None:
    row = EMPTY.extended([of(1), of(2)]).extended([corrected(1, 1, "0.5")])
    assert (str(row.state.volume), row.missed) == ("0.6", 0)
    for number in range(3, 120):
        row = row.extended([of(number)])
    before = row.state.volume
    row = reread(row).extended([corrected(2, 1, "0.7"), busted(1, 9)])
    assert (row.state.volume, row.missed) == (before, 2)


def test_a_deal_is_never_parted_from_its_correction() -> None:
    row = EMPTY.extended([of(1)])
    for number in range(2, 80):
        row = row.extended([of(number), corrected(1, number, "0.5")])
    assert str(row.state.volume) == str(reread(row).state.volume) == "8.3"


def test_charges_and_deals_in_any_order_make_the_same_position() -> None:
    several = [of(1), charged(2, "-3.5"), of(3, side="sell"), charged(2, "-3", 1), charged(2, "-4", 2), charged(4, "1")]
    states = set()
    for order in permutations(several):
        single = EMPTY
        for one in order:
            single = reread(single).extended([one])
        assert single.state == EMPTY.extended(order).state == reread(single).state
        states.add(single.state.model_dump_json())
    assert len(states) == 1
    assert (single.state.realized_profit, single.rev, single.missed) == (Decimal(-3), 6, 0)


def test_a_charge_that_was_folded_away_counts_and_its_correction_is_a_miss() -> None:
    row = EMPTY.extended([charged(1, "-3.5")])
    for number in range(2, 2 + 2 * WHOLE):
        row = reread(row).extended([of(number)])
    assert (row.state.realized_profit, "1" in row.known) == (Decimal("-3.5"), True)
    row = reread(row).extended([charged(1, "-9", 1)])
    assert (row.state.realized_profit, row.missed) == (Decimal("-3.5"), 1)


def test_a_bust_before_its_deal_takes_it_back() -> None:
    row = EMPTY.extended([busted(1, 1)]).extended([of(1)])
    assert (str(row.state.volume), row.rev) == ("0", 2)
    assert EMPTY.state.at is None


def test_the_oldest_ids_are_forgotten_in_the_end() -> None:
    ids = tuple(str(number) for number in range(10**9, 10**9 + REMEMBERED))
    row = PositionRow(account="demo", position_id=7, rev=len(ids), base=EMPTY.state, older=ids)
    row = row.extended([of(number) for number in range(1, 70)]).extended([of(70)])
    assert len(row.older) == REMEMBERED
    assert len(row.encode()) < 300_000


def test_no_account_can_be_taken_for_another_position() -> None:
    assert position_key("1/a", 2) != position_key("a", 21)
    assert position_key("a", 2) == POSITION + b"2/a"


def test_the_index_knows_what_is_open_and_forgets_what_is_flat_or_another_workers() -> None:
    index, row = PositionIndex(), EMPTY.extended([of(1)])
    index.put(EMPTY.extended([]), 0)
    index.put(row, 0)
    index.put(PositionRow(account="demo", position_id=8).extended([of(2)]), 1)
    assert index.open("demo", "EURUSD") == {7, 8}
    index.drop(frozenset({1}))
    assert index.open("demo", "EURUSD") == {7}
    index.put(row.extended([of(3, side="sell")]), 0)
    assert not index.open("demo", "EURUSD")
    assert not index.open("demo", "GBPUSD")


def test_a_row_whose_deals_were_owned_later_is_the_one_that_knew_it_at_once() -> None:
    owner = Owner("o-1", "s-1", "breakout")
    known = of(1).model_copy(update={"deal": replaced(of(1).deal, owner=owner)})
    late, at_once = EMPTY.extended([of(1), of(2)]).owned({1}, owner), EMPTY.extended([known, of(2)])
    assert late.encode() == at_once.encode()
    assert (late.state, late.state.opened_by) == (at_once.state, owner)
    assert reread(late).state == at_once.state


def test_a_position_before_a_deal_is_what_the_earlier_deals_make_whenever_they_came() -> None:
    deals = [of(1), of(2), of(3, side="sell")]
    row = EMPTY.extended([deals[2], deals[0]]).extended([corrected(1, 1, "0.5"), deals[1]])
    third, fourth = deals[2].deal.filled, of(4).deal.filled
    assert third is not None
    assert fourth is not None
    assert row.before(third) == EMPTY.extended([deals[0], corrected(1, 1, "0.5"), deals[1]]).state
    assert row.before(fourth) == row.state


def test_the_row_of_a_position_that_is_not_open_says_so_at_its_beginning_and_is_the_same_row() -> None:
    held = EMPTY.extended([of(1)])
    flat = held.extended([of(2, side="sell", entry="out")])
    assert [row.encode().startswith(OVER) for row in (held, flat)] == [False, True]
    assert [reread(row).model_dump() for row in (held, flat)] == [held.model_dump(), flat.model_dump()]
    assert json.loads(flat.encode())["open"] is False
