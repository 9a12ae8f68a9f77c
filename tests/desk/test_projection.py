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
from tables.orders import CLOSED, order_key
from tests.kit.book import Book, orders_in
from tests.kit.examples import (
    ACCOUNT,
    ORDER,
    accepted,
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
    for at in range(0, len(again), size):
        book.add(*again[at : at + size])
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
    assert not book.rows[order_key(ORDER)].startswith(CLOSED)
    book.add(created("1"))
    assert ORDER not in book.index.open
    assert book.rows[order_key(ORDER)].startswith(CLOSED)


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
    assert book.index.halted(ACCOUNT) is None
    book.add(accepted(), filled(9, "1"), filled(10, "1"))
    assert ORDER not in book.index.open
    assert book.index.halted(ACCOUNT) == f"overfilled on order {ORDER}"
    assert book.index.halted("other") is None
    # A recovery passes over closed rows, and must not pass over this one.
    assert not book.rows[order_key(ORDER)].startswith(CLOSED)
    book.add(busted(10, 1))
    assert book.index.halted(ACCOUNT) is None
    assert book.rows[order_key(ORDER)].startswith(CLOSED)
    book.add(filled(11, "1"))
    book.index.drop(frozenset({0}))
    assert (dict(book.index.open), book.index.halted(ACCOUNT)) == ({}, None)


# --- any grouping, any repetition, any order


@settings(max_examples=60, deadline=None)
@given(fact_sets, st.data())
def test_any_facts_in_any_grouping_and_with_any_repetition_make_the_same_bytes(
    several: list[Fact], data: st.DataObject
) -> None:
    one, other = Book(), Book()
    one.add(*several)
    at = 0
    while at < len(several):
        size = data.draw(st.integers(1, 5))
        group = several[at : at + size]
        other.add(*group, *data.draw(st.lists(st.sampled_from(several[: at + size]), max_size=3)))
        at += size
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


def assert_each_id_has_one_content(publications: list[Publication]) -> None:
    ids = [each.id for each in publications if each.id is not None]
    assert len(set(ids)) == len(ids)


def _last_order(book: Book) -> bytes | None:
    row = current_order(book.order)
    # Which fact came last, causation_id, is all that the order of arrival leaves.
    return None if row is None else row.model_copy(update={"causation_id": None}).encode()
