"""Whether this process was awake all the time: what nobody looked at for a while may have come and gone unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamapp.clock import Clock

BEAT_S = 1.0


async def notice_stalls(
    clock: Clock, on_stall: Callable[[str], None], *, longest_s: float, beat_s: float = BEAT_S
) -> None:
    """Tell ``on_stall``, with a sentence, whenever this process stood still for ``longest_s``; for ever.

    Stopped and continued, starved, paused with its machine, or asleep with it: the steady clock shows the first ones,
    the calendar's the last.
    """
    loop = asyncio.get_running_loop()
    while True:
        steady_s, at = loop.time(), clock()
        await asyncio.sleep(beat_s)
        late_s = max(loop.time() - steady_s, (clock() - at).total_seconds()) - beat_s
        if late_s >= longest_s:
            on_stall(f"this process stood still for {late_s:.0f} s")
