"""What the broker's server clock is ahead of UTC by, learned from fresh ticks (reference mt5 §2.7)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

HALF_HOUR_S = 1800
"""Servers differ from UTC by whole half hours; one whose clock is wrong, or is being set, by anything."""
_PLAUSIBLE_S = 60.0
"""A tick so near to a whole half hour belongs to it: our own clock is off, or the tick is a little old. Other offsets
are taken as they are measured. A single tick is believed within it: a stale one would be by chance in 1 of 15 cases,
and is then corrected by the first ticks that move."""
_FARTHEST_S = 14 * 3600
"""No time zone is further from UTC. A tick of last Friday is, and shows nothing unless it moves."""
_AGREE_S = 5.0
"""Two fresh ticks show the same offset if they differ by no more: each is as old as the last look, at most."""


class ServerTime:
    """The offset; ``offset_s`` is None until a tick has shown it."""

    def __init__(self, offset_s: int | None = None) -> None:
        self.offset_s = offset_s
        self._last_ms = 0
        self._newest_ms = 0
        self._other: float | None = None

    def observe(self, tick_ms: int, now: datetime) -> bool:
        """Learn from a tick that was read just now; True if the offset changed.

        A tick that is another one than at the last look is fresh, or as old as the last look is: also an earlier one,
        for a server's clock goes back, too. Another offset than the known one, of any size, is believed from the second
        such tick in a row on; at once if it is near to a whole half hour ahead: no tick is from its own server's
        future.
        """
        moved, known = self._last_ms not in (0, tick_ms), self._last_ms == tick_ms
        self._last_ms = tick_ms
        self._newest_ms = max(self._newest_ms, tick_ms)
        ahead_s = tick_ms / 1000 - now.timestamp()
        if self.offset_s is not None and abs(ahead_s - self.offset_s) <= _PLAUSIBLE_S:
            self._other = None
            return False
        offset_s, other, self._other = _nearest(ahead_s), self._other, ahead_s
        is_told_twice = moved and other is not None and abs(ahead_s - other) <= _AGREE_S
        # One that was seen before says no more than it did then: a deal may have shown a clock that went back since.
        if not (is_told_twice or (not known and self._is_told_at_once(ahead_s, offset_s))):
            return False
        self._change(offset_s, tick_ms)
        return True

    def observe_deal(self, deal_ms: int, now: datetime) -> bool:
        """Learn from a deal of an order that was sent just now; True if the offset changed.

        There is no fresher time of the server's: where the clock changes while an order is on its way, the deal shows
        it before any tick does.
        """
        ahead_s = deal_ms / 1000 - now.timestamp()
        if self.offset_s is None or abs(ahead_s - self.offset_s) <= _PLAUSIBLE_S:
            return False
        self._change(_nearest(ahead_s), deal_ms)
        return True

    def _change(self, offset_s: int, newest_ms: int) -> None:
        # Where the clock went back, the newest tick was of another time.
        self.offset_s, self._other, self._newest_ms = offset_s, None, newest_ms

    def _is_told_at_once(self, ahead_s: float, offset_s: int) -> bool:
        is_zone = (
            offset_s % HALF_HOUR_S == 0 and abs(offset_s) <= _FARTHEST_S and abs(ahead_s - offset_s) <= _PLAUSIBLE_S
        )
        return is_zone and (self.offset_s is None or offset_s > self.offset_s)

    @property
    def newest(self) -> datetime:
        """The server's newest tick, in UTC: so late it is at least, whatever our own clock says; 1970 before any."""
        return self.utc(self._newest_ms)

    @property
    def newest_shown(self) -> datetime:
        """The server's newest tick as the server dates it, whatever our own clock says; 1970 before any."""
        return datetime.fromtimestamp(self._newest_ms / 1000, UTC)

    def utc(self, server_ms: int) -> datetime:
        """Return a server time in UTC; the offset must be known."""
        return datetime.fromtimestamp(server_ms / 1000, UTC) - timedelta(seconds=self.offset_s or 0)

    def server_s(self, at: datetime) -> int:
        """Return a UTC time in the server's seconds, as the history functions compare."""
        return int(at.timestamp()) + (self.offset_s or 0)


def _nearest(ahead_s: float) -> int:
    """Return the whole half hour that a tick so far ahead belongs to, or else the whole second."""
    half_hours = round(ahead_s / HALF_HOUR_S) * HALF_HOUR_S
    return half_hours if abs(ahead_s - half_hours) <= _PLAUSIBLE_S else round(ahead_s)
