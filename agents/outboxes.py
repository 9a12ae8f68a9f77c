"""The terminals' outboxes as the reports agent sees them: told what may be forgotten, asked for what is missing.

Nothing here is awaited by the agent: silence costs nothing but a repetition.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from agents.ports import Terminals
from streamapp.domain.reports import Progress
from streamapp.messages.terminal import AckRequest, ReplayRequest

logger = logging.getLogger(__name__)

DEADLINE_S = 2.0
"""For one request: a healthy terminal answers within a few milliseconds."""
REPLAY_PAUSE_S = 5.0
"""Between two replays of one account: the first one's reports come by NATS, mirror and Kafka, some tens of milliseconds
each way, and thousands of them may be on their way."""


class Outboxes:
    """Acks, coalesced to the newest for each account, and replays, at a gap and at the start.

    Args:
        terminals: The port.
        clock_s: A monotonic clock in seconds.
        new_id: A name for a replay that was never used before: JetStream drops messages whose ids it has seen.
    """

    def __init__(
        self,
        terminals: Terminals,
        *,
        clock_s: Callable[[], float] = monotonic,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._terminals = terminals
        self._clock_s = clock_s
        self._new_id = new_id
        self._due: dict[str, Progress] = {}
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._asked_at: dict[str, float] = {}
        self.gaps: set[str] = set()
        """Accounts of which a report is missing now."""

    def durable(self, account: str, progress: Progress) -> None:
        """Tell the terminal how far it may forget; ask for a replay at a gap, and at the first word of an account."""
        self._due[account] = progress
        if account not in self._telling:
            self._telling[account] = self._spawn(self._tell(account))
        (self.gaps.add if progress.has_gap else self.gaps.discard)(account)
        if progress.has_gap or account not in self._asked_at:
            self.ask(account, progress)

    def ask(self, account: str, progress: Progress | None) -> None:
        """Ask the terminal for everything that is beyond ``progress``, unless it was asked a moment ago.

        Args:
            account: The account.
            progress: None where nothing of it is durable yet.
        """
        now = self._clock_s()
        last = self._asked_at.get(account)
        if account in self._asking or (last is not None and now - last < REPLAY_PAUSE_S):
            return
        self._asked_at[account] = now
        task = self._spawn(self._replay(account, progress or Progress("")))
        self._asking[account] = task
        task.add_done_callback(lambda _: self._asking.pop(account, None))

    async def close(self) -> None:
        """Stop what is on its way."""
        tasks = [*self._telling.values(), *self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Return when everything asked and told so far was answered, or was met with silence."""
        while tasks := [*self._telling.values(), *self._asking.values()]:
            await asyncio.wait(tasks)
            await asyncio.sleep(0)  # let the tasks' callbacks run

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    async def _tell(self, account: str) -> None:
        try:
            while (progress := self._due.pop(account, None)) is not None:
                request = AckRequest(epoch=progress.epoch, watermark=progress.watermark)
                await self._terminals.ack(account, request, timeout_s=DEADLINE_S)
        finally:
            del self._telling[account]

    async def _replay(self, account: str, progress: Progress) -> None:
        hello = await self._terminals.hello(account, timeout_s=DEADLINE_S)
        if hello is None:
            del self._asked_at[account]  # it was not asked: the next occasion may
            return
        after = progress.watermark if hello.epoch == progress.epoch else 0
        if hello.last_seq <= after:
            return
        request = ReplayRequest(epoch=hello.epoch, after_seq=after, replay_id=self._new_id())
        reply = await self._terminals.replay(account, request, timeout_s=DEADLINE_S)
        count = "no answer" if reply is None else f"{reply.published} reports"
        logger.info("account %s: replay after %s of epoch %s: %s", account, after, hello.epoch, count)
