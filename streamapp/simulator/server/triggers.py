"""What a price and the end of a day set off: pending orders, levels, stop-out; swap and orders of the day."""

from __future__ import annotations

from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARKET_ORDERS
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.money import BUY, nightly_swap
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.tables import ZERO, BrokerOrder, BrokerPosition
from streamapp.simulator.prices.feed import Quoted
from streamapp.simulator.prices.server_clock import DAY_MS
from streamapp.simulator.server.faults import Faults
from streamapp.simulator.server.matching import Matching
from streamapp.simulator.server.requests import LIMITS, STOP_LIMITS
from streamapp.simulator.server.schedule import Timeline
from streamapp.simulator.server.validation import lacks_money

_STOPS = (mt5.ORDER_TYPE_BUY_STOP, mt5.ORDER_TYPE_SELL_STOP)
_WEEKEND = (mt5.DAY_OF_WEEK_SATURDAY, mt5.DAY_OF_WEEK_SUNDAY)


class Triggers:
    """Acts on each tick, for every account: orders first, then stops, then the margin level."""

    def __init__(self, books: Books, matching: Matching, faults: Faults) -> None:
        self._books = books
        self._matching = matching
        self._faults = faults

    def on_tick(self, quoted: Quoted) -> None:
        """Do what a new price of a symbol sets off."""
        for account in self._books.accounts.values():
            name = quoted.symbol.name + account.profile.suffix
            if waiting := account.pending.get(name):
                for order in list(waiting.values()):
                    self._try_order(account, order, quoted)
            if stops := account.stops.get(name):
                for position in list(stops.values()):
                    self._try_stops(account, position, quoted)
            if name in account.exposures:
                self._try_stop_out(account)

    def _try_order(self, account: SimulatedAccount, order: BrokerOrder, quoted: Quoted) -> None:
        price = quoted.ask if order.type % 2 == BUY else quoted.bid
        sign = 1 if order.type % 2 == BUY else -1
        begun = order.state == mt5.ORDER_STATE_PARTIAL and order.type in _STOPS
        if order.type in MARKET_ORDERS or begun:
            self._try_rest(account, order)
            return
        if order.type in STOP_LIMITS:
            if (price - order.price_open) * sign < 0:
                return
            self._books.snapshot_for_lag(account, "orders", order.ticket)
            order.type = mt5.ORDER_TYPE_BUY_LIMIT if sign == 1 else mt5.ORDER_TYPE_SELL_LIMIT
            order.price_open, order.stoplimit = order.stoplimit, ZERO
            self._books.keep_working(account, order)
        distance = (price - order.price_open) * sign
        if order.type in LIMITS:
            if distance <= 0:
                self._activate(account, order, price)
        elif distance >= 0:
            symbol = account.symbols[order.symbol]
            self._activate(account, order, self._matching.market_price(account, symbol, order.type % 2))

    def _try_rest(self, account: SimulatedAccount, order: BrokerOrder) -> None:
        """A partly filled market order goes on with what each tick offers."""
        symbol = account.symbols[order.symbol]
        if order.state != mt5.ORDER_STATE_PARTIAL or symbol.liquidity is None:
            return
        self._matching.go_on(account, order, symbol.liquidity)

    def _activate(self, account: SimulatedAccount, order: BrokerOrder, price: Decimal) -> None:
        symbol = account.symbols[order.symbol]
        refused = self._faults.standing(account, "activation_rejected") is not None
        if refused or lacks_money(self._books, account, symbol, order.type % 2, order.volume_current):
            self._books.finish_order(account, order, mt5.ORDER_STATE_REJECTED)
            return
        self._matching.activate(account, order, price)

    def _try_stops(self, account: SimulatedAccount, position: BrokerPosition, quoted: Quoted) -> None:
        price = quoted.bid if position.side == BUY else quoted.ask
        sign = 1 if position.side == BUY else -1
        close, digits = self._matching.close, quoted.symbol.digits
        if position.sl and (price - position.sl) * sign <= 0:
            symbol = account.symbols[position.symbol]
            slipped = self._matching.market_price(account, symbol, 1 - position.side)
            close(account, position, slipped, mt5.ORDER_REASON_SL, f"[sl {position.sl:.{digits}f}]")
        elif position.tp and (price - position.tp) * sign >= 0:
            close(account, position, position.tp, mt5.ORDER_REASON_TP, f"[tp {position.tp:.{digits}f}]")

    def _try_stop_out(self, account: SimulatedAccount) -> None:
        """Close the largest losing position, one by one, while the margin level is at or below the stop-out."""
        while account.positions.live:
            equity, margin, _ = self._books.money(account)
            level = equity if account.profile.stop_out_in_money else account.margin_level(equity, margin)
            if not margin or level > account.profile.stop_out:
                return
            worst = min(account.positions.live.values(), key=lambda p: self._books.floating(account, p))
            symbol = account.symbols[worst.symbol]
            price = self._matching.market_price(account, symbol, 1 - worst.side)
            comment = f"[so {level:.1f}%/{equity:.2f}/{margin:.2f}]"
            self._matching.close(account, worst, price, mt5.ORDER_REASON_SO, comment)


