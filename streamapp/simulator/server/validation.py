# ruff: noqa: PLR0911  # a check returns where its rule refuses
"""Whether a trade request can be executed: the checks of terminal and server, in their order, as data.

A check gives the return code of its refusal, or 0. The terminal's own refusals carry no numbers at all; those of the
server come with its request id and quote. The order is partly unverified against a live server, so it is data: the
file data/validation.json, and ``validation`` of a profile.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARKET_ORDERS, ORDER_MODES, ORDER_TYPES, SYMBOL_FILLING_BOC, SYMBOL_ORDER_CLOSEBY
from streamapp.mt5.retcodes import TRADE_RETCODE_HEDGE_PROHIBITED
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.books.money import BUY
from streamapp.simulator.books.tables import ZERO
from streamapp.simulator.prices.symbols import SymbolSpec
from streamapp.simulator.server.requests import LIMITS, PENDING_TYPES, STOP_LIMITS, RequestContext

PLACING = (mt5.TRADE_ACTION_DEAL, mt5.TRADE_ACTION_PENDING)
ACTIONS = (*PLACING, mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE, mt5.TRADE_ACTION_CLOSE_BY)
# Floats of volumes and prices come with noise far below this and steps are far above it.
NOISE = Decimal("1e-8")


Check = Callable[[RequestContext], int]


def check_action(ctx: RequestContext) -> int:
    """The action is one of the six."""
    return 0 if ctx.request.action in ACTIONS else mt5.TRADE_RETCODE_INVALID


def check_symbol(ctx: RequestContext) -> int:
    """The broker offers the symbol."""
    if ctx.request.action in PLACING:
        return 0 if ctx.symbol else mt5.TRADE_RETCODE_INVALID
    return 0


def check_trade_mode(ctx: RequestContext) -> int:
    """The symbol may be traded this way."""
    if ctx.request.action not in PLACING:
        return 0
    mode = ctx.known.trade_mode
    if mode == mt5.SYMBOL_TRADE_MODE_DISABLED:
        return mt5.TRADE_RETCODE_TRADE_DISABLED
    if not ctx.opens or mode == mt5.SYMBOL_TRADE_MODE_FULL:
        return 0
    if mode == mt5.SYMBOL_TRADE_MODE_CLOSEONLY:
        return mt5.TRADE_RETCODE_CLOSE_ONLY
    if mode == mt5.SYMBOL_TRADE_MODE_LONGONLY:
        return mt5.TRADE_RETCODE_LONG_ONLY if ctx.request.side != BUY else 0
    return mt5.TRADE_RETCODE_SHORT_ONLY if ctx.request.side == BUY else 0


def check_order_type(ctx: RequestContext) -> int:
    """The order type fits the action and is allowed for the symbol."""
    request = ctx.request
    if request.action == mt5.TRADE_ACTION_CLOSE_BY:
        barred = ctx.symbol and not ctx.symbol.order_mode & SYMBOL_ORDER_CLOSEBY
        return mt5.TRADE_RETCODE_INVALID_ORDER if barred else 0
    if request.action not in PLACING:
        return 0
    if request.type not in (PENDING_TYPES if request.action == mt5.TRADE_ACTION_PENDING else MARKET_ORDERS):
        return mt5.TRADE_RETCODE_INVALID
    kind, _ = ORDER_TYPES[request.type]
    return 0 if ctx.known.order_mode & ORDER_MODES[kind] else mt5.TRADE_RETCODE_INVALID_ORDER


def check_volume(ctx: RequestContext) -> int:
    """The volume is within its limits and on its step, or is a whole position, which another step may have left."""
    if ctx.request.action not in PLACING:
        return 0
    symbol, volume = ctx.known, ctx.request.volume
    if not ctx.opens and ctx.position is not None and volume == ctx.position.volume <= symbol.volume_max:
        return 0
    if not symbol.volume_min <= volume <= symbol.volume_max:
        return mt5.TRADE_RETCODE_INVALID_VOLUME
    rest = (volume - symbol.volume_min) % symbol.volume_step
    return 0 if min(rest, symbol.volume_step - rest) < NOISE else mt5.TRADE_RETCODE_INVALID_VOLUME


def check_filling(ctx: RequestContext) -> int:
    """The filling mode is one that the symbol's execution allows. Flags and modes are different numbers."""
    request = ctx.request
    if request.action not in PLACING:
        return 0
    symbol, filling = ctx.known, request.type_filling
    if filling == mt5.ORDER_FILLING_BOC:
        limit = request.type in (*LIMITS, *STOP_LIMITS) and symbol.filling & SYMBOL_FILLING_BOC
        return 0 if limit else mt5.TRADE_RETCODE_INVALID_FILL
    if filling > mt5.ORDER_FILLING_BOC:
        return mt5.TRADE_RETCODE_INVALID_FILL
    if symbol.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
        return 0
    if filling == mt5.ORDER_FILLING_RETURN:
        allowed = symbol.exemode == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE or (
            request.action == mt5.TRADE_ACTION_PENDING and ctx.account.profile.pending_return
        )
    else:
        allowed = bool(symbol.filling & (1 << filling))
    return 0 if allowed else mt5.TRADE_RETCODE_INVALID_FILL


