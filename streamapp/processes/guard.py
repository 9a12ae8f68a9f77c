"""No process outlives the one that started it, however that one ends: Linux, macOS and Windows.

A process of ours ties itself to its parent (:func:`die_with_parent`); a foreign program is started :func:`tied`. Where
the system tells a child nothing, and for what children start in their turn, a :class:`Sentinel` beside the supervisor
kills what is left. Killing both at once leaves orphans; the next start finds them in the state file.

This file is also the program that ``tied`` and the sentinel run, by its path and without site packages: 15 ms instead
of 40. So it imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

if sys.platform == "win32":
    from streamapp.processes import win32

_PARENT_CHECK_S = 0.2
"""Where the system tells a child nothing (macOS): five looks a second cost nothing, and a worker that lives 0.2 s
longer is ended by its lock file before anything is resolved."""
_PR_SET_PDEATHSIG = 1
_TIE, _WATCH = "tie", "watch"


def die_with_parent(parent: int) -> None:
    """Make this process end when its parent does, also when that is killed; end now if it is already gone.

    Linux: the kernel's parent death signal, which survives exec; it is sent when the *thread* that started us ends.
    macOS: a thread that looks. Windows: the job that the parent made for its children (:func:`keep_children`).
    """
    if sys.platform == "win32":
        if not win32.join_parent(win32.Kernel32(), parent):
            os._exit(1)
    else:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        else:
            threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
        if os.getppid() != parent:  # it died before the lines above: no signal will come any more
            os._exit(1)


def keep_children() -> None:
    """Windows: make the job that our children join and that ends with us. Elsewhere children see to it."""
    if sys.platform == "win32":
        win32.keep_children(win32.Kernel32(), os.getpid())


def tied(argv: Sequence[str]) -> list[str]:
    """Return the command ``argv``, wrapped so that it dies with the calling process, where the system can do that.

    A program of its own ties itself and becomes ``argv``: code between fork and exec in a threaded parent may deadlock.
    """
    before = [*_program(_TIE), str(os.getpid())] if sys.platform == "linux" else []
    return [*before, *argv]


def _program(purpose: str) -> list[str]:
    # The caller's Python settings are for what it starts, not for this.
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), purpose]


if sys.platform != "win32":

    class Sentinel:
        """A process beside a supervisor that kills the watched groups when the supervisor is gone, however it went."""

        def __init__(self) -> None:
            import subprocess  # which would double what `tied` costs

            # It reads +GROUP and -GROUP lines; the end of its input is the supervisor's.
            self._process = subprocess.Popen(_program(_WATCH), stdin=subprocess.PIPE, start_new_session=True)

        def watch(self, group: int) -> None:
            """From now on, kill this group when we are gone."""
            self._write(f"+{group}")

        def forget(self, group: int) -> None:
            """This group has ended; its number may belong to somebody else soon."""
            self._write(f"-{group}")

        def close(self) -> None:
            """End it; groups that are still watched are killed."""
            if self._process.stdin is not None:
                self._process.stdin.close()
            self._process.wait()

        def _write(self, line: str) -> None:
            if self._process.stdin is not None and self._process.poll() is None:
                self._process.stdin.write(f"{line}\n".encode())
                self._process.stdin.flush()

    def kill_group(group: int) -> None:
        """SIGKILL every process of the group; nothing happens if there is none."""
        # macOS answers EPERM for a group whose only members are already dead.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)

    def _watch_parent(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os._exit(1)

    def _watch_groups() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # only the supervisor's end counts
        groups: set[int] = set()
        for line in sys.stdin:
            change = groups.add if line.startswith("+") else groups.discard
            change(int(line[1:]))
        for group in groups:
            kill_group(group)

    def main() -> None:
        """Become a tied program, or watch until the input ends and kill what is left."""
        purpose, *arguments = sys.argv[1:]
        if purpose == _WATCH:
            _watch_groups()
        else:
            parent, program, *others = arguments
            die_with_parent(int(parent))
            os.execvp(program, [program, *others])  # noqa: S606 -- exec without a shell is the point

    if __name__ == "__main__":
        main()
