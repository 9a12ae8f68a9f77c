"""What a price sets off: stop-loss, take-profit, pending orders, rests, stop-out."""

from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.feed import Quoted
from streamapp.simulator.intake import Intake
from streamapp.simulator.money import BUY, ZERO
from streamapp.simulator.requests import STOP_LIMITS, request_from
from streamapp.simulator.rows import Order, Position
from streamapp.simulator.validation import lacks_money

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

_LIMITS = (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_LIMIT)
_STOPS = (mt5.ORDER_TYPE_BUY_STOP, mt5.ORDER_TYPE_SELL_STOP)
_EMPTY_REQUEST = [0, 0, 0, "", 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, "", 0, 0]


class Triggers:
    """Acts on each tick, for every account: orders first, then stops, then the margin level."""

    def __init__(self, market: "Market") -> None:
        """Acts for the accounts of `market`."""
        self._market = market

    def on_tick(self, quoted: Quoted) -> None:
        """Does what a new price of a symbol sets off."""
        for account in self._market.accounts.values():
            name = quoted.symbol.name + account.profile.suffix
            if waiting := account.pending.get(name):
                for order in list(waiting.values()):
                    self._try_order(account, order, quoted)
            if stops := account.stops.get(name):
                for position in list(stops.values()):
                    self._try_stops(account, position, quoted)
            if name in account.exposures:
                self._try_stop_out(account)

    def _try_order(self, account: Account, order: Order, quoted: Quoted) -> None:
        price = quoted.ask if order.type % 2 == BUY else quoted.bid
        sign = 1 if order.type % 2 == BUY else -1
        begun = order.state == mt5.ORDER_STATE_PARTIAL and order.type in _STOPS
        if order.type in (mt5.ORDER_TYPE_BUY, mt5.ORDER_TYPE_SELL) or begun:
            self._try_rest(account, order)
            return
        if order.type in STOP_LIMITS:
            if (price - order.price_open) * sign < 0:
                return
            self._market.before(account, "orders", order.ticket)
            order.type = mt5.ORDER_TYPE_BUY_LIMIT if sign == 1 else mt5.ORDER_TYPE_SELL_LIMIT
            order.price_open, order.stoplimit = order.stoplimit, ZERO
            self._market.work(account, order)
        distance = (price - order.price_open) * sign
        if order.type in _LIMITS:
            if distance <= 0:
                self._activate(account, order, price)
        elif distance >= 0:
            symbol = account.symbols[order.symbol]
            self._activate(account, order, self._market.matching.market_price(account, symbol, order.type % 2))

    def _try_rest(self, account: Account, order: Order) -> None:
        """A partly filled market order goes on with what each tick offers."""
        symbol = account.symbols[order.symbol]
        if order.state != mt5.ORDER_STATE_PARTIAL or symbol.liquidity is None:
            return
        self._market.matching.go_on(account, order, symbol.liquidity)

    def _activate(self, account: Account, order: Order, price: Decimal) -> None:
        symbol = account.symbols[order.symbol]
        it = Intake(self._market, account, request_from(_EMPTY_REQUEST), symbol, None, order)
        faults = self._market.faults
        refused = faults.active and faults.standing(account, "activation_rejected") is not None
        if refused or lacks_money(it, order.type % 2, order.volume_current):
            self._market.finish(account, order, mt5.ORDER_STATE_REJECTED)
            return
        self._market.matching.activate(account, order, price)

    def _try_stops(self, account: Account, position: Position, quoted: Quoted) -> None:
        price = quoted.bid if position.side == BUY else quoted.ask
        sign = 1 if position.side == BUY else -1
        close, digits = self._market.matching.close, quoted.symbol.digits
        if position.sl and (price - position.sl) * sign <= 0:
            symbol = account.symbols[position.symbol]
            slipped = self._market.matching.market_price(account, symbol, 1 - position.side)
            close(account, position, slipped, mt5.ORDER_REASON_SL, f"[sl {position.sl:.{digits}f}]")
        elif position.tp and (price - position.tp) * sign >= 0:
            close(account, position, position.tp, mt5.ORDER_REASON_TP, f"[tp {position.tp:.{digits}f}]")

    def _try_stop_out(self, account: Account) -> None:
        """Closes the largest losing position, one by one, while the margin level is at or below the stop-out."""
        while account.positions.live:
            equity, margin, _ = self._market.money(account)
            level = equity if account.profile.stop_out_in_money else account.margin_level(equity, margin)
            if not margin or level > account.profile.stop_out:
                return
            worst = min(account.positions.live.values(), key=lambda p: self._market.floating(account, p))
            symbol = account.symbols[worst.symbol]
            price = self._market.matching.market_price(account, symbol, 1 - worst.side)
            comment = f"[so {level:.1f}%/{equity:.2f}/{margin:.2f}]"
            self._market.matching.close(account, worst, price, mt5.ORDER_REASON_SO, comment)
