"""Executes checked trade requests: market and pending orders, changes, cancels, close-by."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.positions import Positions
from streamapp.simulator.books.tables import ZERO, BrokerOrder
from streamapp.simulator.prices.symbols import SymbolSpec
from streamapp.simulator.server.matching import Matching, share_of
from streamapp.simulator.server.requests import OrderRequest, OrderResult, RequestContext, context_of
from streamapp.simulator.server.schedule import ScheduledEvents
from streamapp.simulator.server.validation import PLACING, refusal

# How long an exchange takes to fill what it said it had placed.
EXCHANGE_FILL_MS = 50


@dataclass(frozen=True, slots=True)
class ExecutionBehaviour:
    """How the broker treats one order, where that is not as it should be.

    Attributes:
        share: The share that is filled at once.
        rest_after_ms: When the rest of a partly filled order is filled.
        placed_ms: When an order that is only placed at first is filled, or rejected (``placed_is_rejected``).
        without_stops: SL and TP of the order are dropped.
        added_steps: Volume steps more than were asked for.
        magic_zeroed: The magic becomes 0.
        comment: What the comment becomes: truncate to a length, append or replace with a text, empty.
    """

    share: Decimal | None = None
    rest_after_ms: int | None = None
    placed_ms: int | None = None
    placed_is_rejected: bool = False
    without_stops: bool = False
    added_steps: int = 0
    magic_zeroed: bool = False
    comment: tuple[str, str | int] | None = None


NORMAL = ExecutionBehaviour()


def _asked_volume(symbol: SymbolSpec, request: OrderRequest, behaviour: ExecutionBehaviour) -> Decimal:
    steps = behaviour.added_steps
    return request.volume + steps * symbol.volume_step if steps else request.volume


class RequestExecutor:
    """The dealing part of the server. Every method leaves tables, balance and ledger consistent."""

    def __init__(self, books: Books, positions: Positions, matching: Matching, schedule: ScheduledEvents) -> None:
        self._books = books
        self._positions = positions
        self._matching = matching
        self._schedule = schedule
        self._requests = itertools.count(1)

    def execute(
        self, account: SimulatedAccount, request: OrderRequest, behaviour: ExecutionBehaviour = NORMAL
    ) -> OrderResult:
        """Execute a request that passed the terminal's checks, at the prices of now, and return the answer."""
        ctx = context_of(self._books, account, request)
        code = refusal(ctx, account.profile.server_checks)
        if code:
            return self.answer(ctx, code)
        if request.action in PLACING and request.type_filling in ctx.known.refused_fillings:
            return self.answer(ctx, mt5.TRADE_RETCODE_INVALID_FILL)
        if request.action == mt5.TRADE_ACTION_DEAL:
            return self._deal(ctx, behaviour)
        if request.action == mt5.TRADE_ACTION_PENDING:
            return self._place(ctx, behaviour)
        actions = {
            mt5.TRADE_ACTION_SLTP: self._change_stops,
            mt5.TRADE_ACTION_MODIFY: self._modify,
            mt5.TRADE_ACTION_REMOVE: self._remove,
            mt5.TRADE_ACTION_CLOSE_BY: self._close_by,
        }
        return actions[request.action](ctx)

    def answer(self, ctx: RequestContext, code: int) -> OrderResult:
        """Return an answer of the server: with a request id, and the quote where the symbol is known."""
        bid, ask = ctx.quote() if ctx.symbol else (ZERO, ZERO)
        return OrderResult(code, bid=bid, ask=ask, request_id=next(self._requests))

    # -- market orders

    def _deal(self, ctx: RequestContext, behaviour: ExecutionBehaviour) -> OrderResult:
        account, request, symbol = ctx.account, ctx.request, ctx.known
        price = self._matching.market_price(account, symbol, request.side)
        moved = abs(price - request.price) > request.deviation * symbol.point
        if moved and symbol.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
            return self.answer(ctx, mt5.TRADE_RETCODE_REQUOTE)
        target = ctx.position if account.hedging else None
        if target is not None:  # no broker closes more than there is
            behaviour = replace(behaviour, added_steps=0)
        volume = self._first_volume(symbol, request, behaviour)
        if not volume:
            return self.answer(ctx, mt5.TRADE_RETCODE_REJECT)
        order = self._new_order(request, behaviour, symbol)
        order.position_id = target.identifier if target else 0
        self._books.add_order(account, order)
        self._rewrite(order, behaviour)
        placed_ms = EXCHANGE_FILL_MS if account.profile.placed_first else behaviour.placed_ms
        if placed_ms is not None:
            return self._placed(ctx, order, placed_ms, rejected=behaviour.placed_is_rejected)
        deal = self._matching.fill(account, order, min(volume, order.volume_current), price, target)
        result = self.answer(ctx, mt5.TRADE_RETCODE_DONE)
        result.deal, result.order, result.price = deal, order.ticket, price
        result.volume = order.volume_initial - order.volume_current
        if order.volume_current:
            result.retcode = mt5.TRADE_RETCODE_DONE_PARTIAL
            self._matching.leave_rest(account, order, behaviour.rest_after_ms)
        return result

    def _first_volume(self, symbol: SymbolSpec, request: OrderRequest, behaviour: ExecutionBehaviour) -> Decimal:
        """What is filled at once: all of it, unless liquidity or the broker says otherwise; 0 if FOK must fail."""
        volume = request.volume
        if behaviour.share is not None:
            return share_of(symbol, volume, behaviour.share)
        if symbol.liquidity is not None and volume > symbol.liquidity:
            return ZERO if request.type_filling == mt5.ORDER_FILLING_FOK else symbol.liquidity
        return _asked_volume(symbol, request, behaviour)

    def _placed(self, ctx: RequestContext, order: BrokerOrder, delay_ms: int, *, rejected: bool) -> OrderResult:
        """10008: the order works, its fill or its rejection comes later."""
        order.state = mt5.ORDER_STATE_PLACED
        self._schedule.after(delay_ms, "reject" if rejected else "go_on", ctx.account.name, order.ticket)
        result = self.answer(ctx, mt5.TRADE_RETCODE_PLACED)
        result.order, result.volume = order.ticket, order.volume_initial
        return result

    # -- pending orders

    def _place(self, ctx: RequestContext, behaviour: ExecutionBehaviour) -> OrderResult:
        order = self._new_order(ctx.request, behaviour, ctx.known)
        order.state = mt5.ORDER_STATE_PLACED
        self._books.add_order(ctx.account, order)
        self._rewrite(order, behaviour)
        self._matching.watch_expiry(ctx.account, order)
        return self._done(order=order.ticket, volume=order.volume_initial, comment=order.comment)

    def _modify(self, ctx: RequestContext) -> OrderResult:
        order, request = ctx.order, ctx.request
        if order is None:
            return self.answer(ctx, mt5.TRADE_RETCODE_INVALID_ORDER)
        old = (order.price_open, order.sl, order.tp, order.stoplimit, order.type_time, order.expiration)
        new = (request.price, request.sl, request.tp, request.stoplimit, request.type_time, request.expiration)
        if old == new:
            return self.answer(ctx, mt5.TRADE_RETCODE_NO_CHANGES)
        self._books.snapshot_for_lag(ctx.account, "orders", order.ticket)
        order.price_open, order.sl, order.tp, order.stoplimit, order.type_time, order.expiration = new
        self._books.keep_working(ctx.account, order)
        self._matching.watch_expiry(ctx.account, order)
        return self._done(order=order.ticket)

    def _remove(self, ctx: RequestContext) -> OrderResult:
        if ctx.order is None:
            return self.answer(ctx, mt5.TRADE_RETCODE_INVALID_ORDER)
        self._books.finish_order(ctx.account, ctx.order, mt5.ORDER_STATE_CANCELED)
        return self._done(order=ctx.order.ticket)

    # -- positions

    def _change_stops(self, ctx: RequestContext) -> OrderResult:
        position = ctx.position
        if position is None:
            return self.answer(ctx, mt5.TRADE_RETCODE_POSITION_CLOSED)
        if (position.sl, position.tp) == (ctx.request.sl, ctx.request.tp):
            return self.answer(ctx, mt5.TRADE_RETCODE_NO_CHANGES)
        self._positions.change_stops(ctx.account, position, ctx.request.sl, ctx.request.tp)
        return self._done()

    def _close_by(self, ctx: RequestContext) -> OrderResult:
        position, other = ctx.position, ctx.account.positions.live.get(ctx.request.position_by)
        if position is None or other is None:
            return self.answer(ctx, mt5.TRADE_RETCODE_POSITION_CLOSED)
        order = self._new_order(ctx.request, NORMAL, ctx.known)
        order.symbol, order.type, order.volume_current = position.symbol, mt5.ORDER_TYPE_CLOSE_BY, ZERO
        order.volume_initial, order.price_open = min(position.volume, other.volume), other.price_open
        order.position_id, order.position_by_id = position.identifier, other.identifier
        self._books.add_order(ctx.account, order)
        deal = self._positions.close_by(ctx.account, order, position, other)
        self._books.finish_order(ctx.account, order, mt5.ORDER_STATE_FILLED)
        result = self.answer(ctx, mt5.TRADE_RETCODE_DONE)
        result.deal, result.order, result.volume, result.price = deal.ticket, order.ticket, deal.volume, deal.price
        return result

    # -- orders and answers

    def _done(self, *, order: int = 0, volume: Decimal = ZERO, comment: str = "") -> OrderResult:
        """Success without a deal: no quote comes with it."""
        return OrderResult(
            mt5.TRADE_RETCODE_DONE, order=order, volume=volume, comment=comment, request_id=next(self._requests)
        )

    def _new_order(self, request: OrderRequest, behaviour: ExecutionBehaviour, symbol: SymbolSpec) -> BrokerOrder:
        """An order that is not yet in any table."""
        volume = _asked_volume(symbol, request, behaviour)
        keep = not behaviour.without_stops
        return BrokerOrder(
            ticket=self._books.next_ticket(), symbol=symbol.name, type=request.type,
            state=mt5.ORDER_STATE_STARTED, magic=request.magic, comment=request.comment, reason=request.reason,
            volume_initial=volume, volume_current=volume, price_open=request.price,
            sl=request.sl if keep else ZERO, tp=request.tp if keep else ZERO,
            time_setup_msc=self._books.clock.server_ms(), type_filling=request.type_filling,
            stoplimit=request.stoplimit, type_time=request.type_time, expiration=request.expiration,
        )  # fmt: skip

    def _rewrite(self, order: BrokerOrder, behaviour: ExecutionBehaviour) -> None:
        """What some brokers make of magic and comment, after the ledger has the true ones."""
        if not behaviour.magic_zeroed and behaviour.comment is None:
            return
        self._books.ledger.rewritten(order)
        order.magic = 0 if behaviour.magic_zeroed else order.magic
        if behaviour.comment is not None:
            how, value = behaviour.comment
            changed = {"append": f"{order.comment}{value}", "replace": str(value), "empty": ""}
            order.comment = order.comment[: int(value)] if how == "truncate" else changed[how]
