"""What was told to whom, on disk, so that a restart does not tell it again."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

REMEMBERED = 20_000
"""Some weeks of events at a house that has many; a line is 33 bytes."""


class Told:
    """The last events that were told, or given up, by receiver; written before their offsets are committed.

    A killed process loses none. Lost with its disk, what Kafka redelivers is told once more; so it is not synced.
    """

    def __init__(self, path: Path, most: int = REMEMBERED) -> None:
        self._path, self._most = path, most
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="ascii", errors="replace").splitlines() if path.exists() else []
        self._keys = OrderedDict.fromkeys(lines[-most:])
        self._write()

    def __contains__(self, key: str) -> bool:
        """Return whether it was told; what is asked for is remembered longer."""
        if key in self._keys:
            self._keys.move_to_end(key)
            return True
        return False

    def add(self, key: str) -> None:
        """Remember that it was told."""
        self._keys[key] = None
        self._file.write(f"{key}\n")
        self._file.flush()
        self._lines += 1
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)
        if self._lines > 2 * self._most:
            self._file.close()
            self._write()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self) -> None:
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_text("".join(f"{key}\n" for key in self._keys), encoding="ascii")
        beside.replace(self._path)
        self._lines = len(self._keys)
        self._file = self._path.open("a", encoding="ascii")
