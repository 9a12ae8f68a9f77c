"""Whether we were awake all the time: what nobody looked at for a while may have come and gone unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamapp.clock import Clock

BLIND_S = 5.0
"""Longer without a look, and the connection may have been lost and made again, with a stale cache, unnoticed: a
terminal program needs several seconds for it. Far longer than any look of ours takes."""
BEAT_S = 1.0


async def notice_stalls(clock: Clock, on_stall: Callable[[str], None]) -> None:
    """Tell ``on_stall``, with a sentence, whenever this process stood still for ``BLIND_S``; for ever.

    Stopped and continued, starved, paused with its machine, or asleep with it: the steady clock shows the first ones,
    the calendar's the last.
    """
    loop = asyncio.get_running_loop()
    while True:
        steady_s, at = loop.time(), clock()
        await asyncio.sleep(BEAT_S)
        late_s = max(loop.time() - steady_s, (clock() - at).total_seconds()) - BEAT_S
        if late_s >= BLIND_S:
            on_stall(f"this process stood still for {late_s:.0f} s")
