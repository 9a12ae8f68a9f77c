# ruff: noqa: PLR0911  # a check returns where its rule refuses
"""Whether a trade request can be executed: the checks of terminal and server, in their order, as data.

A check gives the return code of its refusal, or 0. The terminal's own refusals carry no numbers at all; those of the
server come with its request id and quote. The order is partly unverified against a live server, so it is data: the
file data/validation.json, and `validation` of a profile.
"""

from collections.abc import Callable
from decimal import Decimal

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import MARKET_ORDERS, ORDER_MODES, ORDER_TYPES, SYMBOL_FILLING_BOC, SYMBOL_ORDER_CLOSEBY
from streamapp.mt5.retcodes import TRADE_RETCODE_HEDGE_PROHIBITED
from streamapp.simulator.hours import is_open
from streamapp.simulator.intake import Intake
from streamapp.simulator.money import BUY, ZERO
from streamapp.simulator.requests import LIMITS, PENDING_TYPES, STOP_LIMITS

PLACING = (mt5.TRADE_ACTION_DEAL, mt5.TRADE_ACTION_PENDING)
ACTIONS = (*PLACING, mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE, mt5.TRADE_ACTION_CLOSE_BY)
# Floats of volumes and prices come with noise far below this and steps are far above it.
NOISE = Decimal("1e-8")


Check = Callable[[Intake], int]


def check_action(it: Intake) -> int:
    """The action is one of the six."""
    return 0 if it.request.action in ACTIONS else mt5.TRADE_RETCODE_INVALID


def check_symbol(it: Intake) -> int:
    """The broker offers the symbol."""
    if it.request.action in PLACING:
        return 0 if it.symbol else mt5.TRADE_RETCODE_INVALID
    return 0


def check_trade_mode(it: Intake) -> int:
    """The symbol may be traded this way."""
    if it.request.action not in PLACING:
        return 0
    mode = it.known.trade_mode
    if mode == mt5.SYMBOL_TRADE_MODE_DISABLED:
        return mt5.TRADE_RETCODE_TRADE_DISABLED
    if not it.opens or mode == mt5.SYMBOL_TRADE_MODE_FULL:
        return 0
    if mode == mt5.SYMBOL_TRADE_MODE_CLOSEONLY:
        return mt5.TRADE_RETCODE_CLOSE_ONLY
    if mode == mt5.SYMBOL_TRADE_MODE_LONGONLY:
        return mt5.TRADE_RETCODE_LONG_ONLY if it.request.side != BUY else 0
    return mt5.TRADE_RETCODE_SHORT_ONLY if it.request.side == BUY else 0


def check_order_type(it: Intake) -> int:
    """The order type fits the action and is allowed for the symbol."""
    request = it.request
    if request.action == mt5.TRADE_ACTION_CLOSE_BY:
        barred = it.symbol and not it.symbol.order_mode & SYMBOL_ORDER_CLOSEBY
        return mt5.TRADE_RETCODE_INVALID_ORDER if barred else 0
    if request.action not in PLACING:
        return 0
    if request.type not in (PENDING_TYPES if request.action == mt5.TRADE_ACTION_PENDING else MARKET_ORDERS):
        return mt5.TRADE_RETCODE_INVALID
    kind, _ = ORDER_TYPES[request.type]
    return 0 if it.known.order_mode & ORDER_MODES[kind] else mt5.TRADE_RETCODE_INVALID_ORDER


def check_volume(it: Intake) -> int:
    """The volume is within its limits and on its step."""
    if it.request.action not in PLACING:
        return 0
    symbol, volume = it.known, it.request.volume
    if not symbol.volume_min <= volume <= symbol.volume_max:
        return mt5.TRADE_RETCODE_INVALID_VOLUME
    rest = (volume - symbol.volume_min) % symbol.volume_step
    return 0 if min(rest, symbol.volume_step - rest) < NOISE else mt5.TRADE_RETCODE_INVALID_VOLUME


def check_filling(it: Intake) -> int:
    """The filling mode is one that the symbol's execution allows. Flags and modes are different numbers."""
    request = it.request
    if request.action not in PLACING:
        return 0
    symbol, filling = it.known, request.type_filling
    if filling == mt5.ORDER_FILLING_BOC:
        limit = request.type in (*LIMITS, *STOP_LIMITS) and symbol.filling & SYMBOL_FILLING_BOC
        return 0 if limit else mt5.TRADE_RETCODE_INVALID_FILL
    if filling > mt5.ORDER_FILLING_BOC:
        return mt5.TRADE_RETCODE_INVALID_FILL
    if symbol.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT:
        return 0
    if filling == mt5.ORDER_FILLING_RETURN:
        allowed = symbol.exemode == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE or (
            request.action == mt5.TRADE_ACTION_PENDING and it.account.profile.pending_return
        )
    else:
        allowed = bool(symbol.filling & (1 << filling))
    return 0 if allowed else mt5.TRADE_RETCODE_INVALID_FILL


