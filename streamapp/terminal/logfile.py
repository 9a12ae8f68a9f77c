"""A log file that its owner turns over, for who runs the terminals without anything that keeps their output."""

from __future__ import annotations

import contextlib
from pathlib import Path

LIMIT_BYTES = 10_000_000
KEPT = 9
"""Ten files of 10 MB: weeks of a terminal's log, and never a full disk beside a journal."""


class LogFile:
    """A text stream into ``path``; full, it becomes ``path.1``, that one ``path.2``, and so on. UTF-8.

    Only its owner writes to it: Windows renames no file that another process has open, so children's output comes
    through their parent. Where somebody's editor holds the file, it grows on and is turned over later.
    """

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES, kept: int = KEPT) -> None:
        """Open it to append.

        Raises:
            OSError: it can't be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._file = path.open("ab")

    def write(self, text: str) -> int:
        """Append ``text``."""
        data = text.encode("utf-8", "backslashreplace")
        if self._file.tell() and self._file.tell() + len(data) > self._limit_bytes:
            self._turn_over()
        self._file.write(data)
        return len(text)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close it."""
        self._file.close()

    def _turn_over(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            for number in range(self._kept - 1, -1, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
        self._file = self.path.open("ab")

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path
