"""Which orders are on the road at a moment: what a test watches so that its kill falls among them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from nats.aio.client import Client

from streamapp import subjects
from streamapp.domain.vocabulary import FINAL_STATUSES

CROWDED_WITHIN_S = 20.0


class Traffic:
    """The market orders that were asked for and have not ended, as anybody can see them on NATS.

    Orders that wait for a price are left out: they may wait at the broker for long, and a kill does not touch them.
    """

    def __init__(self) -> None:
        self._accounts: dict[str, str] = {}
        self._ended: set[str] = set()
        self._moved = asyncio.Event()

    def on_the_road(self, accounts: Collection[str] | None = None) -> set[str]:
        """Return the signal ids without an end, of these accounts or of all."""
        under_way = self._accounts.keys() - self._ended
        return {one for one in under_way if accounts is None or self._accounts[one] in accounts}

    async def crowded(self, at_least: int, accounts: Collection[str] | None = None) -> set[str]:
        """Return what is on the road as soon as there are ``at_least`` orders; nothing is awaited after the count."""
        async with asyncio.timeout(CROWDED_WITHIN_S):
            while len(found := self.on_the_road(accounts)) < at_least:
                self._moved.clear()
                await self._moved.wait()
            return found

    async def hear(self, message: Any) -> None:
        """Note a signal, or the end of one."""
        try:
            content = json.loads(message.data)
            signal_id = str(content["signal_id"])
        except (ValueError, TypeError, KeyError):
            return  # a broken one: it is no order
        if not message.subject.startswith(f"{subjects.SIGNALS_APPROVED}."):
            self._ended.add(signal_id)
        elif content.get("order_type") == "market":
            self._accounts.setdefault(signal_id, str(content["account"]))
        self._moved.set()


@asynccontextmanager
async def traffic_on(nats: Client) -> AsyncIterator[Traffic]:
    """Yield the traffic of a stack from now on."""
    traffic = Traffic()
    heard = (f"{subjects.SIGNALS_APPROVED}.>", "signals.refused.>", *(f"orders.{end}.>" for end in FINAL_STATUSES))
    subscriptions = [await nats.subscribe(subject, cb=traffic.hear) for subject in heard]
    await nats.flush()
    try:
        yield traffic
    finally:
        for subscription in subscriptions:
            await subscription.unsubscribe()
