"""A stop that does not come to its end is ended, and a task that goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from streamapp.processes import stopping

HANGING = """
import logging, time
from streamapp.processes.stopping import within_grace
logging.basicConfig()
with within_grace({grace_s}, "it is done at the next start"):
    time.sleep({takes_s})
print("done")
"""


def stop(grace_s: float, takes_s: float) -> subprocess.CompletedProcess[str]:
    program = HANGING.format(grace_s=grace_s, takes_s=takes_s)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_a_stop_that_takes_too_long_is_ended_with_a_word_and_exit_code_0() -> None:
    done = stop(grace_s=0.01, takes_s=300)
    assert done.returncode == 0
    assert "not finished after 0.01 s, and ends here: it is done at the next start" in done.stderr
    assert done.stdout == ""


def test_a_stop_that_is_over_in_time_is_left_alone() -> None:
    assert stop(grace_s=30, takes_s=0).stdout == "done\n"


async def test_a_task_that_forgets_a_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "CANCEL_AGAIN_S", 0.01)
    answered, forgotten = asyncio.Event(), 0

    async def ask_for_ever() -> None:
        nonlocal forgotten
        while True:
            try:
                await answered.wait()
            except asyncio.CancelledError:
                if forgotten == 2:
                    raise
                forgotten += 1

    async def fail() -> None:
        raise ValueError

    asking, failing = asyncio.create_task(ask_for_ever()), asyncio.create_task(fail())
    await asyncio.sleep(0)
    await stopping.cancelled(asking, failing)
    assert (forgotten, asking.cancelled(), isinstance(failing.exception(), ValueError)) == (2, True, True)
    await stopping.cancelled()
