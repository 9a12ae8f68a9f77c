"""Facts become rows, revisions, fills, errors and positions, each once, in whatever groups they come."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.desk.projection import MOST_WAITING
from streamapp.desk.rendering import current_order
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.messages.account import AccountOperationMessage
from streamapp.messages.commit import Publication
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from tables.orders import order_key
from tables.row import OVER
from tests.kit.book import Book, orders_in
from tests.kit.examples import (
    ACCOUNT,
    ORDER,
    accepted,
    at,
    busted,
    cancelled,
    claimed,
    corrected,
    created,
    deal,
    doubt,
    fact_sets,
    filled,
    operation,
    refused,
    returned,
    says,
    started,
)

LIFE = [created("1", expected="1.085"), claimed(), started(), returned(), accepted(), filled(9, "1")]


def test_each_fact_is_a_revision_and_news_alone_is_published() -> None:
    book = Book()
    for fact in LIFE:
        book.add(fact)
    assert orders_in(book.messages) == [
        (1, "pending", "created"),
        (2, "submitted", "claimed"),
        (3, "submitted", "in_flight"),
        (4, "submitted", "in_flight"),
        (5, "submitted", "working"),
        (6, "filled", ""),
    ]
    assert [(each.subject, each.id) for each in book.publications if each.subject] == [
        ("orders.pending.EURUSD", f"test:order:{ORDER}:1"),
        ("orders.submitted.EURUSD", f"test:order:{ORDER}:2"),
        ("orders.filled.EURUSD", f"test:order:{ORDER}:6"),
        ("broker.fill.EURUSD", f"test:fill:{ACCOUNT}:9:0"),
        ("positions.EURUSD", f"test:position:{ACCOUNT}:7:1"),
    ]
    assert all((each.subject is None) == (each.id is None) for each in book.publications)


def test_a_group_is_one_put_a_row_and_the_same_messages() -> None:
    one, other = Book(), Book()
    one.add(*LIFE)
    for fact in LIFE:
        other.add(fact)
    assert (one.publications, one.facts, one.rows) == (other.publications, other.facts, other.rows)
    assert one.commits == [2]
    assert other.commits == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("size", [1, len(LIFE)])
def test_a_fact_that_comes_again_puts_nothing_and_publishes_nothing(size: int) -> None:
    book = Book()
    stopped = says(deal(5, "0.3", position_id=8, reason="sl", side="sell"), order_id=None)
    book.add(*LIFE, stopped)
    before = (dict(book.rows), list(book.facts), list(book.publications))
    again = [*LIFE, stopped]
    for first in range(0, len(again), size):
        book.add(*again[first : first + size])
    assert (book.rows, book.facts, book.publications) == before
    assert book.commits[1:] == [0] * len(book.commits[1:])


def test_an_order_that_closes_fills_by_its_own_ticket_and_leaves_the_one_that_opened() -> None:
    book = Book()
    book.add(*LIFE)
    closing = "a" * 8 + "-0000-8000-8000-000000000000"
    body = created("1").body.model_copy(update={"signal_id": "close:r-1", "expected_price": None})
    out = deal(10, "1", ticket=8, side="sell", entry="out")
    several: tuple[Any, ...] = (body, started().body, returned().body, facts.BrokerAccepted(ticket=8), out)
    messages = book.add(*(says(said, 10 + second, order_id=closing) for second, said in enumerate(several)))
    revisions = [one for one in messages if isinstance(one, OrderMessage)]
    assert [one.status for one in revisions] == ["pending", "submitted", "submitted", "submitted", "filled"]
    assert (revisions[-1].order_id, revisions[-1].signal_id) == (closing, "close:r-1")
    assert book.order.status == "filled"
    assert book.position.state.volume == 0
    assert book.alarms("unexpected_change") == book.alarms("overfilled") == 0


# --- facts that come before OrderCreated


def test_facts_before_the_creation_are_kept_and_all_published_when_it_comes() -> None:
    book = Book()
    messages = book.add(claimed(), accepted(), filled(9, "1"))
    assert [type(one) for one in messages] == [PositionMessage]
    assert (book.index.open[ORDER].symbol, book.order.standing) == (None, "over")
    messages = book.add(created("1"))
    assert orders_in(messages) == [
        (1, "submitted", "claimed"),
        (2, "submitted", "working"),
        (3, "filled", ""),
        (4, "filled", ""),
    ]
    assert [one.deal for one in messages if isinstance(one, FillMessage)] == [9]
    assert book.order.waiting == ()
    assert ORDER not in book.index.open


def test_a_group_in_which_the_creation_comes_late_publishes_each_revision_once_and_in_order() -> None:
    messages = Book().add(claimed(), created("1"), accepted(), claimed())
    assert [rev for rev, _, _ in orders_in(messages)] == [1, 2, 3]


def test_an_old_order_without_a_symbol_stays_in_the_index_until_it_is_known() -> None:
    book = Book()
    book.add(accepted(), cancelled())
    assert book.index.open[ORDER].symbol is None
    assert not book.rows[order_key(ORDER)].startswith(OVER)
    book.add(created("1"))
    assert ORDER not in book.index.open
    assert book.rows[order_key(ORDER)].startswith(OVER)


def test_an_order_that_never_becomes_known_counts_on_but_does_not_outgrow_a_commit() -> None:
    book = Book()
    for first in range(100, 100 + MOST_WAITING + 20, 44):
        book.add(*(filled(number, "0.01") for number in range(first, first + 44)))
    assert len(book.order.waiting) == MOST_WAITING
    assert len(book.order.state.facts) == MOST_WAITING + 20
    assert len(book.rows[order_key(ORDER)]) < 256 * 1024
    revisions = orders_in(book.add(created("9"), accepted()))
    assert [rev for rev, _, _ in revisions] == [*range(1, MOST_WAITING + 1), MOST_WAITING + 21, MOST_WAITING + 22]
    assert str(book.order.state.filled) == "2.20"


def test_an_order_of_many_deals_knows_them_all_and_publishes_each_once() -> None:
    book = Book()
    book.add(created("100"), claimed(), accepted())
    deals = [filled(number, "0.5") for number in range(100, 220)]
    book.add(*deals)
    assert (len(book.order.state.facts), book.position.rev) == (123, 120)
    assert [rev for rev, _, _ in orders_in(book.messages)] == list(range(1, 124))
    last = [one for one in book.messages if isinstance(one, OrderMessage)][-1]
    assert (str(last.filled_volume), last.status) == ("60.0", "partially_filled")
    assert book.add(deals[0], deals[-1]) == []


# --- deals that are no order's, busts and corrections


def test_a_deal_that_is_no_orders_of_ours_moves_its_position_and_is_a_fill() -> None:
    book = Book()
    fill, position = book.add(says(deal(5, "0.3", position_id=7, reason="sl", side="sell"), order_id=None))
    assert isinstance(fill, FillMessage)
    assert isinstance(position, PositionMessage)
    assert (fill.order_id, fill.reason, position.side, position.rev) == (None, "sl", "sell", 1)
    assert order_key(ORDER) not in book.rows


def test_a_busted_deal_leaves_the_order_and_the_position() -> None:
    book = Book()
    book.add(*LIFE)
    messages = book.add(busted(9, 1))
    assert orders_in(messages) == [(7, "submitted", "working")]
    fill = next(one for one in messages if isinstance(one, FillMessage))
    assert (fill.deal, fill.revision, fill.busted, str(fill.volume)) == (9, 1, True, "1")
    assert book.position.state.volume == 0
    assert book.alarms("unexpected_change") == 0


def test_a_busted_deal_that_is_no_orders_leaves_its_position() -> None:
    book = Book()
    stopped = deal(5, "0.3", position_id=7, reason="sl", side="sell")
    book.add(says(stopped, order_id=None))
    fill, position = book.add(says(facts.FillBusted(deal=5, revision=1, was=stopped), order_id=None))
    assert (fill.busted, fill.order_id, position.volume) == (True, None, 0)


def test_a_bust_that_comes_before_its_deal_holds_all_the_same() -> None:
    book = Book()
    assert [type(one) for one in book.add(created(), busted(9, 1))] == [OrderMessage, OrderMessage]
    book.add(accepted(), filled(9, "1"))
    assert book.position.state.volume == 0
    assert book.order.status == "submitted"


def test_a_bust_and_its_deal_are_published_alike_in_one_group_and_in_two() -> None:
    one, other = Book(), Book()
    one.add(busted(9, 0))
    one.add(corrected(9, 1, "0.1"))
    other.add(busted(9, 0), corrected(9, 1, "0.1"))
    assert (one.publications, one.rows) == (other.publications, other.rows)


def test_a_corrected_deal_corrects_order_and_position() -> None:
    book = Book()
    book.add(*LIFE)
    messages = book.add(corrected(9, 1, "0.4"))
    assert orders_in(messages) == [(7, "partially_filled", "working")]
    assert next(one for one in messages if isinstance(one, FillMessage)).revision == 1
    assert str(book.position.state.volume) == "0.4"


# --- whose a fill is


CLOSER = "b" * 8 + "-0000-8000-8000-000000000000"


def ours(fact: Fact, order_id: str = ORDER, strategy: str | None = "breakout", signal_id: str = "s-1") -> Fact:
    """An OrderCreated, of a strategy."""
    return says(fact.body.model_copy(update={"strategy": strategy, "signal_id": signal_id}), 0, order_id=order_id)


def opened(volume: str = "1") -> list[Fact]:
    return [ours(created(volume)), claimed(), started(), accepted(), filled(9, volume, magic=41)]


def closer(strategy: str | None, volume: str = "1", entry: str = "out") -> list[Fact]:
    """An order that sells what the first has bought."""
    out = deal(10, volume, ticket=8, side="sell", entry=entry, seconds=9)
    several: tuple[Any, ...] = (facts.BrokerAccepted(ticket=8), out)
    return [
        ours(created(volume, side="sell"), CLOSER, strategy, "s-2"),
        *(says(body, order_id=CLOSER) for body in several),
    ]


def fills_of(messages: list[Any]) -> list[FillMessage]:
    return [one for one in messages if isinstance(one, FillMessage)]


def test_a_fill_that_opens_names_its_strategy_and_magic_and_no_opening() -> None:
    [fill] = fills_of(Book().add(*opened()))
    assert (fill.strategy, fill.magic, fill.opening_order_id, fill.opening_signal_id) == ("breakout", 41, None, None)


@pytest.mark.parametrize("reason", ["sl", "tp", "so", "client"])
def test_a_fill_that_the_broker_or_a_person_made_is_that_of_the_order_that_opened(reason: str) -> None:
    book = Book()
    book.add(*opened())
    stopped = deal(10, "0.4", ticket=8, side="sell", entry="out", reason=reason, seconds=9, magic=41)
    fill, position = book.add(says(stopped, order_id=None))
    assert (fill.order_id, fill.signal_id, fill.strategy, fill.magic) == (None, None, "breakout", 41)
    assert (fill.opening_order_id, fill.opening_signal_id) == (ORDER, "s-1")
    assert (position.strategy, position.opening_order_id, position.opening_signal_id) == ("breakout", ORDER, "s-1")
    assert position.opened_at == at(4)


@pytest.mark.parametrize(("strategy", "shown"), [("reverter", "reverter"), (None, "breakout")])
def test_a_fill_that_closes_by_an_order_has_the_orders_strategy_or_else_the_openings(
    strategy: str | None, shown: str
) -> None:
    book = Book()
    book.add(*opened())
    [fill] = fills_of(book.add(*closer(strategy)))
    assert (fill.order_id, fill.signal_id, fill.strategy) == (CLOSER, "s-2", shown)
    assert (fill.opening_order_id, fill.opening_signal_id) == (ORDER, "s-1")


def test_a_fill_that_adds_to_a_position_or_closes_what_a_person_opened_names_no_opening() -> None:
    book = Book()
    book.add(*opened())
    adding, _ = book.add(says(deal(10, "0.4", ticket=8, reason="client", seconds=9), order_id=None))
    book.add(says(deal(20, "1", ticket=20, position_id=20, reason="client"), order_id=None))
    closing, position = book.add(
        says(deal(21, "1", ticket=21, position_id=20, side="sell", entry="out", seconds=9), order_id=None)
    )
    assert [(one.strategy, one.opening_order_id) for one in (adding, closing)] == [(None, None)] * 2
    assert (position.strategy, position.opening_order_id, position.opened_at) == (None, None, at(4))


def test_a_fill_that_reverses_closes_what_the_first_order_opened_and_opens_for_its_own() -> None:
    book = Book()
    book.add(*opened())
    messages = book.add(*closer("reverter", "3", "inout"))
    [fill] = fills_of(messages)
    position = next(one for one in messages if isinstance(one, PositionMessage))
    assert (fill.strategy, fill.opening_order_id) == ("reverter", ORDER)
    assert (position.side, position.strategy, position.opening_order_id) == ("sell", "reverter", CLOSER)


def test_a_closing_fill_that_is_corrected_or_taken_back_names_the_opening_still() -> None:
    book = Book()
    book.add(*opened())
    stopped = deal(10, "1", ticket=8, side="sell", entry="out", reason="sl", seconds=9)
    again = stopped.model_copy(update={"volume": stopped.volume / 2})
    book.add(says(stopped, order_id=None))
    for body in (facts.FillCorrected(revision=1, deal=again), facts.FillBusted(deal=10, revision=2, was=again)):
        [fill] = fills_of(book.add(says(body, order_id=None)))
        assert (fill.strategy, fill.opening_order_id, fill.opening_signal_id) == ("breakout", ORDER, "s-1")


def test_a_closing_fill_whose_order_became_known_later_names_the_opening_of_its_own_time() -> None:
    """The position was flat, and open for somebody else, before the closing order's creation came."""
    book = Book()
    book.add(*opened())
    creation, *rest = closer("reverter")
    book.add(*rest)
    book.add(says(deal(30, "1", ticket=30, side="sell", reason="client", seconds=20), order_id=None))
    [fill] = fills_of(book.add(creation))
    assert (fill.deal, fill.strategy, fill.opening_order_id) == (10, "reverter", ORDER)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whose_a_fill_is_is_the_same_in_any_grouping_and_with_any_repetition(data: st.DataObject) -> None:
    stops = [deal(30 + n, "0.5", ticket=30, side="sell", reason="sl", seconds=4 + n) for n in range(3)]
    several = data.draw(
        st.permutations([*opened("2"), *closer("reverter"), *(says(stop, order_id=None) for stop in stops)])
    )
    one, other = Book(), in_groups(several, data)
    one.add(*several)
    assert (one.rows, one.facts, one.publications) == (other.rows, other.facts, other.publications)
    assert_each_id_has_one_content(one.publications)


