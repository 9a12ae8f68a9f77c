"""Reckoning, checking and sending orders; and the package's own helpers in Python, not for a gateway."""

from __future__ import annotations

# ruff: noqa: D402, N802  # the names are the original's
from typing import Any

from streamapp.mt5.constants import (
    ORDER_TYPE_BUY,
    ORDER_TYPE_SELL,
    TRADE_ACTION_DEAL,
    TRADE_RETCODE_DONE,
    TRADE_RETCODE_PRICE_OFF,
    TRADE_RETCODE_REQUOTE,
)
from streamapp.simulator.module import arguments
from streamapp.simulator.module.calls import api, ask
from streamapp.simulator.module.reads import positions_get, symbol_info_tick
from streamapp.simulator.module.structs import Struct, struct

_NUMBER = (int, float)
_TRIES = 10
_AGAIN = (TRADE_RETCODE_REQUOTE, TRADE_RETCODE_PRICE_OFF)


@api(None)
def order_calc_margin(*args: Any, **kwargs: Any) -> float | None:
    """Return margin in the account's currency: order_calc_margin(action, symbol, volume, price)."""
    arguments.positional("order_calc_margin", args, kwargs, int, str, _NUMBER, _NUMBER)
    margin: float | None = ask("order_calc_margin", int(args[0]), args[1], float(args[2]), float(args[3]))
    return margin


@api(None)
def order_calc_profit(*args: Any, **kwargs: Any) -> float | None:
    """Return profit in the account's currency: order_calc_profit(action, symbol, volume, price_open, price_close)."""
    arguments.positional("order_calc_profit", args, kwargs, int, str, _NUMBER, _NUMBER, _NUMBER)
    numbers = (float(value) for value in args[2:])
    profit: float | None = ask("order_calc_profit", int(args[0]), args[1], *numbers)
    return profit


def _result(method: str, name: str, values: list[Any]) -> Struct | None:
    told = ask(method, values)
    return None if told is None else struct(name, [*told, struct("TradeRequest", values)])


@api(None)
def order_check(*args: Any, **kwargs: Any) -> Struct | None:
    """Return whether a request would be accepted, and the money after it."""
    return _result("order_check", "OrderCheckResult", arguments.trade_request("order_check", args, kwargs))


@api(None)
def order_send(*args: Any, **kwargs: Any) -> Struct | None:
    """Send a request. None tells nothing about its execution: see last_error, and even then see the tables."""
    return _result("order_send", "OrderSendResult", arguments.trade_request("order_send", args, kwargs))


# -- the package's own helpers in Python: they send again and again, so a gateway must not use them


def _RawOrder(  # noqa: PLR0917  # the original's
    order_type: int, symbol: str, volume: float, price: float, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Send a market order with a deviation of 10 points and, as nothing else is said, fill or kill."""
    request: dict[str, Any] = {
        "action": TRADE_ACTION_DEAL, "type": order_type, "symbol": symbol, "volume": volume, "price": price,
        "deviation": 10,
    }  # fmt: skip
    optional = {"comment": comment, "position": ticket}
    return order_send(request | {name: value for name, value in optional.items() if value is not None})


def _at_market(order_type: int, symbol: str, volume: float, comment: str | None, ticket: int | None) -> Any:
    """Send at the price of now, again while it is refused for its price. Without a tick: AttributeError, as there."""
    result: Any = None
    for _ in range(_TRIES):
        tick: Any = symbol_info_tick(symbol)
        price = tick.ask if order_type == ORDER_TYPE_BUY else tick.bid
        result = _RawOrder(order_type, symbol, volume, price, comment, ticket)
        if result is None or result.retcode not in _AGAIN:
            break
    return result


def Buy(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Buy at a price, or at the market's: the last result of up to ten, None after a call that failed."""
    if price is None:
        return _at_market(ORDER_TYPE_BUY, symbol, volume, comment, ticket)
    return _RawOrder(ORDER_TYPE_BUY, symbol, volume, price, comment, ticket)


def Sell(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Sell at a price, or at the market's: the last result of up to ten, None after a call that failed."""
    if price is None:
        return _at_market(ORDER_TYPE_SELL, symbol, volume, comment, ticket)
    return _RawOrder(ORDER_TYPE_SELL, symbol, volume, price, comment, ticket)


def Close(symbol: str, *, comment: str | None = None, ticket: int | None = None) -> bool | str | None:
    """Close the positions of a symbol, or one, at the prices of ``symbol``: the original asks no other, ticket or not.

    Returns:
        True if all were closed, "Partially" if some, False if none, None after a call that failed. A table that can't
        be read raises TypeError, as there.
    """
    positions: Any = positions_get(symbol=symbol) if ticket is None else positions_get(ticket=ticket)
    done = 0
    for position in positions:
        opposite = ORDER_TYPE_SELL if position.type == ORDER_TYPE_BUY else ORDER_TYPE_BUY
        try:
            result = _at_market(opposite, symbol, position.volume, comment, position.ticket)
        except AttributeError:  # no tick, which Close checks and the two others do not
            return None
        if result is None:
            return None
        done += result.retcode == TRADE_RETCODE_DONE
    if not done:
        return False
    return True if done == len(positions) else "Partially"
