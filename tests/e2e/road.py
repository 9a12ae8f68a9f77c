"""Sending a stream of signals down the road, and judging what arrived."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.evidence import Evidence
from streamapp.audit.sources import settled_evidence
from streamapp.demo.player import Player
from streamapp.demo.signals import SYMBOLS, Kind, Script
from streamapp.demo.sweep import sweeping
from streamapp.nats.connection import connect
from streamapp.settings import Settings

# Of 500: 5 % repeated, 5 % bad in every way that a signal can be bad.
SHARES: dict[Kind, int] = {"good": 90, "repeated": 5, "conflicting": 1, "refused": 1, "rejected": 1, "broken": 2}
PENDING = 0.25
SETTLE_WITHIN_S = 120.0


@dataclass(frozen=True)
class Outcome:
    """What was sent, and what all witnesses say of it."""

    run: str
    sent: Counter[str]
    evidence: Evidence

    @property
    def differences(self) -> list[str]:
        """Everything that is wrong, in sentences; empty is the only good answer."""
        open_orders = [f"{order.order_id} is {order.status}/{order.detail}" for order in unsettled(self.evidence)]
        return disagreements(self.evidence) + open_orders

    @property
    def orders(self) -> int:
        """How many orders this run made."""
        return sum(order.signal_id.startswith(self.run) for order in self.evidence.archive.orders.values())


async def travel(
    settings: Settings,
    *,
    signals: int,
    rate: float,
    seed: int,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> Outcome:
    """Send about ``signals`` signals at ``rate`` a second, break something meanwhile, and wait until all is settled."""
    nats = await connect(settings, "streamapp-test")
    try:
        run = f"t{secrets.token_hex(3)}"
        player = Player(settings, nats, Script(run, tuple(settings.accounts), seed, SHARES, pending=PENDING))
        await player.play(signals / rate, rate, meanwhile=meanwhile)
        async with sweeping(settings, SYMBOLS):
            return Outcome(run, player.sent, await settled_evidence(settings, nats, within_s=SETTLE_WITHIN_S))
    finally:
        await nats.close()
