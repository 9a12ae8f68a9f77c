# ruff: noqa: D402, N802  # the forms of a call are what its reader looks for, and the names are the original's
"""The module: a stand-in for ``import MetaTrader5 as mt5`` that talks to a simulated market.

Functions, constants, struct types, argument rules, results and `last_error` are those of MetaTrader5 5.0.6231. Like
the original it is one connection a process, not for threads, and a call blocks for as long as the other side takes,
with the GIL held. The market is found at the address in STREAMAPP_SIMULATOR_ADDRESS, by default 127.0.0.1:6080.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

from streamapp.simulator import arguments
from streamapp.simulator.arguments import INVALID, NOT_UNNAMED, BadArgument
from streamapp.simulator.client import Answer, Pipe
from streamapp.simulator.codes import ERROR_TEXT
from streamapp.simulator.constants import *  # noqa: F403
from streamapp.simulator.constants import (
    ORDER_TYPE_BUY,
    ORDER_TYPE_SELL,
    RES_E_INTERNAL_FAIL_INIT,
    RES_E_INVALID_PARAMS,
    RES_E_NOT_FOUND,
    RES_S_OK,
    TRADE_ACTION_DEAL,
    TRADE_RETCODE_DONE,
    TRADE_RETCODE_PRICE_OFF,
    TRADE_RETCODE_REQUOTE,
)
from streamapp.simulator.rpc import ADDRESS_VARIABLE, DEFAULT_ADDRESS, split_address
from streamapp.simulator.structs import STRUCTS, Struct, struct

__version__ = "5.0.6231"
__author__ = "streamapp (simulated)"

TradePosition = STRUCTS["TradePosition"]
TradeOrder = STRUCTS["TradeOrder"]
TradeDeal = STRUCTS["TradeDeal"]
TradeRequest = STRUCTS["TradeRequest"]
SymbolInfo = STRUCTS["SymbolInfo"]
OrderCheckResult = STRUCTS["OrderCheckResult"]
OrderSendResult = STRUCTS["OrderSendResult"]
Tick = STRUCTS["Tick"]
TerminalInfo = STRUCTS["TerminalInfo"]
AccountInfo = STRUCTS["AccountInfo"]
BookInfo = STRUCTS["BookInfo"]

_pipe = Pipe()
_last_error: tuple[int, str] = (RES_S_OK, "Success")


def _api(refused: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function of the module: it resets last_error, and gives `refused` for arguments that it refuses."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            _note(RES_S_OK, "Success")
            try:
                return function(*args, **kwargs)
            except BadArgument as bad:
                _note(RES_E_INVALID_PARAMS, str(bad))
                return refused

        return call

    return decorate


def _note(code: int, text: str) -> None:
    global _last_error  # noqa: PLW0603  # one a process, as in the original
    _last_error = (code, text)


def _ask(method: str, *values: Any) -> Any:
    """The result of a call to the market, None where it failed, with last_error set either way."""
    answer: Answer = _pipe.call(method, *values)
    _note(answer[0], answer[1])
    return answer[2] if answer[0] == RES_S_OK else None


def _one(name: str, values: Any) -> Struct | None:
    return None if values is None else struct(name, values)


def _many(name: str, rows: Any) -> tuple[Struct, ...] | None:
    return None if rows is None else tuple(struct(name, row) for row in rows)


def last_error() -> tuple[int, str]:
    """Code and words of the latest call's outcome; the only function that leaves it alone."""
    return _last_error


# ---- connection


def _credentials(given: dict[str, Any]) -> tuple[int, str, str]:
    login_number = arguments.keyword("login", given.get("login", 0), int)
    password = arguments.keyword("password", given.get("password", ""), str)
    server = arguments.keyword("server", given.get("server", ""), str)
    arguments.keyword("timeout", given.get("timeout", 0), int)
    for name, text in (("password", password), ("server", server)):
        if arguments.utf16_units(text) >= 255:
            raise arguments.field_error(name)
    return login_number, password, server


@_api(False)
def initialize(*args: Any, **kwargs: Any) -> bool:
    """Connects to the market and logs in: initialize([path], login=, password=, server=, timeout=, portable=)."""
    if len(args) > 1:
        raise BadArgument(NOT_UNNAMED)
    path = arguments.keyword("path", args[0] if args else kwargs.get("path", ""), str)
    credentials = _credentials(kwargs)
    try:
        _pipe.open(*split_address(os.environ.get(ADDRESS_VARIABLE, DEFAULT_ADDRESS)))
    except OSError as error:
        _pipe.close()
        _note(RES_E_INTERNAL_FAIL_INIT, f"{ERROR_TEXT[RES_E_INTERNAL_FAIL_INIT]}, {error}")
        return False
    if _ask("initialize", path, *credentials) is None:
        _pipe.close()
        return False
    return True


