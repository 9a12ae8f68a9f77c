"""The terminal's price functions: copy_rates_*, copy_ticks_* and the depth of market."""

import json
from collections.abc import Sequence
from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.bars import Bar, is_timeframe
from streamapp.simulator.feed import Tick
from streamapp.simulator.market import Market
from streamapp.simulator.symbols import Symbol

# Levels of the depth of market on each side, and lots on a level of a market without limits of its own.
BOOK_LEVELS = 5
BOOK_LOTS = Decimal(100)


class Prices:
    """Answers for one market; every method gives JSON text."""

    def __init__(self, market: Market) -> None:
        """Prices of `market`."""
        self._market = market

    def bars(self, symbol: Symbol, timeframe: int) -> list[Bar] | None:
        """All bars of a timeframe, oldest first; None for a timeframe that does not exist."""
        if not is_timeframe(timeframe):
            return None
        quoted = self._market.feed.quotes[symbol.feed]
        return self._market.bars.bars(quoted, timeframe, self._market.clock.offset_ms())

    def ticks(self, symbol: Symbol, from_s: int, to_s: int, count: int | None, flags: int) -> str:
        """Ticks from a moment on, in server time. Quotes are no trades: a market without deals has none of those."""
        if flags == mt5.COPY_TICKS_TRADE:
            return "[]"
        shift = self._market.clock.offset_ms()
        kept = list(self._market.feed.quotes[symbol.feed].ticks)
        rows = [
            tick_row(tick, before, shift)
            for tick, before in zip(kept, [None, *kept], strict=False)
            if from_s * 1000 <= tick[0] + shift <= to_s * 1000
        ]
        return json.dumps(rows if count is None else rows[:count])

    def book(self, symbol: Symbol) -> str:
        """Offers above, bids below, best prices in the middle."""
        bid, ask = self._market.feed.quote(symbol.feed)
        lots = symbol.liquidity or BOOK_LOTS
        asks = [(mt5.BOOK_TYPE_SELL, ask + level * symbol.tick_size) for level in reversed(range(BOOK_LEVELS))]
        bids = [(mt5.BOOK_TYPE_BUY, bid - level * symbol.tick_size) for level in range(BOOK_LEVELS)]
        return json.dumps([[kind, float(price), int(lots), float(lots)] for kind, price in asks + bids])


def tick_row(tick: Tick, before: Tick | None, shift: int) -> Sequence[float]:
    """A row of copy_ticks: its flags say what changed."""
    at, bid, ask = tick
    flags = mt5.TICK_FLAG_BID | mt5.TICK_FLAG_ASK
    if before is not None and (bid, ask) != before[1:]:
        flags = (mt5.TICK_FLAG_BID if bid != before[1] else 0) | (mt5.TICK_FLAG_ASK if ask != before[2] else 0)
    return [(at + shift) // 1000, float(bid), float(ask), 0.0, 0, at + shift, flags, 0.0]
