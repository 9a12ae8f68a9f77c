"""Batches of several partitions, written together: one write where each partition alone would make its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")

GATHER_S = 0.05
"""How long the first batch of a round waits for those of other partitions, whose waits end at the same moment."""


class Rounds(Generic[Item]):
    """Collects what is handed over at about the same time, and writes it in one go; one round after another.

    Guarantees:
        :meth:`store` returns when its own items are written; what its round fails with, it raises. Whoever stops
        waiting takes nothing back: a round that has begun goes on as long as anybody waits for it.

    Args:
        write: Gets the items of a round, each batch's in their order.
        gather_s: How long a round waits for company.
    """

    def __init__(self, write: Callable[[list[Item]], Awaitable[object]], *, gather_s: float = GATHER_S) -> None:
        self._write = write
        self._gather_s = gather_s
        self._coming: list[tuple[Sequence[Item], asyncio.Future[None]]] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._task: asyncio.Task[None] | None = None

    async def store(self, items: Sequence[Item]) -> None:
        """Return when ``items`` are written."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming.append((items, written))
        self._waiting.add(written)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            await written
        finally:
            self._waiting.discard(written)
            if written.cancelled() and not self._waiting and self._task is not None:
                self._task.cancel()
                self._task = None  # whoever comes before it has ended begins another

    async def _run(self) -> None:
        try:
            while self._coming:
                await asyncio.sleep(self._gather_s)
                batches, self._coming = [batch for batch in self._coming if not batch[1].done()], []
                if batches:
                    await self._round(batches)
        finally:
            if self._task is asyncio.current_task():
                self._task = None

    async def _round(self, batches: list[tuple[Sequence[Item], asyncio.Future[None]]]) -> None:
        failure: Exception | None = None
        try:
            await self._write([item for items, _ in batches for item in items])
        except Exception as error:  # noqa: BLE001 - raised where each batch waits
            failure = error
        for _, written in batches:
            if written.done():
                continue
            if failure is None:
                written.set_result(None)
            else:
                written.set_exception(failure)
