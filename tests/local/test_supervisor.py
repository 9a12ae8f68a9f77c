from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from streamapp.errors import Transient
from streamapp.local.process import ProcessSpec
from streamapp.local.supervisor import Supervisor
from tests.kit.waiting import eventually

STAYS = "import signal; signal.pause()"
WITH_A_CHILD = """
import pathlib, subprocess, sys, signal
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
signal.pause()
"""


def spec(
    name: str, code: str, *arguments: str, ready: Callable[[], bool] = lambda: True, **limits: float
) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", code, *arguments), ready=ready, **limits)  # type: ignore[arg-type]


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
async def supervisor(tmp_path: Path, said: list[str]) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "logs", said.append)
    yield supervisor
    await supervisor.stop()


async def test_a_process_that_dies_is_restarted_and_its_last_log_lines_are_shown(
    supervisor: Supervisor, said: list[str]
) -> None:
    await supervisor.start([spec("worker", f"print('what went wrong', flush=True); {STAYS}")])
    first = supervisor.processes["worker"]
    await eventually(lambda: "what went wrong" in first.log.read_text())
    os.kill(first.pid, signal.SIGKILL)
    await eventually(lambda: supervisor.processes.get("worker", first).pid != first.pid)
    shown = "\n".join(said)
    assert "worker was ended by signal 9" in shown
    assert "what went wrong" in shown
    assert "worker restarts in 0.5 s" in shown


async def test_a_process_that_never_becomes_ready_is_given_up_with_its_log(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamapp.local.supervisor.FIRST_BACKOFF_S", 0.01)
    with pytest.raises(Transient) as caught:
        await supervisor.start([spec("worker", "raise SystemExit('no such setting')", ready=lambda: False)])
    assert "no such setting" in str(caught.value)


async def test_a_process_without_an_answer_in_time_is_an_error_that_says_so(supervisor: Supervisor) -> None:
    with pytest.raises(Transient) as caught:
        await supervisor.start([spec("worker", STAYS, ready=lambda: False, ready_within_s=0.2)])
    assert "expected worker ready within 0 s, got no answer" in str(caught.value)


async def test_stopping_goes_backwards_and_leaves_no_process(tmp_path: Path, said: list[str]) -> None:
    order = tmp_path / "order"
    tells = (
        "import pathlib, signal, sys\n"
        "def end(*_):\n"
        "    with open(sys.argv[1], 'a') as file: file.write(sys.argv[2])\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path(sys.argv[1] + sys.argv[2]).touch()\n"
        "signal.pause()\n"
    )
    supervisor = Supervisor(tmp_path / "logs", said.append)
    for name in "ab":
        ready = Path(f"{order}{name}").exists
        await supervisor.start([spec(name, tells, str(order), name, ready=ready)])
    pids = [process.pid for process in supervisor.processes.values()]
    await supervisor.stop()
    assert order.read_text() == "ba"
    assert all(is_gone(pid) for pid in pids)


async def test_what_ignores_sigterm_is_killed_with_its_children(tmp_path: Path, said: list[str]) -> None:
    child_file = tmp_path / "child"
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WITH_A_CHILD}"
    supervisor = Supervisor(tmp_path / "logs", said.append)
    await supervisor.start(
        [
            spec(
                "deaf",
                deaf,
                str(child_file),
                ready=lambda: child_file.exists() and bool(child_file.read_text()),
                stop_within_s=0.2,
            )
        ]
    )
    pid, child = supervisor.processes["deaf"].pid, int(child_file.read_text())
    await supervisor.stop()
    await eventually(lambda: is_gone(pid) and is_gone(child))
    assert any("deaf did not stop within 0.2 s and is killed" in line for line in said)


async def test_a_killed_supervisor_leaves_no_process_and_no_grandchild(tmp_path: Path) -> None:
    script = tmp_path / "up.py"
    script.write_text(
        f"""
import asyncio, sys
from pathlib import Path
from streamapp.local.process import ProcessSpec
from streamapp.local.supervisor import Supervisor

async def main():
    folder = Path(sys.argv[1])
    supervisor = Supervisor(folder / "logs", lambda line: None)
    code, child = {WITH_A_CHILD!r}, folder / "child"
    ready = lambda: child.exists() and bool(child.read_text())
    spec = ProcessSpec("worker", (sys.executable, "-c", code, str(child)), ready)
    await supervisor.start([spec])
    (folder / "pid").write_text(str(supervisor.processes["worker"].pid))
    (folder / "up").touch()
    await asyncio.Event().wait()

asyncio.run(main())
"""
    )
    up = subprocess.Popen([sys.executable, str(script), str(tmp_path)])
    await eventually((tmp_path / "up").exists)
    pid, child = int((tmp_path / "pid").read_text()), int((tmp_path / "child").read_text())
    up.kill()
    up.wait()
    await eventually(lambda: is_gone(pid) and is_gone(child))
