"""Where the house's names of symbols end: calls go to the worker under the broker's, answers come back under ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

from streamapp.domain.symbol_names import SymbolNames
from streamapp.terminal.account.worker_client import READ, WorkerPort
from streamapp.terminal.pipe.answers import Answered
from streamapp.terminal.pipe.calls import Call, ListSymbols, OrderCheck, Send
from streamapp.terminal.pipe.structs import Model, SymbolDetails

A = TypeVar("A")
Naming = Callable[[str], str]

NAMES = frozenset({"symbol", "symbols", "selected"})
"""The fields of calls and answers that hold names of symbols; of ``symbol`` also its struct."""


class HouseNames:
    """A worker that is asked, and answers, with the house's names of symbols.

    What is evidence keeps the broker's: the log of an answer, ``order_send``'s raw result, and every text.
    """

    def __init__(self, worker: WorkerPort, names: SymbolNames) -> None:
        self._worker = worker
        self._names = names

    @property
    def is_alive(self) -> bool:
        """Whether there is a worker to ask."""
        return self._worker.is_alive

    async def start(self) -> None:
        """Make a new worker."""
        await self._worker.start()

    async def end(self) -> None:
        """End the worker at once and see it dead."""
        await self._worker.end()

    async def call(self, call: Call[A], *, deadline_s: float, urgency: int = READ) -> Answered[A]:
        """Return the answer, as :class:`~streamapp.terminal.account.worker_client.WorkerPort` says."""
        answer = await self._worker.call(_called(call, self._names.broker), deadline_s=deadline_s, urgency=urgency)
        return replace(answer, found=_named(answer.found, self._names.house))


def named(worker: WorkerPort, names: SymbolNames) -> WorkerPort:
    """Return the worker under the house's names; itself where they are the broker's."""
    return HouseNames(worker, names) if names else worker


def _called(call: Call[A], naming: Naming) -> Any:
    called = _named(call, naming)
    if isinstance(called, ListSymbols) and called.after is not None:  # the name of the last page's last row
        called = replace(called, after=naming(called.after))
    if isinstance(called, OrderCheck | Send) and "symbol" in called.request:
        called = replace(called, request=called.request | {"symbol": naming(called.request["symbol"])})
    return called


def _named(value: Any, naming: Naming) -> Any:
    """Return the same with other names of symbols, wherever a call or what it comes to has them."""
    if isinstance(value, tuple):
        return tuple(_named(each, naming) for each in value)
    if not isinstance(value, Model):
        return value
    crossing: Any = value
    changes = {field.name: _field(field.name, getattr(value, field.name), naming) for field in fields(crossing)}
    if isinstance(value, SymbolDetails):
        changes["name"] = naming(value.name)
    return replace(crossing, **changes)


def _field(name: str, value: Any, naming: Naming) -> Any:
    if name in NAMES and isinstance(value, str):
        return naming(value)
    if name in NAMES and isinstance(value, tuple):
        return tuple(map(naming, value))
    return _named(value, naming)
