"""The terminal's end of the pipe to its worker: one request at a time, orders first, deadlines watched here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from asyncio.subprocess import Process
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from streamapp.errors import Ambiguous, Transient
from streamapp.processes.children import spawn
from streamapp.terminal import frames

ORDER, READ = 0, 1
"""Which request goes first when several wait."""
START_DEADLINE_S = 30.0
"""How long a worker may take to import the module and to end on being asked; a cold Windows machine needs several
seconds."""


@dataclass(frozen=True)
class Answer:
    """What the worker answered.

    ``failure``: no call could be made; ``broken``: only ``initialize`` can be now; ``away``: the terminal had no
    connection, or another account, so that what was read is not believed; ``took_s``: how long it kept the worker.
    """

    value: Any
    failure: str | None
    broken: tuple[int, str] | None
    error: tuple[int, str]
    log: list[dict[str, Any]]
    away: str | None = None
    took_s: float = 0.0


class WorkerPort(Protocol):
    """Whoever makes the calls of the MT5 module for us, one at a time."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a worker to ask."""

    async def start(self) -> None:
        """Make a new worker; the one before it is dead."""

    async def end(self) -> None:
        """End the worker at once and see it dead."""

    async def call(
        self, operation: str, arguments: dict[str, Any], *, deadline_s: float, urgency: int = READ
    ) -> Answer:
        """Return the answer.

        Raises:
            NotHandedOverError: there is no worker, or it ended before this request's turn.
            WorkerLostError: it ended, or took longer than ``deadline_s`` and was ended.
        """


class NotHandedOverError(Transient):
    """The worker never got the request: it did not happen."""


class WorkerLostError(Ambiguous):
    """The worker ended, or was ended, with the request in its hands. ``deadline``: because it took too long."""

    def __init__(self, message: str, *, deadline: bool) -> None:
        super().__init__(message)
        self.deadline = deadline


class WorkerLink:
    """One worker process after another; requests wait in order of urgency, then of arrival.

    Guarantees:
        A request is handed to at most one worker, once. After a deadline or a broken pipe that worker is dead before
        the caller hears of it.
    """

    def __init__(
        self, module: str, lock: Path, *, environment: dict[str, str] | None = None, crash_at: str | None = None
    ) -> None:
        self._setup = {"module": module, "lock": str(lock.absolute()), "crash_at": crash_at}
        self._environment = environment or {}
        self._waiting: asyncio.PriorityQueue[tuple[int, int, dict[str, Any], float, asyncio.Future[Any]]] = (
            asyncio.PriorityQueue()
        )
        self._number = itertools.count()
        self._process: Process | None = None

    @property
    def is_alive(self) -> bool:
        """Whether there is a worker to ask."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Spawn a new worker; the one before it is dead."""
        await self.end()
        environment = {**os.environ, **self._environment}
        self._process = await spawn("streamapp.terminal.worker.process", str(os.getpid()), environment=environment)
        assert self._process.stdin is not None
        self._process.stdin.write(frames.encode(self._setup))
        self._setup["crash_at"] = None  # a test's crash happens in one life, not in each

    async def call(
        self, operation: str, arguments: dict[str, Any], *, deadline_s: float, urgency: int = READ
    ) -> Answer:
        """Return the worker's answer, as :class:`WorkerPort` says."""
        if not self.is_alive:
            raise NotHandedOverError(f"expected a worker for {operation}, got none; it is being started again")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        frame = {"operation": operation, "arguments": arguments}
        self._waiting.put_nowait((urgency, next(self._number), frame, deadline_s, future))
        return await future

    async def run(self) -> None:
        """Hand requests over, for ever."""
        while True:
            _, _, frame, deadline_s, future = await self._waiting.get()
            if future.cancelled():
                continue
            process = self._process
            try:
                result = await self._exchange(process, frame, deadline_s)
            except (NotHandedOverError, WorkerLostError) as error:
                await self._end(process)
                self._fail_waiting()
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

    async def _exchange(self, process: Process | None, frame: dict[str, Any], deadline_s: float) -> Answer:
        if process is None or process.returncode is not None or process.stdin is None or process.stdout is None:
            raise NotHandedOverError(f"expected a worker for {frame['operation']}, got one that ended")
        try:
            async with asyncio.timeout(deadline_s):
                process.stdin.write(frames.encode(frame))
                await process.stdin.drain()
                return _answer(await frames.receive(process.stdout))
        except TimeoutError:
            message = f"{frame['operation']}: no answer within {deadline_s:g} s; the worker was ended"
            raise WorkerLostError(message, deadline=True) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            message = f"{frame['operation']}: the worker ended during the call ({type(error).__name__})"
            raise WorkerLostError(message, deadline=False) from None

    def _fail_waiting(self) -> None:
        while not self._waiting.empty():
            future = self._waiting.get_nowait()[-1]
            if not future.done():
                future.set_exception(NotHandedOverError("the worker ended before this request's turn"))

    async def end(self) -> None:
        """End the worker at once and see it dead."""
        await self._end(self._process)

    async def _end(self, process: Process | None) -> None:
        if process is None:
            return
        if self._process is process:
            self._process = None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Let an idle worker give its connection back and end; end it if it does not."""
        process = self._process
        if process is not None and process.returncode is None and process.stdin is not None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 2.0)
            except TimeoutError:
                await self.end()
        self._process = None
        self._fail_waiting()


def _answer(frame: dict[str, Any]) -> Answer:
    code, text = frame["error"]
    broken = frame["broken"]
    return Answer(
        frame["value"],
        frame["failure"],
        (broken[0], broken[1]) if broken else None,
        (code, text),
        frame["log"],
        frame["away"],
        frame["took_s"],
    )
