"""Executes trade requests: market and pending orders, changes, cancels, close-by."""

from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, Decimal
from typing import TYPE_CHECKING

from streamapp.mt5 import constants as mt5
from streamapp.simulator.accounts import Account
from streamapp.simulator.expiry import expires_ms
from streamapp.simulator.intake import Intake, intake
from streamapp.simulator.money import BUY, ZERO
from streamapp.simulator.requests import Request, Result
from streamapp.simulator.rows import Order, Position
from streamapp.simulator.symbols import Symbol
from streamapp.simulator.validation import refusal

if TYPE_CHECKING:
    from streamapp.simulator.market import Market

# How long an exchange takes to fill what it said it had placed.
EXCHANGE_FILL_MS = 50
# What the fault `activation_partial` leaves open is settled this much later: long enough to be seen working.
PARTIAL_REST_MS = 500


@dataclass(frozen=True, slots=True)
class Handling:
    """How the broker treats one order, where that is not as it should be."""

    share: Decimal | None = None
    rest_after_ms: int | None = None
    placed_ms: int | None = None
    placed_is_rejected: bool = False
    without_stops: bool = False
    added_steps: int = 0
    magic_zeroed: bool = False
    comment: tuple[str, str | int] | None = None


AS_IT_SHOULD = Handling()


