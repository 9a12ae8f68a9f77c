"""Sends good signals at a fixed rate and hears what becomes of them, on one clock: everything runs on one machine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from streamapp import subjects
from streamapp.domain.vocabulary import FINAL_STATUSES, time_text

PUBLISH_S = 60.0
"""A machine that is asked for too much acknowledges late: that is a figure, and no reason to stop."""


@dataclass
class Heard:
    """Times of each signal, in seconds of the wall clock."""

    published: dict[str, float] = field(default_factory=dict)
    filled: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)

    def to_order_send(self) -> list[float]:
        """Return the times from before the publish to the terminal's order_send."""
        return [_sent_at(order) - self.published[key] for key, (_, order) in self.filled.items()]

    def to_filled(self) -> list[float]:
        """Return the times from before the publish to the filled message.

        The market runs without its latency model here, so the broker's own time is within the noise.
        """
        return [at - self.published[key] for key, (at, _) in self.filled.items()]


def _sent_at(order: dict[str, Any]) -> float:
    return datetime.fromisoformat(order["submitted_at"]).timestamp()


class Load:
    """One sender and one listener."""

    def __init__(self, nats: Client, accounts: Sequence[str]) -> None:
        self._nats = nats
        self._accounts = accounts
        self._number = 0
        self._subscriptions: list[Subscription] = []
        self.heard = Heard()

    async def __aenter__(self) -> Self:
        """Hear every order's end, and every refusal: a signal that waited too long is refused as stale."""
        self._subscriptions = [await self._nats.subscribe("signals.refused.>", cb=self._on_refusal)]
        for status in FINAL_STATUSES:
            self._subscriptions.append(await self._nats.subscribe(f"orders.{status}.>", cb=self._on_order))
        await self._nats.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hear no more: what is read for nothing would be missing from the figures of the next run."""
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def _on_refusal(self, message: Any) -> None:
        signal_id = json.loads(message.data)["signal_id"]
        if signal_id in self.heard.published:
            self.heard.refused.add(signal_id)
            self.heard.final.add(signal_id)

    async def _on_order(self, message: Any) -> None:
        at = time.time()
        order = json.loads(message.data)
        signal_id = order["signal_id"]
        if signal_id not in self.heard.published:
            return  # of an earlier run that was not drained in time
        self.heard.final.add(signal_id)
        if order["status"] == "filled":
            self.heard.filled.setdefault(signal_id, (at, order))

    async def send(self, run: str, rate: float, seconds: float) -> Heard:
        """Send at ``rate`` a second; a late one is not left out (no coordinated omission). Return a fresh record."""
        self.heard = Heard()
        js, subject = self._nats.jetstream(), subjects.signal_approved("EURUSD")
        begin, pending = time.monotonic(), []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            signal_id, payload = self._signal(run)
            self.heard.published[signal_id] = time.time()
            pending.append(asyncio.create_task(js.publish(subject, payload, timeout=PUBLISH_S)))
        await asyncio.gather(*pending)
        return self.heard

    async def drained(self, within_s: float) -> bool:
        """Return whether every signal sent has come to a final status within ``within_s``."""
        deadline = time.monotonic() + within_s
        while len(self.heard.final) < len(self.heard.published):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    def _signal(self, run: str) -> tuple[str, bytes]:
        self._number += 1
        signal_id = f"{run}-{self._number:07d}"
        signal = {
            "signal_id": signal_id,
            "status": "approved",
            "account": self._accounts[self._number % len(self._accounts)],
            "symbol": "EURUSD",
            # By turns, so that netting positions stay small and the margin never ends.
            "side": ("buy", "sell")[self._number // len(self._accounts) % 2],
            "order_type": "market",
            "volume": "0.01",
            "approved_at": time_text(datetime.now(UTC)),
        }
        return signal_id, json.dumps(signal).encode()
