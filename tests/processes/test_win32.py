"""What we decide about jobs and consoles, on a kernel of our own; the calls of the real one run on Windows alone."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from streamapp.processes import children, win32

PARENT = 4711


class FakeKernel:
    """Jobs as Windows has them: a job is there as long as a handle of it is open."""

    def __init__(self) -> None:
        self.jobs: dict[int, str] = {}
        self.flags: dict[str, int] = {}
        self.members: list[str] = []
        self.error_mode = 0
        self.handler: Callable[[int], bool] | None = None

    def create_job(self, name: str) -> int:
        self.jobs[len(self.jobs) + 1] = name
        return len(self.jobs)

    def limit_job(self, job: int, flags: int) -> None:
        self.flags[self.jobs[job]] = flags

    def open_job(self, name: str) -> int | None:
        return self.create_job(name) if name in self.jobs.values() else None

    def join_job(self, job: int) -> None:
        self.members.append(self.jobs[job])

    def close(self, handle: int) -> None:
        del self.jobs[handle]

    def set_error_mode(self, mode: int) -> None:
        self.error_mode = mode

    def on_console_event(self, handler: Callable[[int], bool]) -> None:
        self.handler = handler


def test_a_child_joins_the_job_of_its_parent_and_keeps_no_handle_of_it() -> None:
    kernel = FakeKernel()
    win32.keep_children(kernel, PARENT)
    assert win32.join_parent(kernel, PARENT)
    assert kernel.members == [win32.job_name(PARENT)]
    assert list(kernel.jobs.values()) == [win32.job_name(PARENT)]  # the parent's own: with it the members end


def test_members_end_with_the_job_and_what_they_start_is_no_member() -> None:
    """The terminal program that `initialize` starts must not end with a restart of ours."""
    kernel = FakeKernel()
    win32.keep_children(kernel, PARENT)
    assert kernel.flags[win32.job_name(PARENT)] == 0x2000 | 0x1000


def test_a_child_whose_parent_is_gone_finds_no_job() -> None:
    assert not win32.join_parent(FakeKernel(), PARENT)


@pytest.mark.skipif(sys.maxsize < 2**32, reason="the structure has other sizes on 32-bit systems")
def test_the_limits_of_a_job_have_windows_layout() -> None:
    assert ctypes.sizeof(win32.ExtendedLimits) == 144
    assert win32.ExtendedLimits.basic.size == 64
    limits = win32.ExtendedLimits()
    limits.basic.flags = 0x3000
    assert bytes(limits)[16:20] == b"\x00\x30\x00\x00"


@pytest.mark.parametrize("event", [win32.CTRL_C, win32.CTRL_BREAK])
def test_ctrl_c_and_ctrl_break_ask_for_a_stop_and_return_at_once(event: int) -> None:
    kernel, told = FakeKernel(), threading.Event()
    win32.stop_with_console(kernel, told.set)
    assert kernel.handler is not None
    assert kernel.handler(event)
    assert told.is_set()


@pytest.mark.parametrize("event", [2, 5, 6])
def test_a_closed_console_a_logoff_and_a_shutdown_wait_for_the_stop(event: int) -> None:
    kernel, told = FakeKernel(), threading.Event()
    stopped = win32.stop_with_console(kernel, told.set)
    assert kernel.handler is not None
    handled = threading.Thread(target=kernel.handler, args=(event,))
    handled.start()
    assert told.wait(10)
    assert handled.is_alive()
    stopped.set()
    handled.join(10)
    assert not handled.is_alive()


async def test_a_child_of_a_virtual_environment_is_the_interpreter_and_not_its_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launcher = r"C:\streamapp\venv\Scripts\python.exe"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(sys, "executable", launcher)
    monkeypatch.setattr(sys, "_base_executable", r"C:\Python311\python.exe")
    assert children.interpreter() == (r"C:\Python311\python.exe", {"__PYVENV_LAUNCHER__": launcher})


async def test_what_a_child_prints_is_utf_8_whatever_the_machine_speaks(tmp_path: Path) -> None:
    (tmp_path / "speaker.py").write_text("import sys\ndef main(): sys.stderr.write('größer ≥')", encoding="utf-8")
    environment = {"PYTHONPATH": str(tmp_path), "LC_ALL": "C", "PYTHONIOENCODING": ""}
    process = await children.spawn("speaker", environment=environment, stderr=asyncio.subprocess.PIPE)
    assert (await process.communicate())[1] == "größer ≥".encode()