@_api(False)
def login(*args: Any, **kwargs: Any) -> bool:
    """Changes the account: login(login, [password], [server], [timeout]). A failure keeps the connection."""
    names = ("login", "password", "server", "timeout")
    if len(args) > len(names):
        raise BadArgument(INVALID)
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if "login" not in given:
        raise BadArgument(INVALID)
    return _ask("login", *_credentials(given)) is not None


@_api(True)
def shutdown() -> bool:
    """Disconnects."""
    _pipe.close()
    return True


@_api(None)
def version() -> tuple[int, int, str]:
    """(500, build, date) of the terminal, (0, 0, "") without a connection."""
    told = _ask("version")
    return (told[0], told[1], told[2]) if told else (0, 0, "")


@_api(None)
def terminal_info() -> Struct | None:
    """State of the terminal."""
    return _one("TerminalInfo", _ask("terminal_info"))


@_api(None)
def account_info() -> Struct | None:
    """State of the account."""
    return _one("AccountInfo", _ask("account_info"))


# ---- symbols


@_api(None)
def symbols_total() -> int | None:
    """How many symbols there are."""
    total: int | None = _ask("symbols_total")
    return total


@_api(None)
def symbols_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """All symbols, or those of a group."""
    if len(args) > 1 or set(kwargs) - {"group"} or (args and kwargs):
        raise BadArgument(INVALID)
    group = args[0] if args else kwargs.get("group")
    if group is not None:
        arguments.keyword("group", group, str)
    found = _many("SymbolInfo", _ask("symbols_get"))
    return None if found is None else arguments.of_group(found, group, "name")


@_api(None)
def symbol_info(*args: Any, **kwargs: Any) -> Struct | None:
    """Everything about a symbol."""
    arguments.positional("symbol_info", args, kwargs, str)
    return _one("SymbolInfo", _ask("symbol_info", *args))


@_api(None)
def symbol_info_tick(*args: Any, **kwargs: Any) -> Struct | None:
    """The last tick of a symbol."""
    arguments.positional("symbol_info_tick", args, kwargs, str)
    return _one("Tick", _ask("symbol_info_tick", *args))


@_api(False)
def symbol_select(*args: Any, **kwargs: Any) -> bool:
    """Puts a symbol into the Market Watch, or takes it out with False."""
    both = (*args, True) if len(args) == 1 else args
    arguments.positional("symbol_select", both, kwargs, str, int)
    return _ask("symbol_select", both[0], bool(both[1])) is not None


# ---- depth of market


@_api(False)
def market_book_add(*args: Any, **kwargs: Any) -> bool:
    """Subscribes to a symbol's depth of market."""
    arguments.positional("market_book_add", args, kwargs, str)
    return _ask("market_book_add", *args) is not None


@_api(None)
def market_book_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """The depth of market of a symbol that is subscribed to."""
    arguments.positional("market_book_get", args, kwargs, str)
    return _many("BookInfo", _ask("market_book_get", *args))


@_api(False)
def market_book_release(*args: Any, **kwargs: Any) -> bool:
    """Ends a subscription."""
    arguments.positional("market_book_release", args, kwargs, str)
    return _ask("market_book_release", *args) is not None


# ---- prices of the past

_RATES = [("time", "i8"), ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("tick_volume", "u8"),
          ("spread", "i4"), ("real_volume", "u8")]  # fmt: skip
_TICKS = [("time", "i8"), ("bid", "f8"), ("ask", "f8"), ("last", "f8"), ("volume", "u8"), ("time_msc", "i8"),
          ("flags", "u4"), ("volume_real", "f8")]  # fmt: skip
_NUMBER = (int, float)


def _array(rows: Any, dtype: list[tuple[str, str]]) -> Any:
    if rows is None:
        return None
    import numpy as np  # optional: the rest of the module works without it

    return np.array([tuple(row) for row in rows], dtype=dtype)


@_api(None)
def copy_rates_from(*args: Any, **kwargs: Any) -> Any:
    """Bars back from a date: copy_rates_from(symbol, timeframe, date_from, count)."""
    arguments.positional("copy_rates_from", args, kwargs, str, int, object, int)
    at = arguments.seconds(args[2], "3rd")
    return _array(_ask("copy_rates_from", args[0], int(args[1]), at, int(args[3])), _RATES)


