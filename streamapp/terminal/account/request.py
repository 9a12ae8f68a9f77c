"""From an order's parameters to the one request that is sent (submission, step 5).

Everything here is a function of its arguments. Numbers become floats only in the request itself. Whether it may be sent
is judged by :mod:`streamapp.terminal.account.pretrade`.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from streamapp.domain.facts import RefusedReason
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.orders import EXACT
from streamapp.domain.parameters import OrderParameters
from streamapp.errors import Definite
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import LIFETIME_NUMBERS, ORDER_TYPE_NUMBERS, SIDES
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.answers import Prepared
from streamapp.terminal.pipe.structs import SymbolInfo, TradeRequest, number

DEVIATION_POINTS = 20
"""How far an instant execution may be from the price asked for, at least, when nobody names a limit: two pips of a
five-digit pair, so that an ordinary tick between quote and arrival is not a requote. Where the spread is wider, as
thousands of points of a coin, an ordinary tick is so too. Market and exchange execution ignore it."""


class RefusedError(Definite):
    """The order is not sent, and never will be: proof that nothing was."""

    def __init__(self, reason: RefusedReason, message: str) -> None:
        super().__init__(message)
        self.reason: RefusedReason = reason
        self.message = message


class NotYetError(RefusedError):
    """The same, unless it shows within a moment: a quote that has not come yet, a table behind another one."""


def to_tick(price: Decimal | None, symbol: SymbolInfo) -> Decimal:
    """Return the price on the symbol's grid nearest to ``price``; no price is 0."""
    if price is None:
        return Decimal(0)
    grid = number(symbol.trade_tick_size or symbol.point)
    steps = EXACT.divide(price, grid).quantize(Decimal(1), ROUND_HALF_EVEN, context=EXACT)
    return EXACT.multiply(steps, grid)


def protection(order: SubmitRequest, seen: Prepared) -> tuple[Decimal, Decimal]:
    """Return stop loss and take profit that the position shall have once the order is filled; 0 is none.

    Where a symbol has one position, an order that adds to it brings its own levels and takes away those that it does
    not name (MT5's help, "Inheritance of SL/TP"); so those that are there are named again.
    """
    assert seen.symbol is not None
    wanted, kept = order.parameters, seen.netted
    stop_loss, take_profit = to_tick(wanted.stop_loss, seen.symbol), to_tick(wanted.take_profit, seen.symbol)
    if kept is None or SIDES[kept.type] != wanted.side:
        return stop_loss, take_profit
    return stop_loss or number(kept.sl), take_profit or number(kept.tp)


def deviation_of(order: SubmitRequest, seen: Prepared, of_symbol: int | None) -> int:
    """Return how many points an instant execution may be from the price asked for (see :data:`DEVIATION_POINTS`)."""
    if order.max_slippage_points is not None:
        return max(order.max_slippage_points, 0)
    if of_symbol is not None:
        return of_symbol
    assert seen.symbol is not None
    point = number(seen.symbol.point)
    return max(DEVIATION_POINTS, int((seen.ask - seen.bid) / point) if point else 0)


def build(
    order: SubmitRequest, seen: Prepared, filling: int, time: ServerTime, deviation: int | None = None
) -> TradeRequest:
    """Return the request for ``order_send``: the keys that it knows, the types that it takes (reference mt5 §1.4).

    The one way to make an opening request, and that of an order that closes a position (``position_id``).
    ``deviation``: the symbol's own, in points, if it has one.
    """
    assert seen.symbol is not None
    wanted = order.parameters
    # What a pending order finds when its price comes, nobody knows: it names its own levels only, and is watched.
    own = to_tick(wanted.stop_loss, seen.symbol), to_tick(wanted.take_profit, seen.symbol)
    stop_loss, take_profit = protection(order, seen) if wanted.order_type == "market" else own
    request: TradeRequest = {
        "symbol": wanted.symbol,
        "volume": float(wanted.volume),
        "type": ORDER_TYPE_NUMBERS[wanted.order_type, wanted.side],
        "sl": float(stop_loss),
        "tp": float(take_profit),
        "type_filling": filling,
        "magic": magic_of(order.order_id),
        "comment": tag_of(order.order_id),
    }
    if wanted.order_type != "market":
        return request | _pending(wanted, seen.symbol, time)
    request |= {
        "action": mt5.TRADE_ACTION_DEAL,
        "price": float(seen.market(wanted.side)),
        "deviation": deviation_of(order, seen, deviation),
        "type_time": mt5.ORDER_TIME_GTC,
    }
    if order.position_id is None:
        return request
    # The module names positions by ticket, which may change; we by the identifier, which does not.
    return request | {"position": seen.position.ticket if seen.position else order.position_id}


def _pending(wanted: OrderParameters, symbol: SymbolInfo, time: ServerTime) -> TradeRequest:
    fields: TradeRequest = {
        "action": mt5.TRADE_ACTION_PENDING,
        "price": float(to_tick(wanted.price, symbol)),
        "type_time": LIFETIME_NUMBERS[wanted.time_in_force],
    }
    if wanted.order_type == "stop_limit":
        fields["stoplimit"] = float(to_tick(wanted.stop_limit_price, symbol))
    if wanted.expiration is not None:
        # Whole seconds, cut off: it may end earlier than asked, never later.
        fields["expiration"] = time.server_s(wanted.expiration)
    return fields