# --- money that was booked without a trade


def test_money_without_a_position_is_a_message_and_a_fact_and_puts_no_row() -> None:
    book = Book()
    (message,) = book.add(says(operation(5, "1000", None, type="balance", comment="deposit"), order_id=None))
    assert isinstance(message, AccountOperationMessage)
    assert (message.deal, message.type, message.amount, message.comment) == (
        5,
        "balance",
        Decimal(1000),
        "deposit",
    )
    (publication,) = book.publications
    assert (publication.subject, publication.id) == (f"accounts.operations.{ACCOUNT}", f"test:operation:{ACCOUNT}:5:0")
    assert (book.commits, [fact.fact_id for fact in book.facts]) == ([0], [f"{ACCOUNT}:operation:5"])


def test_what_is_charged_to_a_position_is_in_its_profit_and_counts_once() -> None:
    book = Book()
    book.add(*LIFE)
    charge, less = (says(operation(15, amount, revision=rev), order_id=None) for rev, amount in enumerate(["-5", "-4"]))
    said, position = book.add(charge)
    assert (said.amount, position.realized_profit, position.volume, position.rev) == (-5, -5, 1, 2)
    said, position = book.add(less)
    assert (said.amount, said.revision, position.realized_profit, position.rev) == (-4, 1, -4, 3)
    assert book.published[-2:] == [f"accounts.operations.{ACCOUNT}", "positions.EURUSD"]
    facts_before = list(book.facts)
    assert (book.add(charge, less), book.facts) == ([], facts_before)
    assert book.order.status == "filled"