@_api(None)
def copy_rates_from_pos(*args: Any, **kwargs: Any) -> Any:
    """Bars back from a position, 0 being the present bar: copy_rates_from_pos(symbol, timeframe, start, count)."""
    arguments.positional("copy_rates_from_pos", args, kwargs, str, int, int, int)
    return _array(_ask("copy_rates_from_pos", args[0], *(int(value) for value in args[1:])), _RATES)


@_api(None)
def copy_rates_range(*args: Any, **kwargs: Any) -> Any:
    """Bars of a span: copy_rates_range(symbol, timeframe, date_from, date_to)."""
    arguments.positional("copy_rates_range", args, kwargs, str, int, object, object)
    span = arguments.seconds(args[2], "3rd"), arguments.seconds(args[3], "4th")
    return _array(_ask("copy_rates_range", args[0], int(args[1]), *span), _RATES)


@_api(None)
def copy_ticks_from(*args: Any, **kwargs: Any) -> Any:
    """Ticks on from a date: copy_ticks_from(symbol, date_from, count, flags)."""
    arguments.positional("copy_ticks_from", args, kwargs, str, object, int, int)
    at = arguments.seconds(args[1], "2nd")
    return _array(_ask("copy_ticks_from", args[0], at, int(args[2]), int(args[3])), _TICKS)


@_api(None)
def copy_ticks_range(*args: Any, **kwargs: Any) -> Any:
    """Ticks of a span: copy_ticks_range(symbol, date_from, date_to, flags)."""
    arguments.positional("copy_ticks_range", args, kwargs, str, object, object, int)
    span = arguments.seconds(args[1], "2nd"), arguments.seconds(args[2], "3rd")
    return _array(_ask("copy_ticks_range", args[0], *span, int(args[3])), _TICKS)


# ---- orders and positions


@_api(None)
def orders_total() -> int | None:
    """How many orders are active."""
    total: int | None = _ask("orders_total")
    return total


@_api(None)
def positions_total() -> int | None:
    """How many positions are open."""
    total: int | None = _ask("positions_total")
    return total


def _rows(method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Struct, ...] | None:
    """Rows by ticket, else by symbol, else by group, else all. Nothing found is (), not None."""
    if args:
        raise BadArgument(NOT_UNNAMED)
    if set(kwargs) - {"symbol", "group", "ticket"}:
        raise BadArgument(INVALID)
    ticket = arguments.keyword("ticket", kwargs.get("ticket", 0), int)
    symbol = arguments.keyword("symbol", kwargs["symbol"], str) if "symbol" in kwargs else None
    group = arguments.keyword("group", kwargs["group"], str) if "group" in kwargs else None
    if "ticket" in kwargs:
        # Ticket 0 is no row; what the market does not find is not an error.
        found = _ask(method, None, ticket) if ticket else _ask(method, "", 0)
        return _many(name, found)
    found = _many(name, _ask(method, symbol, 0))
    return found if found is None or symbol is not None else arguments.of_group(found, group, "symbol")


@_api(None)
def orders_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Active orders: orders_get(symbol=, group=, ticket=)."""
    return _rows("orders_get", "TradeOrder", args, kwargs)


@_api(None)
def positions_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Open positions: positions_get(symbol=, group=, ticket=)."""
    return _rows("positions_get", "TradePosition", args, kwargs)


def _span(args: tuple[Any, ...]) -> tuple[int, int]:
    if len(args) != 2:
        raise BadArgument(INVALID)
    return arguments.seconds(args[0], "1st"), arguments.seconds(args[1], "2nd")


def _history(method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Struct, ...] | None:
    if not args and len(kwargs) == 1 and set(kwargs) <= {"ticket", "position"}:
        ticket = arguments.keyword("ticket", kwargs.get("ticket", 0), int)
        position = arguments.keyword("position", kwargs.get("position", 0), int)
        answer = _pipe.call(method, 0, -1, ticket, position)
        if answer[0] == RES_E_NOT_FOUND:
            return ()
        _note(answer[0], answer[1])
        return _many(name, answer[2])
    if set(kwargs) - {"group"}:
        raise BadArgument(INVALID)
    span = _span(args)
    group = arguments.keyword("group", kwargs["group"], str) if "group" in kwargs else None
    found = _many(name, _ask(method, *span, 0, 0))
    return None if found is None else arguments.of_group(found, group, "symbol")


@_api(None)
def history_orders_total(*args: Any) -> int | None:
    """How many orders were done in a span of server time."""
    total: int | None = _ask("history_orders_total", *_span(args))
    return total


