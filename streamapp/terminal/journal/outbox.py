"""The lowest part of the journal's book: key-value metadata, the halt of the account, and the outbox of reports."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from streamapp.clock import Clock
from streamapp.domain.vocabulary import time_text
from streamapp.messages.log import GENESIS_HASH
from streamapp.messages.report import Report, ReportBody, ReportKind

logger = logging.getLogger(__name__)

COUNTERS = ("absent", "late_appearances")
"""How many orders were called absent, and how many appeared at the broker after they had ended without it."""


@dataclass(frozen=True)
class Ends:
    """Up to where numbers were given: the last report's, the last log entry's, and that one's hash."""

    seq: int
    log_seq: int
    log_hash: str


class OutboxRows:
    """Key-value metadata and reports. ``boot`` names this life of the process, ``epoch`` the life of the file."""

    def __init__(self, db: sqlite3.Connection, account: str, clock: Clock) -> None:
        self.db = db
        self.account = account
        self.clock = clock
        self.boot = uuid4().hex
        self.fresh: dict[str, list[tuple[int, bytes]]] = {"reports": [], "log": []}
        """What this transaction put into each outbox, by its name: it is published from here, not read again."""
        self._doubted: list[str] = []
        self.epoch = self.meta("epoch") or ""
        # This process owns the file: what it gave and released last need not be read again.
        self._released_seq = int(self.meta("released_seq") or 0)
        self.ends = self._read_ends()
        self.halt_reason = self.meta("halted")
        """Why the account opens nothing more; None: it opens."""
        self.forgotten_history_s = int(self.meta("forgotten_history_s") or 0)
        """Up to when, in seconds as the broker dates its deals, a deal that is not in the journal may have left it."""

    # -- meta

    def meta(self, key: str) -> str | None:
        """Return a value kept under a name."""
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return found[0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a value under a name."""
        self.db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    # -- what has left the journal (pruning.py)

    def may_have_left(self, not_after: datetime) -> bool:
        """Return whether an order or operation that is not in the journal may have been, and have left it.

        No clock is asked: a request carries its not_after for ever, and the latest one that left is on record.
        """
        mark = self.meta("forgotten_until")
        return mark is not None and not_after <= datetime.fromisoformat(mark)

    def forget_until(self, not_after: datetime) -> None:
        """Note that a request with this not_after leaves, in the transaction in which it does."""
        if not self.may_have_left(not_after):
            self.set_meta("forgotten_until", time_text(not_after))

    def forget_history(self, until_s: int) -> None:
        """Note that deals of before this moment leave, in the transaction in which they do."""
        until_s = max(until_s, int(self.meta("forgotten_history_s") or 0))
        self.set_meta("forgotten_history_s", str(until_s))
        self.forgotten_history_s = until_s

    def counter(self, name: str) -> int:
        """Return a count that is kept for all lives of the journal (:data:`COUNTERS`)."""
        return int(self.meta(name) or 0)

    def _count(self, name: str) -> None:
        self.set_meta(name, str(self.counter(name) + 1))

    # -- halting

    def halt(self, reason: str) -> None:
        """Open nothing more until a person says so; the first reason stands."""
        if self.halt_reason is None:
            logger.error("the account opens nothing more: %s", reason)
            self.set_meta("halted", reason)
            self.halt_reason = reason

    def halted(self) -> str | None:
        """Return why the account opens nothing more."""
        return self.halt_reason

    def resume(self, request_id: str | None = None) -> bool:
        """Open again; False if it was not halted, or if the last request to open again was this very one."""
        was = self.halt_reason is not None
        if request_id is not None:
            if self.meta("resumed") == request_id:
                return False
            self.set_meta("resumed", request_id)
        self.db.execute("DELETE FROM meta WHERE key = 'halted'")
        self.halt_reason = None
        return was

    # -- outbox

    def report(self, kind: ReportKind, order_id: str | None, body: ReportBody) -> None:
        """Put a report into the outbox under the next seq."""
        seq = self.ends.seq + 1
        self.ends = replace(self.ends, seq=seq)
        report = Report(seq=seq, at=self.clock(), kind=kind, order_id=order_id, body=body)
        payload = report.model_dump_json().encode()
        self.db.execute("INSERT INTO outbox VALUES (?, ?)", (seq, payload))
        self.fresh["reports"].append((seq, payload))

    def last_seq(self) -> int:
        """Return the highest seq given so far."""
        return self.ends.seq

    def _read_ends(self) -> Ends:
        last = self.db.execute("SELECT max(seq) FROM outbox").fetchone()[0]
        seq = int(last) if last is not None else self._released_seq
        return Ends(seq, int(self.meta("log_seq") or 0), self.meta("log_hash") or GENESIS_HASH)

    def released_seq(self) -> int:
        """Return up to where the reports are durable with the reports agent."""
        return self._released_seq

    def release(self, watermark: int) -> int:
        """Forget the reports up to ``watermark``, never more than were given; return the new released seq."""
        watermark = min(watermark, self.last_seq())
        if watermark > self._released_seq:
            self.set_meta("released_seq", str(watermark))
            self.db.execute("DELETE FROM outbox WHERE seq <= ?", (watermark,))
            self._released_seq = watermark
        return self._released_seq

    def outbox(self, after_seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Return (seq, encoded Report) of the next reports after ``after_seq``."""
        return self.db.execute(
            "SELECT seq, payload FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?", (after_seq, limit)
        ).fetchall()
