"""Moves the simulated market up and down, so that every order that waits for a price gets it."""

from __future__ import annotations

from collections.abc import Iterable
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
