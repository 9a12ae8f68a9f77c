"""One process of the local stack: what to run, when it is ready, and how to end it with everything it started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamapp.errors import ConfigurationError, Transient
from streamapp.local.readiness import Probe
from streamapp.processes.guard import kill_group, tied

# Processes are started here, so that `-m streamapp...`, `tables` and `agents` are found wherever the command was typed.
REPOSITORY = Path(__file__).resolve().parents[2]

# A log that has grown beyond this is set aside (one generation) when its process starts.
LOG_LIMIT_BYTES = 50_000_000

POLL_S = 0.02


@dataclass(frozen=True)
class ProcessSpec:
    """What to run. ``ready`` is asked until it is true; the deadlines are worst cases, not expectations."""

    name: str
    argv: tuple[str, ...]
    ready: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    ready_within_s: float = 60.0
    stop_within_s: float = 10.0


class RunningProcess:
    """A started process, leader of its own group: Ctrl-C reaches the supervisor alone, which stops all in order.

    Start it from the main thread: on Linux it dies with the *thread* that started it.
    """

    def __init__(self, spec: ProcessSpec, logs: Path) -> None:
        """Start it; its output is appended to ``logs/<name>.log``.

        Raises:
            ConfigurationError: the program can't be started.
        """
        self.spec = spec
        self.log = logs / f"{spec.name}.log"
        self.started = time.monotonic()
        logs.mkdir(parents=True, exist_ok=True)
        _set_aside_if_long(self.log)
        with self.log.open("ab") as output:
            try:
                self._process = subprocess.Popen(
                    tied(spec.argv),
                    cwd=REPOSITORY,
                    env={**os.environ, **spec.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigurationError(
                    f"expected to start {spec.name} as {spec.argv[0]}, got: {error.strerror}"
                ) from None

    @property
    def pid(self) -> int:
        """Its process id, which is its group's id as well."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal, None while it runs."""
        return self._process.poll()

    def wait_ready(self) -> None:
        """Block until it is ready.

        Raises:
            Transient: it ended, or was not ready within ``spec.ready_within_s``; with its last log lines.
        """
        deadline = self.started + self.spec.ready_within_s
        while not self.spec.ready():
            if self.exit_code is not None:
                raise self.not_ready(f"exit code {self.exit_code}")
            if time.monotonic() > deadline:
                raise self.not_ready("no answer")
            time.sleep(POLL_S)

    def not_ready(self, got: str) -> Transient:
        """Return the error that says so, with the last lines of the log."""
        wanted = f"{self.spec.name} ready within {self.spec.ready_within_s:.0f} s"
        return Transient(f"expected {wanted}, got {got}. Its log ({self.log}) ends with:\n{last_lines(self.log)}")

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        if self.exit_code is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and all it started, at once (SIGKILL to its group), and wait until it is gone."""
        kill_group(self.pid)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end, wait up to ``spec.stop_within_s``, then kill what is left of its group."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self.spec.stop_within_s)
        self.kill()


def last_lines(log: Path, count: int = 12) -> str:
    """Return the last lines of a log file, indented, without reading all of it."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 200 * count))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-count:])


def _set_aside_if_long(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
