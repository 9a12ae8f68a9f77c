"""Which stack runs over a data folder: a lock that dies with its owner, and a file about the owner."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from streamapp.errors import ConfigurationError, Transient
from streamapp.local.process import POLL_S
from streamapp.processes.guard import kill_group
from streamapp.processes.locks import FileLock, LockHeldError

# `up` gives its processes 30 s to end; what is not gone then never will be.
DOWN_DEADLINE_S = 45.0


@dataclass(frozen=True)
class StackState:
    """A running stack: its supervisor, addresses by name, and its processes with their times of creation."""

    pid: int
    addresses: Mapping[str, str]
    processes: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def sentence(self) -> str:
        """Return who runs where."""
        addresses = ", ".join(f"{name} {address}" for name, address in self.addresses.items())
        return f"pid {self.pid}: {addresses}"


class StackFolder:
    """The data folder of one stack."""

    def __init__(self, data: Path) -> None:
        self.data = data.resolve()
        self._file = self.data / "up.json"
        self._lock = self.data / "up.lock"

    def read(self) -> StackState | None:
        """Return the state that was written last, whoever wrote it, or None."""
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return StackState(
                pid=int(found["pid"]),
                addresses=dict(found["addresses"]),
                processes={name: (int(pid), float(created)) for name, (pid, created) in found["processes"].items()},
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # torn by a kill: as good as none
            return None

    def write(self, state: StackState) -> None:
        """Write the state, whole or not at all."""
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        draft.replace(self._file)

    def running(self) -> StackState | None:
        """Return the stack that runs over this folder now, or None."""
        if not self._lock.exists():
            return None
        try:
            FileLock(self._lock).release()
        except LockHeldError:
            return self.read() or StackState(pid=0, addresses={})
        return None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder; orphans of an owner that was killed are ended first.

        Raises:
            ConfigurationError: a stack runs over it; with its pid and addresses.
        """
        try:
            lock = FileLock(self._lock)
        except LockHeldError:
            state = self.read()
            who = state.sentence() if state else "just starting"
            raise ConfigurationError(
                f"a stack already runs in {self.data} ({who}); `streamapp down` stops it"
            ) from None
        try:
            self.end_orphans()
            yield
        finally:
            self._file.unlink(missing_ok=True)
            lock.release()

    def end_orphans(self) -> list[str]:
        """Kill what a dead supervisor has left, and return its names; a recycled pid has another time of creation."""
        state = self.read()
        processes = {} if state is None else state.processes
        left = [(name, pid) for name, (pid, created) in processes.items() if is_same(pid, created)]
        for _, pid in left:
            kill_group(pid)
        self._file.unlink(missing_ok=True)
        return [name for name, _ in left]

    def stop(self) -> StackState | None:
        """Stop the stack that runs over this folder and return what it was; None if none runs.

        Raises:
            Transient: it did not end in time.
        """
        state = self.running()
        if state is None:
            self.end_orphans()
            return None
        deadline = time.monotonic() + DOWN_DEADLINE_S
        if state.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
        while self.running():
            if time.monotonic() > deadline:
                raise Transient(f"expected pid {state.pid} to end within {DOWN_DEADLINE_S:.0f} s, got it still there")
            time.sleep(POLL_S)
        return state


def born(pid: int) -> float:
    """Return when the process was created (seconds since 1970), 0 if it is gone."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def is_same(pid: int, created: float) -> bool:
    """Return whether this pid is still the process that was created then."""
    return created > 0 and abs(born(pid) - created) < 1.0
