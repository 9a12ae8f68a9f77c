"""What a terminal knows of symbols: their rules, ticks, bars, and depth of market."""

import json
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.bars import Bar
from streamapp.simulator.failures import CallFailed
from streamapp.simulator.feed import Tick
from streamapp.simulator.listings import array
from streamapp.simulator.prices import Prices
from streamapp.simulator.symbol_info import SymbolInfos
from streamapp.simulator.symbols import Symbol

if TYPE_CHECKING:
    from streamapp.simulator.sessions import Session


class Quotations:
    """The functions of the module about symbols and prices, and one terminal's Market Watch."""

    def __init__(self, session: "Session", infos: SymbolInfos) -> None:
        """Quotes for the account of `session`; nothing is logged in yet."""
        self._session = session
        self._infos = infos
        self._prices = Prices(session.market)
        self._hidden: set[str] = set()
        self._books: set[str] = set()

    def begin(self, account: Account) -> None:
        """A login: the Market Watch is what the broker's profile puts into it, all symbols unless it says which."""
        shown = account.profile.market_watch
        traded = {position.symbol for position in account.positions.live.values()} | set(account.pending)
        self._hidden = set() if shown is None else set(account.symbols) - shown - traded
        self._books = set()

    def symbols_total(self) -> str:
        """How many symbols the broker has."""
        return str(len(self._session.account.symbols))

    def symbols_get(self) -> str:
        """Every symbol; the module filters by group."""
        return array(self._info(name) for name in self._session.account.symbols)

    def symbol_info(self, name: str) -> str:
        """One symbol."""
        if name not in self._session.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._info(name)

    def symbol_info_tick(self, name: str) -> str:
        """The last tick of a symbol in the Market Watch."""
        if name not in self._session.account.symbols or name in self._hidden:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        symbol = self._session.account.symbols[name]
        return self._infos.tick(symbol, self._frozen(symbol))

    def _frozen(self, symbol: Symbol) -> Tick | None:
        """The last quote before the connection was lost, None with a connection."""
        off = self._session.stands("disconnect")
        return off.quotes.get(symbol.feed) if off else None

    def _info(self, name: str) -> str:
        account = self._session.account
        return self._infos.info(account, name, name not in self._hidden, self._frozen(account.symbols[name]))

    def symbol_select(self, name: str, enable: bool) -> str:
        """Shows or hides a symbol in the Market Watch; one with positions or orders stays."""
        if name not in self._session.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        if enable:
            self._hidden.discard(name)
            return "true"
        account = self._session.account
        held = account.exposures.get(name)
        if (held is not None and any(held.volume)) or account.pending.get(name):
            raise CallFailed(mt5.RES_E_FAIL)
        self._hidden.add(name)
        return "true"

    def _bars(self, name: str, timeframe: int) -> list[Bar]:
        bars = self._prices.bars(self._known(name), timeframe)
        if bars is None:
            raise CallFailed(mt5.RES_E_INVALID_PARAMS)
        return bars

    def _known(self, name: str) -> Symbol:
        if name not in self._session.account.symbols:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._session.account.symbols[name]

    def copy_rates_from(self, name: str, timeframe: int, date_from: int, count: int) -> str:
        """The last `count` bars that opened by a date."""
        bars = self._bars(name, timeframe)
        end = bisect_right(bars, date_from, key=_opened)
        return json.dumps(bars[max(end - count, 0) : end])

    def copy_rates_from_pos(self, name: str, timeframe: int, start: int, count: int) -> str:
        """`count` bars up to the one that is `start` bars before the present one."""
        bars = self._bars(name, timeframe)
        end = len(bars) - start
        return json.dumps(bars[max(end - count, 0) : max(end, 0)])

    def copy_rates_range(self, name: str, timeframe: int, date_from: int, date_to: int) -> str:
        """The bars that opened in a span."""
        bars = self._bars(name, timeframe)
        return json.dumps(bars[bisect_left(bars, date_from, key=_opened) : bisect_right(bars, date_to, key=_opened)])

    def copy_ticks_from(self, name: str, date_from: int, count: int, flags: int) -> str:
        """The first `count` ticks from a date on."""
        return self._prices.ticks(self._known(name), date_from, 2**31, count, flags)

    def copy_ticks_range(self, name: str, date_from: int, date_to: int, flags: int) -> str:
        """The ticks of a span."""
        return self._prices.ticks(self._known(name), date_from, date_to, None, flags)

    def market_book_add(self, name: str) -> str:
        """Subscribes to a depth of market."""
        self._books.add(self._known(name).name)
        return "true"

    def market_book_get(self, name: str) -> str:
        """A depth of market that was subscribed to."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        return self._prices.book(self._known(name))

    def market_book_release(self, name: str) -> str:
        """Ends a subscription."""
        if name not in self._books:
            raise CallFailed(mt5.RES_E_NOT_FOUND)
        self._books.discard(name)
        return "true"


def _opened(bar: Bar) -> int:
    return bar[0]
