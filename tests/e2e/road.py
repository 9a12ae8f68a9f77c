"""Sending a stream of signals down the road, and judging what arrived against what was sent."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.evidence import Evidence
from streamapp.audit.sources import settled_evidence
from streamapp.demo.player import Player
from streamapp.demo.signals import SYMBOLS, Kind, Script
from streamapp.demo.sweep import sweeping
from streamapp.nats.connection import connect
from streamapp.settings import Settings
from tests.e2e.traffic import Traffic, traffic_on

# 10 % repeated or conflicting, 10 % bad in every way that a signal can be bad: of 200 some of each.
SHARES: dict[Kind, int] = {
    "good": 70,
    "exit": 10,
    "repeated": 6,
    "conflicting": 4,
    "refused": 3,
    "rejected": 3,
    "broken": 4,
}
PENDING = 0.25
SETTLE_WITHIN_S = 180.0
"""For a machine that is busy with other things; a quiet one needs 10 to 20 s."""


@dataclass(frozen=True)
class Outcome:
    """What all witnesses say, the sender among them."""

    run: str
    evidence: Evidence

    @property
    def differences(self) -> list[str]:
        """Everything that is wrong, in sentences; empty is the only good answer.

        A signal without its answer, an accepted one without its order, an order without an end (the market was moved
        to every price that an order waits for), two witnesses that differ.
        """
        open_orders = [f"{order.order_id} is {order.status}/{order.detail}" for order in unsettled(self.evidence)]
        return disagreements(self.evidence) + open_orders

    def sent(self, *kinds: Kind) -> int:
        """Return how many messages of these kinds were sent, of all without one."""
        return sum(not kinds or sent.kind in kinds for sent in self.evidence.sent)

    @property
    def due(self) -> int:
        """How many orders must have been made, exits apart: one for each signal that is good or the broker rejects.

        None for a good one whose own end had passed when a slow machine came to decide it.
        """
        decided = {each.stream_seq: each.decision for each in self.evidence.decisions}
        ended = sum(each.kind == "good" and decided.get(each.stream_seq) == "refused" for each in self.evidence.sent)
        return self.sent("good", "rejected") - ended

    @property
    def orders(self) -> int:
        """How many orders this run's signals made that were no exits: of those it depends on what was open."""
        exits = {sent.signal_id for sent in self.evidence.sent if sent.kind == "exit"}
        made_for = (order.signal_id for order in self.evidence.archive.orders.values())
        return sum(signal_id.startswith(self.run) and signal_id not in exits for signal_id in made_for)


async def travel(
    settings: Settings,
    *,
    signals: int,
    rate: float,
    seed: int,
    meanwhile: Callable[[Traffic], Awaitable[None]] | None = None,
) -> Outcome:
    """Send about ``signals`` signals at ``rate`` a second, break something meanwhile, and wait until all is settled."""
    nats = await connect(settings, "streamapp-test")
    try:
        run = f"t{secrets.token_hex(3)}"
        player = Player(settings, nats, Script(run, tuple(settings.accounts), seed, SHARES, pending=PENDING))
        async with traffic_on(nats) as traffic:
            trouble = None if meanwhile is None else partial(meanwhile, traffic)
            await player.play(signals / rate, rate, meanwhile=trouble)
        async with sweeping(settings, SYMBOLS):
            found = await settled_evidence(settings, nats, within_s=SETTLE_WITHIN_S, sent=player.sent)
            return Outcome(run, found)
    finally:
        await nats.close()
