"""Time of the market: real or virtual, UTC inside, shown as server wall clock outside; and trading hours."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

# A broker on New York close time is at UTC+2, and at UTC+3 while the United States are on summer time.
NEW_YORK = "ny"
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def _is_us_summer(at: datetime) -> bool:
    """Whether US daylight saving time holds: second Sunday of March to first Sunday of November, 2 a.m. local."""
    march, november = datetime(at.year, 3, 8, 7, tzinfo=UTC), datetime(at.year, 11, 1, 6, tzinfo=UTC)
    begins = march + timedelta(days=(6 - march.weekday()) % 7)
    ends = november + timedelta(days=(6 - november.weekday()) % 7)
    return begins <= at < ends


class Clock:
    """The wall clock. ``server_ms`` is what MT5 shows: UTC plus the server's offset, encoded as if it were UTC.

    ``shift_ms`` is what somebody has put the server's clock forward by since.
    """

    virtual = False

    def __init__(self, offset: str = "2") -> None:
        """``offset``: hours ahead of UTC, or "ny" for +2/+3 by the US summer time."""
        self.shift_ms = 0
        self._by_season = offset == NEW_YORK
        self._offset_ms = 0 if self._by_season else round(float(offset) * HOUR_MS)
        self._hour_ms = -HOUR_MS

    def utc_ms(self) -> int:
        """Return now, in milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    def offset_ms(self, utc_ms: int | None = None) -> int:
        """Return what the server's wall clock is ahead of UTC by, now or at ``utc_ms``."""
        if self._by_season:
            at = self.utc_ms() if utc_ms is None else utc_ms
            # Summer time begins and ends at a full hour, so one look serves for the whole hour.
            if not 0 <= at - self._hour_ms < HOUR_MS:
                self._hour_ms = at - at % HOUR_MS
                self._offset_ms = (3 if _is_us_summer(datetime.fromtimestamp(at / 1000, UTC)) else 2) * HOUR_MS
        return self._offset_ms + self.shift_ms

    def utc_of(self, server_ms: int) -> int:
        """Return when the server's wall clock shows ``server_ms``, over the changes of summer time too."""
        return server_ms - self.offset_ms(server_ms - self.offset_ms(server_ms - self.offset_ms()))

    def server_ms(self) -> int:
        """Return now, as the server shows it."""
        return self.utc_ms() + self.offset_ms()

    def utc_text(self) -> str:
        """Return now, RFC 3339 UTC with microseconds."""
        return (
            datetime.fromtimestamp(self.utc_ms() / 1000, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        )


class VirtualClock(Clock):
    """A clock that moves only when told to: the same calls give the same times."""

    virtual = True

    def __init__(self, offset: str = "2", start_ms: int = 1_767_571_200_000) -> None:
        """Start on Monday 2026-01-05 00:00 UTC unless told otherwise: a trading day, far from any rollover."""
        super().__init__(offset)
        self._now_ms = start_ms

    def utc_ms(self) -> int:
        """Return now, in milliseconds since the epoch, UTC."""
        return self._now_ms

    def move_to(self, utc_ms: int) -> None:
        """Go forward to ``utc_ms``; never back."""
        self._now_ms = max(self._now_ms, utc_ms)


def is_open(session: str, server_ms: int) -> bool:
    """Return whether the market of this kind is open.

    Kinds: always; forex (Monday 00:00 to Friday 24:00); index (forex with a break from 23:00 to 24:00);
    stock (weekdays 16:30 to 23:00).
    """
    if session == "always":
        return True
    weekday, time = (server_ms // DAY_MS + 3) % 7, server_ms % DAY_MS
    if weekday >= 5:
        return False
    if session == "index":
        return time < 23 * HOUR_MS
    if session == "stock":
        return 16.5 * HOUR_MS <= time < 23 * HOUR_MS
    return True