def check_expiration(ctx: RequestContext) -> int:
    """The lifetime is allowed, and does not end in the past."""
    request = ctx.request
    if request.action not in (mt5.TRADE_ACTION_PENDING, mt5.TRADE_ACTION_MODIFY) or ctx.symbol is None:
        return 0
    if request.type_time > 3 or not ctx.known.expiration_mode & 1 << request.type_time:
        return mt5.TRADE_RETCODE_INVALID_EXPIRATION
    dated = request.type_time in (mt5.ORDER_TIME_SPECIFIED, mt5.ORDER_TIME_SPECIFIED_DAY)
    now_s = ctx.books.clock.server_ms() // 1000
    if dated and request.type_time == mt5.ORDER_TIME_SPECIFIED_DAY:
        return 0 if request.expiration // 86_400 >= now_s // 86_400 else mt5.TRADE_RETCODE_INVALID_EXPIRATION
    return mt5.TRADE_RETCODE_INVALID_EXPIRATION if dated and request.expiration <= now_s else 0


def _pending_type(ctx: RequestContext) -> int | None:
    if ctx.request.action == mt5.TRADE_ACTION_PENDING:
        return ctx.request.type
    if ctx.request.action == mt5.TRADE_ACTION_MODIFY and ctx.order is not None:
        return ctx.order.type
    return None


def check_price(ctx: RequestContext) -> int:
    """The order price is a price of the symbol, on the right side of the market and far enough from it."""
    request = ctx.request
    kind = _pending_type(ctx)
    if kind is None:
        asked = request.action == mt5.TRADE_ACTION_DEAL and ctx.known.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT
        good = not asked or ctx.is_price(request.price)
        return 0 if good else mt5.TRADE_RETCODE_INVALID_PRICE
    symbol, (bid, ask) = ctx.known, ctx.quote()
    if not ctx.is_price(request.price):
        return mt5.TRADE_RETCODE_INVALID_PRICE
    level, market = symbol.stops_level * symbol.point, ask if kind % 2 == BUY else bid
    below = kind in (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_STOP, mt5.ORDER_TYPE_SELL_STOP_LIMIT)
    distance = market - request.price if below else request.price - market
    if distance < level or distance <= 0:
        return mt5.TRADE_RETCODE_INVALID_PRICE
    if kind in STOP_LIMITS:
        gap = request.price - request.stoplimit if kind % 2 == BUY else request.stoplimit - request.price
        if not ctx.is_price(request.stoplimit) or gap < level:
            return mt5.TRADE_RETCODE_INVALID_PRICE
    return 0


def check_stops(ctx: RequestContext) -> int:
    """Stop-loss and take-profit are prices, on the right sides and far enough away."""
    request = ctx.request
    if request.action not in (*PLACING, mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_MODIFY) or ctx.symbol is None:
        return 0
    if not request.sl and not request.tp:
        return 0
    symbol, (bid, ask) = ctx.symbol, ctx.quote()
    kind = _pending_type(ctx)
    if kind is not None:
        side = kind % 2
        base = request.stoplimit if kind in STOP_LIMITS else request.price
    else:
        side = ctx.position.side if request.action == mt5.TRADE_ACTION_SLTP and ctx.position else request.side
        base = bid if side == BUY else ask
    sign, level = (1 if side == BUY else -1), symbol.stops_level * symbol.point
    for value, distance in ((request.sl, base - request.sl), (request.tp, request.tp - base)):
        if value and (not ctx.is_price(value) or distance * sign < level or distance == 0):
            return mt5.TRADE_RETCODE_INVALID_STOPS
    return 0


def check_frozen(ctx: RequestContext) -> int:
    """What is about to trigger can't be changed."""
    if ctx.symbol is None or not ctx.symbol.freeze_level:
        return 0
    (bid, ask), zone = ctx.quote(), ctx.symbol.freeze_level * ctx.symbol.point
    if ctx.order is not None and ctx.request.action in (mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE):
        market = ask if ctx.order.type % 2 == BUY else bid
        return mt5.TRADE_RETCODE_FROZEN if abs(market - ctx.order.price_open) <= zone else 0
    if ctx.position is not None and ctx.request.action in (mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_DEAL):
        if ctx.request.action == mt5.TRADE_ACTION_DEAL and ctx.opens:
            return 0
        market = bid if ctx.position.side == BUY else ask
        near = any(level and abs(market - level) <= zone for level in (ctx.position.sl, ctx.position.tp))
        return mt5.TRADE_RETCODE_FROZEN if near else 0
    return 0


def check_limits(ctx: RequestContext) -> int:
    """Limits of orders, volume and positions."""
    if not ctx.opens:
        return 0
    account, request, profile = ctx.account, ctx.request, ctx.account.profile
    if request.action == mt5.TRADE_ACTION_PENDING and 0 < profile.limit_orders <= len(account.orders.live):
        return mt5.TRADE_RETCODE_LIMIT_ORDERS
    limit = ctx.known.volume_limit
    if limit and account.side_volume(ctx.known.name, request.side) + request.volume > limit:
        return mt5.TRADE_RETCODE_LIMIT_VOLUME
    held = len(account.positions.live) + (len(account.orders.live) if account.hedging else 0)
    return mt5.TRADE_RETCODE_LIMIT_POSITIONS if 0 < profile.limit_positions <= held else 0


