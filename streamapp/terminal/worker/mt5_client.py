"""Serialised calls of the MT5 module: one after another in one thread, ``last_error`` read right after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from functools import cache
from operator import itemgetter
from typing import Any, TypeVar

from streamapp.errors import Transient
from streamapp.mt5 import constants as mt5
from streamapp.mt5.retcodes import IPC_ERRORS
from streamapp.terminal.pipe.answers import Exchange
from streamapp.terminal.pipe.structs import Model

M = TypeVar("M", bound=Model)

_VOLATILE = frozenset(
    {
        "ping_last",
        "retransmission",
        "profit",
        "equity",
        "margin",
        "margin_free",
        "margin_level",
        "balance",
        "price_current",
        "swap",
        "time_update",
        "time_update_msc",
        "assets",
        "liabilities",
    }
)
"""What moves with every tick: not in the broker log, or each look at an account would be an entry."""

REMEMBERED = 1000
"""Most answers kept to be compared with the next: each order and each position has one, and a worker lives for months.
What is forgotten is an entry of the log once more."""
VOLUME_DIGITS = 8
"""Volumes are floats; the smallest step of any broker is a thousand times larger than what this rounds away."""
ROWS_AN_ENTRY = 500
"""Most rows in one entry of the log: about 150 kB, far below the 1 MB that NATS takes."""


class NotConnectedError(Transient):
    """After an IPC error nothing is asked before ``initialize``: replies may be out of phase (reference mt5 §1.1)."""


class UnreadError(Transient):
    """A read failed: from an answer that did not come nothing follows. Its text names the function and last_error."""


class Mt5Client:
    """The module, with every exchange noted for the broker log and every IPC error remembered.

    Attributes:
        broken: The IPC error after which nothing but ``initialize`` may be called.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._noted: list[Exchange] = []
        self._last_answers: dict[str, Any] = {}
        self.broken: tuple[int, str] | None = (mt5.RES_E_INTERNAL_FAIL_CONNECT, "not initialised")
        self.error: tuple[int, str] = (mt5.RES_S_OK, "")

    def needed(self, function: str, *args: Any, unless: Collection[int] = (), **named: Any) -> Any:
        """Return what :meth:`call` does; None only with a last_error of ``unless``, by which there is nothing.

        Raises:
            UnreadError: the module answered nothing for another reason.
            NotConnectedError: as :meth:`call`.
        """
        answer = self.call(function, *args, **named)
        if answer is None and self.error[0] not in unless:
            raise UnreadError(self.failed(function))
        return answer

    def failed(self, function: str) -> str:
        """Return in words that a function, the last one that was called, answered nothing."""
        return f"{function}: {self.error[1]} ({self.error[0]})"

    def call(
        self,
        function: str,
        *args: Any,
        see: Callable[[Any], Any] | None = None,
        request: Any = None,
        log: bool = False,
        **named: Any,
    ) -> Any:
        """Return what a function of the module answers, as JSON-ready values; ``error`` is its last_error.

        Args:
            function: Its name.
            args: Its arguments.
            see: Makes JSON-ready values of the answer; by default all of it is taken.
            request: What stands in the log as the request (never a password).
            log: Always an entry in the broker log; otherwise not at all (see :meth:`note_change`).
            named: Its named arguments.

        Raises:
            NotConnectedError: an IPC error came before, and no ``initialize`` since.
        """
        if self.broken and function not in {"initialize", "shutdown"}:
            raise NotConnectedError(f"expected an initialised module, got {self.broken[1]} ({self.broken[0]})")
        at, began = time.time(), time.perf_counter_ns()
        raw = getattr(self._module, function)(*args, **named)
        duration_us = (time.perf_counter_ns() - began) // 1000
        code, text = self._module.last_error()
        self.error = (int(code), str(text))
        answer = (see or plain)(raw)
        if self.error[0] in IPC_ERRORS and not answer:
            self.broken = self.error
        if log:
            self._note(function, request, answer, at, duration_us)
        return answer

    def note_change(self, function: str, request: dict[str, Any] | None, answer: Any) -> None:
        """Note a read whose answer is another one than last time, apart from what moves with every tick."""
        key, stable = f"{function}:{request}", _stable(answer)
        before = self._last_answers.pop(key, self)
        self._remember(key, stable)
        if before != stable:
            self._note(function, request, answer, time.time(), 0)

    def note_rows(self, function: str, rows: list[dict[str, Any]] | None) -> None:
        """Note what changed in a table since last time: rows that are new or other, tickets that are gone."""
        before: dict[int, Any] = self._last_answers.pop(function, {})
        after = {row["ticket"]: _stable(row) for row in rows or ()}
        self._remember(function, before if rows is None else after)
        if rows is None or after == before:
            return
        changed = [row for row in rows if before.get(row["ticket"]) != after[row["ticket"]]]
        gone = [ticket for ticket in before if ticket not in after]
        for at in range(0, max(len(changed), 1), ROWS_AN_ENTRY):
            self._note(function, None, {"rows": changed[at : at + ROWS_AN_ENTRY], "gone": gone}, time.time(), 0)
            gone = []

    def _remember(self, key: str, stable: Any) -> None:
        """Keep an answer as the newest; the one that nobody compared for longest goes."""
        self._last_answers[key] = stable
        if len(self._last_answers) > REMEMBERED:
            del self._last_answers[next(iter(self._last_answers))]

    def _note(self, function: str, request: Any, answer: Any, at: float, duration_us: int) -> None:
        self._noted.append(Exchange(function, request, answer, self.error, at, duration_us))

    def taken_notes(self) -> tuple[Exchange, ...]:
        """Return the entries since the last time."""
        notes, self._noted = self._noted, []
        return tuple(notes)


def model_of(kind: type[M], struct: Mapping[str, Any] | None) -> M | None:
    """Return as much of a struct as crosses the pipe; None of none."""
    return None if struct is None else kind(*_values_of(kind)(struct))


def models_of(kind: type[M], structs: Iterable[Mapping[str, Any]]) -> tuple[M, ...]:
    """Return as much of structs as crosses the pipe."""
    values_of = _values_of(kind)
    return tuple([kind(*values_of(struct)) for struct in structs])


def _getter(kind: Any) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    return itemgetter(*(field.name for field in fields(kind)))


_values_of: Callable[[Any], Callable[[Mapping[str, Any]], tuple[Any, ...]]] = cache(_getter)


def whole(rows: Any) -> Any:
    """Return rows as the module gives them: what is only compared here need not become JSON-ready."""
    return rows


def plain(value: Any) -> Any:
    """Return a struct of the module as a dict, a tuple of them as a list, anything else as it is."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    if isinstance(value, str) and not value.isascii():
        # A server that cuts a comment off may leave half of a character, which is no text that could be written.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _stable(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _stable(part) for name, part in answer.items() if name not in _VOLATILE}
    return [_stable(part) for part in answer] if isinstance(answer, list) else answer