class Matching:
    """The dealing part of the server. Every method leaves tables, balance and ledger consistent."""

    def __init__(self, market: "Market") -> None:
        """Deals for the accounts of `market`."""
        self._market = market
        market.effects.handlers.update(go_on=self._go_on_later, reject=self._reject_later, cancel=self._cancel_later)

    def handle(self, account: Account, request: Request, handling: Handling = AS_IT_SHOULD) -> Result:
        """Executes a request that passed the terminal's checks, at the prices of now."""
        it = intake(self._market, account, request)
        code = refusal(it, account.profile.server_checks)
        if code:
            return self.answer(it, code)
        if request.action == mt5.TRADE_ACTION_DEAL:
            return self._deal(it, handling)
        if request.action == mt5.TRADE_ACTION_PENDING:
            return self._place(it, handling)
        actions = {
            mt5.TRADE_ACTION_SLTP: self._change_stops,
            mt5.TRADE_ACTION_MODIFY: self._modify,
            mt5.TRADE_ACTION_REMOVE: self._remove,
            mt5.TRADE_ACTION_CLOSE_BY: self._close_by,
        }
        return actions[request.action](it)

    def answer(self, it: Intake, code: int) -> Result:
        """An answer of the server: with a request id, and the quote where the symbol is known."""
        bid, ask = it.quote() if it.symbol else (ZERO, ZERO)
        return Result(code, bid=bid, ask=ask, request_id=self._market.next_request())

    # ---- market orders

    def _deal(self, it: Intake, handling: Handling) -> Result:
        account, request, symbol = it.account, it.request, it.known
        price = self.market_price(account, symbol, request.side)
        moved = abs(price - request.price) > request.deviation * symbol.point
        if moved and symbol.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
            return self.answer(it, mt5.TRADE_RETCODE_REQUOTE)
        target = it.position if account.hedging else None
        if target is not None:  # no broker closes more than there is
            handling = replace(handling, added_steps=0)
        volume = self._first_volume(symbol, request, handling)
        if not volume:
            return self.answer(it, mt5.TRADE_RETCODE_REJECT)
        order = self._new_order(request, handling, symbol)
        order.position_id = target.identifier if target else 0
        self._market.place(account, order)
        self._rewrite(order, handling)
        placed_ms = EXCHANGE_FILL_MS if account.profile.placed_first else handling.placed_ms
        if placed_ms is not None:
            return self._placed(it, order, placed_ms, rejected=handling.placed_is_rejected)
        deal = self.fill(account, order, min(volume, order.volume_current), price, target)
        result = self.answer(it, mt5.TRADE_RETCODE_DONE)
        result.deal, result.order, result.price = deal, order.ticket, price
        result.volume = order.volume_initial - order.volume_current
        if order.volume_current:
            result.retcode = mt5.TRADE_RETCODE_DONE_PARTIAL
            self._rest(account, order, handling)
        return result

    def _first_volume(self, symbol: Symbol, request: Request, handling: Handling) -> Decimal:
        """What is filled at once: all of it, unless liquidity or the broker says otherwise; 0 if FOK must fail."""
        volume = request.volume
        if handling.share is not None:
            return self._share(symbol, volume, handling.share)
        if symbol.liquidity is not None and volume > symbol.liquidity:
            return ZERO if request.type_filling == mt5.ORDER_FILLING_FOK else symbol.liquidity
        return self._adjusted(request, handling, symbol)

    def _adjusted(self, request: Request, handling: Handling, symbol: Symbol) -> Decimal:
        steps = handling.added_steps
        return request.volume + steps * symbol.volume_step if steps else request.volume

    def _rest(self, account: Account, order: Order, handling: Handling) -> None:
        """What was not filled: cancelled with IOC, working with RETURN or where the broker goes on filling."""
        if handling.rest_after_ms is not None:
            self._market.effects.after(handling.rest_after_ms, "go_on", account.name, order.ticket)
        elif order.type_filling != mt5.ORDER_FILLING_RETURN:
            self._market.finish(account, order, mt5.ORDER_STATE_PARTIAL)
            return
        order.state = mt5.ORDER_STATE_PARTIAL
        self._market.save("order", account, order)

    def _placed(self, it: Intake, order: Order, delay_ms: int, *, rejected: bool) -> Result:
        """10008: the order works, its fill or its rejection comes later."""
        order.state = mt5.ORDER_STATE_PLACED
        self._market.effects.after(delay_ms, "reject" if rejected else "go_on", it.account.name, order.ticket)
        result = self.answer(it, mt5.TRADE_RETCODE_PLACED)
        result.order, result.volume = order.ticket, order.volume_initial
        return result

    def _go_on_later(self, name: str, ticket: int) -> None:
        account, order = self._working(name, ticket)
        if account is not None and order is not None:
            self.go_on(account, order, order.volume_current)

    def _reject_later(self, name: str, ticket: int) -> None:
        account, order = self._working(name, ticket)
        if account is not None and order is not None:
            self._market.finish(account, order, mt5.ORDER_STATE_REJECTED)

    def _cancel_later(self, name: str, ticket: int) -> None:
        account, order = self._working(name, ticket)
        if account is not None and order is not None:
            self._market.finish(account, order, mt5.ORDER_STATE_CANCELED)

    def _working(self, name: str, ticket: int) -> tuple[Account | None, Order | None]:
        account = self._market.accounts.get(name)
        return account, account.orders.live.get(ticket) if account is not None else None

    def go_on(self, account: Account, order: Order, volume: Decimal) -> None:
        """Fills up to `volume` more of a working market order, at the price of now."""
        if order.ticket not in account.orders.live:
            return
        target = self._target(account, order)
        closes = account.hedging and order.position_id not in (0, order.ticket)
        if closes and target is None:
            self._market.finish(account, order, mt5.ORDER_STATE_CANCELED)
            return
        if closes and target is not None:
            volume = min(volume, target.volume)
        price = self.market_price(account, account.symbols[order.symbol], order.type % 2)
        if order.type in (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_LIMIT):
            price = (min if order.type % 2 == BUY else max)(price, order.price_open)
        self.fill(account, order, min(volume, order.volume_current), price, target)

    def _target(self, account: Account, order: Order) -> Position | None:
        """The position that a working order on a hedging account closes or goes on filling."""
        held = account.positions.live.values()
        return next((p for p in held if p.identifier == order.position_id and order.position_id), None)

    def fill(
        self, account: Account, order: Order, volume: Decimal, price: Decimal, target: Position | None = None
    ) -> int:
        """Executes a part of an order, or all; gives the deal's ticket."""
        self._market.before(account, "orders", order.ticket)
        deal = self._market.positions.execute(account, order, order.type % 2, volume, price, target)
        order.volume_current -= volume
        order.price_current = price
        if order.volume_current <= ZERO:
            self._market.finish(account, order, mt5.ORDER_STATE_FILLED)
        else:
            order.state = mt5.ORDER_STATE_PARTIAL
            self._market.save("order", account, order)
        return deal.ticket

    def activate(self, account: Account, order: Order, price: Decimal) -> None:
        """Executes a pending order whose price came, as far as liquidity and the broker let it."""
        faults, volume = self._market.faults, order.volume_current
        liquidity = account.symbols[order.symbol].liquidity
        if liquidity is not None and volume > liquidity:
            if order.type_filling == mt5.ORDER_FILLING_FOK:
                return
            volume = liquidity
        fault = faults.standing(account, "activation_partial") if faults.active else None
        if fault is not None and order.state != mt5.ORDER_STATE_PARTIAL:
            volume = self._share(account.symbols[order.symbol], volume, Decimal(str(fault.params.get("share", "0.5"))))
        elif order.state == mt5.ORDER_STATE_PARTIAL and liquidity is None:
            return
        self.fill(account, order, volume, price, self._target(account, order))
        if fault is None and order.volume_current and order.type_filling == mt5.ORDER_FILLING_IOC:
            self._market.finish(account, order, mt5.ORDER_STATE_PARTIAL)
        if fault is not None and order.volume_current:
            rest = "cancel" if fault.params.get("rest") == "cancel" else "go_on"
            self._market.effects.after(fault.params.get("after_ms", PARTIAL_REST_MS), rest, account.name, order.ticket)

    def _share(self, symbol: Symbol, volume: Decimal, share: Decimal) -> Decimal:
        steps = (volume * share / symbol.volume_step).quantize(Decimal(1), ROUND_DOWN)
        return max(symbol.volume_min, steps * symbol.volume_step)

    def market_price(self, account: Account, symbol: Symbol, side: int) -> Decimal:
        """What a market order gets now: the quote, with slippage where the price moves by itself."""
        quoted = self._market.feed.quotes[symbol.feed]
        price = quoted.ask if side == BUY else quoted.bid
        if quoted.pinned or not self._market.settings.slippage:
            return price
        return price + self._slipped_points(account) * symbol.tick_size * (1 if side == BUY else -1)

    def _slipped_points(self, account: Account) -> int:
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

    # ---- pending orders

    def _place(self, it: Intake, handling: Handling) -> Result:
        order = self._new_order(it.request, handling, it.known)
        order.state = mt5.ORDER_STATE_PLACED
        self._market.place(it.account, order)
        self._rewrite(order, handling)
        self._market.watch_expiry(it.account, order)
        return Result(
            mt5.TRADE_RETCODE_DONE, order=order.ticket, volume=order.volume_initial, comment=order.comment,
            request_id=self._market.next_request(),
        )  # fmt: skip

    def _modify(self, it: Intake) -> Result:
        order, request = it.order, it.request
        if order is None:
            return self.answer(it, mt5.TRADE_RETCODE_INVALID_ORDER)
        old = (order.price_open, order.sl, order.tp, order.stoplimit, order.type_time, order.expiration)
        new = (request.price, request.sl, request.tp, request.stoplimit, request.type_time, request.expiration)
        if old == new:
            return self.answer(it, mt5.TRADE_RETCODE_NO_CHANGES)
        self._market.before(it.account, "orders", order.ticket)
        order.price_open, order.sl, order.tp, order.stoplimit, order.type_time, order.expiration = new
        self._market.work(it.account, order)
        self._market.watch_expiry(it.account, order)
        return Result(mt5.TRADE_RETCODE_DONE, order=order.ticket, request_id=self._market.next_request())

    def _remove(self, it: Intake) -> Result:
        if it.order is None:
            return self.answer(it, mt5.TRADE_RETCODE_INVALID_ORDER)
        self._market.finish(it.account, it.order, mt5.ORDER_STATE_CANCELED)
        return Result(mt5.TRADE_RETCODE_DONE, order=it.order.ticket, request_id=self._market.next_request())

    def expire(self, account: Account, order: Order) -> None:
        """Ends an order whose time is over; one that was changed or is gone stays as it is."""
        due = expires_ms(order)
        if order.ticket not in account.orders.live or due is None:
            return
        if due <= self._market.clock.server_ms():
            self._market.finish(account, order, mt5.ORDER_STATE_EXPIRED)
        else:
            # It was changed, or the server's clock was put back meanwhile.
            self._market.watch_expiry(account, order)

    # ---- positions

    def _change_stops(self, it: Intake) -> Result:
        position = it.position
        if position is None:
            return self.answer(it, mt5.TRADE_RETCODE_POSITION_CLOSED)
        if (position.sl, position.tp) == (it.request.sl, it.request.tp):
            return self.answer(it, mt5.TRADE_RETCODE_NO_CHANGES)
        self._market.positions.change_stops(it.account, position, it.request.sl, it.request.tp)
        return Result(mt5.TRADE_RETCODE_DONE, request_id=self._market.next_request())

    def _close_by(self, it: Intake) -> Result:
        position, other = it.position, it.account.positions.live.get(it.request.position_by)
        if position is None or other is None:
            return self.answer(it, mt5.TRADE_RETCODE_POSITION_CLOSED)
        order = self._new_order(it.request, AS_IT_SHOULD, it.known)
        order.symbol, order.type, order.volume_current = position.symbol, mt5.ORDER_TYPE_CLOSE_BY, ZERO
        order.volume_initial, order.price_open = min(position.volume, other.volume), other.price_open
        order.position_id, order.position_by_id = position.identifier, other.identifier
        self._market.place(it.account, order)
        deal = self._market.positions.close_by(it.account, order, position, other)
        self._market.finish(it.account, order, mt5.ORDER_STATE_FILLED)
        result = self.answer(it, mt5.TRADE_RETCODE_DONE)
        result.deal, result.order, result.volume, result.price = deal.ticket, order.ticket, deal.volume, deal.price
        return result

    def close(  # noqa: PLR0917  # as positions.execute
        self, account: Account, position: Position, price: Decimal, reason: int, comment: str,
        volume: Decimal | None = None,
    ) -> None:  # fmt: skip
        """The server, or somebody else, closes a position or `volume` lots of it."""
        volume = position.volume if volume is None else volume
        order = Order(
            ticket=self._market.next_ticket(), symbol=position.symbol, type=1 - position.side,
            state=mt5.ORDER_STATE_STARTED, magic=position.magic if account.profile.stops_magic else 0,
            comment=comment, reason=reason, volume_initial=volume, volume_current=volume,
            price_open=price, sl=ZERO, tp=ZERO, time_setup_msc=self._market.clock.server_ms(),
            type_filling=mt5.ORDER_FILLING_FOK, position_id=position.identifier, price_current=price,
        )  # fmt: skip
        self._market.place(account, order)
        self.fill(account, order, volume, price, position)

    # ---- orders

    def _new_order(self, request: Request, handling: Handling, symbol: Symbol) -> Order:
        """An order that is not yet in any table."""
        volume = self._adjusted(request, handling, symbol)
        keep = not handling.without_stops
        return Order(
            ticket=self._market.next_ticket(), symbol=symbol.name, type=request.type,
            state=mt5.ORDER_STATE_STARTED, magic=request.magic, comment=request.comment, reason=request.reason,
            volume_initial=volume, volume_current=volume, price_open=request.price,
            sl=request.sl if keep else ZERO, tp=request.tp if keep else ZERO,
            time_setup_msc=self._market.clock.server_ms(), type_filling=request.type_filling,
            stoplimit=request.stoplimit, type_time=request.type_time, expiration=request.expiration,
        )  # fmt: skip

    def _rewrite(self, order: Order, handling: Handling) -> None:
        """What some brokers make of magic and comment, after the ledger has the true ones."""
        if not handling.magic_zeroed and handling.comment is None:
            return
        self._market.ledger.rewritten(order)
        order.magic = 0 if handling.magic_zeroed else order.magic
        if handling.comment is not None:
            how, value = handling.comment
            changed = {"append": f"{order.comment}{value}", "replace": str(value), "empty": ""}
            order.comment = order.comment[: int(value)] if how == "truncate" else changed[how]
