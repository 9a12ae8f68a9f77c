"""The worker tells each deal once, and finds the ends of orders by what history shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.terminal.pipe.answers import DealsSeen, EndsSeen
from streamapp.terminal.pipe.calls import DealWindow, ReadDeals, ReadEnds
from streamapp.terminal.worker.history import DEALS_AT_ONCE, ENDS_AT_ONCE, History
from streamapp.terminal.worker.mt5_client import Mt5Client
from tests.terminal.tables import Tables, deal, order

SINCE, NEAR, NOW = 100, 900, 1000


@pytest.fixture
def tables() -> Tables:
    return Tables()


@pytest.fixture
def calls(tables: Tables) -> Mt5Client:
    return tables.calls()


@pytest.fixture
def history(calls: Mt5Client) -> History:
    return History(calls)


def read(history: History, *, wide: bool = False, wide_from: int = SINCE) -> DealsSeen:
    return history.deals(ReadDeals(wide_from, near_from=NEAR, settled_until=NOW, until=NOW * 2, wide=wide))


def tickets(answer: DealsSeen) -> list[int]:
    return [row.ticket for row in answer.deals]


def test_a_deal_is_told_once(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW)]
    assert tickets(read(history)) == [1]
    assert tickets(read(history)) == []
    assert tickets(read(history, wide=True)) == []


def test_a_look_at_an_unchanged_history_costs_one_call(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW)]
    read(history, wide=True)
    tables.asked.clear()
    assert read(history) == DealsSeen(read=True)
    assert tables.asked == ["history_deals_total"]


def test_a_new_deal_is_found_without_reading_the_whole_history(tables: Tables, history: History) -> None:
    tables.deals = [deal(number, SINCE + number) for number in range(1, 50)]
    read(history, wide=True)
    tables.deals.append(deal(99, NOW))
    answer = read(history)
    assert (tickets(answer), answer.digest) == ([99], None)


def test_a_deal_that_is_shown_late_under_an_old_time_is_found_by_its_number(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW)]
    read(history, wide=True)
    tables.deals.append(deal(2, SINCE + 1))
    assert tickets(read(history)) == [2]


def test_a_corrected_deal_and_one_that_was_taken_back_are_told_again(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW), deal(2, NOW), deal(3, NOW, type=2), deal(4, NOW, type=4, profit=-5.0)]
    assert tickets(read(history, wide=True)) == [1, 2, 3, 4]
    tables.deals = [
        deal(1, NOW, price=1.5),
        deal(2, NOW, type=13),
        deal(3, NOW, type=2),
        deal(4, NOW, type=4, profit=-4.0),
    ]
    assert [(row.ticket, row.type) for row in read(history, wide=True).deals] == [(1, 0), (2, 13), (4, 4)]


def test_many_deals_come_in_parts(tables: Tables, history: History) -> None:
    tables.deals = [deal(number, NOW) for number in range(1, 2 * DEALS_AT_ONCE + 2)]
    parts = [read(history, wide=True)]
    while parts[-1].more:
        parts.append(history.more_deals())
    assert [len(part.deals) for part in parts] == [DEALS_AT_ONCE, DEALS_AT_ONCE, 1]


def test_a_new_connection_is_told_everything_again(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW)]
    read(history)
    history.forget()
    assert tickets(read(history)) == [1]


def test_a_part_of_the_history_has_no_digest_and_takes_nothing_back(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, NOW), deal(2, NOW)]
    whole = read(history, wide=True).digest
    assert whole is not None
    tables.deals = [deal(1, NOW)]
    assert read(history, wide=True) == DealsSeen(read=True)
    tables.deals, tables.total = [deal(1, NOW), deal(2, NOW), deal(3, NOW)], 4
    answer = read(history, wide=True)
    assert (tickets(answer), answer.digest) == ([3], None)
    tables.deals, tables.total = [deal(1, NOW), deal(2, NOW)], None
    assert read(history, wide=True).digest is None  # the third is missing now
    tables.deals = [deal(1, NOW), deal(2, NOW), deal(3, NOW)]
    assert read(history, wide=True).digest not in {None, whole}


def test_deals_from_before_the_interval_are_not_missing(tables: Tables, history: History) -> None:
    tables.deals = [deal(1, SINCE), deal(2, NOW)]
    assert read(history, wide=True).digest is not None
    assert read(history, wide=True, wide_from=SINCE + 1).digest is not None


@pytest.mark.parametrize("function", ["history_deals_total", "history_deals_get"])
def test_a_history_that_cannot_be_read_says_nothing(tables: Tables, history: History, function: str) -> None:
    tables.deals, tables.silent = [deal(1, NOW)], {function}
    assert read(history, wide=True) == DealsSeen(read=False)
    tables.silent = set()
    assert tickets(read(history)) == [1]


@given(
    steps=st.lists(
        st.tuples(st.sets(st.integers(1, 30)), st.sets(st.integers(1, 30)), st.booleans()), min_size=1, max_size=8
    )
)
def test_whatever_is_hidden_now_and_then_every_deal_is_told_exactly_once(
    steps: list[tuple[set[int], set[int], bool]],
) -> None:
    tables = Tables()
    history, made, told = History(tables.calls()), set[int](), list[int]()
    for new, hidden, wide in steps:
        made |= new
        tables.deals = [deal(number, SINCE + 30 * number) for number in made - hidden]
        told += tickets(read(history, wide=wide))
    tables.deals = [deal(number, SINCE + 30 * number) for number in made]
    told += tickets(read(history, wide=True))
    assert sorted(told) == sorted(made)


# -- the deals of an order that was sent just now


def test_what_was_told_with_the_order_is_not_told_again_and_costs_the_next_look_one_call(
    tables: Tables, history: History
) -> None:
    read(history, wide=True)
    tables.deals = [deal(7, NOW, order=5, type=0), deal(8, NOW, order=6, type=0)]
    rows = history.of_order(5, DealWindow(hedging=False, since=NEAR, until=NOW))
    assert [row.ticket for row in history.told(rows)] == [7]
    assert tickets(read(history)) == [8]  # another's, of the same moment
    tables.asked.clear()
    assert tickets(read(history)) == []
    assert tables.asked == ["history_deals_total"]
    assert tickets(read(history, wide=True)) == []


def test_what_was_found_and_not_believed_is_told_by_the_next_look(tables: Tables, history: History) -> None:
    read(history, wide=True)
    tables.deals = [deal(7, NOW, order=5, type=0)]
    assert history.of_order(5, DealWindow(hedging=False, since=NEAR, until=NOW))
    assert tickets(read(history)) == [7]


def test_a_deal_that_was_told_with_the_order_and_changed_since_is_told_again(tables: Tables, history: History) -> None:
    read(history, wide=True)
    tables.deals = [deal(7, NOW, order=5, type=0)]
    history.told(history.of_order(5, DealWindow(hedging=False, since=NEAR, until=NOW)))
    tables.deals = [deal(7, NOW, order=5, type=0, price=1.5)]
    assert tickets(read(history, wide=True)) == [7]


# -- the ends of orders


def ended(history: History, *asked: int) -> tuple[list[int], list[int]]:
    answer = history.ended(ReadEnds(asked))
    assert answer.read
    return [row.ticket for row in answer.orders], list(answer.looked)


def test_orders_that_work_cost_one_call_however_many(tables: Tables, history: History) -> None:
    tables.orders = [order(number, state=1, type=2) for number in range(1, 201)]
    assert ended(history, *range(1, 201)) == ([], [])
    assert tables.asked == ["orders_get"]


@pytest.mark.parametrize(("state", "type_"), [(0, 2), (1, 2), (3, 2), (1, 6), (1, 7), (3, 0)])
def test_an_order_in_the_table_of_orders_lives_whatever_became_of_it(
    tables: Tables, history: History, state: int, type_: int
) -> None:
    tables.orders = [order(5, state=state, type=type_, volume_initial=0.2, volume_current=0.1)]
    tables.done = [order(5, state=4)]  # the tables are not shown at the same moment
    assert ended(history, 5) == ([], [])
    assert history.ended(ReadEnds((5,))).working == (5,)


def test_an_order_ends_by_history_and_not_by_its_absence(tables: Tables, history: History) -> None:
    assert ended(history, 5) == ([], [5])
    tables.done = [order(5, state=2)]
    assert ended(history, 5) == ([5], [5])


def test_only_some_tickets_are_looked_up_at_once(tables: Tables, history: History) -> None:
    _, looked = ended(history, *range(1, 100))
    assert looked == list(range(1, ENDS_AT_ONCE + 1))
    assert tables.asked.count("history_orders_get") == ENDS_AT_ONCE


def test_a_table_of_orders_that_cannot_be_read_ends_nothing(tables: Tables, history: History) -> None:
    tables.silent, tables.done = {"orders_get"}, [order(5, state=2)]
    assert history.ended(ReadEnds((5,))) == EndsSeen(read=False)


def test_what_somebody_changed_of_a_working_order_stands_in_the_log(
    tables: Tables, history: History, calls: Mt5Client
) -> None:
    tables.orders = [order(5, state=1, type=2, price_open=1.1), order(6, state=1, type=2)]
    ended(history, 5, 6)
    calls.taken_notes()
    tables.orders[0] = order(5, state=1, type=2, price_open=1.2, sl=1.0, time_expiration=NOW)
    ended(history, 5, 6)
    (note,) = calls.taken_notes()
    (changed,) = note.response["rows"]
    assert (changed["ticket"], changed["price_open"], changed["sl"], changed["time_expiration"]) == (5, 1.2, 1.0, NOW)
    ended(history, 5, 6)
    assert calls.taken_notes() == ()
