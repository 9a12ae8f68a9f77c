"""Waiting for what has no event to await: another process, a server, a thread, a loop's next turns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0
"""How long a test waits for what must come; the machine may be busy with others."""
# Soon enough for what happens in memory, and rare enough for a server that is asked over HTTP.
PAUSE_S = 0.02


async def eventually(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", within_s: float = PATIENCE_S
) -> Any:
    """Return the first true value of ``condition``.

    Args:
        condition: Asked again and again; it may return a coroutine.
        what: What is waited for, in the error; a function if that is only known in the end.
        within_s: A condition that is still being asked then is cancelled.

    Raises:
        AssertionError: It did not become true in time.
    """
    timer = asyncio.timeout(within_s)
    try:
        async with timer:
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(PAUSE_S)
    except TimeoutError:
        if not timer.expired():  # it is the condition's own
            raise
    raise AssertionError(_did_not_come(what, condition, within_s))


def eventually_blocking(condition: Callable[[], Any], what: str = "", within_s: float = PATIENCE_S) -> Any:
    """Return the first true value of ``condition``, in a test that has no loop.

    Raises:
        AssertionError: It did not become true in time.
    """
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, _did_not_come(what, condition, within_s)
        time.sleep(PAUSE_S)
    return found


def _did_not_come(what: str | Callable[[], str], condition: Callable[[], Any], within_s: float) -> str:
    named = what if isinstance(what, str) else what()
    return f"did not come within {within_s} s: {named or condition}"
