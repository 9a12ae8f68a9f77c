"""A stack of its own, beside every other: for the demonstration, the benchmark and the end-to-end tests."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from streamapp.errors import ConfigurationError, Transient
from streamapp.local.ports import EPHEMERAL, claim
from streamapp.local.process import POLL_S, REPOSITORY, last_lines
from streamapp.local.readiness import http_answers
from streamapp.local.stack import Stack
from streamapp.local.state import StackFolder
from streamapp.ports import FIRST_WORKERS, Ports
from streamapp.processes.guard import kill_group
from streamapp.settings import Settings, settings_from

START_DEADLINE_S = 400.0  # the first start of all downloads Kafka's jars
_STOP_DEADLINE_S = 45.0  # `up` gives its processes 30 s, then kills them


class OwnStack:
    """``streamapp up`` as a child process, with a settings file and a data folder of its own.

    Args:
        data: its folder; made if it is not there.
        port_offset: see :func:`free_port_offset`.
        extra: further lines for its streamapp.toml.
    """

    def __init__(self, data: Path, port_offset: int, extra: str = "") -> None:
        self.data = data.absolute()
        self.data.mkdir(parents=True, exist_ok=True)
        self.file = self.data / "streamapp.toml"
        local = f"[local]\ndata = {json.dumps(str(self.data))}\nport_offset = {port_offset}\n"
        self.file.write_text(f"{extra}\n{local}")
        self.settings: Settings = settings_from(self.file)
        self._up: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which every command speaks to this stack."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("STREAMAPP_")}
        return ours | {"STREAMAPP_CONFIG": str(self.file)}

    def start(self, output: IO[bytes] | None = None) -> None:
        """Start it; ``output`` None: it prints where we print.

        Raises:
            ConfigurationError: one of its ports is another's, whose answers would be taken for this stack's.
        """
        Stack(self.settings).claim_ports()
        self._up = subprocess.Popen(
            [sys.executable, "-m", "streamapp.cli", "up"],
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def wait_ready(self, within_s: float = START_DEADLINE_S) -> None:
        """Block until the trading worker says that all is ready.

        Raises:
            Transient: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + within_s
        ready = http_answers(self.settings.ports.trading(), "/health")
        while not ready():
            if self._up is None or (code := self._up.poll()) is not None:
                raise Transient(f"expected a running stack, got exit {code}. Its logs are in {self.data / 'logs'}.")
            if time.monotonic() > deadline:
                tail = last_lines(self.data / "logs" / "trading.log")
                raise Transient(f"expected a stack ready within {within_s:.0f} s, got none. trading.log ends:\n{tail}")
            time.sleep(POLL_S * 10)

    def pid_of(self, name: str) -> int:
        """Return the process id of one of its processes now.

        Raises:
            Transient: it is not running at this moment.
        """
        state = StackFolder(self.data).read()
        if state is None or name not in state.processes:
            raise Transient(f"expected {name} to run, got no such process")
        return state.processes[name][0]

    def stop(self) -> int:
        """Stop it as Ctrl-C would, and return its exit code; what is left after its time is killed."""
        if self._up is None:
            return 0
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGINT)
        try:
            return self._up.wait(_STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            kill_group(self._up.pid)
            return self._up.wait()


def free_port_offset() -> int:
    """Return an offset at which every port of the stack is claimed now.

    Raises:
        ConfigurationError: after many tries there is none.
    """
    for _ in range(200):
        offset = random.randrange(1000, 25_000, 10)  # noqa: S311 -- any free place will do
        if all(port < EPHEMERAL and claim(port) for port in _all_ports(Ports(offset))):
            return offset
    raise ConfigurationError("expected a range of free ports on 127.0.0.1, got none in 200 tries. Stop other stacks.")


def _all_ports(ports: Ports) -> list[int]:
    named = [value for name in dir(Ports) if isinstance(value := getattr(ports, name), int) and name != "offset"]
    return [*named, *(ports.trading(worker) for worker in range(1, FIRST_WORKERS + 1))]
