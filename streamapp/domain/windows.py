"""Windows of the week in which nothing is opened, as settings say them: ``mon-fri 21:55-22:10 broker``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[-,][a-z]{3})*) )?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)(?P<broker> broker)?"
)
_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True)
class NoTradeWindow:
    """A time of day, on some days of the week; one that ends before it starts goes on into the next day.

    Attributes:
        text: As it was said.
        days: 0 is Monday; the days on which it starts.
        start, end: Minutes of the day; the end is no part of it.
        by_broker: By the clock of the broker's server, else by UTC.
    """

    text: str
    days: frozenset[int]
    start: int
    end: int
    by_broker: bool

    def has(self, at: datetime, offset_s: int) -> bool:
        """Return whether a moment is in it; ``offset_s`` is what the server's clock is ahead of UTC by."""
        local = at.astimezone(UTC) + timedelta(seconds=offset_s if self.by_broker else 0)
        day, minute = local.weekday(), local.hour * 60 + local.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


@cache
def window(text: str) -> NoTradeWindow:
    """Return the window that a text says.

    Raises:
        ValueError: It says none; the message says what was expected.
    """
    words = " ".join(text.lower().split())
    found = _FORM.fullmatch(words)
    if found is None:
        raise ValueError(f"expected a window like 21:55-22:10, fri 20:00-24:00 or 23:55-00:10 broker, got {text!r:.60}")
    start, end = _minute(found["start"], text), _minute(found["end"], text)
    if start in {end, _DAY_MIN}:
        raise ValueError(f"expected a window that lasts, 00:00-24:00 for a whole day, got {text!r:.60}")
    return NoTradeWindow(words, _days(found["days"], text), start, end, found["broker"] is not None)


def _minute(clock: str, text: str) -> int:
    hours, minutes = map(int, clock.split(":"))
    if minutes >= 60 or hours * 60 + minutes > _DAY_MIN:
        raise ValueError(f"expected times from 00:00 to 24:00, got {text!r:.60}")
    return hours * 60 + minutes


def _days(words: str | None, text: str) -> frozenset[int]:
    if words is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in words.split(","):
        names = part.split("-")
        if len(names) > 2 or any(name not in DAYS for name in names):
            raise ValueError(f"expected days like fri, mon-fri or sat,sun, got {text!r:.60}")
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        days.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return frozenset(days)
