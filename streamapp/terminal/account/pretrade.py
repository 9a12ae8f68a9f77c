"""Whether an order may be sent as things are now, judged by the live symbol (submission, step 5).

Everything here is a function of its arguments; a :class:`RefusedError` is proof that nothing was sent.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from streamapp.domain.guards import BrokenGuard, QuotedOrder, broken_by_itself, percent, with_quote
from streamapp.domain.limits import Limits, QuoteLimits, said
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import Side
from streamapp.messages.operation import ModifyRequest, ProtectRequest
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import enums
from streamapp.settings import AccountSettings
from streamapp.terminal.account.deals import is_closed, is_stale
from streamapp.terminal.account.request import NotYetError, RefusedError, to_tick
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.answers import Prepared
from streamapp.terminal.pipe.structs import SymbolInfo, TradePosition, number

LAST_DATE_S = 32_535_215_999
"""The last second of the year 3000: MQL5's dates end there, and what a server makes of a later one nobody has said."""
OPEN_FOR: dict[Side, str] = {"buy": "long_only", "sell": "short_only"}


def judge(
    order: SubmitRequest,
    seen: Prepared,
    account: AccountSettings,
    guards: Limits,
    *,
    time: ServerTime,
    now: datetime,
    quote_moved: bool = False,
) -> None:
    """Return if the order may be sent as things are now.

    An order that closes a position is not held back by what limits opening: the guards, a symbol that is closed for a
    side, and the grid of volumes where it closes all that is open.

    Args:
        order: The order.
        seen: What the module shows.
        account: Whose it must be.
        guards: The account's limits for an order of this symbol; what the order brings itself stands in their place.
        time: The server's clock.
        now: The time.
        quote_moved: The quote has moved while the order waited: it is fresh, whatever the server's clock says.

    Raises:
        NotYetError: it may hold in a moment.
        RefusedError: naming the first condition that does not hold.
    """
    refuse_unread(seen)
    refuse_unless_connected(seen, account)
    wanted, symbol = order.parameters, seen.symbol
    opens = order.position_id is None
    limits = limits_of(order, guards)
    if opens:
        _refuse_broken(broken_by_itself(wanted, limits))
    if symbol is None:
        raise RefusedError(
            "invalid", f"expected a symbol of this broker, got {account.symbol_names.shown(wanted.symbol)}"
        )
    _refuse_modes(wanted, symbol, opens=opens)
    _refuse_lifetime(wanted, symbol, time, now)
    refuse_without_quote(wanted.symbol, seen)
    if opens:
        age_s = (now - time.utc(seen.tick.time_msc if seen.tick else 0)).total_seconds()
        _refuse_broken(with_quote(_quoted(wanted, seen, symbol, limits, age_s, moved=quote_moved)))
    if order.position_id is not None:
        _refuse_unless_open(order.position_id, wanted, seen)
    _refuse_volume(
        wanted.volume, symbol, closes_all=seen.position is not None and _lots(seen.position) == wanted.volume
    )
    refuse_implausible(wanted, seen.market(wanted.side), limits)
    refuse_prices(wanted, seen)
    if opens:
        _refuse_held(wanted, seen, symbol)
        _refuse_slippage(order, seen, symbol)


def refuse_unread(seen: Prepared) -> None:
    """Return if all was read that is judged: what a failed read did not show may be there all the same.

    Raises:
        NotYetError: a read failed.
    """
    if seen.unread:
        raise NotYetError("not_connected", f"expected an answer of the terminal, a read failed: {seen.unread}")


def refuse_unless_connected(seen: Prepared, account: AccountSettings) -> None:
    """Return if terminal and account may trade at all.

    Raises:
        RefusedError: reason not_connected, naming what is wrong.
    """
    terminal, owner = seen.terminal, seen.account
    if terminal is None or owner is None or not terminal.connected:
        raise RefusedError("not_connected", "the terminal has no connection to the broker")
    if (owner.login, owner.server) != (account.login, account.server):
        got = f"{owner.login} on {owner.server}"
        raise RefusedError("not_connected", f"expected account {account.login} on {account.server}, got {got}")
    if not terminal.trade_allowed or terminal.tradeapi_disabled:
        raise RefusedError("not_connected", "algo trading is switched off in the terminal")
    if not owner.trade_allowed or not owner.trade_expert:
        raise RefusedError("not_connected", "the broker does not let this account trade by program")


