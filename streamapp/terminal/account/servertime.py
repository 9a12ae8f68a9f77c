"""What the broker's server clock is ahead of UTC by, learned from fresh ticks (reference mt5 §2.7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_STEP_S = 1800
"""Servers differ from UTC by whole half hours."""
_PLAUSIBLE_S = 60.0
"""A single tick is believed if it is so near to a whole half hour: a stale one would be by chance in 1 of 15 cases, and
is then corrected by the first ticks that move."""
_FARTHEST_S = 14 * 3600
"""No time zone is further from UTC. A tick of last Friday is."""


class ServerTime:
    """The offset; ``offset_s`` is None until a tick has shown it."""

    def __init__(self, offset_s: int | None = None) -> None:
        self.offset_s = offset_s
        self._last_ms = 0
        self._other: int | None = None

    def observe(self, tick_ms: int, now: datetime) -> bool:
        """Learn from a tick that was read just now; True if the offset changed.

        A tick that moved since the last look is fresh, or as old as the last look is. Another offset than the known one
        is believed from the second such tick on (the end of a server's summer time); at once if it is near to a whole
        half hour ahead: no tick is from its own server's future.
        """
        moved = self._last_ms and tick_ms > self._last_ms
        self._last_ms = max(self._last_ms, tick_ms)
        ahead_s = tick_ms / 1000 - now.timestamp()
        offset_s = round(ahead_s / _STEP_S) * _STEP_S
        if abs(offset_s) > _FARTHEST_S or offset_s == self.offset_s:
            self._other = None
            return False
        if self.offset_s is None:
            believed = bool(moved) or abs(ahead_s - offset_s) <= _PLAUSIBLE_S
        else:
            ahead = offset_s > self.offset_s and abs(ahead_s - offset_s) <= _PLAUSIBLE_S
            believed = ahead or (bool(moved) and self._other == offset_s)
            self._other = offset_s if moved else self._other
        if believed:
            self.offset_s = offset_s
        return believed

    @property
    def newest(self) -> datetime:
        """The server's newest tick, in UTC: so late it is at least, whatever our own clock says; 1970 before any."""
        return self.utc(self._last_ms)

    def utc(self, server_ms: int) -> datetime:
        """Return a server time in UTC; the offset must be known."""
        return datetime.fromtimestamp(server_ms / 1000, UTC) - timedelta(seconds=self.offset_s or 0)

    def server_s(self, at: datetime) -> int:
        """Return a UTC time in the server's seconds, as the history functions compare."""
        return int(at.timestamp()) + (self.offset_s or 0)
