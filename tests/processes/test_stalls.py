from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from streamapp.processes.stalls import notice_stalls

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
LONGEST_S = 5.0


@pytest.mark.parametrize(
    ("jump_s", "noticed"), [(0.0, False), (LONGEST_S / 2, False), (3600.0, True), (-3600.0, False)]
)
async def test_a_machine_that_slept_is_noticed_when_it_wakes(jump_s: float, noticed: bool) -> None:
    jumped, said = 0.0, list[str]()
    readings: asyncio.Queue[None] = asyncio.Queue()

    def clock() -> datetime:
        readings.put_nowait(None)
        return NOON + timedelta(seconds=jumped)

    watching = asyncio.create_task(notice_stalls(clock, said.append, longest_s=LONGEST_S, beat_s=0.0))
    await readings.get()
    jumped = jump_s
    for _ in range(10):
        await asyncio.wait_for(readings.get(), 30)
    watching.cancel()
    assert said == ([f"this process stood still for {jump_s:.0f} s"] if noticed else [])
