"""Processes that die with their parent, and locks that die with their process: Linux, macOS and Windows."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from streamapp.errors import ConfigurationError
from streamapp.terminal import windows

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 1 << 30
"""The byte that Windows locks: far behind the pid in the file, because a locked byte can't be read by others there."""
_PARENT_CHECK_S = 0.2
"""Where the system tells a child nothing (macOS): five looks a second cost nothing, and a worker that lives 0.2 s
longer is ended by its lock file before anything is resolved."""


class LockHeldError(ConfigurationError):
    """Another living process holds the lock; ``pid`` is what it wrote into the file (0: not readable)."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"{path} is locked by process {pid or 'unknown'}")
        self.pid = pid


class FileLock:
    """An exclusive lock of the operating system, held for life: it ends with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            LockHeldError: another process holds it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except OSError:
            os.close(self._file)
            raise LockHeldError(path, _pid_in(path)) from None
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        """Give the lock back; only tests and a clean stop do."""
        os.close(self._file)


def _lock(file: int) -> None:
    if sys.platform == "win32":
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _pid_in(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii") or 0)
    except (OSError, ValueError):
        return 0


def end_holder(path: Path, deadline_s: float = 60.0) -> int | None:
    """End the process that holds the lock at ``path``; return its pid, or None where nobody held it.

    The lock itself proves that the pid in the file is the holder's: a number that was given to another process since
    can't be hit.

    Raises:
        ConfigurationError: it could not be ended within ``deadline_s``.
    """
    ended: int | None = None
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        try:
            FileLock(path).release()
            return ended
        except LockHeldError as held:
            if held.pid and held.pid != ended:
                kill(held.pid)
                ended = held.pid
        time.sleep(0.01)
    raise ConfigurationError(f"expected the worker of an earlier life to end ({path}, process {ended}); end it by hand")


def kill(pid: int) -> None:
    """End a process at once, without asking it; one that is gone already, or going, is no error."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # WinError 87 for none with this pid, 5 for one that is ending
            os.kill(pid, signal.SIGTERM)  # TerminateProcess there
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Make this process end when its parent does, also when that is killed; end now if it is already gone.

    Linux: the kernel's parent death signal. macOS: a thread that looks. Windows: the job that the parent made for its
    children (:func:`keep_children`).
    """
    if sys.platform == "win32":
        if not windows.join_parent(windows.Kernel32(), parent):
            os._exit(1)
    else:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        else:
            threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
        if os.getppid() != parent:
            os._exit(1)


if sys.platform != "win32":

    def _watch_parent(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)


def keep_children() -> None:
    """Windows: make the job that our children join and that ends with us. Elsewhere children see to it."""
    if sys.platform == "win32":
        windows.keep_children(windows.Kernel32(), os.getpid())


async def spawn(
    module: str, *arguments: str, environment: Mapping[str, str], stderr: int | None = None
) -> asyncio.subprocess.Process:
    """Start ``python -m module`` as a child with pipes for standard input and output.

    Guarantees:
        ``pid`` is the interpreter's own, and ending it ends it: not a launcher's. A console's Ctrl-C, Ctrl-Break and
        end reach the parent alone on Windows; it has no window there. Everything it prints is UTF-8.
    """
    executable, needed = interpreter()
    return await asyncio.create_subprocess_exec(
        executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**environment, **needed, "PYTHONUTF8": "1"},
        creationflags=NO_WINDOW,
    )


def private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return our standard input and output as files of our own; what anybody prints goes to standard error from now on.

    On Windows nothing that we start keeps a pipe of ours open, such as the terminal program that `initialize` starts,
    and a crash ends us at once, without a dialog.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if sys.platform == "win32":
        for standard in (0, 1, 2):
            os.set_inheritable(standard, False)
        windows.Kernel32().set_error_mode(windows.QUIET_CRASH)
    return requests, answers


NO_WINDOW = 0x08000000 if sys.platform == "win32" else 0
"""CREATE_NO_WINDOW: a console of its own that nobody sees."""


def interpreter() -> tuple[str, dict[str, str]]:
    """Return the interpreter to start as a child, and what it needs in its environment.

    python.exe of a virtual environment on Windows is a launcher, and the interpreter is its child: a worker would be
    ended a moment after its launcher. So the interpreter is started itself and told its environment, as
    multiprocessing does.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    if sys.platform == "win32" and base != sys.executable:
        return base, {"__PYVENV_LAUNCHER__": sys.executable}
    return sys.executable, {}
