"""Locks that die with their process: which process owns something, and how it is ended."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
from pathlib import Path

from streamapp.errors import ConfigurationError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FAR = 1 << 30
"""The byte that Windows locks: far behind the pid in the file, because a locked byte can't be read by others there."""


_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})
"""What a lock that another process holds fails with: the first two on POSIX, the others on Windows."""


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
            ConfigurationError: nobody can hold one there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except OSError as error:
            os.close(self._file)
            if error.errno in _HELD:
                raise LockHeldError(path, _pid_in(path)) from None
            raise ConfigurationError(
                f"expected a file system that locks files at {path}, got: {error.strerror}. Keep it on a local disk"
            ) from None
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
                _kill(held.pid)
                ended = held.pid
        time.sleep(0.01)
    raise ConfigurationError(f"expected the worker of an earlier life to end ({path}, process {ended}); end it by hand")


def _kill(pid: int) -> None:
    """End a process at once, without asking it; one that is gone already, or going, is no error."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):  # WinError 87 for none with this pid, 5 for one that is ending
            os.kill(pid, signal.SIGTERM)  # TerminateProcess there
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