@_api(None)
def history_deals_total(*args: Any) -> int | None:
    """How many deals were made in a span of server time."""
    total: int | None = _ask("history_deals_total", *_span(args))
    return total


@_api(None)
def history_orders_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Orders that are done: history_orders_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_orders_get", "TradeOrder", args, kwargs)


@_api(None)
def history_deals_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Deals: history_deals_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_deals_get", "TradeDeal", args, kwargs)


# ---- trading


@_api(None)
def order_calc_margin(*args: Any, **kwargs: Any) -> float | None:
    """Margin in the account's currency: order_calc_margin(action, symbol, volume, price)."""
    arguments.positional("order_calc_margin", args, kwargs, int, str, _NUMBER, _NUMBER)
    margin: float | None = _ask("order_calc_margin", int(args[0]), args[1], float(args[2]), float(args[3]))
    return margin


@_api(None)
def order_calc_profit(*args: Any, **kwargs: Any) -> float | None:
    """Profit in the account's currency: order_calc_profit(action, symbol, volume, price_open, price_close)."""
    arguments.positional("order_calc_profit", args, kwargs, int, str, _NUMBER, _NUMBER, _NUMBER)
    numbers = (float(value) for value in args[2:])
    profit: float | None = _ask("order_calc_profit", int(args[0]), args[1], *numbers)
    return profit


def _result(method: str, name: str, values: list[Any]) -> Struct | None:
    told = _ask(method, values)
    return None if told is None else struct(name, [*told, struct("TradeRequest", values)])


@_api(None)
def order_check(*args: Any, **kwargs: Any) -> Struct | None:
    """Whether a request would be accepted, and the money after it."""
    return _result("order_check", "OrderCheckResult", arguments.trade_request("order_check", args, kwargs))


@_api(None)
def order_send(*args: Any, **kwargs: Any) -> Struct | None:
    """Sends a request. None tells nothing about its execution: see last_error, and even then see the tables."""
    return _result("order_send", "OrderSendResult", arguments.trade_request("order_send", args, kwargs))


# ---- the package's own helpers

_TRIES = 10
_AGAIN = (TRADE_RETCODE_REQUOTE, TRADE_RETCODE_PRICE_OFF)


def _send_at(kind: int, symbol: str, volume: float, price: float, *, comment: str | None, ticket: int | None) -> Any:
    request: dict[str, Any] = {"action": TRADE_ACTION_DEAL, "symbol": symbol, "volume": volume, "type": kind}
    request.update(price=price, deviation=10)
    if comment is not None:
        request["comment"] = comment
    if ticket is not None:
        request["position"] = ticket
    return order_send(request)


def _send_at_market(kind: int, symbol: str, volume: float, *, comment: str | None, ticket: int | None) -> Any:
    """Sends up to ten times while the answer is a requote: the reason why a gateway must not use these helpers."""
    result = None
    for _ in range(_TRIES):
        tick = symbol_info_tick(symbol)
        if tick is None:
            return None
        price = tick.ask if kind == ORDER_TYPE_BUY else tick.bid
        result = _send_at(kind, symbol, volume, price, comment=comment, ticket=ticket)
        if result is None or result.retcode not in _AGAIN:
            break
    return result


def Buy(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Buys at a price, or at the market's."""
    if price is not None:
        return _send_at(ORDER_TYPE_BUY, symbol, volume, price, comment=comment, ticket=ticket)
    return _send_at_market(ORDER_TYPE_BUY, symbol, volume, comment=comment, ticket=ticket)


def Sell(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Sells at a price, or at the market's."""
    if price is not None:
        return _send_at(ORDER_TYPE_SELL, symbol, volume, price, comment=comment, ticket=ticket)
    return _send_at_market(ORDER_TYPE_SELL, symbol, volume, comment=comment, ticket=ticket)


def Close(symbol: str, *, comment: str | None = None, ticket: int | None = None) -> bool | str | None:
    """Closes the positions of a symbol, or one: True, "Partially", False, or None after a failed call."""
    positions = positions_get(ticket=ticket) if ticket is not None else positions_get(symbol=symbol)
    done = 0
    for position in positions:
        kind = ORDER_TYPE_SELL if position.type == ORDER_TYPE_BUY else ORDER_TYPE_BUY
        result = _send_at_market(kind, symbol, position.volume, comment=comment, ticket=position.ticket)
        if result is None:
            return None
        done += result.retcode == TRADE_RETCODE_DONE
    if not done:
        return False
    return True if done == len(positions) else "Partially"
