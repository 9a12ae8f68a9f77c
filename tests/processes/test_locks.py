from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError
from streamapp.processes.locks import FileLock, LockHeldError, end_holder

HOLDER = """
import sys, time
from pathlib import Path
from streamapp.processes.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
ORPHAN = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import os, sys
from streamapp.processes.guard import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
os.read(0, 1)
''', str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
read, write = os.pipe()
os.set_inheritable(child.stdout.fileno(), True)
print("ready", flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_lock_is_free_again_after_its_release(tmp_path: Path) -> None:
    FileLock(tmp_path / "lock").release()
    FileLock(tmp_path / "lock").release()


def test_the_holder_of_a_lock_is_named_and_can_be_ended(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(LockHeldError) as held:
            FileLock(path)
        assert held.value.pid == holder.pid
        assert end_holder(path) == holder.pid
    FileLock(path).release()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_where_nothing_can_be_locked_nobody_is_blamed_for_holding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("streamapp.processes.locks._lock", refuse)
    with pytest.raises(ConfigurationError, match=r"lock, got: No locks available\. Keep it on a local disk") as refused:
        FileLock(tmp_path / "lock")
    assert not isinstance(refused.value, LockHeldError)


def test_nobody_is_ended_for_a_lock_that_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("1")  # the number of a process that has nothing to do with it
    assert end_holder(path) is None


def test_a_child_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        out, _ = parent.communicate(
            timeout=30
        )  # returns when the last holder of the pipe, the grandchild's stderr, is gone
    assert out == b"ready\n"
