"""A stop that does not come to its end is ended."""

from __future__ import annotations

import subprocess
import sys

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
