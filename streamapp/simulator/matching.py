"""Executes trade requests and what prices set off: stop-loss, take-profit, stop-out, pending orders."""

from decimal import Decimal
from typing import TYPE_CHECKING

from streamapp.simulator import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.feed import Quoted
from streamapp.simulator.money import BUY, ZERO
from streamapp.simulator.requests import Request, Result
from streamapp.simulator.rows import Order, Position
from streamapp.simulator.validation import SERVER_CHECKS, Intake, intake, refusal

if TYPE_CHECKING:
    from streamapp.simulator.market import Market


class Matching:
    """The dealing part of the server. Every method leaves tables, balance and ledger consistent."""

    def __init__(self, market: "Market") -> None:
        """Deals for the accounts of `market`."""
        self._market = market

    def handle(self, account: Account, request: Request) -> Result:
        """Executes a request that passed the terminal's checks, at the prices of now."""
        it = intake(self._market, account, request)
        code = refusal(it, SERVER_CHECKS)
        if code:
            return self.answer(it, code)
        actions = {
            mt5.TRADE_ACTION_DEAL: self._deal,
            mt5.TRADE_ACTION_SLTP: self._change_stops,
        }
        action = actions.get(request.action)
        return action(it) if action else self.answer(it, mt5.TRADE_RETCODE_INVALID)

    def answer(self, it: Intake, code: int) -> Result:
        """An answer of the server: with a request id, and the quote where the symbol is known."""
        bid, ask = it.quote() if it.symbol else (ZERO, ZERO)
        return Result(code, bid=bid, ask=ask, request_id=self._market.next_request())

    # ---- requests

    def _deal(self, it: Intake) -> Result:
        account, request = it.account, it.request
        price = self._fill_price(it)
        if it.known.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
            if abs(price - request.price) > request.deviation * it.known.point:
                return self.answer(it, mt5.TRADE_RETCODE_REQUOTE)
        order = self.new_order(account, request)
        target = it.position if account.hedging else None
        order.position_id = target.identifier if target else 0
        self._market.place(account, order)
        deal = self._market.positions.execute(account, order, request.side, request.volume, price, target)
        order.volume_current, order.price_current = ZERO, price
        self._market.finish(account, order, mt5.ORDER_STATE_FILLED)
        result = self.answer(it, mt5.TRADE_RETCODE_DONE)
        result.deal, result.order, result.volume, result.price = deal.ticket, order.ticket, request.volume, price
        return result

    def _change_stops(self, it: Intake) -> Result:
        position = it.position
        if position is None:
            return self.answer(it, mt5.TRADE_RETCODE_POSITION_CLOSED)
        if (position.sl, position.tp) == (it.request.sl, it.request.tp):
            return self.answer(it, mt5.TRADE_RETCODE_NO_CHANGES)
        self._market.positions.change_stops(it.account, position, it.request.sl, it.request.tp)
        return Result(mt5.TRADE_RETCODE_DONE, request_id=self._market.next_request())

    def new_order(self, account: Account, request: Request) -> Order:
        """An order that is not yet in any table."""
        return Order(
            ticket=self._market.next_ticket(), symbol=request.symbol, type=request.type,
            state=mt5.ORDER_STATE_STARTED, magic=request.magic, comment=request.comment, reason=request.reason,
            volume_initial=request.volume, volume_current=request.volume, price_open=request.price,
            sl=request.sl, tp=request.tp, time_setup_msc=self._market.clock.server_ms(),
            type_filling=request.type_filling, stoplimit=request.stoplimit, type_time=request.type_time,
            expiration=request.expiration,
        )  # fmt: skip

    def _fill_price(self, it: Intake) -> Decimal:
        """The market's price now, with slippage where the price moves by itself."""
        price, symbol = it.market_price(), it.known
        if self._market.feed.quotes[symbol.feed].pinned or not self._market.settings.slippage:
            return price
        return price + self.slipped_points(it.account) * symbol.tick_size * (1 if it.request.side == BUY else -1)

    def slipped_points(self, account: Account) -> int:
        """Points of slippage: mostly none, sometimes some, positive is worse for the client."""
        none, adverse, favourable = account.profile.slippage
        draw = self._market.random.random()
        if draw < none:
            return 0
        if draw < none + adverse:
            return 1 + int(abs(self._market.random.gauss(0, 1)))
        if draw < none + adverse + favourable:
            return -1
        return 3 + int(self._market.random.expovariate(0.3))

    # ---- prices

    def on_tick(self, quoted: Quoted) -> None:
        """Does what a new price of a symbol sets off."""
        for account in self._market.accounts.values():
            name = quoted.symbol.name + account.profile.suffix
            for position in list(account.stops.get(name, {}).values()):
                self._try_stops(account, position, quoted)

    def _try_stops(self, account: Account, position: Position, quoted: Quoted) -> None:
        price = quoted.bid if position.side == BUY else quoted.ask
        sign = 1 if position.side == BUY else -1
        if position.sl and (price - position.sl) * sign <= 0:
            text = f"[sl {position.sl:.{quoted.symbol.digits}f}]"
            self.close(account, position, price, mt5.ORDER_REASON_SL, text)
        elif position.tp and (price - position.tp) * sign >= 0:
            text = f"[tp {position.tp:.{quoted.symbol.digits}f}]"
            self.close(account, position, position.tp, mt5.ORDER_REASON_TP, text)

    def close(self, account: Account, position: Position, price: Decimal, reason: int, comment: str) -> None:
        """The server itself closes a whole position."""
        now = self._market.clock.server_ms()
        order = Order(
            ticket=self._market.next_ticket(), symbol=position.symbol, type=1 - position.side,
            state=mt5.ORDER_STATE_STARTED, magic=position.magic if account.profile.stops_magic else 0,
            comment=comment, reason=reason, volume_initial=position.volume, volume_current=ZERO,
            price_open=price, sl=ZERO, tp=ZERO, time_setup_msc=now, type_filling=mt5.ORDER_FILLING_FOK,
            position_id=position.identifier, price_current=price,
        )  # fmt: skip
        self._market.place(account, order)
        self._market.positions.execute(account, order, order.type, position.volume, price, position)
        self._market.finish(account, order, mt5.ORDER_STATE_FILLED)
