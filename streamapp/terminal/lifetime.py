"""Processes that die with their parent, and locks that die with their process: Linux, macOS and Windows."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

from streamapp.errors import ConfigurationError

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
        return int(path.read_text() or 0)
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
    """End a process at once, without asking it."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform == "win32":
            os.kill(pid, signal.SIGTERM)  # TerminateProcess there
        else:
            os.kill(pid, signal.SIGKILL)


def die_with_parent(parent: int) -> None:
    """Make this process end when its parent does, also when that is killed; end now if it is already gone.

    Linux: the kernel's parent death signal. macOS: a thread that looks. Windows: nothing to do here, the parent's job
    object (:func:`keep_children`) does it.
    """
    if sys.platform != "win32":
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        else:
            threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
        if os.getppid() != parent:
            os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    os._exit(1)


def keep_children() -> None:
    """Windows: enter a job whose members end when its last handle, ours, closes. Elsewhere children see to it."""
    if sys.platform == "win32":
        _enter_job()


if sys.platform == "win32":

    def _enter_job() -> None:
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateJobObjectW.restype = ctypes.c_void_p
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
        limits = (ctypes.c_byte * _LIMITS_SIZE)()
        ctypes.c_uint32.from_buffer(limits, _LIMIT_FLAGS_AT).value = 0x2000  # JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        done = kernel.SetInformationJobObject(job, 9, limits, _LIMITS_SIZE)  # JobObjectExtendedLimitInformation
        if not done or not kernel.AssignProcessToJobObject(job, ctypes.c_void_p(kernel.GetCurrentProcess())):
            raise ctypes.WinError(ctypes.get_last_error())


# JOBOBJECT_EXTENDED_LIMIT_INFORMATION: LimitFlags stands behind two LARGE_INTEGER; 144 bytes on 64-bit Windows, 112 on
# 32-bit.
_LIMIT_FLAGS_AT = 16
_LIMITS_SIZE = 144 if ctypes.sizeof(ctypes.c_void_p) == 8 else 112
