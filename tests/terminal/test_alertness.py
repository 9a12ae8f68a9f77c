from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from streamapp.terminal import alertness
from streamapp.terminal.alertness import BLIND_S, notice_stalls

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(("asleep_s", "noticed"), [(0.0, False), (BLIND_S / 2, False), (3600.0, True)])
async def test_a_machine_that_slept_is_noticed_when_it_wakes(
    asleep_s: float, noticed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alertness, "BEAT_S", 0.0)
    beats, said, third = 0, list[str](), asyncio.Event()

    def clock() -> datetime:
        nonlocal beats
        beats += 1
        if beats >= 6:  # two readings a beat
            third.set()
        return NOON + timedelta(seconds=asleep_s if beats >= 4 else 0.0)

    watching = asyncio.create_task(notice_stalls(clock, said.append))
    await asyncio.wait_for(third.wait(), 30)
    watching.cancel()
    assert said == ([f"this process stood still for {asleep_s:.0f} s"] if noticed else [])
