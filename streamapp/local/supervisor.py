"""Keeps processes running: starts them in stages, restarts what exits, and stops all of it in the reverse order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from streamapp.local.process import POLL_S, ProcessSpec, RunningProcess, last_lines
from streamapp.processes.backoff import Backoff
from streamapp.processes.guard import Sentinel

FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 15.0  # a broken setting must not fill the disk with logs, a mended one should not wait long

# A process that ran for so long was well: its next exit is a new story.
HEALTHY_AFTER_S = 60.0

# Five in a row that never became ready: no further one will.
HOPELESS_STARTS = 5

_READY_POLL_S = 0.1


class _Kept:
    """One process under care, through all its starts."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: RunningProcess | None = None
        self.task: asyncio.Task[None] | None = None
        self.was_ready = False
        self.backoff = Backoff(FIRST_BACKOFF_S, LAST_BACKOFF_S, healthy_after_s=HEALTHY_AFTER_S)

    @property
    def is_hopeless(self) -> bool:
        return not self.was_ready and self.backoff.failures >= HOPELESS_STARTS


class Supervisor:
    """Processes under care. Used from the main thread's loop: a process dies with the *thread* that started it.

    Args:
        logs: folder of the processes' logs.
        say: prints one line for a person.
        changed: called after each start and end.
    """

    def __init__(self, logs: Path, say: Callable[[str], None], changed: Callable[[], None] = lambda: None) -> None:
        self._logs = logs
        self._say = say
        self._changed = changed
        self._sentinel = Sentinel()
        self._stages: list[list[_Kept]] = []

    @property
    def processes(self) -> dict[str, RunningProcess]:
        """The processes that run now, by name."""
        return {kept.spec.name: kept.process for stage in self._stages for kept in stage if kept.process is not None}

    async def start(self, specs: Sequence[ProcessSpec]) -> None:
        """Start a stage: all at once, return when all are ready; each is kept running from then on.

        Raises:
            Transient: one did not become ready in time, or exits again and again.
            ConfigurationError: one can't be started at all.
        """
        stage = [_Kept(spec) for spec in specs]
        self._stages.append(stage)
        for kept in stage:
            kept.task = asyncio.create_task(self._keep(kept))
        waits = [asyncio.create_task(self._until_ready(kept)) for kept in stage]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """Stop everything, the last stage first; what does not end in its time is killed with all it started."""
        for stage in reversed(self._stages):
            for kept in stage:
                if kept.task is not None:
                    kept.task.cancel()
            await asyncio.gather(*(self._end(kept) for kept in stage))
        self._stages.clear()
        self._sentinel.close()

    async def _keep(self, kept: _Kept) -> None:
        while True:
            process = kept.process = RunningProcess(kept.spec, self._logs)
            self._sentinel.watch(process.pid)
            self._changed()
            while process.exit_code is None:
                await asyncio.sleep(POLL_S)
            self._bury(kept, process)
            backoff_s = kept.backoff.next_s(time.monotonic() - process.started)
            self._say(
                f"{kept.spec.name} {_ended(process)}. Its log ({process.log}) ends with:\n{last_lines(process.log)}"
            )
            if kept.is_hopeless:
                raise process.not_ready(f"{HOPELESS_STARTS} exits in a row")
            self._say(f"{kept.spec.name} restarts in {backoff_s:g} s")
            await asyncio.sleep(backoff_s)

    async def _until_ready(self, kept: _Kept) -> None:
        started = time.monotonic()
        deadline = started + kept.spec.ready_within_s
        while not await asyncio.to_thread(kept.spec.ready):
            if kept.task is not None and kept.task.done():
                kept.task.result()
            if time.monotonic() > deadline and kept.process is not None:
                raise kept.process.not_ready("no answer")
            await asyncio.sleep(_READY_POLL_S)
        kept.was_ready = True
        self._say(f"{kept.spec.name:<12} ready in {time.monotonic() - started:4.1f} s   {kept.spec.address}")

    async def _end(self, kept: _Kept) -> None:
        process = kept.process
        if process is None:
            return
        process.terminate()
        deadline = time.monotonic() + kept.spec.stop_within_s
        while process.exit_code is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        if process.exit_code is None:
            self._say(f"{kept.spec.name} did not stop within {kept.spec.stop_within_s:g} s and is killed")
        self._bury(kept, process)

    def _bury(self, kept: _Kept, process: RunningProcess) -> None:
        process.kill()  # what it started must not outlive it
        self._sentinel.forget(process.pid)
        kept.process = None
        self._changed()


def _ended(process: RunningProcess) -> str:
    code = process.exit_code
    if code is not None and code < 0:
        return f"was ended by signal {-code}"
    return f"exited with code {code}"
