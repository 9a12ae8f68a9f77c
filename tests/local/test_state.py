from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local.state import StackFolder, StackState, born


def test_a_second_stack_over_one_folder_is_refused_with_pid_and_addresses(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    with folder.owned():
        folder.write(StackState(pid=os.getpid(), addresses={"nats": "nats://127.0.0.1:4222"}))
        with pytest.raises(ConfigurationError, match=rf"pid {os.getpid()}: nats nats://127.0.0.1:4222"):
            StackFolder(tmp_path).owned().__enter__()
        assert StackFolder(tmp_path).running() is not None
    assert StackFolder(tmp_path).running() is None


def test_orphans_of_a_killed_supervisor_are_ended_by_the_next_start(tmp_path: Path) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    StackFolder(tmp_path).write(StackState(pid=1, addresses={}, processes={"worker": (orphan.pid, born(orphan.pid))}))
    with StackFolder(tmp_path).owned():
        assert orphan.wait(timeout=20) == -signal.SIGKILL


def test_a_stranger_with_a_recycled_pid_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    try:
        StackFolder(tmp_path).write(StackState(1, {}, {"worker": (stranger.pid, born(stranger.pid) - 3600)}))
        assert StackFolder(tmp_path).end_orphans() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_torn_state_file_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text('{"pid": 1')
    assert StackFolder(tmp_path).read() is None


def test_stopping_where_nothing_runs_says_so(tmp_path: Path) -> None:
    assert StackFolder(tmp_path).stop() is None


def test_down_ends_the_owner_and_waits_for_it(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from streamapp.local.state import StackFolder, StackState\n"
        "folder = StackFolder(Path(sys.argv[1]))\n"
        "with folder.owned():\n"
        "    folder.write(StackState(os.getpid(), {}))\n"
        "    print('owned', flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"owned\n"
    state = StackFolder(tmp_path).stop()
    assert state is not None
    assert state.pid == owner.pid
    assert owner.wait(timeout=20) == -signal.SIGTERM
    owner.stdout.close()