def limits_of(request: SubmitRequest | ModifyRequest | ProtectRequest, guards: Limits) -> Limits:
    """Return what a request must keep: what it brings itself stands in place of the account's."""
    return guards if request.limits is None else guards.model_copy(update=said(request.limits))


def _quoted(
    wanted: OrderParameters, seen: Prepared, symbol: SymbolInfo, limits: Limits, age_s: float, *, moved: bool
) -> QuotedOrder:
    market = seen.market(wanted.side)
    own = wanted.stop_limit_price if wanted.order_type == "stop_limit" else wanted.price
    point = number(symbol.point)
    return QuotedOrder(
        wanted,
        limits,
        market=market,
        price=market if wanted.order_type == "market" or own is None else own,
        spread_points=(seen.ask - seen.bid) / point if point else Decimal(0),
        contract_size=number(symbol.trade_contract_size),
        rate=number(seen.rate) if seen.rate else None,
        currency=seen.account.currency if seen.account is not None else "",
        equity=number(seen.account.equity) if seen.account is not None else None,
        opens=_lots_that_open(wanted, seen.netted),
        age_s=age_s,
        has_moved=moved,
    )


def _lots_that_open(wanted: OrderParameters, netted: TradePosition | None) -> Decimal:
    """Return what an order that names no position opens: where a symbol has one, it closes that first."""
    if netted is None or enums.SIDES[netted.type] == wanted.side:
        return wanted.volume
    return max(wanted.volume - _lots(netted), Decimal(0))


def _refuse_broken(broken: BrokenGuard | None) -> None:
    if broken is None:
        return
    if broken.may_pass:
        raise NotYetError("guard", str(broken))
    raise RefusedError("guard", str(broken))


def _refuse_modes(wanted: OrderParameters, symbol: SymbolInfo, *, opens: bool) -> None:
    mode = enums.TRADE_MODES.get(symbol.trade_mode, str(symbol.trade_mode))
    closing = () if opens else ("long_only", "short_only", "close_only")
    if mode not in ("full", OPEN_FOR[wanted.side], *closing):
        shown = mode.replace("_", " ")
        raise RefusedError("invalid", f"expected {wanted.symbol} open for a {wanted.side}, got trade mode {shown}")
    modes = symbol.order_mode
    for what, bit, needed in (
        (f"{wanted.order_type.replace('_', '-')} orders", enums.ORDER_MODES[wanted.order_type], True),
        ("a stop loss", enums.SYMBOL_ORDER_SL, bool(wanted.stop_loss)),
        ("a take profit", enums.SYMBOL_ORDER_TP, bool(wanted.take_profit)),
    ):
        if needed and not modes & bit:
            raise RefusedError("invalid", f"expected {what} allowed for {wanted.symbol}, got order_mode {modes}")


def _refuse_lifetime(wanted: OrderParameters, symbol: SymbolInfo, time: ServerTime, now: datetime) -> None:
    until = wanted.expiration
    # By the server's whole seconds, as it will compare: the request carries no smaller ones.
    if until is not None and time.server_s(until) <= time.server_s(now):
        raise RefusedError("stale", f"expected an expiration after {now.isoformat()}, got {until.isoformat()}")
    if until is not None and time.server_s(until) > LAST_DATE_S:
        raise RefusedError("invalid", f"expected an expiration before the year 3001, got {until.isoformat()}")
    if wanted.order_type == "market":  # filled or not at once: its lifetime is no part of the request
        return
    if until is not None and time.offset_s is None:
        raise RefusedError("not_connected", "the server's clock is not known yet, and an expiration is said by it")
    lifetime, modes = wanted.time_in_force, symbol.expiration_mode
    if not modes & 1 << enums.LIFETIME_NUMBERS[lifetime]:
        raise RefusedError(
            "invalid", f"expected a lifetime that {wanted.symbol} allows, got {lifetime} (expiration_mode {modes})"
        )


