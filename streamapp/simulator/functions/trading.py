"""Reckoning, checking and sending orders."""

# ruff: noqa: D402
from typing import Any

from streamapp.simulator import arguments
from streamapp.simulator.functions.calls import api, ask
from streamapp.simulator.structs import Struct, struct

_NUMBER = (int, float)


@api(None)
def order_calc_margin(*args: Any, **kwargs: Any) -> float | None:
    """Margin in the account's currency: order_calc_margin(action, symbol, volume, price)."""
    arguments.positional("order_calc_margin", args, kwargs, int, str, _NUMBER, _NUMBER)
    margin: float | None = ask("order_calc_margin", int(args[0]), args[1], float(args[2]), float(args[3]))
    return margin


@api(None)
def order_calc_profit(*args: Any, **kwargs: Any) -> float | None:
    """Profit in the account's currency: order_calc_profit(action, symbol, volume, price_open, price_close)."""
    arguments.positional("order_calc_profit", args, kwargs, int, str, _NUMBER, _NUMBER, _NUMBER)
    numbers = (float(value) for value in args[2:])
    profit: float | None = ask("order_calc_profit", int(args[0]), args[1], *numbers)
    return profit


def _result(method: str, name: str, values: list[Any]) -> Struct | None:
    told = ask(method, values)
    return None if told is None else struct(name, [*told, struct("TradeRequest", values)])


@api(None)
def order_check(*args: Any, **kwargs: Any) -> Struct | None:
    """Whether a request would be accepted, and the money after it."""
    return _result("order_check", "OrderCheckResult", arguments.trade_request("order_check", args, kwargs))


@api(None)
def order_send(*args: Any, **kwargs: Any) -> Struct | None:
    """Sends a request. None tells nothing about its execution: see last_error, and even then see the tables."""
    return _result("order_send", "OrderSendResult", arguments.trade_request("order_send", args, kwargs))
