"""What Windows does in its own way: jobs whose processes end together, the end of a console, crashes without a dialog.

The decisions are here and know the system by a port; the calls of kernel32 are at the end, for Windows alone.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

KILL_ON_CLOSE = 0x2000
"""JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE: the members end when the last handle of the job closes, and the only one is their
parent's."""
SILENT_BREAKAWAY = 0x1000
"""JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK: what a member starts is no member. `initialize` may start terminal64.exe, and a
restart of ours must not kill the terminal program."""
QUIET_CRASH = 0x8003
"""SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SEM_NOOPENFILEERRORBOX: a crash inside the module ends the worker at
once instead of waiting for somebody to press OK."""
CTRL_C, CTRL_BREAK = 0, 1
LAST_MOMENT_S = 4.0
"""After a closed console, a logoff or a shutdown Windows ends a process 5 s later at the earliest, or as soon as its
handler returns."""


class Kernel(Protocol):
    """The calls of kernel32 that we need. Handles are numbers."""

    def create_job(self, name: str) -> int:
        """Return a new job."""

    def limit_job(self, job: int, flags: int) -> None:
        """Set the job's limits."""

    def open_job(self, name: str) -> int | None:
        """Return an existing job, or None."""

    def join_job(self, job: int) -> None:
        """Make this process a member."""

    def close(self, handle: int) -> None:
        """Close a handle."""

    def set_error_mode(self, mode: int) -> None:
        """Say what happens at critical errors."""

    def on_console_event(self, handler: Callable[[int], bool]) -> None:
        """Call ``handler`` in a thread of the system's; True: it was for us."""


def job_name(parent: int) -> str:
    """Return the name of the job of a process's children; other sessions don't see it."""
    return f"Local\\streamapp-children-of-{parent}"


def keep_children(kernel: Kernel, pid: int) -> None:
    """Make the job for our children; its handle stays open as long as we live, and no other process has one."""
    kernel.limit_job(kernel.create_job(job_name(pid)), KILL_ON_CLOSE | SILENT_BREAKAWAY)


def join_parent(kernel: Kernel, parent: int) -> bool:
    """Become a member of the parent's job; False: the parent is gone, and its job with it."""
    job = kernel.open_job(job_name(parent))
    if job is None:
        return False
    kernel.join_job(job)
    kernel.close(job)  # membership needs no handle, and an open one would keep the job alive
    return True


def stop_with_console(kernel: Kernel, stop: Callable[[], None]) -> threading.Event:
    """Call ``stop`` at Ctrl-C, Ctrl-Break, the console's end, logoff and shutdown.

    The last three end the process as soon as the handler returns: it waits for the returned event, which the caller
    sets when all is stopped.
    """
    stopped = threading.Event()

    def handle(event: int) -> bool:
        stop()
        if event not in {CTRL_C, CTRL_BREAK}:
            stopped.wait(LAST_MOMENT_S)
        return True

    kernel.on_console_event(handle)
    return stopped


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time", ctypes.c_int64),
        ("per_job_user_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("minimum_working_set", ctypes.c_size_t),
        ("maximum_working_set", ctypes.c_size_t),
        ("active_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority_class", ctypes.c_uint32),
        ("scheduling_class", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("basic", _BasicLimits),
        ("io_counters", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


if sys.platform == "win32":
    _EXTENDED_LIMIT_INFORMATION = 9
    _ASSIGN_PROCESS = 0x0001
    _HANDLE, _BOOL, _DWORD = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32
    _Handler = ctypes.WINFUNCTYPE(_BOOL, _DWORD)
    _SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "CreateJobObjectW": (_HANDLE, (ctypes.c_void_p, ctypes.c_wchar_p)),
        "OpenJobObjectW": (_HANDLE, (_DWORD, _BOOL, ctypes.c_wchar_p)),
        "SetInformationJobObject": (_BOOL, (_HANDLE, ctypes.c_int, ctypes.c_void_p, _DWORD)),
        "AssignProcessToJobObject": (_BOOL, (_HANDLE, _HANDLE)),
        "GetCurrentProcess": (_HANDLE, ()),
        "CloseHandle": (_BOOL, (_HANDLE,)),
        "SetErrorMode": (ctypes.c_uint, (ctypes.c_uint,)),
        "SetConsoleCtrlHandler": (_BOOL, (_Handler, _BOOL)),
    }

    class Kernel32:
        """The real one."""

        _handlers: list[Any] = []  # noqa: RUF012 -- what the system calls must not be collected

        def __init__(self) -> None:
            self._dll = ctypes.WinDLL("kernel32", use_last_error=True)
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(self._dll, name)
                function.restype, function.argtypes = result, arguments

        def create_job(self, name: str) -> int:
            """Return a new job."""
            return int(_there(self._dll.CreateJobObjectW(None, name)))

        def limit_job(self, job: int, flags: int) -> None:
            """Set the job's limits."""
            limits = ExtendedLimits()
            limits.basic.flags = flags
            size = ctypes.sizeof(limits)
            _there(self._dll.SetInformationJobObject(job, _EXTENDED_LIMIT_INFORMATION, ctypes.byref(limits), size))

        def open_job(self, name: str) -> int | None:
            """Return an existing job, or None."""
            job = self._dll.OpenJobObjectW(_ASSIGN_PROCESS, False, name)
            return int(job) if job else None

        def join_job(self, job: int) -> None:
            """Make this process a member."""
            _there(self._dll.AssignProcessToJobObject(job, self._dll.GetCurrentProcess()))

        def close(self, handle: int) -> None:
            """Close a handle."""
            _there(self._dll.CloseHandle(handle))

        def set_error_mode(self, mode: int) -> None:
            """Say what happens at critical errors."""
            self._dll.SetErrorMode(mode)

        def on_console_event(self, handler: Callable[[int], bool]) -> None:
            """Call ``handler`` in a thread of the system's."""
            kept = _Handler(handler)
            self._handlers.append(kept)
            if not self._dll.SetConsoleCtrlHandler(kept, True):  # without a console (a service) no event comes
                self._handlers.remove(kept)

    def _there(result: Any) -> Any:
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())
        return result


def wine_version() -> str | None:
    """Return the version of the Wine that this process runs in; None on Windows itself and elsewhere."""
    if sys.platform == "win32":
        version = getattr(ctypes.WinDLL("ntdll"), "wine_get_version", None)  # Windows' own has no such function
        if version is not None:
            version.restype = ctypes.c_char_p
            return bytes(version()).decode("ascii", "replace")
    return None
