"""A close that can't be repeated is an order of its own, sent once: it takes the whole protocol of a submit.

A partial close, and any close on a netting account, where a second one would turn the position round.
"""

from __future__ import annotations

import hashlib
import json

from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.parameters import OrderParameters, plain
from streamapp.messages.operation import CloseRequest, OperationReply
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.journal import memory
from streamapp.terminal.journal.book import Book


def closing_order(request: CloseRequest, wanted: OrderParameters, deployment: str) -> SubmitRequest:
    """Return the order that a close is when it can't be repeated; the same for the same request."""
    content = [request.position_id, plain(wanted.volume), wanted.side, wanted.symbol]
    return SubmitRequest(
        order_id=order_id_for(deployment, request.account, f"close:{request.request_id}"),
        account=request.account,
        hash=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        epoch=request.epoch,
        not_after=request.not_after,
        parameters=wanted,
        position_id=request.position_id,
    )


def record(
    book: Book, *, order: SubmitRequest, request: CloseRequest, deployment: str, hedging: bool
) -> tuple[OperationReply, bool] | str:
    """Record a closing order and that it is one; return the order that is in its way, if there is."""
    other = _in_the_way(book, order, hedging=hedging)
    if other is not None:
        return other
    new = book.row(order.order_id) is None
    if new:
        created = facts.OrderCreated(
            parameters=order.parameters,
            parameters_hash=order.hash,
            signal_id=f"close:{request.request_id}",
            signal_at=book.clock(),
            not_after=order.not_after,
            executor=deployment,
            metadata={"position_id": request.position_id, "issued_by": request.issued_by},
        )
        book.report("created", order.order_id, created)
    row = book.submit(order).row
    reply = OperationReply(
        request_id=request.request_id,
        account=book.account,
        outcome="recorded",
        message=f"order {order.order_id} closes {plain(order.parameters.volume)} lots; ask again for its state",
        row=row,
        epoch=book.epoch,
        clock=book.clock(),
    )
    memory.finish(book, reply, order.order_id)
    return reply, new


def _in_the_way(book: Book, order: SubmitRequest, *, hedging: bool) -> str | None:
    """Return an order of ours that may still change what is open of the position: its deals are not seen.

    Another one that closes it, sent or not, also one in doubt. Where a symbol has one position, every order of the
    symbol that waits, is being sent, or was filled at once and its deals are not here yet.
    """
    unfinished = book.db.execute(
        "SELECT state, request FROM rows WHERE state IN ('recorded', 'started', 'doubt') "
        "UNION ALL SELECT 'live', r.request FROM tickets t JOIN rows r USING (order_id) WHERE t.state = 'live'"
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