def refuse_without_quote(symbol: str, seen: Prepared) -> None:
    """Return if the symbol has a quote.

    Raises:
        NotYetError: it has none: its first one may be on its way.
    """
    if not seen.has_quote:
        raise NotYetError("guard", f"expected a quote of {symbol}, got none: its market is closed, or it is not quoted")


def _refuse_volume(volume: Decimal, symbol: SymbolInfo, *, closes_all: bool) -> None:
    smallest, largest, step = (number(getattr(symbol, f"volume_{name}")) for name in ("min", "max", "step"))
    if closes_all and volume <= largest:  # what a split or another step left: brokers take it whole
        return
    if not smallest <= volume <= largest:
        parts = largest_volume(symbol) if volume > largest else None
        raise RefusedError("invalid", f"expected {smallest} to {largest} lots, got {volume}", parts)
    # Never rounded: another volume than the one approved is another order.
    if step > 0 and (volume - smallest) % step:
        raise RefusedError("invalid", f"expected a volume of {smallest} and whole steps of {step} lots, got {volume}")


def largest_volume(symbol: SymbolInfo) -> Decimal:
    """Return the most lots that one order may have: ``volume_max``, or less where that is off the grid of volumes."""
    smallest, largest, step = (number(getattr(symbol, f"volume_{name}")) for name in ("min", "max", "step"))
    return largest - (largest - smallest) % step if step > 0 and largest > smallest else largest


def _refuse_unless_open(position_id: int, wanted: OrderParameters, seen: Prepared) -> None:
    """Return if an order that closes still has so much to close: on a netting account the broker would reverse it."""
    position = seen.position
    if position is None:
        if is_closed(seen.deals):
            raise RefusedError("invalid", f"expected position {position_id} open, its deals have closed it")
        if seen.deals:
            raise NotYetError("guard", f"expected position {position_id} shown, as its deals leave it open, it is not")
        raise NotYetError("invalid", f"expected position {position_id} open, it is neither open nor in history")
    if is_stale(position, seen.deals):
        raise NotYetError("guard", f"expected position {position_id} as its deals left it, got an older view of it")
    side: Side = enums.SIDES[position.type]
    if side == wanted.side or _lots(position) < wanted.volume:
        held = f"{side} {_lots(position)}"
        raise RefusedError(
            "invalid", f"expected position {position_id} to hold {wanted.volume} lots to close, got {held}"
        )


def _lots(position: TradePosition) -> Decimal:
    return number(position.volume)


def _refuse_held(wanted: OrderParameters, seen: Prepared, symbol: SymbolInfo) -> None:
    limit = number(symbol.volume_limit)
    held = number((seen.held or (0.0, 0.0))[wanted.side == "sell"])
    if limit and held + wanted.volume > limit:
        raise RefusedError(
            "invalid",
            f"expected at most {limit} lots of {wanted.symbol} in one direction, got {wanted.volume} beside {held}",
        )


def _refuse_slippage(order: SubmitRequest, seen: Prepared, symbol: SymbolInfo) -> None:
    """Compare the price that the order can get with the expected one: the market's now, or its own."""
    if order.max_slippage_points is None or order.expected_price is None:
        return
    wanted, expected = order.parameters, Decimal(order.expected_price)
    own = wanted.stop_limit_price if wanted.order_type == "stop_limit" else wanted.price
    price = seen.market(wanted.side) if wanted.order_type == "market" else to_tick(own, symbol)
    points = (price - expected if wanted.side == "buy" else expected - price) / number(symbol.point)
    if points > order.max_slippage_points:
        raise RefusedError(
            "guard",
            f"max_slippage_points: expected {order.max_slippage_points} at most from {expected}, got {points:.1f}",
        )


# -- where prices may be, measured from the live quote (reference mt5 §2.3); trade_stops_level is in points


PRICES = ("price", "stop_limit_price", "stop_loss", "take_profit")


