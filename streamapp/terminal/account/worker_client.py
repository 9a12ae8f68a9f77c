"""The terminal's end of the pipe to its worker: one request at a time, orders first, deadlines watched here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from asyncio.subprocess import Process
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from streamapp.errors import Ambiguous, Transient
from streamapp.processes.children import spawn
from streamapp.terminal.pipe import frames
from streamapp.terminal.pipe.answers import Answered
from streamapp.terminal.pipe.calls import Call, Setup
from streamapp.terminal.pipe.frames import FrameError

A = TypeVar("A")

ORDER, READ = 0, 1
"""Which request goes first when several wait."""
START_DEADLINE_S = 30.0
"""How long a worker may take to import the module and to end on being asked; a cold Windows machine needs several
seconds."""


class WorkerPort(Protocol):
    """Whoever makes the calls of the MT5 module for us, one at a time."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a worker to ask."""

    async def start(self) -> None:
        """Make a new worker; the one before it is dead."""

    async def end(self) -> None:
        """End the worker at once and see it dead."""

    async def call(self, call: Call[A], *, deadline_s: float, urgency: int = READ) -> Answered[A]:
        """Return the answer.

        Raises:
            NotHandedOverError: there is no worker, or it ended before this request's turn.
            WorkerLostError: it ended, took longer than ``deadline_s``, or answered what can't be read, and was ended.
        """


class NotHandedOverError(Transient):
    """The worker never got the request: it did not happen."""


class WorkerLostError(Ambiguous):
    """The worker ended, or was ended, with the request in its hands. ``deadline``: because it took too long."""

    def __init__(self, message: str, *, deadline: bool) -> None:
        super().__init__(message)
        self.deadline = deadline


class WorkerClient:
    """One worker process after another; requests wait in order of urgency, then of arrival.

    Guarantees:
        A request is handed to at most one worker, once. After a deadline or a broken pipe that worker is dead before
        the caller hears of it.
    """

    def __init__(
        self, module: str, lock: Path, *, environment: dict[str, str] | None = None, crash_at: str | None = None
    ) -> None:
        self._setup = Setup(module, str(lock.absolute()), crash_at)
        self._environment = environment or {}
        self._waiting: asyncio.PriorityQueue[tuple[int, int, Call[Any], float, asyncio.Future[Any]]] = (
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
        self._process.stdin.write(frames.encode_call(self._setup))
        self._setup = replace(self._setup, crash_at=None)  # a test's crash happens in one life, not in each

    async def call(self, call: Call[A], *, deadline_s: float, urgency: int = READ) -> Answered[A]:
        """Return the worker's answer, as :class:`WorkerPort` says."""
        if not self.is_alive:
            raise NotHandedOverError(f"expected a worker for {call.name}, got none; it is being started again")
        future: asyncio.Future[Answered[A]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((urgency, next(self._number), call, deadline_s, future))
        return await future

    async def run(self) -> None:
        """Hand requests over, for ever."""
        while True:
            _, _, call, deadline_s, future = await self._waiting.get()
            if future.cancelled():
                continue
            process = self._process
            try:
                result = await self._exchange(process, call, deadline_s)
            except (NotHandedOverError, WorkerLostError) as error:
                await self._end(process)
                self._fail_waiting()
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

    async def _exchange(self, process: Process | None, call: Call[A], deadline_s: float) -> Answered[A]:
        if process is None or process.returncode is not None or process.stdin is None or process.stdout is None:
            raise NotHandedOverError(f"expected a worker for {call.name}, got one that ended")
        try:
            async with asyncio.timeout(deadline_s):
                process.stdin.write(frames.encode_call(call))
                await process.stdin.drain()
                return frames.decode_answer(call, await frames.receive(process.stdout))
        except TimeoutError:
            message = f"{call.name}: no answer within {deadline_s:g} s; the worker was ended"
            raise WorkerLostError(message, deadline=True) from None
        except (OSError, asyncio.IncompleteReadError) as error:
            message = f"{call.name}: the worker ended during the call ({type(error).__name__})"
            raise WorkerLostError(message, deadline=False) from None
        except FrameError as error:
            message = f"{call.name}: the worker's answer can't be read, and it was ended: {error}"
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
