"""What is searched for garbage, seen from a process of its own: how much is frozen is a matter of the whole process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SEEN = """
import gc, weakref
from streamapp.processes.garbage import collect_all, settle

class Thing:
    pass

def a_cycle():
    first = Thing()
    first.itself = first
    return first

settle()
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", SEEN + code], check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_what_outlived_a_full_search_is_searched_no_more(times: int) -> None:
    run("kept = [Thing() for _ in range(1000)]\n" + "gc.collect()\n" * times + "assert not gc.get_objects(2)\n")


def test_a_cycle_that_is_garbage_at_once_is_collected_by_python_itself() -> None:
    run("seen = weakref.ref(a_cycle())\ngc.collect()\nassert seen() is None\n")


def test_a_cycle_that_outlived_a_full_search_is_collected_when_everything_is_searched() -> None:
    run(
        "cycle = a_cycle()\nseen = weakref.ref(cycle)\ngc.collect()\ndel cycle\n"
        "gc.collect()\nassert seen() is not None\ncollect_all()\nassert seen() is None\n"
    )


def test_to_settle_twice_is_to_settle_once() -> None:
    run("before = len(gc.callbacks)\nsettle()\nassert len(gc.callbacks) == before\n")