def test_a_position_that_was_never_seen_to_trade_is_published_with_its_charges_once_it_does() -> None:
    book = Book()
    assert [type(one) for one in book.add(says(operation(5), order_id=None))] == [AccountOperationMessage]
    _, position = book.add(says(deal(6, "0.3"), order_id=None))
    assert (str(position.realized_profit), position.rev) == ("-3.5", 2)


def test_a_connector_keeps_money_without_a_trade_in_the_archive() -> None:
    book = Book("connector")
    book.add(says(operation(5), order_id=None))
    assert (book.published, len(book.facts), len(book.publications)) == ([], 1, 1)


# --- what a person must hear of


def test_contradictions_and_unexpected_changes_raise_alarms() -> None:
    book = Book()
    book.add(created("1"), claimed(), accepted(), filled(9, "1"), filled(10, "1"))
    assert book.alarms("overfilled") == 1
    book.add(filled(9, "2"))
    assert book.alarms("conflict") == 1
    assert book.order.state.conflicts == (f"{ACCOUNT}:deal:9",)
    assert str(book.order.state.fills[0].volume) == "1"
    revived = Book()
    revived.add(created("1"), claimed(), refused())
    revived.add(accepted())
    assert (revived.alarms("revived"), revived.alarms("unexpected_change")) == (1, 1)


