"""Quotes: a seeded random walk for each symbol, pinned prices, or a replay from a file."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from streamapp.simulator.prices.server_clock import DAY_MS, Clock, is_open
from streamapp.simulator.prices.symbols import SymbolSpec

YEAR_MS = 365 * 24 * 3_600_000
# Share of all moves that comes from the one factor that every USD pair sees.
COMMON_SHARE = 0.5
# How many ticks of each symbol copy_ticks_* can give: an hour and more of a liquid symbol.
TICKS_KEPT = 20_000

# After a longer pause (a sleeping machine, a virtual clock that jumps) only the last minute is played tick by tick.
CATCH_UP_MS = 60_000

# After a pause prices open with a gap, as of this long at most: weekends are quiet.
LONGEST_GAP_MS = 4 * 3_600_000
CLOSED_STEP_MS = 30_000
# Five minutes before and after midnight banks quote little, and wide.
ROLLOVER_MS = 5 * 60_000
ROLLOVER_WIDENING = 4

Tick = tuple[int, Decimal, Decimal]
"""Server milliseconds as the clock showed them then, bid, ask."""


@dataclass(slots=True)
class Quoted:
    """The state of one symbol's price."""

    symbol: SymbolSpec
    bid: Decimal
    ask: Decimal
    utc_ms: int
    server_ms: int
    high: tuple[Decimal, Decimal]
    low: tuple[Decimal, Decimal]
    mid: float
    random: random.Random
    next_ms: int
    pinned: bool = False
    ticks: deque[Tick] = field(default_factory=lambda: deque(maxlen=TICKS_KEPT))

    def set(self, bid: Decimal, ask: Decimal, utc_ms: int, server_ms: int) -> None:
        """Take a new quote."""
        self.bid, self.ask, self.utc_ms, self.server_ms = bid, ask, utc_ms, server_ms
        self.high = (max(self.high[0], bid), max(self.high[1], ask))
        self.low = (min(self.low[0], bid), min(self.low[1], ask))
        self.ticks.append(self.last())

    def last(self) -> Tick:
        """Return the last tick."""
        return self.server_ms, self.bid, self.ask


def _unheard(quoted: Quoted) -> None:
    """Nobody listens yet."""


