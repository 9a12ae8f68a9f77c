"""Moves the simulated market up and down, so that every order that waits for a price gets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal

import aiohttp

from streamapp.demo.player import quote
from streamapp.settings import Settings

REACH = Decimal("0.012")
"""Further than the demonstration's stop-losses and take-profits are from their orders."""
STEP = Decimal("0.0002")
"""A few pips: what is filled at the market does not slip further."""
LEGS = (1, -1, -1, 1, 1, -1)
"""Up, down and up again: a sell stop-limit is triggered below the market and filled on the way back."""
PAUSE_S = 10.0
"""Between two sweeps: what was on its way at the first is at the broker by then, and witnesses have time to agree."""


@asynccontextmanager
async def sweeping(settings: Settings, symbols: Iterable[str]) -> AsyncIterator[None]:
    """Sweep at once and again from time to time, as long as this is open."""
    task = asyncio.create_task(_sweep_again(settings, tuple(symbols)))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep_again(settings: Settings, symbols: tuple[str, ...]) -> None:
    while True:
        await sweep(settings, symbols)
        await asyncio.sleep(PAUSE_S)


async def sweep(settings: Settings, symbols: Iterable[str]) -> None:
    """Walk each symbol's price up, down, up and back to where it was; then it moves by itself again."""
    async with aiohttp.ClientSession(f"http://{settings.market_address}") as market:
        for symbol in symbols:
            bid, ask = await quote(market, symbol)
            for share in _path():
                await _set(market, symbol, bid + _on_grid(bid * share, bid), ask + _on_grid(bid * share, bid))


def _path() -> Iterable[Decimal]:
    share = Decimal(0)
    for leg in LEGS:
        for _ in range(int(REACH / STEP)):
            share += leg * STEP
            yield share


def _on_grid(move: Decimal, price: Decimal) -> Decimal:
    return move.quantize(Decimal(1).scaleb(price.as_tuple().exponent))  # type: ignore[arg-type]  # a finite price


async def _set(market: aiohttp.ClientSession, symbol: str, bid: Decimal, ask: Decimal) -> None:
    body = {"bid": str(bid), "ask": str(ask), "pinned": False}
    async with market.post(f"/quotes/{symbol}", json=body) as answer:
        answer.raise_for_status()
