"""What a terminal knows of symbols: their rules, ticks, bars, and depth of market."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.tables import ZERO
from streamapp.simulator.prices.bars import Bar, is_timeframe
from streamapp.simulator.prices.feed import Tick
from streamapp.simulator.prices.symbols import SymbolSpec
from streamapp.simulator.terminal.state import CallFailed, TerminalState
from streamapp.simulator.terminal.symbol_info import SymbolInfos
from streamapp.simulator.terminal.views import array

# Levels of the depth of market on each side, and lots on a level of a market without limits of its own.
BOOK_LEVELS = 5
BOOK_LOTS = Decimal(100)
# What a terminal shows of a symbol that it has subscribed to and not heard of yet.
NO_TICK: Tick = (0, ZERO, ZERO)


class SymbolQuotes:
    """The functions of the module about symbols and prices, and one terminal's Market Watch."""

    def __init__(self, state: TerminalState, infos: SymbolInfos) -> None:
        self._state = state
        self._infos = infos
        self._hidden: set[str] = set()
        self._selected_ms: dict[str, int] = {}
        self._books: set[str] = set()

    def begin(self, account: SimulatedAccount) -> None:
        """A login: the Market Watch is what the broker's profile puts into it, all symbols unless it says which."""
        shown = account.profile.market_watch
        traded = {position.symbol for position in account.positions.live.values()} | set(account.pending)
        self._selected_ms = {}
        self._hidden = set() if shown is None else set(account.symbols) - shown - traded
        self._books = set()

    def symbols_total(self) -> str:
        """Return how many symbols the broker has."""
        return str(len(self._state.account.symbols))

    def symbols_get(self) -> str:
        """Return every symbol; the module filters by group."""
        return array(self._info(name) for name in self._state.account.symbols)

    def symbol_info(self, name: str) -> str:
        """Return one symbol."""
        if name not in self._state.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._info(name)

    def symbol_info_tick(self, name: str) -> str:
        """Return the last tick of a symbol in the Market Watch."""
        if name not in self._state.account.symbols or name in self._hidden:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        symbol = self._state.account.symbols[name]
        return self._infos.tick(symbol, self._not_the_present(symbol))

    def _not_the_present(self, symbol: SymbolSpec) -> Tick | None:
        """What is shown in place of the present quote: none yet, or the last one before the connection was lost."""
        selected_ms = self._selected_ms.get(symbol.name)
        if selected_ms is not None and self._state.now() < selected_ms + symbol.first_tick_ms:
            return NO_TICK
        off = self._state.standing("disconnect")
        return off.quotes.get(symbol.feed) if off else None

    def _info(self, name: str) -> str:
        account = self._state.account
        return self._infos.info(account, name, name not in self._hidden, self._not_the_present(account.symbols[name]))

    def symbol_select(self, name: str, enable: bool) -> str:
        """Show or hides a symbol in the Market Watch; one with positions or orders stays."""
        if name not in self._state.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        account = self._state.account
        if enable:
            if name in self._hidden:
                self._selected_ms[name] = self._state.now()
            self._hidden.discard(name)
            return "true"
        held = account.exposures.get(name)
        if (held is not None and any(held.volume)) or account.pending.get(name):
            raise CallFailed(mt5.RES_E_FAIL)
        self._hidden.add(name)
        return "true"

    def _bars(self, name: str, timeframe: int) -> list[Bar]:
        """All bars of a timeframe, oldest first."""
        market, symbol = self._state.market, self._known(name)
        if not is_timeframe(timeframe):
            raise CallFailed(mt5.RES_E_INVALID_PARAMS)
        return market.bars.bars(market.feed.quotes[symbol.feed], timeframe, market.clock.offset_ms())

    def _known(self, name: str) -> SymbolSpec:
        if name not in self._state.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._state.account.symbols[name]

    def copy_rates_from(self, name: str, timeframe: int, date_from: int, count: int) -> str:
        """Return the last ``count`` bars that opened by a date."""
        bars = self._bars(name, timeframe)
        end = bisect_right(bars, date_from, key=_opened)
        return json.dumps(bars[max(end - count, 0) : end])

    def copy_rates_from_pos(self, name: str, timeframe: int, start: int, count: int) -> str:
        """``count`` bars up to the one that is ``start`` bars before the present one."""
        bars = self._bars(name, timeframe)
        end = len(bars) - start
        return json.dumps(bars[max(end - count, 0) : max(end, 0)])

    def copy_rates_range(self, name: str, timeframe: int, date_from: int, date_to: int) -> str:
        """Return the bars that opened in a span."""
        bars = self._bars(name, timeframe)
        return json.dumps(bars[bisect_left(bars, date_from, key=_opened) : bisect_right(bars, date_to, key=_opened)])

    def copy_ticks_from(self, name: str, date_from: int, count: int, flags: int) -> str:
        """Return the first ``count`` ticks from a date on."""
        return self._ticks(self._known(name), date_from, 2**31, count, flags)

    def copy_ticks_range(self, name: str, date_from: int, date_to: int, flags: int) -> str:
        """Return the ticks of a span."""
        return self._ticks(self._known(name), date_from, date_to, None, flags)

    def market_book_add(self, name: str) -> str:
        """Subscribe to a depth of market."""
        self._books.add(self._known(name).name)
        return "true"

    def market_book_get(self, name: str) -> str:
        """Return a depth of market that was subscribed to."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._book(self._known(name))

    def market_book_release(self, name: str) -> str:
        """End a subscription."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        self._books.discard(name)
        return "true"

    def _ticks(  # a query's bounds
        self, symbol: SymbolSpec, from_s: int, to_s: int, count: int | None, flags: int
    ) -> str:
        """Ticks from a moment on, in server time. Quotes are no trades: a market without deals has none of those."""
        if flags == mt5.COPY_TICKS_TRADE:
            return "[]"
        kept = list(self._state.market.feed.quotes[symbol.feed].ticks)
        rows = [
            _tick_row(tick, before)
            for tick, before in zip(kept, [None, *kept], strict=False)
            if from_s * 1000 <= tick[0] <= to_s * 1000
        ]
        return json.dumps(rows if count is None else rows[:count])

    def _book(self, symbol: SymbolSpec) -> str:
        """Offers above, bids below, best prices in the middle."""
        bid, ask = self._state.market.feed.quote(symbol.feed)
        lots = symbol.liquidity or BOOK_LOTS
        asks = [(mt5.BOOK_TYPE_SELL, ask + level * symbol.tick_size) for level in reversed(range(BOOK_LEVELS))]
        bids = [(mt5.BOOK_TYPE_BUY, bid - level * symbol.tick_size) for level in range(BOOK_LEVELS)]
        return json.dumps([[kind, float(price), int(lots), float(lots)] for kind, price in asks + bids])


def _opened(bar: Bar) -> int:
    return bar[0]


def _tick_row(tick: Tick, before: Tick | None) -> Sequence[float]:
    """A row of copy_ticks: its flags say what changed."""
    at, bid, ask = tick
    flags = mt5.TICK_FLAG_BID | mt5.TICK_FLAG_ASK
    if before is not None and (bid, ask) != before[1:]:
        flags = (mt5.TICK_FLAG_BID if bid != before[1] else 0) | (mt5.TICK_FLAG_ASK if ask != before[2] else 0)
    return [at // 1000, float(bid), float(ask), 0.0, 0, at, flags, 0.0]
