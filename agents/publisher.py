"""The publisher: the sink agent inside the trading worker that puts the outbox's messages on NATS."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agents.outbox import Unsaid
from streamapp import subjects
from streamapp.clock import Clock
from streamapp.crashpoints import reach
from streamapp.desk.inputs import TRACE
from streamapp.errors import Transient, Unusable
from streamapp.kafka.abort import end_worker
from streamapp.messages.commit import Publication
from streamapp.messages.dead_letter import DeadLetter
from streamapp.metrics import TradingMetrics
from streamapp.tracing import Spans

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
SOURCE = "outbox"
"""The source that a dead letter of a message names that JetStream will never store."""


class Outlet(Protocol):
    """Where messages go; :class:`streamapp.nats.outlet.JetStreamOutlet`."""

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Return when it is stored; raises Unusable when it never will be, Transient when nobody knows."""
        ...


class Publisher:
    """Publishes commits, in order within an account and side by side between accounts.

    The messages of a commit are on their way together, in their order; the next commit of the account follows when
    JetStream has stored them all. What is not acknowledged is published again, under its id, for as long as it takes.

    Each message is published at least once. Again within JetStream's duplicate window (10 minutes) it is stored once;
    beyond it (it was stored, and we were away for longer) it is stored again under its id, and readers drop it by what
    it says: an order's or position's rev, a fill_id with its revision, an error_id.

    Args:
        outlet: NATS.
        origin: Who we are (:func:`streamapp.subjects.origin`).
        done: Called with a commit when all of its messages are stored.
        bury: Keeps a message that will never be stored as a dead letter; returns when that is durable.
        clock: The time, against not_after.
        metrics: What is counted.
        spans: What is told of messages' way, None where nothing is.
        on_failure: What to do about a dead letter that was not taken, or a fault of ours; ends the process.
    """

    def __init__(
        self,
        outlet: Outlet,
        origin: str,
        *,
        done: Callable[[Unsaid], None],
        bury: Callable[[DeadLetter, Unsaid], Any],
        clock: Clock,
        metrics: TradingMetrics,
        spans: Spans | None = None,
        on_failure: Callable[[BaseException], None] = end_worker,
    ) -> None:
        self._outlet = outlet
        self._origin = origin
        self._published = done
        self._bury = bury
        self._clock = clock
        self._metrics = metrics
        self._spans = spans
        self._on_failure = on_failure
        self._queues: dict[str, deque[Unsaid]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._troubles: dict[str, str] = {}

    @property
    def troubles(self) -> tuple[str, ...]:
        """Why publications wait now; empty when none does."""
        return tuple(sorted(set(self._troubles.values())))

    async def run(self, stream: Any) -> None:
        """Publish the commits of an in-memory channel, until it ends."""
        async for unsaid in stream:
            self.put(unsaid)

    def put(self, unsaid: Unsaid) -> None:
        """Publish a commit after those of its account."""
        self._queues.setdefault(unsaid.account, deque()).append(unsaid)
        if unsaid.account not in self._tasks:
            task = asyncio.get_running_loop().create_task(self._account(unsaid.account))
            self._tasks[unsaid.account] = task
            task.add_done_callback(self._finished)

    def drop(self, partitions: frozenset[int]) -> None:
        """Publish nothing more of ``partitions``: what is left is their next owner's to say."""
        for account, queue in list(self._queues.items()):
            kept = [unsaid for unsaid in queue if unsaid.partition not in partitions]
            if len(kept) == len(queue):
                continue
            queue.clear()
            queue.extend(kept)
            if not kept:
                self._tasks.pop(account).cancel()
                del self._queues[account]

    async def _account(self, account: str) -> None:
        try:
            while queue := self._queues.get(account):
                unsaid = queue[0]
                await self._commit(unsaid)
                if queue and queue[0] is unsaid:
                    queue.popleft()
                self._published(unsaid)
        finally:
            if self._tasks.get(account) is asyncio.current_task():
                del self._tasks[account]
                self._queues.pop(account, None)

    def _finished(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)

    async def _commit(self, unsaid: Unsaid) -> None:
        waiting = [each for each in unsaid.publications if each.subject is not None]
        pause_s = FIRST_PAUSE_S
        try:
            while waiting:
                outcomes = await asyncio.gather(*(self._publish(each, unsaid) for each in waiting))
                again = [each for each, trouble in zip(waiting, outcomes, strict=True) if trouble is not None]
                if again:
                    self._troubles[unsaid.account] = next(trouble for trouble in outcomes if trouble is not None)
                    self._metrics.publish_retries.inc(len(again))
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                waiting = again
        finally:
            self._troubles.pop(unsaid.account, None)
        reach("publisher.after_publish", unsaid.kinds)

    async def _publish(self, publication: Publication, unsaid: Unsaid) -> str | None:
        """Return None when the message needs no more care, otherwise why it is to be published again."""
        assert publication.subject is not None
        assert publication.id is not None
        if publication.not_after is not None and self._clock() >= publication.not_after:
            self._metrics.left_out.labels("not_after").inc()
            return None
        began = None if self._spans is None else self._clock()
        headers = {
            subjects.MESSAGE_ID_HEADER: publication.id,
            subjects.ORIGIN_HEADER: self._origin,
            "Content-Type": "application/json",
            **({TRACE: publication.trace} if publication.trace is not None else {}),
        }
        try:
            await self._outlet.publish(publication.subject, publication.message, headers)
        except Transient as error:
            return str(error)
        except Unusable as error:
            detail = f"{publication.subject}: {error.detail}"
            letter = DeadLetter(
                publication.message, error.reason, detail, SOURCE, publication.subject, unsaid.number, self._clock()
            )
            await self._bury(letter, unsaid)
            return None
        if self._spans is not None and began is not None:
            names = {"account": unsaid.account, "subject": publication.subject}
            self._spans.took("publish", publication.trace, began, self._clock(), **names)
        self._metrics.published.labels(publication.kind).inc()
        return None
