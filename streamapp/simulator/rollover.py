"""Midnight of the server: swap, orders of the day, re-opened positions."""

from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.hours import DAY_MS
from streamapp.simulator.money import BUY, ZERO
from streamapp.simulator.rows import Position
from streamapp.simulator.symbols import Symbol

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

# Brokers count interest by the banker's year.
DAYS_OF_YEAR = 360
_SATURDAY, _SUNDAY = mt5.DAY_OF_WEEK_SATURDAY, mt5.DAY_OF_WEEK_SUNDAY


class Rollover:
    """Charges swap at each midnight of the server, three days' at once on the symbol's day, none at weekends."""

    def __init__(self, market: "Market") -> None:
        """Rolls over the accounts of `market`."""
        self._market = market

    def schedule(self) -> None:
        """Enters the next midnight into the agenda."""
        server_ms = self._market.clock.server_ms()
        self._market.after((server_ms // DAY_MS + 1) * DAY_MS - server_ms, self._roll)

    def _roll(self) -> None:
        # The day that has just ended: 1970-01-01 was a Thursday.
        weekday = ((self._market.clock.server_ms() - DAY_MS // 2) // DAY_MS + mt5.DAY_OF_WEEK_THURSDAY) % 7
        for account in self._market.accounts.values():
            self._end_day(account)
            for position in list(account.positions.live.values()):
                symbol = account.symbols[position.symbol]
                amount = self._swap(account, symbol, position, weekday)
                if amount:
                    self._market.positions.charge_swap(account, position, amount)
                if account.profile.reopen_at_rollover:
                    self._market.positions.reopen(account, position)
        self.schedule()

    def _end_day(self, account: Account) -> None:
        """Brokers of the daily kind delete pending orders, and some of them the levels of positions too."""
        daily = (mt5.SYMBOL_ORDERS_DAILY, mt5.SYMBOL_ORDERS_DAILY_NO_STOPS)
        for order in list(account.orders.live.values()):
            if account.symbols[order.symbol].gtc_mode in daily and order.type > mt5.ORDER_TYPE_SELL:
                self._market.finish(account, order, mt5.ORDER_STATE_EXPIRED)
        for position in list(account.positions.live.values()):
            if account.symbols[position.symbol].gtc_mode == mt5.SYMBOL_ORDERS_DAILY and (position.sl or position.tp):
                self._market.positions.change_stops(account, position, ZERO, ZERO)

    def _swap(self, account: Account, symbol: Symbol, position: Position, weekday: int) -> Decimal:
        if symbol.swap_mode == mt5.SYMBOL_SWAP_MODE_DISABLED or weekday in (_SATURDAY, _SUNDAY):
            return ZERO
        days = 3 if weekday == symbol.rollover3days else 1
        rate = symbol.swap_long if position.side == BUY else symbol.swap_short
        amount, currency = self._nightly(account, symbol, position, rate)
        return account.round(self._market.conversion.profit(amount * days, currency, account.settings.currency))

    def _nightly(self, account: Account, symbol: Symbol, position: Position, rate: Decimal) -> tuple[Decimal, str]:
        lots = position.volume
        fixed = {
            mt5.SYMBOL_SWAP_MODE_CURRENCY_SYMBOL: symbol.base,
            mt5.SYMBOL_SWAP_MODE_CURRENCY_MARGIN: symbol.margin,
            mt5.SYMBOL_SWAP_MODE_CURRENCY_DEPOSIT: account.settings.currency,
        }
        if symbol.swap_mode in fixed:
            return rate * lots, fixed[symbol.swap_mode]
        if symbol.swap_mode in (mt5.SYMBOL_SWAP_MODE_INTEREST_CURRENT, mt5.SYMBOL_SWAP_MODE_INTEREST_OPEN):
            current = symbol.swap_mode == mt5.SYMBOL_SWAP_MODE_INTEREST_CURRENT
            price = self._market.feed.quote(symbol.feed)[0] if current else position.price_open
            return price * symbol.contract * lots * rate / 100 / DAYS_OF_YEAR, symbol.profit
        return rate * symbol.point * symbol.multiplier * lots, symbol.profit
