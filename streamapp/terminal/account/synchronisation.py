"""Whether what the terminal shows is believed: not before two equal looks at the past (reference mt5 §2.5)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from streamapp.domain.vocabulary import time_text
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.journal.book import Book
from streamapp.terminal.pipe.answers import PastSeen
from streamapp.terminal.pipe.calls import ReadPast

logger = logging.getLogger(__name__)

OVERLAP = timedelta(days=1)
"""How far before the watermark history is read: a deal that the server shows late is dated when it happened."""
FUTURE = timedelta(days=2)
"""History is compared with the server's clock, which may be ahead of ours; more than any offset."""
SAME_DAY = timedelta(hours=2)
"""Deals so near to the window's begin may lie outside it by now: the server's clock goes to summer time and back."""
BELIEVED_ANYWAY_S = 120.0
"""After so long without any change, what is lacking is the broker's doing (a deal it deleted) and is believed with an
error in the log: longer than any download of history, and than the settle window of a doubt."""
END_OF_TIME_S = 2**31 - 1
"""The last second that the module's dates can hold."""


def watermark(book: Book) -> datetime:
    """Return up to when history was known to be complete.

    A new journal begins now, and so with one day of history, and with what is open (watch.py).
    """
    text, now = book.meta("history_watermark"), book.clock()
    if text is None:
        text = time_text(now)
        book.set_meta("history_watermark", text)
    return min(datetime.fromisoformat(text), now)


def known_deals(book: Book) -> tuple[datetime, list[int]]:
    """Return the begin of the history that concerns us, and the journal's deals that must be in it."""
    since = watermark(book) - OVERLAP
    found = book.db.execute(
        "SELECT deal FROM deals WHERE at >= :since UNION ALL SELECT deal FROM account_operations WHERE at >= :since",
        {"since": time_text(since + SAME_DAY)},
    )
    return since, [deal for (deal,) in found]


@dataclass(frozen=True)
class _Look:
    digest: int
    at_s: float
    """Of the loop's clock, when the look ended; ``first_s`` when the first of an unbroken row of equal ones did."""
    first_s: float


@dataclass
class Synchronisation:
    """The looks of one connection, from its first moment to the second of two equal ones.

    Attributes:
        connected_at: Its first moment; what is later does not count.
        since, known: See :func:`known_deals`.
        tick_s: The newest tick at that moment, in the server's seconds: its clock may be ahead of what we think.
        apart_s: How far apart two looks must be at least.
        done: Whether the terminal is believed.
        lacking: What the last look lacked, in words.
    """

    connected_at: datetime
    since: datetime
    known: list[int]
    tick_s: int
    apart_s: float
    done: bool = False
    lacking: str = ""
    _before: _Look | None = field(default=None, repr=False)

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time for the next look."""
        return not self.done and (self._before is None or now_s - self._before.at_s >= self.apart_s)

    def next_look(self, time: ServerTime) -> ReadPast:
        """Return the next look. Before the offset is known, everything counts: it may not converge."""
        cut = END_OF_TIME_S if time.offset_s is None else max(time.server_s(self.connected_at), self.tick_s)
        return ReadPast(
            since=time.server_s(self.since),
            cut=cut,
            until=time.server_s(self.connected_at + FUTURE),
            known=tuple(self.known),
        )

    def learn(self, look: PastSeen, ended_s: float) -> bool:
        """Take a look that ended at ``ended_s`` of the loop's clock; True if the terminal is believed from now on."""
        digest, before = look.digest, self._before
        self.lacking = look.lacking
        if digest is None:
            self._before = None
            return False
        equal = before is not None and before.digest == digest
        first_s = before.first_s if before is not None and equal else ended_s
        self._before = _Look(digest, ended_s, first_s)
        if equal and self.lacking and ended_s - first_s >= BELIEVED_ANYWAY_S:
            logger.error("%s; nothing changed for %.0f s, so it is believed", self.lacking, ended_s - first_s)
            self.lacking = ""
        self.done = equal and not self.lacking
        return self.done
