"""Side by side between accounts, one group after another within an account.

A partition holds many accounts, and one account with a slow terminal must not stand in the way of the others: what
happens to an account enters its lane, whichever topic or part of the worker it comes from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from streamapp.kafka.abort import end_worker

Item = TypeVar("Item")

GROUP = 100
"""Items handled together at most: what arrived while the last group was being committed is committed together."""
GROUP_COST = 64 * 1024
"""Bytes of input handled together at most: rows and words are four to five times as much, and must fit a commit."""


class Lanes(Generic[Item]):
    """A keyed executor.

    Guarantees:
        - Items of one key are handled in their order, in groups, and never two groups at the same time; those of
          different keys side by side. Never waits for a group to fill.
        - A handler that raises ends the process: whatever was not finished is redelivered.

    Args:
        handle: Gets a key and 1 to ``GROUP`` of its items.
        cost: Returns an item's size in bytes; a group is closed by the item with which it reaches ``GROUP_COST``.
        on_failure: What to do about a failed handler; only tests have something else than ending the process in mind.
    """

    def __init__(
        self,
        handle: Callable[[str, list[Item]], Awaitable[None]],
        *,
        cost: Callable[[Item], int] = lambda _: 1,
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self._handle = handle
        self._cost = cost
        self._on_failure = on_failure
        self._waiting: dict[str, deque[Item]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return the number of items that wait for their lane."""
        return sum(map(len, self._waiting.values()))

    def put(self, key: str, item: Item) -> None:
        """Let ``item`` be handled after those of its key."""
        self._waiting.setdefault(key, deque()).append(item)
        if key not in self._tasks:
            self._start(key)

    def is_busy(self, key: str | None = None) -> bool:
        """Return whether anything of ``key``, or of any key, is being handled or waits."""
        return bool(self._tasks) if key is None else key in self._tasks

    def drop(self, keys: Callable[[str], bool]) -> None:
        """Forget what waits in some lanes; what is being handled goes on."""
        for key in [key for key in self._waiting if keys(key)]:
            del self._waiting[key]

    async def drain(self) -> None:
        """Return when nothing waits and nothing is being handled."""
        while self._tasks:
            await asyncio.wait([*self._tasks.values()])
            await asyncio.sleep(0)  # let the tasks' callbacks run

    def _start(self, key: str) -> None:
        # A task of its own for each lane; it ends with the lane's last item.
        task = asyncio.get_running_loop().create_task(self._run(key))
        self._tasks[key] = task
        task.add_done_callback(lambda task: self._finished(key, task))

    async def _run(self, key: str) -> None:
        while group := self._next_group(key):
            await self._handle(key, group)

    def _next_group(self, key: str) -> list[Item]:
        waiting = self._waiting.get(key)
        group: list[Item] = []
        cost = 0
        while waiting and len(group) < GROUP and cost < GROUP_COST:
            group.append(waiting.popleft())
            cost += self._cost(group[-1])
        if not waiting:
            self._waiting.pop(key, None)
        return group

    def _finished(self, key: str, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if task.cancelled():  # the loop is shutting down: nothing more is handled, nothing is acknowledged
            return
        if (error := task.exception()) is not None:
            self._on_failure(error)
        elif key in self._waiting:
            self._start(key)