def check_expiration(it: Intake) -> int:
    """The lifetime is allowed, and does not end in the past."""
    request = it.request
    if request.action not in (mt5.TRADE_ACTION_PENDING, mt5.TRADE_ACTION_MODIFY) or it.symbol is None:
        return 0
    if request.type_time > 3 or not it.known.expiration_mode & 1 << request.type_time:
        return mt5.TRADE_RETCODE_INVALID_EXPIRATION
    dated = request.type_time in (mt5.ORDER_TIME_SPECIFIED, mt5.ORDER_TIME_SPECIFIED_DAY)
    now_s = it.market.clock.server_ms() // 1000
    if dated and request.type_time == mt5.ORDER_TIME_SPECIFIED_DAY:
        return 0 if request.expiration // 86_400 >= now_s // 86_400 else mt5.TRADE_RETCODE_INVALID_EXPIRATION
    return mt5.TRADE_RETCODE_INVALID_EXPIRATION if dated and request.expiration <= now_s else 0


def _pending_type(it: Intake) -> int | None:
    if it.request.action == mt5.TRADE_ACTION_PENDING:
        return it.request.type
    if it.request.action == mt5.TRADE_ACTION_MODIFY and it.order is not None:
        return it.order.type
    return None


def check_price(it: Intake) -> int:
    """The order price is a price of the symbol, on the right side of the market and far enough from it."""
    request = it.request
    kind = _pending_type(it)
    if kind is None:
        asked = request.action == mt5.TRADE_ACTION_DEAL and it.known.exemode <= mt5.SYMBOL_TRADE_EXECUTION_INSTANT
        good = not asked or (request.price > 0 and it.known.on_grid(request.price))
        return 0 if good else mt5.TRADE_RETCODE_INVALID_PRICE
    symbol, (bid, ask) = it.known, it.quote()
    if request.price <= 0 or not symbol.on_grid(request.price):
        return mt5.TRADE_RETCODE_INVALID_PRICE
    level, market = symbol.stops_level * symbol.point, ask if kind % 2 == BUY else bid
    below = kind in (mt5.ORDER_TYPE_BUY_LIMIT, mt5.ORDER_TYPE_SELL_STOP, mt5.ORDER_TYPE_SELL_STOP_LIMIT)
    distance = market - request.price if below else request.price - market
    if distance < level or distance <= 0:
        return mt5.TRADE_RETCODE_INVALID_PRICE
    if kind in STOP_LIMITS:
        gap = request.price - request.stoplimit if kind % 2 == BUY else request.stoplimit - request.price
        if request.stoplimit <= 0 or not symbol.on_grid(request.stoplimit) or gap < level:
            return mt5.TRADE_RETCODE_INVALID_PRICE
    return 0


def check_stops(it: Intake) -> int:
    """Stop-loss and take-profit are prices, on the right sides and far enough away."""
    request = it.request
    if request.action not in (*PLACING, mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_MODIFY) or it.symbol is None:
        return 0
    if not request.sl and not request.tp:
        return 0
    symbol, (bid, ask) = it.symbol, it.quote()
    kind = _pending_type(it)
    if kind is not None:
        side = kind % 2
        base = request.stoplimit if kind in STOP_LIMITS else request.price
    else:
        side = it.position.side if request.action == mt5.TRADE_ACTION_SLTP and it.position else request.side
        base = bid if side == BUY else ask
    sign, level = (1 if side == BUY else -1), symbol.stops_level * symbol.point
    for value, distance in ((request.sl, base - request.sl), (request.tp, request.tp - base)):
        if value and (value < 0 or not symbol.on_grid(value) or distance * sign < level or distance == 0):
            return mt5.TRADE_RETCODE_INVALID_STOPS
    return 0


def check_frozen(it: Intake) -> int:
    """What is about to trigger can't be changed."""
    if it.symbol is None or not it.symbol.freeze_level:
        return 0
    (bid, ask), zone = it.quote(), it.symbol.freeze_level * it.symbol.point
    if it.order is not None and it.request.action in (mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE):
        market = ask if it.order.type % 2 == BUY else bid
        return mt5.TRADE_RETCODE_FROZEN if abs(market - it.order.price_open) <= zone else 0
    if it.position is not None and it.request.action in (mt5.TRADE_ACTION_SLTP, mt5.TRADE_ACTION_DEAL):
        if it.request.action == mt5.TRADE_ACTION_DEAL and it.opens:
            return 0
        market = bid if it.position.side == BUY else ask
        near = any(level and abs(market - level) <= zone for level in (it.position.sl, it.position.tp))
        return mt5.TRADE_RETCODE_FROZEN if near else 0
    return 0


def check_limits(it: Intake) -> int:
    """Limits of orders, volume and positions."""
    if not it.opens:
        return 0
    account, request, profile = it.account, it.request, it.account.profile
    if request.action == mt5.TRADE_ACTION_PENDING and 0 < profile.limit_orders <= len(account.orders.live):
        return mt5.TRADE_RETCODE_LIMIT_ORDERS
    limit = it.known.volume_limit
    if limit and account.side_volume(it.known.name, request.side) + request.volume > limit:
        return mt5.TRADE_RETCODE_LIMIT_VOLUME
    held = len(account.positions.live) + (len(account.orders.live) if account.hedging else 0)
    return mt5.TRADE_RETCODE_LIMIT_POSITIONS if 0 < profile.limit_positions <= held else 0


