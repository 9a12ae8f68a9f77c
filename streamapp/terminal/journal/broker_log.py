"""The account's broker log in the journal: a hash chain with its own seq, released by JetStream's ack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from streamapp.messages.log import BrokerLogEntry, chained
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.outbox import Ends
from streamapp.terminal.pipe.answers import Exchange

LARGEST_B = 890_000
"""Most bytes in one entry: mirror carries 900,000 in a message, which names the account around it, and an entry that
NATS never takes would stop all that come after it."""


def append(book: Book, exchanges: Sequence[Exchange], order_id: str | None = None) -> None:
    """Add what the worker exchanged with the terminal program, oldest first."""
    if not exchanges:
        return
    seq, previous = book.ends.log_seq, book.ends.log_hash
    for exchange in exchanges:
        seq += 1
        entry = _entry(book, previous, seq, exchange, order_id)
        payload = entry.encode()
        if len(payload) > LARGEST_B:
            entry = _entry(book, previous, seq, replace(exchange, response={"left_out_bytes": len(payload)}), order_id)
            payload = entry.encode()
        previous = entry.hash
        book.db.execute("INSERT INTO log VALUES (?, ?)", (seq, payload))
        book.fresh["log"].append((seq, payload))
    book.set_meta("log_seq", str(seq))
    book.set_meta("log_hash", previous)
    book.ends = Ends(book.ends.seq, seq, previous)


def _entry(book: Book, previous: str, seq: int, exchange: Exchange, order_id: str | None) -> BrokerLogEntry:
    return chained(
        previous,
        account=book.account,
        epoch=book.epoch,
        seq=seq,
        at=datetime.fromtimestamp(exchange.at, UTC),
        function=exchange.function,
        request=exchange.request,
        response=exchange.response,
        last_error=exchange.last_error,
        order_id=order_id,
        duration_us=exchange.duration_us,
    )


def waiting(book: Book, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
    """Return the next entries after ``after_seq``."""
    return book.db.execute(
        "SELECT seq, payload FROM log WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
    ).fetchall()


def release(book: Book, seq: int) -> None:
    """Forget the entries up to ``seq``: JetStream has them."""
    book.db.execute("DELETE FROM log WHERE seq <= ?", (seq,))
