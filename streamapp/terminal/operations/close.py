"""A close that can't be repeated is an order of its own, sent once: it takes the whole protocol of a submit.

A partial close, and any close on a netting account, where a second one would turn the position round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from streamapp.domain import facts
from streamapp.domain.exits import in_parts
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import OrderParameters, plain
from streamapp.domain.vocabulary import LARGEST_INTEGER, time_text
from streamapp.messages.operation import CloseRequest, OperationReply
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.journal.book import Book

SOON = timedelta(minutes=1)
"""How long after its not_after the deals of an accepted order are waited for: far longer than they usually take."""


def closing_orders(
    request: CloseRequest, wanted: OrderParameters, largest: Decimal, deployment: str
) -> list[SubmitRequest]:
    """Return the orders that a close is when it can't be repeated; the same for the same request.

    One, unless the symbol allows less in one order: then so many of its ``largest``, and the rest.
    """
    return [
        _closing_order(request, wanted.model_copy(update={"volume": part}), deployment, number)
        for number, part in enumerate(in_parts(wanted.volume, largest), start=1)
    ]


def _closing_order(request: CloseRequest, wanted: OrderParameters, deployment: str, number: int) -> SubmitRequest:
    content = [request.position_id, plain(wanted.volume), wanted.side, wanted.symbol]
    return SubmitRequest(
        order_id=order_id_for(deployment, request.account, _signal_id(request, number)),
        account=request.account,
        hash=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        epoch=request.epoch,
        not_after=request.not_after,
        parameters=wanted,
        position_id=request.position_id,
    )


def _signal_id(request: CloseRequest, number: int) -> str:
    return f"close:{request.request_id}" + (f":{number}" if number > 1 else "")


def record(
    book: Book, *, orders: Sequence[SubmitRequest], request: CloseRequest, deployment: str, hedging: bool
) -> tuple[OperationReply, list[SubmitRequest]] | str:
    """Record closing orders and that they are; return the answer and those to be sent, or the order in their way."""
    other = in_the_way(book, orders[0], hedging=hedging)
    if other is not None:
        return other
    new = [
        order
        for number, order in enumerate(orders, 1)
        if book.row(order.order_id) is None and _recorded(book, order, request, deployment, number)
    ]
    said = (f"order {order.order_id} closes {plain(order.parameters.volume)} lots" for order in orders)
    reply = OperationReply(
        request_id=request.request_id,
        account=book.account,
        outcome="recorded",
        message=f"{', '.join(said)}; ask again for its state",
        row=book.row(orders[0].order_id),
        epoch=book.epoch,
        clock=book.clock(),
    )
    operation_rows.finish(book, reply, orders[0].order_id)
    return reply, new


def _recorded(book: Book, order: SubmitRequest, request: CloseRequest, deployment: str, number: int) -> bool:
    """Report and submit a new order; return whether it is to be sent."""
    created = facts.OrderCreated(
        parameters=order.parameters,
        parameters_hash=order.hash,
        signal_id=_signal_id(request, number),
        intent="close",
        position_id=request.position_id,
        signal_at=book.clock(),
        not_after=order.not_after,
        executor=deployment,
        metadata={"issued_by": request.issued_by},
    )
    book.report("created", order.order_id, created)
    return book.submit(order).state == "recorded"


def in_the_way(book: Book, order: SubmitRequest, *, hedging: bool) -> str | None:
    """Return an order of ours that may still change what is open of the position: its deals are not seen.

    Another one that closes it, sent or not, also one in doubt. Where a symbol has one position, every order of the
    symbol that waits, is being sent, or was filled at once and its deals are not here yet. Of an order that is recorded
    already only those before it are. Deals that are long overdue may never come, and must not keep a position open.
    """
    own = book.db.execute("SELECT position FROM rows WHERE order_id = ?", (order.order_id,)).fetchone()
    unfinished = book.db.execute(
        "SELECT state, request FROM rows WHERE state IN ('recorded', 'started', 'doubt') AND position < ?1 "
        "UNION ALL SELECT 'live', r.request FROM tickets t JOIN rows r USING (order_id) "
        "WHERE t.state = 'live' AND r.position < ?1 AND r.not_after > ?2",
        (own[0] if own else LARGEST_INTEGER, time_text(book.clock() - SOON)),
    )
    for state, payload in unfinished:
        other = SubmitRequest.decode(payload)
        if other.order_id == order.order_id:
            continue
        same = not hedging and other.parameters.symbol == order.parameters.symbol
        soon = state in {"recorded", "started"} or (state == "live" and other.parameters.order_type == "market")
        if other.position_id == order.position_id or (same and soon):
            return other.order_id
    return None
