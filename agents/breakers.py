"""One breaker an account: only while its terminal answers, and its clock agrees with ours, anything new is claimed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agents.ports import Terminals
from streamapp.clock import Clock
from streamapp.domain.vocabulary import Connection
from streamapp.metrics import TradingMetrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Link:
    """What we know of an account's terminal. ``epoch`` None: it never answered; ``fault`` None: it is ready."""

    epoch: str | None = None
    fault: str | None = "the terminal has not answered yet"
    connection: Connection | None = None
    asked: bool = False
    silent: bool = False

    @property
    def ready(self) -> bool:
        """Whether something new may be claimed."""
        return self.fault is None and self.epoch is not None


class Breakers:
    """The links of all accounts, kept up by every answer and every silence.

    Args:
        terminals: The port.
        clock: The time.
        deadline_s: For one hello.
        max_skew_s: How far a terminal's clock may be from ours (``execution.max_clock_skew_s``).
        metrics: Gauges.
    """

    def __init__(
        self, terminals: Terminals, clock: Clock, *, deadline_s: float, max_skew_s: float, metrics: TradingMetrics
    ) -> None:
        self._terminals = terminals
        self._clock = clock
        self._deadline_s = deadline_s
        self._max_skew = timedelta(seconds=max_skew_s)
        self._metrics = metrics
        self._links: dict[str, Link] = {}

    def link(self, account: str) -> Link:
        """Return what is known, without asking."""
        return self._links.get(account, Link())

    async def known(self, account: str) -> Link:
        """Return what is known, after a first hello where nothing is."""
        return self.link(account) if self.link(account).asked else await self.probe(account)

    async def probe(self, account: str) -> Link:
        """Say hello and return what is known then."""
        asked_at = self._clock()
        reply = await self._terminals.hello(account, timeout_s=self._deadline_s)
        if reply is None:
            self.silent(account)
        else:
            self.heard(account, reply.epoch, reply.clock, asked_at)
            self._set(account, replace(self._links[account], connection=reply.connection))
        return self._links[account]

    def heard(self, account: str, epoch: str, clock: datetime, asked_at: datetime) -> None:
        """Take note of an answer asked for at ``asked_at`` and here now: the breaker closes, unless clocks differ."""
        now = self._clock()
        # The answer was written at some moment between asking and now; only what lies outside of both is skew.
        skew = max(clock - now, timedelta(0)) or min(clock - asked_at, timedelta(0))
        self._metrics.clock_skew_seconds.labels(account).set(skew.total_seconds())
        fault = None
        if abs(skew) > self._max_skew:
            most_s = self._max_skew.total_seconds()
            fault = f"the terminal's clock is {skew.total_seconds():+.1f} s from ours, expected {most_s} s at most"
        self._set(account, replace(self.link(account), epoch=epoch, fault=fault, asked=True, silent=False))

    def silent(self, account: str) -> None:
        """Take note that no answer came: the breaker opens, until the terminal answers a hello."""
        fault = f"the terminal did not answer within {self._deadline_s} s"
        self._set(account, replace(self.link(account), fault=fault, asked=True, silent=True))

    def _set(self, account: str, link: Link) -> None:
        before = self.link(account)
        if link.fault is not None and (link.fault != before.fault or not before.asked):
            logger.warning("account %s: nothing new is claimed: %s", account, link.fault)
        elif link.ready and (not before.ready or before.epoch != link.epoch):
            logger.info("account %s: its terminal answers, journal epoch %s", account, link.epoch)
        self._links[account] = link
        self._metrics.breaker_open.labels(account).set(0 if link.ready else 1)
