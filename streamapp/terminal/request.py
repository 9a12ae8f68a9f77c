"""From an order's parameters to the one request that is sent, judged by the live symbol (submission, step 5).

Everything here is a function of its arguments. A :class:`RefusedError` is proof that nothing was sent. Numbers become
floats only in the request itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from streamapp.domain.facts import RefusedReason
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.parameters import OrderParameters
from streamapp.errors import Definite
from streamapp.messages.terminal import SubmitRequest
from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.servertime import ServerTime

ACTION_DEAL, TYPE_BUY, TYPE_SELL, TIME_GTC = 1, 0, 1, 0
FILLING_FOK, FILLING_IOC, FILLING_RETURN = 0, 1, 2
FLAG_FOK, FLAG_IOC = 1, 2  # symbol_info().filling_mode: another number space than ORDER_FILLING_*
EXECUTION_REQUEST, EXECUTION_INSTANT, EXECUTION_MARKET, EXECUTION_EXCHANGE = range(4)
TRADE_MODES = {0: "disabled", 1: "long only", 2: "short only", 3: "close only", 4: "full"}
MODE_MARKET = 1
DEVIATION_POINTS = 20
"""How far an instant execution may be from the price asked for when the signal names no limit: two pips of a five-digit
pair, so that an ordinary tick between quote and arrival is not a requote. Market and exchange execution ignore it."""


class RefusedError(Definite):
    """The order is not sent, and never will be."""

    def __init__(self, reason: RefusedReason, message: str) -> None:
        super().__init__(message)
        self.reason: RefusedReason = reason
        self.message = message


def number(value: float) -> Decimal:
    """Return the decimal that a float of the module stands for: its noise begins behind the tenth digit."""
    return Decimal(repr(round(float(value), 10)))


@dataclass(frozen=True)
class Prepared:
    """What the module showed immediately before an order, its structs as dicts, and the rate of the currency."""

    terminal: dict[str, Any] | None
    account: dict[str, Any] | None
    symbol: dict[str, Any] | None
    tick: dict[str, Any] | None
    rate: float | None

    @property
    def bid(self) -> Decimal:
        """The bid."""
        return number((self.tick or {}).get("bid", 0))

    @property
    def ask(self) -> Decimal:
        """The ask."""
        return number((self.tick or {}).get("ask", 0))


def judge(
    order: SubmitRequest,
    seen: Prepared,
    account: AccountSettings,
    guards: GuardSettings,
    *,
    time: ServerTime,
    now: datetime,
) -> None:
    """Return if the order may be sent as things are now.

    Raises:
        RefusedError: naming the first condition that does not hold.
    """
    refuse_unless_connected(seen, account)
    wanted, symbol = order.parameters, seen.symbol
    if wanted.order_type != "market":
        raise RefusedError("invalid", f"order type not supported yet: {wanted.order_type}")
    if guards.symbols and wanted.symbol not in guards.symbols:
        raise RefusedError("guard", f"expected one of {', '.join(guards.symbols)}, got {wanted.symbol}")
    if guards.max_volume is not None and wanted.volume > guards.max_volume:
        raise RefusedError("guard", f"expected at most {guards.max_volume} lots, got {wanted.volume}")
    if symbol is None:
        raise RefusedError("invalid", f"expected a symbol of this broker, got {wanted.symbol}")
    allowed = {"buy": (1, 4), "sell": (2, 4)}[wanted.side]
    if symbol["trade_mode"] not in allowed:
        mode = TRADE_MODES.get(symbol["trade_mode"], symbol["trade_mode"])
        raise RefusedError("invalid", f"expected {wanted.symbol} open for a {wanted.side}, got trade mode {mode}")
    if not symbol["order_mode"] & MODE_MARKET:
        raise RefusedError(
            "invalid", f"expected market orders allowed for {wanted.symbol}, got order_mode {symbol['order_mode']}"
        )
    _refuse_stale_tick(wanted.symbol, seen, guards, time, now)
    _refuse_volume(wanted.volume, symbol)
    _refuse_stops(wanted, seen)
    _refuse_slippage(order, seen)


def refuse_unless_connected(seen: Prepared, account: AccountSettings) -> None:
    """Return if terminal and account may trade at all.

    Raises:
        RefusedError: reason not_connected, naming what is wrong.
    """
    terminal, owner = seen.terminal, seen.account
    if terminal is None or owner is None or not terminal["connected"]:
        raise RefusedError("not_connected", "the terminal has no connection to the broker")
    if (owner["login"], owner["server"]) != (account.login, account.server):
        got = f"{owner['login']} on {owner['server']}"
        raise RefusedError("not_connected", f"expected account {account.login} on {account.server}, got {got}")
    if not terminal["trade_allowed"] or terminal["tradeapi_disabled"]:
        raise RefusedError("not_connected", "algo trading is switched off in the terminal")
    if not owner["trade_allowed"] or not owner["trade_expert"]:
        raise RefusedError("not_connected", "the broker does not let this account trade by program")


def _refuse_stale_tick(symbol: str, seen: Prepared, guards: GuardSettings, time: ServerTime, now: datetime) -> None:
    if seen.tick is None or seen.bid <= 0 or seen.ask <= 0:
        raise RefusedError("guard", f"expected a quote of {symbol}, got none")
    age_s = (now - time.utc(seen.tick["time_msc"])).total_seconds()
    if age_s > guards.max_tick_age_s:
        raise RefusedError(
            "guard",
            f"expected a quote of {symbol} not older than {guards.max_tick_age_s:g} s, got one of {age_s:.0f} s ago",
        )


def _refuse_volume(volume: Decimal, symbol: dict[str, Any]) -> None:
    smallest, largest, step = (number(symbol[f"volume_{name}"]) for name in ("min", "max", "step"))
    if not smallest <= volume <= largest:
        raise RefusedError("invalid", f"expected {smallest} to {largest} lots, got {volume}")
    # Never rounded: another volume than the one approved is another order.
    if step > 0 and (volume - smallest) % step:
        raise RefusedError("invalid", f"expected a volume of {smallest} and whole steps of {step} lots, got {volume}")


def to_tick(price: Decimal | None, symbol: dict[str, Any]) -> Decimal:
    """Return the price on the symbol's grid nearest to ``price``; no price is 0."""
    if price is None:
        return Decimal(0)
    grid = number(symbol["trade_tick_size"] or symbol["point"])
    return (price / grid).quantize(Decimal(1), ROUND_HALF_EVEN) * grid


