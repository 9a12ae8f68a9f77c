"""What is to be done next for an operation, as things are at the broker: nothing any more, or which request.

Everything here is a function of its arguments (reference mt5 §2.1, §2.3, §7.10). The target state is compared first, so
that each function may be asked again after every answer, lost or not. A :class:`RefusedError` is proof that this step
sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from streamapp.domain.exits import MOST_PARTS, OPPOSITE
from streamapp.domain.guards import price_distance
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.limits import AccountLimits
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import decimal_text, time_text
from streamapp.messages.operation import CancelRequest, CloseByRequest, CloseRequest, ModifyRequest, ProtectRequest
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.mt5 import enums
from streamapp.settings import AccountSettings
from streamapp.terminal.account.deals import agrees, is_closed, is_stale
from streamapp.terminal.account.pretrade import (
    LAST_DATE_S,
    largest_volume,
    limits_of,
    refuse_frozen,
    refuse_implausible,
    refuse_prices,
    refuse_protection,
    refuse_unless_connected,
    refuse_unread,
    refuse_without_quote,
)
from streamapp.terminal.account.request import RefusedError, build, fillings, to_tick
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.answers import OrderSeen, PositionSeen, Prepared
from streamapp.terminal.pipe.structs import SymbolInfo, TradeOrder, TradePosition, TradeRequest, number

PENDINGS = {number: words for number, words in enums.ORDER_TYPES.items() if words[0] != "market"}
WITHOUT_END = (mt5.ORDER_TIME_GTC, mt5.ORDER_TIME_DAY)


@dataclass(frozen=True)
class Context:
    """What else a step is judged by. ``sent``: a request of this operation may have gone out before.

    ``key`` names this sending: its magic and tag come from it. ``within_grace`` is False once tables that disagree have
    done so for long enough to be believed. ``denied``: filling modes that the broker refused to this operation.
    ``deviations``: as ``terminal.deviation_points``.
    """

    account: AccountSettings
    limits: AccountLimits
    hedging: bool
    time: ServerTime
    now: datetime
    key: str = ""
    sent: bool = False
    within_grace: bool = True
    denied: frozenset[int] = frozenset()
    deviations: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """It is as wanted. ``changes``: of an order's parameters, as they are now (field: text, or None)."""

    message: str = ""
    changes: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Impossible:
    """It can't come to what is wanted any more."""

    message: str


@dataclass(frozen=True)
class Unknown:
    """The terminal shows too little to say: look again."""

    message: str


@dataclass(frozen=True)
class Ask:
    """Send one of these requests about ``ticket``: the one, or the one that ``order_check`` takes."""

    requests: tuple[TradeRequest, ...]
    ticket: int


@dataclass(frozen=True)
class AsOrder:
    """It is an order of its own, or several: to be recorded, with these parameters, ``largest`` lots each at most."""

    parameters: OrderParameters
    largest: Decimal


Step = Done | Impossible | Unknown | Ask | AsOrder


# -- orders


def cancel(request: CancelRequest, seen: OrderSeen, context: Context) -> Step:  # noqa: ARG001 - all steps are called alike
    """Return what to do so that an order works no longer."""
    live = seen.live
    if live is None:
        past = seen.past
        if past is None:
            return Unknown("the order is neither among those that work nor in history")
        if past.state == mt5.ORDER_STATE_FILLED and past.volume_current <= 0:
            return Impossible("the order is filled: nothing is left to cancel")
        return Done(f"the order is {enums.ENDED_STATES.get(past.state, 'over')}")
    prepared = _allowed(seen, context)
    if prepared.has_quote:
        _refuse_frozen_order(live, prepared)
    return Ask(({"action": mt5.TRADE_ACTION_REMOVE, "order": live.ticket},), live.ticket)


