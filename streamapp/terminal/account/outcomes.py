"""What the broker's answer to an order means in the journal.

Functions of one transaction, so that no report is without its row.
"""

from __future__ import annotations

import logging

from streamapp.domain.facts import (
    BrokerRejected,
    Filled,
    OutcomeUnknown,
    RefusedReason,
    SubmitRefused,
    SubmitReturned,
)
from streamapp.domain.identifiers import magic_of
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5.retcodes import OpeningVerdict
from streamapp.terminal.account.judging import Judged, refuse_halted
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book
from streamapp.terminal.pipe.answers import Answered, SendResult

logger = logging.getLogger(__name__)

WRONG_ACCOUNT = "wrong_account"
"""What an answer is called that may be another account's: the order was executed here, or there."""

TICKET_MISMATCH = "anothers_ticket"
"""What an answer is called that names the ticket of an order before this one."""


def start_again(book: Book, order: SubmitRequest, rejected: BrokerRejected, judged: Judged) -> bool:
    """Write that an attempt was rejected and STARTED of the next one; True for exactly one caller.

    Raises:
        RefusedError: the account is halted; nothing is written.
    """
    refuse_halted(book, order)
    book.expect_levels(order.order_id, *judged.levels)
    return book.start_again(order.order_id, rejected, judged.started)


def note(book: Book, order: SubmitRequest, returned: SubmitReturned, answer: Answered[SendResult]) -> None:
    """Write that ``order_send`` came back, and what was exchanged."""
    broker_log.append(book, answer.log, order.order_id)
    book.returned(order.order_id, returned)


def rejection(order: SubmitRequest, returned: SubmitReturned, verdict: OpeningVerdict) -> BrokerRejected:
    """Return a rejecting answer as the body of its fact."""
    return BrokerRejected(
        attempt=order.attempt,
        retcode=returned.retcode or 0,
        retcode_name=verdict.name,
        message=verdict.message,
        ticket=verdict.ticket or None,
    )


def record(
    book: Book,
    order: SubmitRequest,
    returned: SubmitReturned,
    verdict: OpeningVerdict,
    deals: list[Filled],
) -> tuple[OpeningVerdict, bool]:
    """Write what an answer means, and the deals that came with it.

    Returns:
        What it means, and whether it is accepted with more deals to come.

    """
    order_id, attempt = order.order_id, order.attempt
    # The ticket of another order is the answer to that one (reference mt5 §1.1: replies may be out of phase).
    owner = book.owner(verdict.ticket) if verdict.outcome == "accepted" else None
    if owner not in (None, order_id):
        verdict = OpeningVerdict(
            "doubt", TICKET_MISMATCH, f"{verdict.name} with ticket {verdict.ticket}, which is {owner}'s"
        )
    match verdict.outcome:
        case "accepted":
            book.accept(order_id, verdict.ticket)
            for body in deals:
                book.record_deal(body)
        case "rejected":
            book.reject(order_id, rejection(order, returned, verdict))
        case "not_sent":
            reason: RefusedReason = "invalid" if verdict.name == "invalid_params" else "not_connected"
            book.refuse(
                order_id, SubmitRefused(attempt=attempt, reason=reason, message=f"{verdict.name}: {verdict.message}")
            )
        case "doubt":
            logger.error("order %s is in doubt: %s %s", order_id, verdict.name, verdict.message)
            if verdict.name == WRONG_ACCOUNT:  # whatever we find at ours: nobody watches a position at the other one
                book.halt(f"{verdict.message}, which may hold order {order_id}: look for magic {magic_of(order_id)}")
            book.doubt(
                order_id,
                OutcomeUnknown(attempt=attempt, why="ambiguous_answer", message=f"{verdict.name}: {verdict.message}"),
            )
    return verdict, verdict.outcome == "accepted" and book.is_live(verdict.ticket)
