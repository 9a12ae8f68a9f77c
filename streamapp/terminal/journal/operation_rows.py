"""What this terminal was asked to do to orders and positions, and what became of it: the journal's operations.

Every function runs inside one transaction of the journal's thread. An operation without an outcome is not finished:
whoever asks again, or the next start, goes on with it by comparing the state. A *sending* is on disk before its request
is handed over, so that none is ever forgotten.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.domain.parameters import plain
from streamapp.domain.vocabulary import time_text
from streamapp.messages.operation import (
    OPERATIONS,
    CancelRequest,
    ModifyRequest,
    OperationReply,
    OperationRequest,
)
from streamapp.messages.report import ReportBody, ReportKind
from streamapp.messages.terminal import JournalRow
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.orders import kept

_IRRELEVANT = {"not_after", "issued_by", "epoch", "limits"}
"""What may differ when the same thing is asked again; the first not_after stands, and so do the first limits."""
_GIVEN = ("price", "stop_limit_price", "stop_loss", "take_profit", "expiration")
"""Values that a request gives; those that it does not name are sent as the terminal shows them."""


@dataclass(frozen=True)
class KnownOperation:
    """An operation in the journal. ``sendings``: how often it was handed over, as far as is known."""

    kind: str
    request: OperationRequest
    digest: str
    order_id: str | None
    outcome: str | None
    reply: OperationReply | None
    sendings: int


def digest_of(kind: str, request: OperationRequest) -> str:
    """Return the hash of what is asked for; 0.10 and 0.1 are the same."""
    said = {name: getattr(request, name) for name in type(request).model_fields if name not in _IRRELEVANT}
    content = {name: plain(value) if isinstance(value, Decimal) else value for name, value in said.items()}
    return hashlib.sha256(json.dumps([kind, content], sort_keys=True, default=time_text).encode()).hexdigest()


def known(book: Book, request_id: str) -> KnownOperation | None:
    """Return an operation that was asked for before."""
    found = book.db.execute(
        "SELECT kind, request, hash, order_id, outcome, reply, "
        "(SELECT count(*) FROM sendings WHERE sendings.request_id = operations.request_id) "
        "FROM operations WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if found is None:
        return None
    kind, request, digest, order_id, outcome, reply, sendings = found
    answered = OperationReply.decode(reply) if reply else None
    return KnownOperation(kind, OPERATIONS[kind].decode(request), digest, order_id, outcome, answered, sendings)


def record(book: Book, kind: str, request: OperationRequest) -> KnownOperation | None:
    """Return what is known of an operation, recording it if it is new; of an order of ours it is reported.

    None: it is so old that it may have been in the journal, and have left it. It is not recorded.
    """
    before = known(book, request.request_id)
    if before is not None:
        return before
    if book.may_have_left(request.not_after):
        return None
    order_id = _order_of(book, request)
    book.db.execute(
        "INSERT INTO operations (request_id, kind, hash, at, order_id, request) VALUES (?, ?, ?, ?, ?, ?)",
        (
            request.request_id,
            kind,
            digest_of(kind, request),
            time_text(book.clock()),
            order_id,
            request.encode(),
        ),
    )
    if order_id is not None:
        kind_said, body = _requested(request)
        book.report(kind_said, order_id, body)
    recorded = known(book, request.request_id)
    assert recorded is not None
    return recorded


def _order_of(book: Book, request: OperationRequest) -> str | None:
    if not isinstance(request, CancelRequest | ModifyRequest):
        return None
    if request.order_id is not None:
        return request.order_id if book.row(request.order_id) is not None else None
    found = book.db.execute("SELECT order_id FROM tickets WHERE ticket = ?", (request.ticket,)).fetchone()
    return str(found[0]) if found else None


def _requested(request: OperationRequest) -> tuple[ReportKind, ReportBody]:
    if isinstance(request, CancelRequest):
        body = facts.CancelRequested(request_id=request.request_id, issued_by=request.issued_by)
        return "cancel_requested", body
    wanted = request.model_dump(mode="json", include=set(_GIVEN), exclude_none=True)
    return "modify_requested", facts.ModifyRequested(
        request_id=request.request_id, changes=wanted, issued_by=request.issued_by
    )


def unfinished(book: Book) -> list[KnownOperation]:
    """Return the operations without an outcome, in order of arrival."""
    found = book.db.execute("SELECT request_id FROM operations WHERE outcome IS NULL ORDER BY position").fetchall()
    return [operation for (request_id,) in found if (operation := known(book, request_id)) is not None]


def send(book: Book, request_id: str, magic: int, ticket: int, *, overwrites: bool, unseen_s: float) -> str | None:
    """Note that a request goes out now, under this magic, about this ticket; return why it may not.

    ``overwrites``: it gives all values anew, and must not take back those that somebody asked for after it, nor those
    that it is to keep, of a request sent in the last ``unseen_s``, which the tables may not show yet.
    """
    if overwrites and (later := newer(book, request_id, ticket)) is not None:
        return f"request {later} came after it and set other values: they stand"
    if overwrites and (other := unseen(book, request_id, ticket, unseen_s)) is not None:
        return f"request {other} may have set what this one keeps and is not seen yet: ask for it again, or name all"
    book.db.execute("INSERT INTO sendings VALUES (?, ?, ?)", (magic, request_id, time_text(book.clock())))
    book.db.execute("UPDATE operations SET ticket = ? WHERE request_id = ?", (ticket, request_id))
    return None


def newer(book: Book, request_id: str, ticket: int) -> str | None:
    """Return a later operation of the same kind that gave ``ticket`` values of its own, or found them there."""
    found = book.db.execute(
        "SELECT later.request_id FROM operations AS later JOIN operations AS own ON own.request_id = ? "
        "WHERE later.ticket = ? AND later.kind = own.kind AND later.position > own.position "
        "AND (later.outcome = 'done' "
        "OR EXISTS (SELECT 1 FROM sendings WHERE sendings.request_id = later.request_id)) LIMIT 1",
        (request_id, ticket),
    ).fetchone()
    return str(found[0]) if found else None


def unseen(book: Book, request_id: str, ticket: int, unseen_s: float) -> str | None:
    """Return another operation without an outcome that may have given ``ticket`` a value which this one keeps."""
    own = known(book, request_id)
    assert own is not None
    since = time_text(book.clock() - timedelta(seconds=unseen_s))
    found = book.db.execute(
        "SELECT request_id FROM operations WHERE ticket = ? AND kind = ? AND outcome IS NULL AND request_id <> ? "
        "AND EXISTS (SELECT 1 FROM sendings WHERE sendings.request_id = operations.request_id AND sendings.at > ?)",
        (ticket, own.kind, request_id, since),
    ).fetchall()
    for (other_id,) in found:
        other = known(book, other_id)
        if other is not None and _values(other.request) - _values(own.request):
            return str(other_id)
    return None


def _values(request: OperationRequest) -> set[str]:
    return {name for name in _GIVEN if getattr(request, name, None) is not None}


def withdraw(book: Book, magic: int) -> None:
    """Note that it never went out."""
    book.db.execute("DELETE FROM sendings WHERE magic = ?", (magic,))


def finish(
    book: Book, reply: OperationReply, order_id: str | None, said: tuple[ReportKind, ReportBody] | None = None
) -> None:
    """Keep the final answer, once; with it, what it means for an order of ours."""
    moved = book.db.execute(
        "UPDATE operations SET outcome = ?, reply = ?, order_id = coalesce(?, order_id), ticket = coalesce(ticket, ?) "
        "WHERE request_id = ? AND outcome IS NULL",
        (reply.outcome, reply.encode(), order_id, reply.ticket, reply.request_id),
    ).rowcount
    if moved and said is not None and order_id is not None:
        book.report(said[0], order_id, said[1])
        if isinstance(said[1], facts.Modified):
            book.modified(order_id, said[1].changes)


def ticket_of(book: Book, order_id: str) -> tuple[int | None, JournalRow | None]:
    """Return the ticket under which an order works, or worked last, and its row."""
    found = book.db.execute(
        "SELECT ticket FROM tickets WHERE order_id = ? ORDER BY state = 'live' DESC, ticket DESC LIMIT 1", (order_id,)
    ).fetchone()
    return (int(found[0]) if found else None), book.row(order_id)


def names(book: Book, rows: list[tuple[int, int]]) -> dict[int, str]:
    """Return whose (ticket, magic) are orders of ours: by the ticket, else by the magic."""
    owners: dict[int, str] = {}
    for ticket, magic in rows:
        found: Any = book.db.execute("SELECT order_id FROM tickets WHERE ticket = ?", (ticket,)).fetchone()
        if found is None and magic:
            found = book.db.execute("SELECT order_id FROM rows WHERE magic = ?", (kept(magic),)).fetchone()
        if found is not None:
            owners[ticket] = found[0]
    return owners


def magic_for(request_id: str, number: int) -> int:
    """Return the magic of an operation's n-th sending; :func:`tag_key` gives its tag."""
    return magic_of(tag_key(request_id, number))


def tag_key(request_id: str, number: int) -> str:
    """Return the name that magic and tag of a sending are made of."""
    return f"operation:{request_id}:{number}"
