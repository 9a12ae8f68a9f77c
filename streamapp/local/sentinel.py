"""Kills what a supervisor leaves behind when it is killed itself: a process beside each supervisor.

It reads ``+GROUP`` and ``-GROUP`` lines; the end of its input means that the supervisor is gone, however it went. So a
killed supervisor's processes end with their children, on macOS too. Killing both at once leaves orphans; the next start
finds them in the state file.
"""

from __future__ import annotations

import signal
import subprocess
import sys

from streamapp.local.process import REPOSITORY, kill_group


class Sentinel:
    """The supervisor's end of the pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamapp.local.sentinel"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """From now on, kill this group when we are gone."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """This group has ended; its number may belong to somebody else soon."""
        self._tell(f"-{group}")

    def close(self) -> None:
        """End it; groups that are still watched are killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()

    def _tell(self, line: str) -> None:
        if self._process.stdin is not None and self._process.poll() is None:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()


def main() -> None:
    """Watch until the input ends, then kill what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the supervisor's end counts
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        kill_group(group)


if __name__ == "__main__":
    main()
