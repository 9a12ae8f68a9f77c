"""Somebody else's half, which knows nothing but NATS and the documented messages: it imports nothing of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from nats.aio.client import Client
from nats.aio.msg import Msg

Habit = Literal["fills", "fills_twice", "fills_half", "rejects", "can_t_connect", "keeps_silent", "times_out"]
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Heard:
    """A message as it came."""

    subject: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: datetime


class Ears:
    """Hears everything that is said on the subjects given, and can wait for something."""

    def __init__(self, url: str, *subjects: str) -> None:
        self.heard: list[Heard] = []
        self._url, self._subjects = url, subjects
        self._client = Client()
        self._more = asyncio.Condition()

    async def __aenter__(self) -> Self:
        await self._client.connect(self._url)
        for subject in self._subjects:
            await self._client.subscribe(subject, cb=self._hear)
        await self._client.flush()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def _hear(self, message: Msg) -> None:
        heard = Heard(message.subject, json.loads(message.data), message.headers or {}, datetime.now(UTC))
        async with self._more:
            self.heard.append(heard)
            self._more.notify_all()
        await self.react(heard)

    async def react(self, heard: Heard) -> None:
        """Do something about it."""

    async def say(self, subject: str, body: Mapping[str, Any] | bytes) -> None:
        """Publish a message as plain NATS does it."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self._client.publish(subject, payload)
        await self._client.flush()

    def on(self, prefix: str, order_id: str | None = None) -> list[Heard]:
        """Return what was heard on subjects that begin so, about this order if one is given."""
        return [
            heard
            for heard in self.heard
            if heard.subject.startswith(prefix) and order_id in {None, heard.body.get("order_id")}
        ]

    async def until(self, enough: Callable[[], Any]) -> None:
        """Return when ``enough`` is true of what was heard."""
        async with asyncio.timeout(DEADLINE_S), self._more:
            await self._more.wait_for(enough)


class Connector(Ears):
    """A connector: is asked on ``orders.submitted.>`` and answers on ``broker.fill`` and ``broker.error``.

    Args:
        url: NATS.
        habits: By symbol, how it behaves. Each fill is two deals of half the volume, the second one 0.0002 dearer.
    """

    def __init__(self, url: str, habits: Mapping[str, Habit]) -> None:
        super().__init__(url, "orders.submitted.>")
        self._habits = habits

    async def react(self, heard: Heard) -> None:
        order, habit = heard.body, self._habits[heard.body["symbol"]]
        if habit in {"fills", "fills_twice"}:
            for _ in range(2 if habit == "fills_twice" else 1):
                await self.fill(order)
        elif habit == "fills_half":
            await self.fill(order, deals=1)
            await self.error(order, "expired", final=True)
        elif habit in {"rejects", "can_t_connect"}:
            kind = "rejected" if habit == "rejects" else "not_connected"
            await self.error(order, kind, final=True)
        elif habit == "times_out":
            await self.error(order, "timeout", final=False)

    async def fill(self, order: Mapping[str, Any], deals: int = 2) -> None:
        """Fill half of an order in each deal, saying no more than is required."""
        for number, price in enumerate((Decimal("1.1000"), Decimal("1.1002"))[:deals]):
            body = {
                "order_id": order["order_id"],
                "fill_id": f"their-{order['order_id']}-{number}",
                "volume": str(Decimal(order["volume"]) / 2),
                "price": str(price),
            }
            await self.say(f"broker.fill.{order['symbol']}", body)

    async def error(self, order: Mapping[str, Any], kind: str, *, final: bool) -> None:
        """Answer with an error."""
        body = {"order_id": order["order_id"], "kind": kind, "final": final, "message": "no"}
        await self.say(f"broker.error.{order['symbol']}", body)


class ExecutionService(Ears):
    """An execution service: asks on ``orders.submitted`` and hears what the connector says."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "broker.>", "orders.>", "positions.>", "accounts.>", "signals.>")

    async def ask(self, order_id: str, symbol: str | None = "EURUSD", **changes: Any) -> dict[str, Any]:
        """Ask for an order as the documentation says it, a market order if no more is said; None leaves a field out."""
        order: dict[str, Any] = {
            "order_id": order_id,
            "account": "demo-hedging",
            "symbol": symbol,
            "side": "buy",
            "order_type": "market",
            "volume": "0.10",
            "not_after": (datetime.now(UTC) + timedelta(seconds=30)).isoformat(),
            **changes,
        }
        said = {name: value for name, value in order.items() if value is not None}
        await self.say(f"orders.submitted.{quote(symbol or '-')}", said)
        return said

    def filled(self, order_id: str) -> Decimal:
        """Return the volume that the connector said was filled, each deal once."""
        deals = {heard.body["fill_id"]: Decimal(heard.body["volume"]) for heard in self.on("broker.fill.", order_id)}
        return sum(deals.values(), Decimal(0))