def modify(request: ModifyRequest, seen: OrderSeen, context: Context) -> Step:
    """Return what to do so that an order works with the wanted values: all are sent, what is left out is removed."""
    live = seen.live
    if live is None:
        if seen.past is None:
            return Unknown("the order is neither among those that work nor in history")
        return Impossible(
            f"the order is {enums.ENDED_STATES.get(seen.past.state, 'over')}: it can't be changed any more"
        )
    prepared = _prepared(seen)
    assert prepared.symbol is not None
    values, changes = _wanted(request, live, prepared.symbol, context.time)
    if values == _values_of(live):
        return Done(changes=changes)
    _market(seen, context)
    _refuse_frozen_order(live, prepared)
    _refuse_values(request, live, values, prepared, context)
    return Ask((_request_of(values, live),), live.ticket)


@dataclass(frozen=True)
class _Values:
    """What can be changed of an order; a price of 0 is none."""

    price: Decimal
    stop_limit_price: Decimal
    stop_loss: Decimal
    take_profit: Decimal
    type_time: int
    expiration: int


def _values_of(live: TradeOrder) -> _Values:
    return _Values(
        price=number(live.price_open),
        stop_limit_price=number(live.price_stoplimit),
        stop_loss=number(live.sl),
        take_profit=number(live.tp),
        type_time=live.type_time,
        expiration=live.time_expiration if live.type_time not in WITHOUT_END else 0,
    )


def _wanted(
    request: ModifyRequest, live: TradeOrder, symbol: SymbolInfo, time: ServerTime
) -> tuple[_Values, dict[str, str | None]]:
    """Return all values as they shall be, and those that were asked for, in an order's own words."""
    asked = {name: getattr(request, name) for name in ("price", "stop_limit_price", "stop_loss", "take_profit")}
    prices: dict[str, Any] = {name: to_tick(value, symbol) for name, value in asked.items() if value is not None}
    changes = {name: decimal_text(price) if price else None for name, price in prices.items()}
    values = replace(_values_of(live), **prices)
    if request.expiration is None:
        return values, changes
    seconds = time.server_s(request.expiration)
    if seconds > LAST_DATE_S:
        raise RefusedError("invalid", f"expected an expiration before the year 3001, got {request.expiration}")
    ends = {"expiration": time_text(time.utc(seconds * 1000)), "time_in_force": "until"}
    return replace(values, type_time=mt5.ORDER_TIME_SPECIFIED, expiration=seconds), changes | ends


def _request_of(values: _Values, live: TradeOrder) -> TradeRequest:
    request: TradeRequest = {
        "action": mt5.TRADE_ACTION_MODIFY,
        "order": live.ticket,
        "price": float(values.price),
        "sl": float(values.stop_loss),
        "tp": float(values.take_profit),
        "type_time": values.type_time,
    }
    if PENDINGS[live.type][0] == "stop_limit":
        request["stoplimit"] = float(values.stop_limit_price)
    if values.type_time not in WITHOUT_END:
        request["expiration"] = values.expiration
    return request


def _refuse_values(
    request: ModifyRequest, live: TradeOrder, values: _Values, prepared: Prepared, context: Context
) -> None:
    assert prepared.symbol is not None
    symbol = prepared.symbol
    if live.type not in PENDINGS:
        raise RefusedError("invalid", f"expected a limit, stop or stop-limit order, got type {live.type}")
    kind, side = PENDINGS[live.type]
    if request.stop_limit_price is not None and kind != "stop_limit":
        raise RefusedError("invalid", f"expected a stop-limit order for a stop_limit_price, got a {kind} order")
    _refuse_levels(request, symbol)
    if request.expiration is not None:
        _refuse_expiration(values.expiration, symbol, context)
    own = values.stop_limit_price if kind == "stop_limit" else values.price
    limits = limits_of(request, context.limits.of_order(live.symbol))
    broken = price_distance((request.price, request.stop_limit_price), prepared.market(side), limits)
    if broken is not None:
        raise RefusedError("guard", str(broken))
    refuse_implausible(request, prepared.market(side), limits)
    if request.price is None and request.stop_limit_price is None:
        refuse_protection(side, own, request.stop_loss, request.take_profit, symbol)
        return
    wanted = OrderParameters(
        symbol=live.symbol,
        side=side,
        order_type=kind,
        volume=number(live.volume_initial),
        price=values.price,
        stop_limit_price=values.stop_limit_price or None,
        stop_loss=values.stop_loss or None,
        take_profit=values.take_profit or None,
    )
    refuse_prices(wanted, prepared)