def check_fifo_and_hedge(ctx: RequestContext) -> int:
    """Rules of some brokers: oldest position first, and no opposite positions."""
    account, request = ctx.account, ctx.request
    if request.action != mt5.TRADE_ACTION_DEAL or not account.hedging:
        return 0
    if account.profile.fifo_close and ctx.position is not None:
        same = [p.ticket for p in account.positions.live.values() if p.symbol == ctx.position.symbol]
        if min(same) != ctx.position.ticket:
            return mt5.TRADE_RETCODE_FIFO_CLOSE
    if account.profile.hedge_prohibited and not request.position:
        return TRADE_RETCODE_HEDGE_PROHIBITED if account.exposure(ctx.known.name).volume[1 - request.side] else 0
    return 0


def check_existence(ctx: RequestContext) -> int:
    """The position or order that the request is about exists, and the volume fits."""
    request, account = ctx.request, ctx.account
    if request.action in (mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE):
        return 0 if ctx.order else mt5.TRADE_RETCODE_INVALID_ORDER
    if request.action == mt5.TRADE_ACTION_SLTP:
        return 0 if ctx.position else mt5.TRADE_RETCODE_POSITION_CLOSED
    if request.action == mt5.TRADE_ACTION_CLOSE_BY:
        return _check_close_by(ctx)
    if request.action != mt5.TRADE_ACTION_DEAL or not account.hedging or not request.position:
        return 0
    if ctx.position is None:
        return mt5.TRADE_RETCODE_POSITION_CLOSED
    if ctx.position.symbol != request.symbol or ctx.position.side == request.side:
        return mt5.TRADE_RETCODE_INVALID
    working = account.pending.get(request.symbol, {}).values()
    if any(order.position_id == ctx.position.identifier != order.ticket for order in working):
        return mt5.TRADE_RETCODE_CLOSE_ORDER_EXIST
    return mt5.TRADE_RETCODE_INVALID_CLOSE_VOLUME if request.volume > ctx.position.volume else 0


def _check_close_by(ctx: RequestContext) -> int:
    if not ctx.account.hedging:
        return mt5.TRADE_RETCODE_INVALID
    other = ctx.account.positions.live.get(ctx.request.position_by)
    if ctx.position is None or other is None:
        return mt5.TRADE_RETCODE_POSITION_CLOSED
    fits = ctx.position.symbol == other.symbol and ctx.position.side != other.side
    return 0 if fits else mt5.TRADE_RETCODE_INVALID


def lacks_money(books: Books, account: SimulatedAccount, symbol: SymbolSpec, side: int, volume: Decimal) -> bool:
    """Return whether the free margin is less than what ``volume`` more lots on ``side`` need."""
    bid, ask = books.feed.quote(symbol.feed)
    price = ask if side == BUY else bid
    held = None if account.hedging else account.net_position(symbol.name)
    if held is not None and held.side != side:
        # A reversal first frees what the old side holds.
        excess = max(volume - held.volume, ZERO)
        needed = books.margin(account, symbol.name, side, excess, price) - held.margin
    else:
        exposure = account.exposure(symbol.name)
        margin = books.margin(account, symbol.name, side, volume, price)
        needed = exposure.held(symbol, side, volume, margin) - exposure.held(symbol)
    equity, used, _ = books.money(account)
    return needed > ZERO and needed > equity - used


def check_money(ctx: RequestContext) -> int:
    """The margin of what is opened is free."""
    if ctx.request.action != mt5.TRADE_ACTION_DEAL or not ctx.opens:
        return 0
    lacking = lacks_money(ctx.books, ctx.account, ctx.known, ctx.request.side, ctx.request.volume)
    return mt5.TRADE_RETCODE_NO_MONEY if lacking else 0


def check_session(ctx: RequestContext) -> int:
    """The market is open."""
    if ctx.symbol is None or ctx.books.feed.is_open(ctx.symbol, ctx.books.clock.utc_ms()):
        return 0
    return mt5.TRADE_RETCODE_MARKET_CLOSED


CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_action, check_symbol, check_trade_mode, check_order_type, check_volume, check_filling, check_expiration,
        check_price, check_stops, check_frozen, check_limits, check_fifo_and_hedge, check_existence, check_money,
        check_session,
    )
}  # fmt: skip


def known_checks(names: tuple[str, ...]) -> None:
    """Hold an order of checks to the checks that there are.

    Raises:
        ValueError: there is none of that name; the message says which there are.
    """
    if unknown := set(names) - set(CHECKS):
        raise ValueError(f"expected validation to name checks of {sorted(CHECKS)}, got also {sorted(unknown)}")


def refusal(ctx: RequestContext, checks: tuple[str, ...]) -> int:
    """Return the return code of the first check, by its name, that refuses, or 0."""
    for name in checks:
        code = CHECKS[name](ctx)
        if code:
            return code
    return 0