def check_fifo_and_hedge(it: Intake) -> int:
    """Rules of some brokers: oldest position first, and no opposite positions."""
    account, request = it.account, it.request
    if request.action != mt5.TRADE_ACTION_DEAL or not account.hedging:
        return 0
    if account.profile.fifo_close and it.position is not None:
        same = [p.ticket for p in account.positions.live.values() if p.symbol == it.position.symbol]
        if min(same) != it.position.ticket:
            return mt5.TRADE_RETCODE_FIFO_CLOSE
    if account.profile.hedge_prohibited and not request.position:
        return TRADE_RETCODE_HEDGE_PROHIBITED if account.exposure(it.known.name).volume[1 - request.side] else 0
    return 0


def check_existence(it: Intake) -> int:
    """The position or order that the request is about exists, and the volume fits."""
    request, account = it.request, it.account
    if request.action in (mt5.TRADE_ACTION_MODIFY, mt5.TRADE_ACTION_REMOVE):
        return 0 if it.order else mt5.TRADE_RETCODE_INVALID_ORDER
    if request.action == mt5.TRADE_ACTION_SLTP:
        return 0 if it.position else mt5.TRADE_RETCODE_POSITION_CLOSED
    if request.action == mt5.TRADE_ACTION_CLOSE_BY:
        return _check_close_by(it)
    if request.action != mt5.TRADE_ACTION_DEAL or not account.hedging or not request.position:
        return 0
    if it.position is None:
        return mt5.TRADE_RETCODE_POSITION_CLOSED
    if it.position.symbol != request.symbol or it.position.side == request.side:
        return mt5.TRADE_RETCODE_INVALID
    working = account.pending.get(request.symbol, {}).values()
    if any(order.position_id == it.position.identifier != order.ticket for order in working):
        return mt5.TRADE_RETCODE_CLOSE_ORDER_EXIST
    return mt5.TRADE_RETCODE_INVALID_CLOSE_VOLUME if request.volume > it.position.volume else 0


def _check_close_by(it: Intake) -> int:
    if not it.account.hedging:
        return mt5.TRADE_RETCODE_INVALID
    other = it.account.positions.live.get(it.request.position_by)
    if it.position is None or other is None:
        return mt5.TRADE_RETCODE_POSITION_CLOSED
    fits = it.position.symbol == other.symbol and it.position.side != other.side
    return 0 if fits else mt5.TRADE_RETCODE_INVALID


def lacks_money(it: Intake, side: int, volume: Decimal) -> bool:
    """Whether the free margin is less than what `volume` more lots on `side` need."""
    account, name = it.account, it.known.name
    bid, ask = it.quote()
    price = ask if side == BUY else bid
    held = None if account.hedging else account.net_position(name)
    if held is not None and held.side != side:
        # A reversal first frees what the old side holds.
        excess = max(volume - held.volume, ZERO)
        needed = it.market.positions.margin(account, name, side, excess, price) - held.margin
    else:
        exposure = account.exposure(name)
        margin = it.market.positions.margin(account, name, side, volume, price)
        needed = exposure.held(it.known, side, volume, margin) - exposure.held(it.known)
    equity, used, _ = it.market.money(account)
    return needed > ZERO and needed > equity - used


def check_money(it: Intake) -> int:
    """The margin of what is opened is free."""
    if it.request.action != mt5.TRADE_ACTION_DEAL or not it.opens:
        return 0
    return mt5.TRADE_RETCODE_NO_MONEY if lacks_money(it, it.request.side, it.request.volume) else 0


def check_session(it: Intake) -> int:
    """The market is open."""
    if it.symbol is None or it.market.always_open:
        return 0
    return 0 if is_open(it.symbol.session, it.market.clock.server_ms()) else mt5.TRADE_RETCODE_MARKET_CLOSED


CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_action, check_symbol, check_trade_mode, check_order_type, check_volume, check_filling, check_expiration,
        check_price, check_stops, check_frozen, check_limits, check_fifo_and_hedge, check_existence, check_money,
        check_session,
    )
}  # fmt: skip


def known_checks(names: tuple[str, ...]) -> None:
    """Holds an order of checks to the checks that there are.

    Raises:
        ValueError: there is none of that name; the message says which there are.
    """
    if unknown := set(names) - set(CHECKS):
        raise ValueError(f"expected validation to name checks of {sorted(CHECKS)}, got also {sorted(unknown)}")


def refusal(it: Intake, checks: tuple[str, ...]) -> int:
    """The return code of the first check, by its name, that refuses, or 0."""
    for name in checks:
        code = CHECKS[name](it)
        if code:
            return code
    return 0
