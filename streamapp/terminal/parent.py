"""The parent of the terminals: one child for each account, restarted with back-off, all their health in one place."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

from streamapp.errors import Unusable
from streamapp.processes.backoff import Backoff
from streamapp.processes.children import spawn
from streamapp.settings import Settings
from streamapp.terminal.status import ProcessStatus

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
STEADY_S = 30.0
"""A child that lived so long is well: its next restart is quick again."""
SILENT_S = 10.0
"""A child says every two seconds how it is, and at once what is new; this long without a word and it is not well."""
LAST_PART = 0.2
"""Of the time that a stop may take: for ending children that did not finish the order in their hands before."""
LAST_WORDS_S = 1.0
"""How long the output of a child that ended is still listened to: what it started may hold the pipe open for longer."""


class Output(Protocol):
    """Where logs go: a text stream."""

    def write(self, text: str, /) -> int:
        """Append ``text``."""

    def flush(self) -> None:
        """Hand everything over."""


@dataclass
class Child:
    """One account's process, as far as its parent knows."""

    account: str
    process: asyncio.subprocess.Process | None = None
    status: ProcessStatus | None = None
    heard_at: float = 0.0
    restarts: int = 0
    problem: str = "starting"

    @property
    def reasons(self) -> list[str]:
        """What is wrong with it; empty when nothing is."""
        if self.problem:
            return [self.problem]
        if time.monotonic() - self.heard_at > SILENT_S:
            return [f"silent for more than {SILENT_S:g} s"]
        return list(self.status.reasons) if self.status is not None else []


class TerminalSupervisor:
    """Keeps one child for each account alive until it is stopped; what children log goes to ``output``."""

    def __init__(self, settings: Settings, accounts: list[str], output: Output | None = None) -> None:
        self._settings = settings
        self._output = output or sys.stderr
        self.children = {account: Child(account) for account in accounts}
        self._stopping = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run the children until ``stop`` is set; when this returns, none of them is left."""
        keepers = [asyncio.create_task(self._keep(child)) for child in self.children.values()]
        await stop.wait()
        self._stopping.set()
        for child in self.children.values():
            if child.process is not None and child.process.stdin is not None:
                child.process.stdin.close()
        _, late = await asyncio.wait(keepers, timeout=self._settings.stop_grace_s * (1 - LAST_PART))
        for child in self.children.values() if late else ():
            if child.process is not None:
                logger.warning("%s: ended in the middle of its work; its next start looks for it", child.account)
        for task in late:
            task.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, child: Child) -> None:
        backoff = Backoff(FIRST_BACKOFF_S, LONGEST_BACKOFF_S, healthy_after_s=STEADY_S)
        while not self._stopping.is_set():
            began = time.monotonic()
            code = await self._live(child)
            if self._stopping.is_set():
                return
            backoff_s = backoff.next_s(time.monotonic() - began)
            child.restarts += 1
            child.problem = f"ended with code {code}, is started again in {backoff_s:g} s; the reason is in the log"
            logger.error("%s: %s", child.account, child.problem)
            try:
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            except TimeoutError:
                continue

    async def _live(self, child: Child) -> int:
        """Start the child and see it to its end; return its exit code."""
        environment = dict(os.environ)
        if child.restarts:
            environment["STREAMAPP_CRASH_AT"] = ""  # a test's crash happens in one life, not in each
        process = await spawn(
            "streamapp.terminal.account.process",
            *("--account", child.account, "--parent", str(os.getpid())),
            environment=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        relay = asyncio.create_task(self._relay(process, child.account))
        child.process = process
        try:
            await self._listen(child, process)
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            child.process = None
            await asyncio.wait([relay], timeout=LAST_WORDS_S)
            relay.cancel()

    async def _relay(self, process: asyncio.subprocess.Process, account: str) -> None:
        """Pass on what the child logs, in whole lines: several children write at the same time.

        Where logs are JSON, a line that is none (what MetaTrader's module or a dying interpreter prints) becomes one.
        """
        assert process.stderr is not None
        rest = b""
        while chunk := await process.stderr.read(65536):
            whole, line_end, rest = (rest + chunk).rpartition(b"\n")
            self._pass_on(whole + line_end, account)
        self._pass_on(rest, account)

    def _pass_on(self, data: bytes, account: str) -> None:
        if self._settings.log.format == "text":
            self._write(data)
            return
        for line in data.splitlines(keepends=True):
            if line.startswith(b"{"):
                self._write(line)
            elif line.strip():
                logger.warning("account %s: printed %s", account, line.decode("utf-8", "backslashreplace").rstrip())

    def _write(self, data: bytes) -> None:
        text = data.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
        with contextlib.suppress(OSError):  # a full disk must not stop a child at its next word
            self._output.write(text)
            self._output.flush()

    async def _listen(self, child: Child, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                child.status = ProcessStatus.decode(line)
            except Unusable as error:
                logger.warning("%s: expected a line of status, got %r: %s", child.account, line[:200], error)
                continue
            child.heard_at, child.problem = time.monotonic(), ""

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every account is ready, and why not (streamapp/health.py)."""
        reasons = [f"{child.account}: {reason}" for child in self.children.values() for reason in child.reasons]
        starting = any(child.problem == "starting" for child in self.children.values())
        status = "ok" if not reasons else "starting" if starting else "not_ready"
        accounts = {
            child.account: {
                "connection": child.status.connection if child.status is not None else "connecting",
                "epoch": child.status.epoch if child.status is not None else None,
                "restarts": child.restarts,
                "reasons": child.reasons,
            }
            for child in self.children.values()
        }
        return not reasons, {"status": status, "reasons": reasons, "accounts": accounts}

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every account's process runs; how their terminals are is ``/health``'s to say."""
        away = sum(bool(child.problem) for child in self.children.values())
        return not away, {"status": "not_ready" if away else "ok", "processes_not_ready": away}

    def metrics(self) -> str:
        """Return every account's figures in Prometheus' text format."""
        lines: dict[str, list[str]] = {}
        for child in self.children.values():
            label = json.dumps(child.account, ensure_ascii=False)
            said = child.status.metrics if child.status is not None else {}
            figures = {"ready": int(not child.reasons), "restarts": child.restarts, **said}
            for name, value in figures.items():
                lines.setdefault(name, []).append(f"streamapp_terminal_{name}{{account={label}}} {value}")
        return "".join(
            f"# TYPE streamapp_terminal_{name} gauge\n" + "\n".join(values) + "\n" for name, values in lines.items()
        )
