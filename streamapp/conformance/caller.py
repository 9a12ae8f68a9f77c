"""Calls the module in its worker, with a deadline from outside: the module itself has none, and holds the GIL."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from streamapp.conformance.wire import decode, pack
from streamapp.errors import Ambiguous, ConfigurationError

# A terminal that has to be started takes up to 100 s for it by itself (mt5.md §1.1).
INITIALIZE_S = 180.0
# An order may take a minute at a bad broker; a read takes milliseconds, unless history has to be downloaded first.
DEADLINES_S = {"initialize": INITIALIZE_S, "login": INITIALIZE_S, "order_send": 90.0}
READ_S = 30.0
_START_S = 60.0


class CallHung(Ambiguous):
    """A call did not come back in time, or its process died. Nobody knows what it has done."""


@dataclass(frozen=True, slots=True)
class Said:
    """How a call ended: with a result or an exception (name and text), the error tuple, and its time."""

    result: Any
    error: tuple[int, str] | None
    raised: tuple[str, str] | None
    ms: float


class Caller:
    """One worker at a time, started when it is needed and ended with `close` or when a call hangs."""

    def __init__(self, module: str, *, patience: float = 1.0) -> None:
        """`module` is what the worker imports; `patience` stretches every deadline."""
        self.module = module
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str] = queue.Queue()

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Said:
        """Calls a function of the module.

        Raises:
            CallHung: it took too long or its process died; the worker is ended, and the next call has a new one.
        """
        order = {"do": "call", "function": function, "args": pack(list(args)), "kwargs": pack(kwargs)}
        told = self._ask(order, DEADLINES_S.get(function, READ_S))
        raised, error = told.get("raised"), told.get("error")
        return Said(
            result=decode(told.get("result")),
            error=(int(error[0]), str(error[1])) if error else None,
            raised=(raised[0], raised[1]) if raised else None,
            ms=float(told["ms"]),
        )

    def times(self, count: int, function: str, /, *args: Any, **kwargs: Any) -> list[float]:
        """Milliseconds of `count` calls of one function, measured in the worker."""
        order = {"do": "time", "function": function, "times": count, "args": pack(list(args)), "kwargs": pack(kwargs)}
        return [float(ms) for ms in self._ask(order, READ_S * 4)["ms"]]

    def surface(self, functions: list[str], structs: list[str]) -> dict[str, Any]:
        """Constants, functions and struct types of the module."""
        return self._ask({"do": "surface", "functions": functions, "structs": structs}, READ_S)

    def close(self) -> None:
        """Ends the worker."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def _ask(self, order: dict[str, Any], deadline_s: float) -> dict[str, Any]:
        process = self._process or self._start()
        try:
            if process.stdin is not None:
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            return self._answer(deadline_s)
        except (OSError, CallHung) as error:
            self.close()
            what = order.get("function", order["do"])
            raise CallHung(f"expected {what} to return within {deadline_s * self._patience:.0f} s, {error}") from error

    def _answer(self, deadline_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=deadline_s * self._patience)
        except queue.Empty:
            raise CallHung("got no answer; the worker was ended") from None
        if not line:
            raise CallHung("got the end of the worker's process")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "streamapp.conformance.worker", self.module]
        answers: queue.Queue[str] = queue.Queue()
        self._answers = answers
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

        def read() -> None:
            if process.stdout is None:
                return
            try:
                for line in process.stdout:
                    answers.put(line)
            except ValueError:  # closed under the reader by `close`
                return
            answers.put("")

        threading.Thread(target=read, daemon=True).start()
        missing = self._answer(_START_S).get("missing")
        if missing is not None:
            self.close()
            raise ConfigurationError(
                f"expected to import {self.module}, got: {missing}. Install it beside this command "
                "(pip install MetaTrader5, on Windows only), or use --module simulated"
            )
        return process
