"""The timer by which no order waits unseen. It can't write tables: it sends CheckSubmission to ``order_commands``."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from agents.breakers import Breakers, Link
from streamapp import topics
from streamapp.clock import Clock
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.command import CheckSubmission
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.submissions import SubmissionIndex, Waiting

AT_ONCE = 200
"""Checks sent for one account at a time, the oldest first: what its lane works off in about a second."""
AGAIN_S = 5.0
"""A row that a check was sent for and that still waits gets the next one after so long, more than a handling takes."""


class Checks:
    """Looks at the rows that wait, once for each ``tick``.

    Args:
        index: The rows that wait.
        producer: Where checks go.
        breakers: None in role execution: there is no terminal to say hello to.
        settings: Accounts and times.
        clock: The time.
        metrics: Gauges.
    """

    def __init__(
        self,
        index: SubmissionIndex,
        producer: Producer,
        *,
        breakers: Breakers | None,
        settings: Settings,
        clock: Clock,
        metrics: TradingMetrics,
    ) -> None:
        self._index = index
        self._producer = producer
        self._breakers = breakers
        self._accounts = frozenset(settings.accounts)
        self._skew = timedelta(seconds=settings.execution.max_clock_skew_s)
        # Younger claims are being submitted at this moment, and their own answer is on its way.
        self._in_flight = timedelta(seconds=settings.broker.submit_deadline_s + 1)
        self._clock = clock
        self._metrics = metrics
        self._sent: dict[str, datetime] = {}

    async def tick(self) -> int:
        """Say hello to every account's terminal and send what is due; return the number of checks sent.

        Raises:
            Ambiguous, Definite: Kafka did not take them.
        """
        links = await self.greet()
        due = [record for account, link in links.items() for record in self._due(account, link)]
        await self._producer.send_all(due)
        self._forget()
        self._count()
        return len(due)

    async def greet(self) -> dict[str, Link | None]:
        """Say hello to every account's terminal, at the same time, and return what is known of each."""
        accounts = sorted(self._accounts | self._index.accounts())
        links = await asyncio.gather(*(self._link(account) for account in accounts))
        return dict(zip(accounts, links, strict=True))

    async def _link(self, account: str) -> Link | None:
        return None if self._breakers is None else await self._breakers.probe(account)

    def _due(self, account: str, link: Link | None) -> list[Record]:
        now = self._clock()
        rows: list[tuple[str, int, str]] = [
            (row.order_id, row.partition, row.state)
            for row in self._index.waiting(account)
            if self._is_due(row, link, now)
        ]
        if link is not None and link.epoch is not None and not link.silent:
            others = self._index.recorded_under_another(account, link.epoch, AT_ONCE)
            rows += [(order_id, partition, "other_epoch") for order_id, partition in others]
        return list(self._records(account, rows, now))

    def _is_due(self, row: Waiting, link: Link | None, now: datetime) -> bool:
        expired = now > row.not_after + self._skew
        if link is None:
            return expired
        if row.state == "held":
            return expired or (link.ready and now < row.not_after)
        return not link.silent and now > row.since + self._in_flight

    def _records(self, account: str, rows: Iterable[tuple[str, int, str]], now: datetime) -> Iterable[Record]:
        count = 0
        for order_id, partition, cause in rows:
            sent = self._sent.get(order_id)
            if count == AT_ONCE or (sent is not None and now < sent + timedelta(seconds=AGAIN_S)):
                continue
            count += 1
            self._sent[order_id] = now
            command = CheckSubmission(order_id=order_id, account=account, cause=cause)
            yield Record(topics.ORDER_COMMANDS, account.encode(), command.encode(), {}, partition)

    def _forget(self) -> None:
        before = self._clock() - timedelta(seconds=AGAIN_S)
        self._sent = {order_id: at for order_id, at in self._sent.items() if at > before}

    def _count(self) -> None:
        counts = self._index.counts()
        for account in self._accounts:
            for state in ("held", "claimed"):
                self._metrics.submissions.labels(account, state).set(counts[account, state])