def refuse_prices(wanted: OrderParameters, seen: Prepared) -> None:
    """Return if price, stop-limit price and protective levels of an order may be placed as the market is now.

    Raises:
        RefusedError: reason invalid, naming the first price that may not.
    """
    assert seen.symbol is not None
    at_once = wanted.order_type == "market"
    base = seen.closing(wanted.side) if at_once else _refuse_entry(wanted, seen, seen.symbol)
    refuse_protection(wanted.side, base, wanted.stop_loss, wanted.take_profit, seen.symbol)


def _refuse_entry(wanted: OrderParameters, seen: Prepared, symbol: SymbolInfo) -> Decimal:
    """Return the price that a pending order's protective levels are measured from: its limit, or else its stop."""
    level, market = stops_level(symbol), seen.market(wanted.side)
    price = _placed("price", wanted.price, symbol)
    below = (wanted.side == "buy") == (wanted.order_type == "limit")
    _refuse_nearer("price", price, market, level, below=below)
    if price == market:
        raise RefusedError("invalid", f"expected price {'below' if below else 'above'} {market}, got {price}")
    if wanted.order_type != "stop_limit":
        return price
    limit = _placed("stop_limit_price", wanted.stop_limit_price, symbol)
    _refuse_nearer("stop_limit_price", limit, price, level, below=wanted.side == "buy")
    return limit


def refuse_protection(
    side: Side, base: Decimal, stop_loss: Decimal | None, take_profit: Decimal | None, symbol: SymbolInfo
) -> None:
    """Return if the protective levels of an order or position of ``side`` are far enough from ``base``; 0 is none.

    Raises:
        RefusedError: reason invalid, naming the first level that is not.
    """
    level = stops_level(symbol)
    for name, value, below in (
        ("stop_loss", stop_loss, side == "buy"),
        ("take_profit", take_profit, side == "sell"),
    ):
        if not value:
            continue
        price = _placed(name, value, symbol)
        _refuse_nearer(name, price, base, level, below=below)
        if price == base:
            raise RefusedError("invalid", f"expected {name} {'below' if below else 'above'} {base}, got {price}")


def refuse_implausible(wanted: Any, market: Decimal, limits: QuoteLimits) -> None:
    """Return if no price or level of a request is further from the market than the limits' share of it.

    A distance in points, or another symbol's price, is a price too, and the broker takes it: a stop loss 500 points
    away, said as 0.005, protects nothing.

    Raises:
        RefusedError: reason guard.
    """
    furthest = limits.max_level_distance
    if furthest is None:
        return
    most = abs(market) * furthest
    for name in PRICES:
        price = getattr(wanted, name, None)
        if price and most and abs(price - market) > most:  # none and 0 are no prices
            raise RefusedError(
                "guard",
                f"max_level_distance: expected {name} within {percent(furthest)} of the market at {market}, "
                f"got {price}, which is implausible",
            )


def refuse_frozen(name: str, price: Decimal, market: Decimal, symbol: SymbolInfo) -> None:
    """Return if ``price``, of an order or a level that is to be changed, is not about to trigger.

    Raises:
        RefusedError: reason invalid; the broker would answer 10029.
    """
    freeze = symbol.trade_freeze_level * number(symbol.point)
    if freeze and abs(price - market) <= freeze:
        raise RefusedError("invalid", f"expected {name} further than {freeze} from {market}, got {price}: it is frozen")


def stops_level(symbol: SymbolInfo) -> Decimal:
    """Return the least distance between prices of an order and the market, as a price."""
    return Decimal(symbol.trade_stops_level) * number(symbol.point)


def _placed(name: str, price: Decimal | None, symbol: SymbolInfo) -> Decimal:
    placed = to_tick(price, symbol)
    if not placed:  # sent, it would mean that there is none
        raise RefusedError("invalid", f"expected {name} of at least one tick, got {price}")
    return placed


def _refuse_nearer(name: str, price: Decimal, base: Decimal, level: Decimal, *, below: bool) -> None:
    distance = base - price if below else price - base
    if distance < level:
        raise RefusedError(
            "invalid", f"expected {name} at least {level} {'below' if below else 'above'} {base}, got {price}"
        )
