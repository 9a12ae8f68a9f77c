"""Prices of the past: bars from the ticks since the market began, and before that from a walk backwards."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from datetime import UTC, datetime

from streamapp.simulator.prices.feed import YEAR_MS, Feed, Quoted
from streamapp.simulator.prices.server_clock import DAY_MS

Bar = tuple[int, float, float, float, float, int, int, int]
"""Open time in server seconds, open, high, low, close, ticks, spread in points, traded volume."""

MINUTE_MS = 60_000
# As many minutes as the terminal keeps bars (terminal_info().maxbars); about ten weeks.
MAX_BARS = 100_000
_HOURS, _WEEK, _MONTH = 0x4000, 0x8000, 0xC000
WEEK_S = 7 * DAY_MS // 1000
# The epoch was a Thursday and MT5's week begins with Sunday.
_FIRST_SUNDAY_S = 3 * DAY_MS // 1000
_KNOWN_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
_KNOWN_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)


def is_timeframe(timeframe: int) -> bool:
    """Return whether it is one of the 21 TIMEFRAME constants."""
    kind, number = timeframe & 0xC000, timeframe & 0x3FFF
    if kind in (_WEEK, _MONTH):
        return number == 1
    return number in (_KNOWN_HOURS if kind == _HOURS else _KNOWN_MINUTES)


def opens_at(timeframe: int, server_s: int) -> int:
    """Return when the bar of a timeframe begins that a moment belongs to."""
    kind, number = timeframe & 0xC000, timeframe & 0x3FFF
    if kind == _WEEK:
        return server_s - (server_s - _FIRST_SUNDAY_S) % WEEK_S
    if kind == _MONTH:
        day = datetime.fromtimestamp(server_s, UTC)
        return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())
    return server_s - server_s % (number * (3600 if kind == _HOURS else 60))


def grow(bars: list[Bar], minute: Bar, timeframe: int) -> None:
    """Take the next minute into bars of a longer timeframe."""
    begins = opens_at(timeframe, minute[0])
    if not bars or bars[-1][0] != begins:
        bars.append((begins, *minute[1:]))
        return
    _, opened, high, low, _, ticks, spread, volume = bars[-1]
    merged = (max(high, minute[2]), min(low, minute[3]), minute[4], ticks + minute[5])
    bars[-1] = (begins, opened, *merged, min(spread, minute[6]), volume)


class Gathered:
    """The bars of one symbol and timeframe, kept between the calls: a hundred thousand minutes are gathered once.

    All but the present minute are taken in for good; that one is taken back before the next look.
    """

    def __init__(self, past: Iterable[Bar], timeframe: int, shift_s: int) -> None:
        """Start with what was before this run."""
        self._timeframe = timeframe
        self._shift_s = shift_s
        self._taken = 0
        self._before: Bar | None = None
        self._is_open = False
        self._bars: list[Bar] = []
        for bar in past:
            grow(self._bars, (bar[0] + shift_s, *bar[1:]), timeframe)

    def bars(self, live: list[list[float]]) -> list[Bar]:
        """Return all bars up to the present one, oldest first; the list is ours, and good until the next call."""
        bars = self._bars
        if self._is_open:
            bars.pop()
            if self._before is not None:
                bars.append(self._before)
        while self._taken < len(live) - 1:
            grow(bars, self._minute(live[self._taken]), self._timeframe)
            self._taken += 1
        minute = self._minute(live[-1])
        joins = bool(bars) and bars[-1][0] == opens_at(self._timeframe, minute[0])
        self._before, self._is_open = bars[-1] if joins else None, True
        grow(bars, minute, self._timeframe)
        return bars

    def _minute(self, bar: list[float]) -> Bar:
        return (int(bar[0]) // 1000 + self._shift_s, bar[1], bar[2], bar[3], bar[4], int(bar[5]), int(bar[6]), 0)


class Bars:
    """Minute bars of every symbol: those of this run are built tick by tick, older ones are made up when asked for."""

    def __init__(self, feed: Feed, seed: int) -> None:
        """Start with the present quotes of ``feed``."""
        self._seed = seed
        self._live: dict[str, list[list[float]]] = {}
        self._past: dict[str, list[Bar]] = {}
        self._gathered: dict[tuple[str, int, int], Gathered] = {}
        for quoted in feed.quotes.values():
            self.add(quoted)

    def add(self, quoted: Quoted) -> None:
        """Take a tick into the minute that it belongs to."""
        bars = self._live.setdefault(quoted.symbol.name, [])
        begins, bid = quoted.utc_ms - quoted.utc_ms % MINUTE_MS, float(quoted.bid)
        spread = round((quoted.ask - quoted.bid) / quoted.symbol.point)
        if not bars or bars[-1][0] < begins:
            bars.append([begins, bid, bid, bid, bid, 1, spread])
            return
        bar = bars[-1]
        bar[2], bar[3], bar[4] = max(bar[2], bid), min(bar[3], bid), bid
        bar[5], bar[6] = bar[5] + 1, min(bar[6], spread)

    def bars(self, quoted: Quoted, timeframe: int, offset_ms: int) -> list[Bar]:
        """Return all bars of a symbol, oldest first, in server time; good until the next call."""
        name = quoted.symbol.name
        live, key = self._live[name], (name, timeframe, offset_ms)
        if key not in self._gathered:
            if name not in self._past:
                self._past[name] = self._make_up(quoted, int(live[0][0]), live[0][1])
            self._gathered[key] = Gathered(self._past[name], timeframe, offset_ms // 1000)
        return self._gathered[key].bars(live)

    def _make_up(self, quoted: Quoted, begins_ms: int, price: float) -> list[Bar]:
        """A walk backwards in time from the first quote of this run."""
        symbol = quoted.symbol
        draws = random.Random(f"{self._seed}:{symbol.name}:bars")  # noqa: S311  # repeatable on purpose
        scale = symbol.sigma * math.sqrt(MINUTE_MS / YEAR_MS)
        ticks = MINUTE_MS // symbol.tick_ms
        bars: list[Bar] = []
        close = price
        for number in range(1, MAX_BARS + 1):
            opened = close * math.exp(-scale * draws.gauss(0, 1))
            reach = abs(close) * scale * abs(draws.gauss(0, 0.5))
            high, low = max(opened, close) + reach, min(opened, close) - reach
            first, top, bottom, last = (round(value, symbol.digits) for value in (opened, high, low, close))
            begins_s = (begins_ms - number * MINUTE_MS) // 1000
            bars.append((begins_s, first, top, bottom, last, ticks, symbol.spread[0], 0))
            close = opened
        bars.reverse()
        return bars
