"""From an order's parameters to the one request that is sent (submission, step 5).

Numbers become floats only in the request itself. Whether it may be sent is judged by
:mod:`streamapp.terminal.account.pretrade`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from streamapp.domain.facts import RefusedReason
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.orders import EXACT
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import FillPolicy
from streamapp.errors import Definite
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import (
    FILL_POLICIES,
    LIFETIME_NUMBERS,
    ORDER_TYPE_NUMBERS,
    SIDES,
    SYMBOL_FILLING_FOK,
    SYMBOL_FILLING_IOC,
)
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.account.worker_client import READ
from streamapp.terminal.pipe.answers import Prepared
from streamapp.terminal.pipe.calls import OrderCheck
from streamapp.terminal.pipe.structs import SymbolInfo, TradeRequest, number

DEVIATION_POINTS = 20
"""How far an instant execution may be from the price asked for, at least, when nobody names a limit: two pips of a
five-digit pair, so that an ordinary tick between quote and arrival is not a requote. Where the spread is wider, as
thousands of points of a coin, an ordinary tick is so too. Market and exchange execution ignore it."""


class RefusedError(Definite):
    """The order is not sent, and never will be: proof that nothing was. ``largest``: as in SubmitRefused."""

    def __init__(self, reason: RefusedReason, message: str, largest: Decimal | None = None) -> None:
        super().__init__(message)
        self.reason: RefusedReason = reason
        self.message = message
        self.largest = largest


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


# -- which filling modes a symbol allows (reference mt5 §2.2): by its flags, until the broker denies them


MODES = {policy: mode for mode, policy in FILL_POLICIES.items()}
# In the order in which they are preferred.
FLAGS = ((SYMBOL_FILLING_IOC, mt5.ORDER_FILLING_IOC), (SYMBOL_FILLING_FOK, mt5.ORDER_FILLING_FOK))
BY_QUOTE = (mt5.SYMBOL_TRADE_EXECUTION_REQUEST, mt5.SYMBOL_TRADE_EXECUTION_INSTANT)
"""Executions at a price that the broker quoted: every filling mode is allowed, whatever is flagged."""


def fillings(wanted: OrderParameters, symbol: SymbolInfo, denied: Collection[int] = frozenset()) -> tuple[int, ...]:
    """Return the filling modes to choose from: one, or several where only ``order_check`` can tell.

    Args:
        wanted: The order.
        symbol: Its symbol.
        denied: Modes that the broker refused to this order (10030), whatever the symbol's flags say.

    Raises:
        RefusedError: the symbol does not allow the policy that was asked for, or all were denied.
    """
    flags = symbol.filling_mode
    allowed = (_of_deals if wanted.order_type == "market" else _of_pendings)(symbol)
    if denied:
        return _not_denied(wanted, allowed, denied)
    if wanted.fill_policy == "any":
        if wanted.order_type != "market" and symbol.trade_exemode == mt5.SYMBOL_TRADE_EXECUTION_MARKET:
            return allowed if flags else (mt5.ORDER_FILLING_RETURN, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC)
        return allowed[:1] or (mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC, mt5.ORDER_FILLING_RETURN)
    mode = MODES[wanted.fill_policy]
    if mode not in allowed and (flags or mode == mt5.ORDER_FILLING_RETURN):
        raise RefusedError(
            "invalid", f"expected a fill policy that {wanted.symbol} allows, got {wanted.fill_policy} (flags {flags})"
        )
    return (mode,)


def _not_denied(wanted: OrderParameters, allowed: tuple[int, ...], denied: Collection[int]) -> tuple[int, ...]:
    """Return the next mode: first those that are flagged, then those that are not, for the flags were wrong."""
    asked = MODES.values() if wanted.fill_policy == "any" else (MODES[wanted.fill_policy],)
    left = [mode for mode in dict.fromkeys((*allowed, *MODES.values())) if mode in asked and mode not in denied]
    if not left:
        raise RefusedError("invalid", f"expected a filling mode that {wanted.symbol} takes, its broker denied them all")
    return (left[0],)


def allowed_policies(symbol: SymbolInfo) -> tuple[FillPolicy, ...]:
    """Return the fill policies that a symbol is known to allow market orders, beside ``any``."""
    allowed = _of_deals(symbol)
    return tuple(policy for policy, mode in MODES.items() if mode in allowed)


def _flagged(symbol: SymbolInfo) -> tuple[int, ...]:
    return tuple(mode for flag, mode in FLAGS if symbol.filling_mode & flag)


def _of_deals(symbol: SymbolInfo) -> tuple[int, ...]:
    flagged, execution = _flagged(symbol), symbol.trade_exemode
    if execution in BY_QUOTE:
        return (*flagged, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC, mt5.ORDER_FILLING_RETURN)
    return (*flagged, mt5.ORDER_FILLING_RETURN) if execution == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE else flagged


def _of_pendings(symbol: SymbolInfo) -> tuple[int, ...]:
    """Return RETURN first: a pending works until all of it is filled. Some brokers take only what is flagged."""
    if symbol.trade_exemode in BY_QUOTE:
        return (mt5.ORDER_FILLING_RETURN, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_IOC)
    return (mt5.ORDER_FILLING_RETURN, *_flagged(symbol))


# -- the one request, of several where only the terminal program can say which it takes


CHECK_PASSED = 0
"""``order_check`` has no retcode of success; the package names none for this."""


async def chosen(
    connection: BrokerConnection, requests: Sequence[TradeRequest], *, urgency: int = READ
) -> TradeRequest:
    """Return the first of ``requests`` that ``order_check`` takes: asked, never tried by sending. One alone is it.

    Raises:
        RefusedError: it takes none.
        NotHandedOverError, WorkerLostError: it could not be asked.
    """
    if len(requests) == 1:
        return requests[0]
    for request in requests:
        if (await connection.ask(OrderCheck(request), urgency=urgency)).value.retcode == CHECK_PASSED:
            return request
    symbol = requests[0]["symbol"]
    raise RefusedError("invalid", f"expected a filling mode that {symbol} allows, order_check took none")