def test_a_second_content_under_one_id_is_archived_once_and_changes_no_revision() -> None:
    book = Book()
    book.add(*LIFE)
    assert book.add(filled(9, "2")) == book.add(filled(9, "2")) == []
    assert [fact.body.volume for fact in book.facts if isinstance(fact.body, facts.Filled)] == [1, 2]
    assert (book.alarms("conflict"), book.position.rev) == (1, 1)


def test_the_index_knows_open_orders_and_halted_accounts() -> None:
    book = Book()
    book.add(created("1"), claimed())
    assert book.index.open[ORDER].status == "submitted"
    assert book.index.counts == {(ACCOUNT, "submitted"): 1}
    assert book.index.halting(ACCOUNT) == {}
    book.add(accepted(), filled(9, "1"), filled(10, "1"))
    assert ORDER not in book.index.open
    assert book.index.halting(ACCOUNT) == {ORDER: f"overfilled on order {ORDER}: 2 lots executed, 1 tickets"}
    assert book.index.halting("other") == {}
    # A recovery passes over closed rows, and must not pass over this one.
    assert not book.rows[order_key(ORDER)].startswith(OVER)
    book.add(busted(10, 1))
    assert book.index.halting(ACCOUNT) == {}
    assert book.rows[order_key(ORDER)].startswith(OVER)
    book.add(filled(11, "1"))
    book.index.drop(frozenset({0}))
    assert (dict(book.index.open), book.index.halting(ACCOUNT)) == ({}, {})