def _refuse_expiration(seconds: int, symbol: SymbolInfo, context: Context) -> None:
    if seconds <= context.time.server_s(context.now):
        raise RefusedError("invalid", f"expected an expiration after {context.now.isoformat()}")
    if not symbol.expiration_mode & 1 << mt5.ORDER_TIME_SPECIFIED:
        raise RefusedError("invalid", f"expected a lifetime that the symbol allows, got {symbol.expiration_mode}")


def _refuse_frozen_order(live: TradeOrder, prepared: Prepared) -> None:
    if live.type in PENDINGS and prepared.symbol is not None:
        _, side = PENDINGS[live.type]
        refuse_frozen("price", number(live.price_open), prepared.market(side), prepared.symbol)


# -- positions


def protect(request: ProtectRequest, seen: PositionSeen, context: Context) -> Step:
    """Return what to do so that a position has the wanted levels: both are sent, what is left out is removed."""
    live = seen.live
    if live is None:
        closed = _closed(seen)
        return closed if isinstance(closed, Unknown) else Impossible(closed.message)
    prepared = _prepared(seen)
    assert prepared.symbol is not None
    now = number(live.sl), number(live.tp)
    wanted = tuple(
        old if value is None else to_tick(value, prepared.symbol)
        for old, value in zip(now, (request.stop_loss, request.take_profit), strict=True)
    )
    if wanted == now:
        return Done()
    _market(seen, context)
    _refuse_levels(request, prepared.symbol)
    side = enums.SIDES[live.type]
    _refuse_frozen_position(live, prepared)
    limits = limits_of(request, context.limits.of_order(live.symbol))
    refuse_implausible(request, prepared.closing(side), limits)
    refuse_protection(side, prepared.closing(side), request.stop_loss, request.take_profit, prepared.symbol)
    change: TradeRequest = {
        "action": mt5.TRADE_ACTION_SLTP,
        "symbol": live.symbol,
        "position": live.ticket,
        "sl": float(wanted[0]),
        "tp": float(wanted[1]),
    }
    return Ask((change,), live.ticket)


def close(request: CloseRequest, seen: PositionSeen, context: Context) -> Step:
    """Return what to do so that a position is closed, or that a part of it is.

    Only a whole position of a hedging account may be closed by trying: a second request finds nothing to close. All
    else is an order of its own, sent once; its volume is judged by what is open now. So is what one request can't
    close, because it is more than the symbol allows in one.
    """
    live, whole = seen.live, request.volume is None or context.sent
    if live is None:
        closed = _closed(seen)
        return closed if whole or isinstance(closed, Unknown) else Impossible(closed.message)
    open_now = number(live.volume)
    if not whole and request.volume is not None and request.volume > open_now:
        raise RefusedError("invalid", f"expected at most the {open_now} lots that are open, got {request.volume}")
    prepared = _market(seen, context)
    _refuse_frozen_position(live, prepared)
    volume = open_now if request.volume is None else min(request.volume, open_now)
    wanted = OrderParameters(
        symbol=live.symbol, side=OPPOSITE[enums.SIDES[live.type]], order_type="market", volume=volume
    )
    assert prepared.symbol is not None
    largest = largest_volume(prepared.symbol)
    if not context.hedging or (not whole and volume < open_now) or volume > largest:
        if is_stale(live, seen.deals) or (context.within_grace and not agrees(live, seen.deals)):
            return Unknown("the position and its deals do not agree yet")
        if volume > largest * MOST_PARTS:
            message = (
                f"expected to close {volume} lots by at most {MOST_PARTS} orders, got {largest} lots in each at most"
            )
            raise RefusedError("invalid", message)
        return AsOrder(wanted, largest)
    order = SubmitRequest(
        order_id=context.key, account=request.account, hash="", epoch="", not_after=request.not_after,
        parameters=wanted, position_id=live.ticket,
    )  # fmt: skip
    modes = fillings(wanted, prepared.symbol, context.denied)
    deviation = context.deviations.get(wanted.symbol)
    return Ask(tuple(build(order, prepared, mode, context.time, deviation) for mode in modes), live.ticket)


