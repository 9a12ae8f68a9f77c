"""The time, as an argument: whoever needs it takes a ``Clock``, and only composition roots choose the real one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the time now, aware and in UTC."""


def utc_now() -> datetime:
    """Return this machine's time in UTC."""
    return datetime.now(UTC)