def _refuse_stops(wanted: OrderParameters, seen: Prepared) -> None:
    assert seen.symbol is not None
    level = seen.symbol["trade_stops_level"] * number(seen.symbol["point"])
    sign, closing = (1, seen.bid) if wanted.side == "buy" else (-1, seen.ask)
    for name, price, distance_sign in (
        ("stop_loss", wanted.stop_loss, -sign),
        ("take_profit", wanted.take_profit, sign),
    ):
        if price is None or not price:
            continue
        distance = (to_tick(price, seen.symbol) - closing) * distance_sign
        if distance <= 0 or distance < level:
            side = "below" if distance_sign < 0 else "above"
            raise RefusedError("invalid", f"expected {name} at least {level} {side} {closing}, got {price}")


def _refuse_slippage(order: SubmitRequest, seen: Prepared) -> None:
    if order.max_slippage_points is None or order.expected_price is None or seen.symbol is None:
        return
    expected = Decimal(order.expected_price)
    adverse = seen.ask - expected if order.parameters.side == "buy" else expected - seen.bid
    points = adverse / number(seen.symbol["point"])
    if points > order.max_slippage_points:
        raise RefusedError(
            "guard", f"expected at most {order.max_slippage_points} points from {expected}, got {points:.1f}"
        )


def fillings(wanted: OrderParameters, symbol: dict[str, Any]) -> tuple[int, ...]:
    """Return the filling modes to choose from: one, or several where only ``order_check`` can tell.

    Raises:
        RefusedError: the symbol does not allow the policy that was asked for.
    """
    flags, execution = symbol["filling_mode"], symbol["trade_exemode"]
    flagged = [mode for flag, mode in ((FLAG_IOC, FILLING_IOC), (FLAG_FOK, FILLING_FOK)) if flags & flag]
    if execution in (EXECUTION_REQUEST, EXECUTION_INSTANT):
        allowed = [*flagged, FILLING_FOK, FILLING_IOC, FILLING_RETURN]
    elif execution == EXECUTION_EXCHANGE:
        allowed = [*flagged, FILLING_RETURN]
    else:
        allowed = flagged
    if wanted.fill_policy == "any":
        return (allowed[0],) if allowed else (FILLING_FOK, FILLING_IOC, FILLING_RETURN)
    mode = {"fok": FILLING_FOK, "ioc": FILLING_IOC, "return": FILLING_RETURN}[wanted.fill_policy]
    if mode not in allowed and (flags or mode == FILLING_RETURN):
        raise RefusedError(
            "invalid", f"expected a fill policy that {wanted.symbol} allows, got {wanted.fill_policy} (flags {flags})"
        )
    return (mode,)


def build(order: SubmitRequest, seen: Prepared, filling: int) -> dict[str, Any]:
    """Return the request for ``order_send``: the keys that it knows, the types that it takes (reference mt5 §1.4)."""
    assert seen.symbol is not None
    wanted = order.parameters
    buys = wanted.side == "buy"
    return {
        "action": ACTION_DEAL,
        "symbol": wanted.symbol,
        "volume": float(wanted.volume),
        "type": TYPE_BUY if buys else TYPE_SELL,
        "price": float(seen.ask if buys else seen.bid),
        "sl": float(to_tick(wanted.stop_loss, seen.symbol)),
        "tp": float(to_tick(wanted.take_profit, seen.symbol)),
        "deviation": DEVIATION_POINTS if order.max_slippage_points is None else max(order.max_slippage_points, 0),
        "type_filling": filling,
        "type_time": TIME_GTC,
        "magic": magic_of(order.order_id),
        "comment": tag_of(order.order_id),
    }