def close_by(request: CloseByRequest, seen: PositionSeen, other: PositionSeen, context: Context) -> Step:
    """Return what to do so that two opposite positions are closed against each other, as far as both go."""
    if not context.hedging:
        raise RefusedError("invalid", "expected a hedging account: on this one a symbol has one position")
    if request.position_id == request.by_position_id:
        raise RefusedError("invalid", "expected two positions, got one")
    one, two = seen.live, other.live
    if one is None or two is None:
        return _closed_by(seen if one is None else other, context)
    if one.symbol != two.symbol or one.type == two.type:
        sides = f"{enums.SIDES[one.type]} {one.symbol} and {enums.SIDES[two.type]} {two.symbol}"
        raise RefusedError("invalid", f"expected opposite positions of one symbol, got {sides}")
    prepared = _market(seen, context)
    assert prepared.symbol is not None
    if not prepared.symbol.order_mode & enums.SYMBOL_ORDER_CLOSEBY:
        raise RefusedError("invalid", f"expected close-by allowed for {one.symbol}, it is not")
    closes: TradeRequest = {
        "action": mt5.TRADE_ACTION_CLOSE_BY,
        "symbol": one.symbol,
        "position": one.ticket,
        "position_by": two.ticket,
        "magic": magic_of(context.key),
        "comment": tag_of(context.key),
    }
    return Ask((closes,), one.ticket)


def _closed_by(gone: PositionSeen, context: Context) -> Step:
    closed = _closed(gone)
    if isinstance(closed, Unknown):
        return closed
    if context.sent and any(deal.entry == mt5.DEAL_ENTRY_OUT_BY for deal in gone.deals):
        return Done(closed.message)
    return Impossible(closed.message)


def _closed(seen: PositionSeen) -> Done | Unknown:
    """Return how a position that is not open ended: history must show it, its absence proves nothing."""
    if not seen.deals:
        return Unknown("the position is neither open nor in history")
    last = max(seen.deals, key=lambda deal: (deal.time_msc, deal.ticket))
    if not is_closed(seen.deals):
        return Unknown("the position is not open, and its deals do not show its end yet")
    return Done(f"the position is closed (the last deal's reason: {enums.REASONS.get(last.reason, 'other')})")


def _refuse_frozen_position(live: TradePosition, prepared: Prepared) -> None:
    assert prepared.symbol is not None
    market = prepared.closing(enums.SIDES[live.type])
    for name, level in (("stop_loss", live.sl), ("take_profit", live.tp)):
        if level:
            refuse_frozen(name, number(level), market, prepared.symbol)


# -- both


def _prepared(seen: OrderSeen | PositionSeen) -> Prepared:
    assert seen.prepared is not None
    refuse_unread(seen.prepared)
    if seen.prepared.symbol is None:
        raise RefusedError("invalid", "expected a symbol of this broker: it no longer knows this one")
    return seen.prepared


def _market(seen: OrderSeen | PositionSeen, context: Context) -> Prepared:
    """Return the market, if we may trade on it.

    Raises:
        RefusedError: the account or terminal does not allow it, or there is no quote.
    """
    prepared = _allowed(seen, context)
    assert seen.live is not None
    refuse_without_quote(seen.live.symbol, prepared)
    return prepared


def _allowed(seen: OrderSeen | PositionSeen, context: Context) -> Prepared:
    """Return what was prepared, if we may trade at all."""
    prepared = _prepared(seen)
    refuse_unless_connected(prepared, context.account)
    return prepared


def _refuse_levels(request: ModifyRequest | ProtectRequest, symbol: SymbolInfo) -> None:
    modes = symbol.order_mode
    for name, value, bit in (
        ("stop_loss", request.stop_loss, enums.SYMBOL_ORDER_SL),
        ("take_profit", request.take_profit, enums.SYMBOL_ORDER_TP),
    ):
        if value and not modes & bit:
            raise RefusedError("invalid", f"expected a {name} allowed for this symbol, got order_mode {modes}")
