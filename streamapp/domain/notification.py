"""What persons are notified of, and when: kinds of event, quiet hours, and how many messages a minute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Literal, get_args

NotificationEvent = Literal[
    "doubt",
    "trading",
    "break",
    "rejected",
    "stop_out",
    "day_limit",
    "disconnected",
    "unprotected",
    "dead_letter",
    "statement",
]
"""trading: an account was halted, is reducing, or was resumed. day_limit: a step of a day's loss or drawdown limit.
statement: a day of an account, at its broker's midnight."""
Urgency = Literal["info", "warning", "critical"]
URGENCIES: tuple[Urgency, ...] = get_args(Urgency)
"""Each is more urgent than those before it."""
MINUTE = timedelta(minutes=1)


def is_as_urgent(urgency: Urgency, least: Urgency) -> bool:
    """Return whether ``urgency`` is ``least`` or more."""
    return URGENCIES.index(urgency) >= URGENCIES.index(least)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From ``begins`` to ``ends`` by the clocks of ``zone``, over midnight too; what is ``passes`` or more passes."""

    begins: time
    ends: time
    zone: tzinfo
    passes: Urgency = "critical"

    def until(self, now: datetime) -> datetime | None:
        """Return when the quiet that ``now`` is in ends, in UTC; None if it is not quiet."""
        local = now.astimezone(self.zone)
        at = local.time()
        is_over_midnight = self.begins > self.ends
        if not (at >= self.begins or at < self.ends if is_over_midnight else self.begins <= at < self.ends):
            return None
        # In autumn an hour comes twice: the end that is meant is the one in the hour that it is.
        day = local.date() if at < self.ends else local.date() + timedelta(days=1)
        return datetime.combine(day, self.ends, self.zone).replace(fold=local.fold).astimezone(UTC)


def held_until(hours: QuietHours | None, urgency: Urgency, now: datetime) -> datetime | None:
    """Return until when an event of this urgency waits for the end of the quiet hours; None: it may be told."""
    return None if hours is None or is_as_urgent(urgency, hours.passes) else hours.until(now)


def allowed(sent: Sequence[datetime], now: datetime, per_minute: int) -> int:
    """Return how many messages may be sent now, where these were sent before."""
    return max(0, per_minute - sum(1 for at in sent if now - MINUTE < at))


def batch_size(waiting: int, may_send: int) -> int:
    """Return how many events the next message tells: one, but all that wait where it is the last one for a while."""
    return 0 if may_send == 0 else waiting if may_send == 1 else min(1, waiting)
