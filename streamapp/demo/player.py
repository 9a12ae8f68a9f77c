"""Plays the seeded stream through NATS as a risk engine would: the row in ``trading_signals``, then the message."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal

import aiohttp
from nats.aio.client import Client

from streamapp.audit.evidence import SentView
from streamapp.demo.rows import RiskEngineRows
from streamapp.demo.signals import SYMBOLS, Script, sent_view
from streamapp.errors import Transient
from streamapp.nats.signals import NatsSignals
from streamapp.settings import Settings

_AGAIN_S = 0.2
_QUOTE_WITHIN_S = 30.0


class Player:
    """Sends a script's messages when they are due.

    ``sent`` grows by each message that JetStream acknowledged, with the answers that would be right.

    Args:
        settings: Where the market is.
        nats: A connected client.
        script: What to send.
        rows: Where a risk engine would write its row before the message; None: it writes none.
    """

    def __init__(self, settings: Settings, nats: Client, script: Script, rows: RiskEngineRows | None = None) -> None:
        self._rows = rows
        self._settings = settings
        self._signals = NatsSignals(lambda: nats, settings.nats)
        self._script = script
        self.sent: list[SentView] = []

    async def play(
        self, duration_s: float, rate: float, *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Send ``rate`` messages a second for ``duration_s``; each is acknowledged by JetStream before the next.

        ``meanwhile`` is started when a third of the time is over, and awaited at the end: for tests that break things.
        """
        async with asyncio.TaskGroup() as group:
            if meanwhile is not None:
                group.create_task(_after(duration_s / 3, meanwhile))
            await self._play(duration_s, rate)

    async def _play(self, duration_s: float, rate: float) -> None:
        begin = time.monotonic()
        async with aiohttp.ClientSession(f"http://{self._settings.market_address}") as market:
            for planned in self._script.plan(duration_s, rate):
                await asyncio.sleep(max(0.0, begin + planned.at_s - time.monotonic()))
                quotes = {symbol: await quote(market, symbol) for symbol in SYMBOLS}
                symbol, payload = self._script.due(planned, datetime.now(UTC), quotes)
                if self._rows is not None:
                    await self._rows.write(payload)
                sequence = await self._publish(payload, symbol)
                self.sent.append(sent_view(planned.kind, payload, sequence))

    async def _publish(self, payload: bytes, symbol: str) -> int:
        # Like every upstream that must not lose a signal: again, with the same id, until JetStream has it. The id is of
        # this message and not of the signal: a repeated signal must reach us, and JetStream would drop it otherwise.
        message_id = f"play:{secrets.token_hex(8)}"
        while True:
            try:
                return (await self._signals.publish(payload, symbol=symbol, message_id=message_id)).stream_seq
            except Transient:
                await asyncio.sleep(_AGAIN_S)


async def _after(delay_s: float, action: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(delay_s)
    await action()


async def quote(market: aiohttp.ClientSession, symbol: str) -> tuple[Decimal, Decimal]:
    """Return (bid, ask) of the simulated market; one that is being restarted is waited for.

    Raises:
        TimeoutError: it did not answer for half a minute.
    """
    async with asyncio.timeout(_QUOTE_WITHIN_S):
        while True:
            try:
                async with market.get(f"/quotes/{symbol}", raise_for_status=True) as answer:
                    prices = json.loads(await answer.text(), parse_float=Decimal)
                    return Decimal(prices["bid"]), Decimal(prices["ask"])
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(_AGAIN_S)
