"""Revisions as the messages that the world reads, and which of them are news."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp.desk.rendering import current_order
from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from tables.orders import OrderRow, order_key
from tests.kit.book import Book
from tests.kit.examples import (
    ACCOUNT,
    ORDER,
    absent,
    accepted,
    cancelled,
    claimed,
    corrected,
    created,
    doubt,
    expired,
    filled,
    refused,
    rejected,
    returned,
    says,
    started,
    unprotected,
)

LIFE = [created("1", expected="1.085"), claimed(), started(), returned(), accepted(), filled(9, "1")]


def revisions(messages: list[Any]) -> list[OrderMessage]:
    return [one for one in messages if isinstance(one, OrderMessage)]


def errors(messages: list[Any]) -> list[ErrorMessage]:
    return [one for one in messages if isinstance(one, ErrorMessage)]


def fills(messages: list[Any]) -> list[FillMessage]:
    return [one for one in messages if isinstance(one, FillMessage)]


def test_the_last_revision_shows_all_that_is_known() -> None:
    book = Book()
    messages = book.add(*LIFE)
    last = revisions(messages)[-1]
    assert (str(last.filled_volume), str(last.remaining_volume), str(last.average_price)) == ("1", "0", "1.08510")
    assert (last.ticket, last.position_id, last.attempt, last.executor) == (7, 7, 1, "streamapp")
    assert (last.expected_price_source, last.causation_id) == ("signal", f"{ACCOUNT}:deal:9")
    assert last.slippage is not None
    assert last.slippage.expected is not None
    assert last.slippage.expected.points == 10
    assert last.quote is not None
    assert last.submitted_at == last.quote.at
    (fill,) = fills(messages)
    assert (fill.order_id, fill.signal_id, fill.slippage) == (ORDER, "s-1", last.slippage)


def test_the_newest_revision_can_be_shown_from_the_row() -> None:
    book = Book()
    last = revisions(book.add(*LIFE))[-1]
    shown = current_order(book.order)
    assert shown is not None
    assert shown.encode() == last.encode()
    book.add(says(filled().body, order_id="unknown"))
    assert current_order(OrderRow.decode(book.rows[order_key("unknown")])) is None


def test_new_values_are_published_and_a_request_that_changed_nothing_is_not() -> None:
    book = Book()
    asked, taken = {"price": "1.07", "stop_loss": "0"}, {"price": "1.07000", "stop_loss": None}
    limit: dict[str, Any] = {"order_type": "limit", "price": "1.08", "stop_loss": "1.05", "take_profit": "1.2"}
    messages = book.add(
        created("1", **limit), claimed(), started(), returned(), accepted(),
        says(facts.ModifyRequested(request_id="r-1", changes=asked), 4),
        says(facts.Modified(request_id="r-1", changes=taken), 5),
        says(facts.ModifyRequested(request_id="r-2", changes={"price": "9"}), 6),
        says(facts.ModifyRejected(request_id="r-2", message="invalid_price"), 7),
        says(facts.CancelRequested(request_id="r-3"), 8),
        cancelled(reason="user", seconds=9),
    )  # fmt: skip
    assert [one.detail for one in revisions(messages)[4:]] == [
        "working",
        "modify_pending",
        "working",
        "modify_pending",
        "working",
        "cancel_pending",
        "user",
    ]
    now = revisions(messages)[-1]
    assert (now.status, now.price, now.stop_loss, now.take_profit) == (
        "cancelled",
        Decimal("1.07"),
        None,
        Decimal("1.2"),
    )
    assert [subject.split(".")[1] for subject in book.published] == ["pending", "submitted", "submitted", "cancelled"]


@pytest.mark.parametrize(("price", "news"), [("1.08600", True), ("1.08510", False)])
def test_a_corrected_price_is_news_of_the_order_and_other_corrections_are_the_fills_alone(
    price: str, news: bool
) -> None:
    book = Book()
    book.add(*LIFE)
    before = len(book.published)
    book.add(corrected(9, 1, "1", price=price, commission=Decimal(-1)))
    assert ("orders.filled.EURUSD" in book.published[before:]) == news
    assert "broker.fill.EURUSD" in book.published[before:]


@pytest.mark.parametrize(
    ("several", "kind", "error_id", "final"),
    [
        ([rejected()], "rejected", "1:rejected", True),
        ([refused(reason="not_connected")], "not_connected", "1:not_connected", True),
        ([refused(reason="stale")], "invalid", "1:invalid", True),
        ([doubt("deadline")], "in_doubt", "1:in_doubt:deadline", False),
        ([absent()], "absent", "1:absent", True),
        ([accepted(7), accepted(8)], "duplicate", "1:duplicate:8", False),
        ([accepted(7), rejected()], "rejected", "1:rejected", False),
        ([accepted(7), unprotected(7)], "unprotected", "1:unprotected:7", False),
        ([started(), started(2), rejected()], "rejected", "1:rejected", False),
    ],
)
def test_bad_news_is_an_error_with_an_id_of_its_own(several: list[Fact], kind: str, error_id: str, final: bool) -> None:
    book = Book()
    messages = book.add(created(), claimed(), *several)
    assert [(one.kind, one.error_id, one.final) for one in errors(messages)] == [(kind, f"{ORDER}:{error_id}", final)]
    assert ("broker.error.EURUSD", f"test:error:{ORDER}:{error_id}") in [
        (each.subject, each.id) for each in book.publications
    ]


def test_what_an_unprotected_position_should_have_and_has_is_told_in_words() -> None:
    [told] = errors(Book().add(created(), claimed(), accepted(7), unprotected(7)))
    assert told.message == "ticket 7, position 7: expected stop loss 1.08, the broker shows take profit 1.09"
    [bare] = errors(
        Book().add(created(), accepted(7), says(facts.Unprotected(ticket=7, position_id=7, stop_loss=Decimal(1))))
    )
    assert bare.message.endswith("expected stop loss 1, the broker shows no level")


# --- roles


def test_a_connector_publishes_fills_and_errors_only() -> None:
    book = Book("connector")
    messages = book.add(*LIFE, doubt())
    assert [type(one) for one in messages] == [FillMessage, ErrorMessage]
    assert book.published == ["broker.fill.EURUSD", "broker.error.EURUSD"]


@pytest.mark.parametrize(
    ("end", "kind", "message"),
    [(cancelled(reason="ioc_remainder"), "cancelled", "ioc_remainder"), (expired(), "expired", "its time is over")],
)
def test_a_connector_says_that_the_rest_of_an_order_is_over(end: Fact, kind: str, message: str) -> None:
    life = [created("1"), claimed(), accepted(), filled(9, "0.4"), end]
    (error,) = errors(Book("connector").add(*life))
    assert (error.kind, error.final) == (kind, True)
    assert message in error.message
    assert errors(Book("both").add(*life)) == []


def test_what_a_foreign_connector_published_is_archived_but_not_published_again() -> None:
    book = Book("execution")
    messages = book.add(created(), claimed(), filled(9, "0.4", ticket=0, cause="foreign:x"))
    assert [one.deal for one in fills(messages)] == [9]
    assert book.published == [
        "orders.pending.EURUSD",
        "orders.submitted.EURUSD",
        "orders.partially_filled.EURUSD",
        "positions.EURUSD",
    ]


@pytest.mark.parametrize(("role", "is_timed"), [("execution", True), ("both", False)])
def test_what_asks_somebody_else_for_an_execution_is_not_published_after_its_time(role: str, is_timed: bool) -> None:
    book = Book(role)
    order = revisions(book.add(*LIFE[:2]))[-1]
    (asking,) = (each for each in book.publications if each.subject == "orders.submitted.EURUSD")
    assert asking.not_after == (order.not_after if is_timed else None)