class Rollover:
    """Charges swap at each midnight of the server, three days' at once on the symbol's day, none at weekends."""

    def __init__(self, books: Books, positions: Positions, timeline: Timeline) -> None:
        self._books = books
        self._positions = positions
        self._timeline = timeline
        # The server's day, counted from the epoch. A clock that is put back begins no day for a second time.
        self._day = books.clock.server_ms() // DAY_MS
        self._waits = 0

    def check(self) -> None:
        """Roll over if a day has ended, and wait for the next midnight: at the start and at a change of the clock."""
        today = self._books.clock.server_ms() // DAY_MS
        if today > self._day:
            self._roll(today - 1)
            self._day = today
        self._waits += 1
        wait = self._waits
        self._timeline.at_server_time((self._day + 1) * DAY_MS, lambda: self._wake(wait))

    def _wake(self, wait: int) -> None:
        # A change of the clock has begun another wait, for the midnight as it is since.
        if wait == self._waits:
            self.check()

    def _roll(self, ended: int) -> None:
        weekday = (ended + mt5.DAY_OF_WEEK_THURSDAY) % 7  # 1970-01-01 was a Thursday
        for account in self._books.accounts.values():
            self._end_day(account)
            for position in list(account.positions.live.values()):
                amount = self._swap(account, position, weekday)
                if amount:
                    self._positions.charge_swap(account, position, amount)
                if account.profile.reopen_at_rollover:
                    self._positions.reopen(account, position)

    def _end_day(self, account: SimulatedAccount) -> None:
        """Brokers of the daily kind delete pending orders, and some of them the levels of positions too."""
        daily = (mt5.SYMBOL_ORDERS_DAILY, mt5.SYMBOL_ORDERS_DAILY_NO_STOPS)
        for order in list(account.orders.live.values()):
            if account.symbols[order.symbol].gtc_mode in daily and order.type > mt5.ORDER_TYPE_SELL:
                self._books.finish_order(account, order, mt5.ORDER_STATE_EXPIRED)
        for position in list(account.positions.live.values()):
            if account.symbols[position.symbol].gtc_mode == mt5.SYMBOL_ORDERS_DAILY and (position.sl or position.tp):
                self._positions.change_stops(account, position, ZERO, ZERO)

    def _swap(self, account: SimulatedAccount, position: BrokerPosition, weekday: int) -> Decimal:
        symbol = account.symbols[position.symbol]
        if symbol.swap_mode == mt5.SYMBOL_SWAP_MODE_DISABLED or weekday in _WEEKEND:
            return ZERO
        opened = symbol.swap_mode == mt5.SYMBOL_SWAP_MODE_INTEREST_OPEN
        price = position.price_open if opened else self._books.feed.quote(symbol.feed)[0]
        currency = account.entry.currency
        amount, source = nightly_swap(symbol, position.side, position.volume, price, currency)
        days = 3 if weekday == symbol.rollover3days else 1
        return account.round(self._books.conversion.profit(amount * days, source, currency))