# --- any grouping, any repetition, any order


@settings(max_examples=60, deadline=None)
@given(fact_sets, st.data())
def test_any_facts_in_any_grouping_and_with_any_repetition_make_the_same_bytes(
    several: list[Fact], data: st.DataObject
) -> None:
    one, other = Book(), in_groups(several, data)
    one.add(*several)
    assert (one.rows, one.facts, one.publications) == (other.rows, other.facts, other.publications)
    assert_each_id_has_one_content(one.publications)


@settings(max_examples=60, deadline=None)
@given(fact_sets.flatmap(lambda several: st.tuples(st.just(several), st.permutations(several))))
def test_any_order_of_the_facts_ends_in_the_same_order_and_position(both: tuple[list[Fact], list[Fact]]) -> None:
    one, other = Book(), Book()
    for book, several in zip((one, other), both, strict=True):
        for fact in several:
            book.add(fact)
    assert sorted(fact.fact_id for fact in one.facts) == sorted(fact.fact_id for fact in other.facts)
    if not both[0]:
        return
    # What is known of it is the same; `state.facts` and `waiting` remember the order of arrival as well.
    assert one.order.state == other.order.state
    assert sorted(one.order.waiting, key=str) == sorted(other.order.waiting, key=str)
    assert (one.order.open, one.order.standing, one.order.anomalies) == (
        other.order.open,
        other.order.standing,
        other.order.anomalies,
    )
    assert _last_order(one) == _last_order(other)
    assert one.positions == other.positions


def test_any_order_of_a_life_ends_in_the_same_revision() -> None:
    lasts = set()
    for seed in range(20):
        book = Book()
        for fact in random.Random(seed).sample(LIFE, len(LIFE)):
            book.add(fact)
        lasts.add(_last_order(book))
    assert len(lasts) == 1


def test_a_doubt_and_what_resolves_it_may_come_in_either_order() -> None:
    one, other = Book(), Book()
    one.add(created("1"), claimed(), doubt(), accepted(), filled(9, "1"))
    other.add(created("1"), claimed(), accepted(), filled(9, "1"), doubt())
    assert _last_order(one) == _last_order(other)
    assert one.order.status == "filled"


def in_groups(several: list[Fact], data: st.DataObject) -> Book:
    """The book of these facts in commits of one to five, some of which have earlier facts again."""
    book, first = Book(), 0
    while first < len(several):
        size = data.draw(st.integers(1, 5))
        known = several[: first + size]
        book.add(*several[first : first + size], *data.draw(st.lists(st.sampled_from(known), max_size=3)))
        first += size
    return book


def assert_each_id_has_one_content(publications: list[Publication]) -> None:
    ids = [each.id for each in publications if each.id is not None]
    assert len(set(ids)) == len(ids)


def _last_order(book: Book) -> bytes | None:
    row = current_order(book.order)
    # Which fact came last, causation_id, is all that the order of arrival leaves.
    return None if row is None else row.model_copy(update={"causation_id": None}).encode()