class Feed:
    """Holds all quotes and moves them in time. The same seed and the same times give the same ticks."""

    def __init__(self, symbols: dict[str, SymbolSpec], seed: int, clock: Clock, *, always_open: bool = True) -> None:
        """Start every symbol at its ``price``, quoted now; unless ``always_open``, it rests while it is closed."""
        now_ms = clock.utc_ms()
        self._clock = clock
        self._always_open = always_open
        self._seed = seed
        self._common = random.Random(f"{seed}:usd")  # noqa: S311  # repeatable on purpose
        self._factor, self._factor_ms = 0.0, now_ms
        self._replay: Iterator[tuple[int, str, Decimal, Decimal]] | None = None
        self._replayed: tuple[int, str, Decimal, Decimal] | None = None
        self.on_tick: Callable[[Quoted], None] = _unheard
        self.quotes = {name: self._begin(symbol, now_ms) for name, symbol in symbols.items()}

    def _begin(self, symbol: SymbolSpec, now_ms: int) -> Quoted:
        spread = symbol.spread[0] * symbol.point
        quoted = Quoted(
            symbol=symbol,
            bid=symbol.price,
            ask=symbol.price + spread,
            utc_ms=now_ms,
            server_ms=now_ms + self._clock.offset_ms(now_ms),
            high=(symbol.price, symbol.price + spread),
            low=(symbol.price, symbol.price + spread),
            mid=float(symbol.price + spread / 2),
            random=random.Random(f"{self._seed}:{symbol.name}"),  # noqa: S311  # repeatable on purpose
            next_ms=now_ms + symbol.tick_ms,
        )
        quoted.ticks.append(quoted.last())
        return quoted

    def quote(self, name: str) -> tuple[Decimal, Decimal]:
        """Return bid and ask of a symbol, by its feed name."""
        quoted = self.quotes[name]
        return quoted.bid, quoted.ask

    def is_open(self, symbol: SymbolSpec, utc_ms: int) -> bool:
        """Return whether the symbol can be traded at this time."""
        return self._always_open or is_open(symbol.session, utc_ms + self._clock.offset_ms(utc_ms))

    def pin(self, name: str, bid: Decimal, ask: Decimal, now_ms: int, *, hold: bool = True) -> None:
        """Set a price; with ``hold`` it stays, without slippage, until ``release``."""
        quoted = self.quotes[name]
        quoted.pinned = hold
        quoted.mid = float((bid + ask) / 2)
        self._set(quoted, bid, ask, now_ms)
        self.on_tick(quoted)

    def release(self, name: str, now_ms: int) -> None:
        """Let a pinned price move again, from where it is."""
        quoted = self.quotes[name]
        quoted.pinned = False
        quoted.next_ms = now_ms + quoted.symbol.tick_ms

    def replay(self, path: Path, begins_ms: int) -> None:
        """Take ticks from a CSV file (columns symbol,time_msc,bid,ask) in place of the random walk.

        The first line of ticks is played at ``begins_ms``, the others as far after it as they are apart in the file.
        """
        self._replay = read_ticks(path, begins_ms)
        self._replayed = next(self._replay, None)

    def advance(self, now_ms: int) -> None:
        """Play every tick that is due by ``now_ms``, in order of time, and calls ``on_tick`` for each."""
        if self._replay is not None:
            self._advance_replay(now_ms)
            return
        due = [q for q in self.quotes.values() if not q.pinned and q.next_ms <= now_ms]
        for quoted in due:
            quoted.next_ms = max(quoted.next_ms, now_ms - CATCH_UP_MS)
        while due:
            quoted = min(due, key=lambda q: q.next_ms)
            if self._moves(quoted):
                self._walk(quoted)
                self.on_tick(quoted)
            due = [q for q in due if not q.pinned and q.next_ms <= now_ms]

    def next_ms(self) -> int | None:
        """Return when the next tick is due."""
        if self._replay is not None:
            return self._replayed[0] if self._replayed else None
        return min((q.next_ms for q in self.quotes.values() if not q.pinned), default=None)

    def _advance_replay(self, now_ms: int) -> None:
        while self._replay is not None and self._replayed is not None and self._replayed[0] <= now_ms:
            at, name, bid, ask = self._replayed
            self._replayed = next(self._replay, None)
            quoted = self.quotes.get(name)
            if quoted is not None and not quoted.pinned:
                self._set(quoted, bid, ask, at)
                self.on_tick(quoted)

    def _set(self, quoted: Quoted, bid: Decimal, ask: Decimal, utc_ms: int) -> None:
        quoted.set(bid, ask, utc_ms, utc_ms + self._clock.offset_ms(utc_ms))

    def _moves(self, quoted: Quoted) -> bool:
        """Whether the symbol's market is open at its next tick; a closed one is looked at again in a while."""
        if self.is_open(quoted.symbol, quoted.next_ms):
            return True
        quoted.next_ms += CLOSED_STEP_MS
        return False

    def _points(self, quoted: Quoted, at: int) -> float:
        """A spread in points: most often near the lowest, and wider around the server's midnight."""
        low, high = quoted.symbol.spread
        usual = low + (high - low) * min(quoted.random.expovariate(3), 1)
        time = (at + self._clock.offset_ms(at) + ROLLOVER_MS) % DAY_MS
        return usual * ROLLOVER_WIDENING if time < 2 * ROLLOVER_MS else usual

    def _walk(self, quoted: Quoted) -> None:
        """One tick: a share of the common USD factor, a share of the symbol's own, and a spread."""
        symbol, at, own = quoted.symbol, quoted.next_ms, quoted.random
        elapsed = max(at - quoted.utc_ms, 1)
        scale = symbol.sigma * math.sqrt(min(elapsed, LONGEST_GAP_MS) / YEAR_MS)
        if at > self._factor_ms:
            self._factor = self._common.gauss(0, 1)
            self._factor_ms = at
        share = COMMON_SHARE * symbol.usd_factor
        step = scale * (share * self._factor + math.sqrt(1 - share * share) * own.gauss(0, 1))
        if own.random() < 1e-4:
            step += own.choice((-1, 1)) * scale * 25
        anchor = float(symbol.price)
        if quoted.mid > 0:
            quoted.mid *= math.exp(step - 1e-6 * math.log(quoted.mid / anchor))
        else:  # somebody has set it there: no power of e leads out
            quoted.mid += step * anchor
        spread = max(round(self._points(quoted, at)), 1) * symbol.point
        bid = symbol.rounded(Decimal(repr(quoted.mid)) - spread / 2)
        self._set(quoted, bid, bid + spread, at)
        quoted.next_ms = at + max(1, round(own.expovariate(1 / symbol.tick_ms)))


def read_ticks(path: Path, begins_ms: int) -> Iterator[tuple[int, str, Decimal, Decimal]]:
    """Return the ticks of a CSV file with a header, shifted so that the first is at ``begins_ms``."""
    with path.open(encoding="utf-8") as lines:
        header = [name.strip() for name in next(lines).split(",")]
        wanted = [header.index(name) for name in ("symbol", "time_msc", "bid", "ask")]
        shift: int | None = None
        for line in lines:
            cells = line.split(",")
            name, at, bid, ask = (cells[index].strip() for index in wanted)
            shift = begins_ms - int(at) if shift is None else shift
            yield int(at) + shift, name, Decimal(bid), Decimal(ask)
