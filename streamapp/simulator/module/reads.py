"""The functions that read: symbols, prices of the past, orders, positions, and the history of both."""

from __future__ import annotations

# ruff: noqa: D402
from typing import Any

from streamapp.mt5.constants import RES_E_NOT_FOUND
from streamapp.simulator.module import arguments
from streamapp.simulator.module.arguments import INVALID, NOT_UNNAMED, BadArgument
from streamapp.simulator.module.calls import api, ask, many, note, one, pipe
from streamapp.simulator.module.structs import Struct

_RATES = [("time", "i8"), ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("tick_volume", "u8"),
          ("spread", "i4"), ("real_volume", "u8")]  # fmt: skip
_TICKS = [("time", "i8"), ("bid", "f8"), ("ask", "f8"), ("last", "f8"), ("volume", "u8"), ("time_msc", "i8"),
          ("flags", "u4"), ("volume_real", "f8")]  # fmt: skip

# -- symbols


@api(None)
def symbols_total() -> int | None:
    """Return how many symbols there are."""
    total: int | None = ask("symbols_total")
    return total


@api(None)
def symbols_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return all symbols, or those of a group."""
    if len(args) > 1 or set(kwargs) - {"group"} or (args and kwargs):
        raise BadArgument(INVALID)
    group = args[0] if args else kwargs.get("group")
    if group is not None:
        arguments.keyword("group", group, str)
    found = many("SymbolInfo", ask("symbols_get"))
    return None if found is None else arguments.of_group(found, group, "name")


@api(None)
def symbol_info(*args: Any, **kwargs: Any) -> Struct | None:
    """Return everything about a symbol."""
    arguments.positional("symbol_info", args, kwargs, str)
    return one("SymbolInfo", ask("symbol_info", *args))


@api(None)
def symbol_info_tick(*args: Any, **kwargs: Any) -> Struct | None:
    """Return the last tick of a symbol."""
    arguments.positional("symbol_info_tick", args, kwargs, str)
    return one("Tick", ask("symbol_info_tick", *args))


@api(False)
def symbol_select(*args: Any, **kwargs: Any) -> bool:
    """Put a symbol into the Market Watch, or takes it out with False."""
    both = (*args, True) if len(args) == 1 else args
    arguments.positional("symbol_select", both, kwargs, str, int)
    return ask("symbol_select", both[0], bool(both[1])) is not None


@api(False)
def market_book_add(*args: Any, **kwargs: Any) -> bool:
    """Subscribe to a symbol's depth of market."""
    arguments.positional("market_book_add", args, kwargs, str)
    return ask("market_book_add", *args) is not None


@api(None)
def market_book_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return the depth of market of a symbol that is subscribed to."""
    arguments.positional("market_book_get", args, kwargs, str)
    return many("BookInfo", ask("market_book_get", *args))


@api(False)
def market_book_release(*args: Any, **kwargs: Any) -> bool:
    """End a subscription."""
    arguments.positional("market_book_release", args, kwargs, str)
    return ask("market_book_release", *args) is not None


# -- prices of the past


def _array(rows: Any, dtype: list[tuple[str, str]]) -> Any:
    if rows is None:
        return None
    import numpy as np  # optional: the rest of the module works without it

    return np.array([tuple(row) for row in rows], dtype=dtype)


@api(None)
def copy_rates_from(*args: Any, **kwargs: Any) -> Any:
    """Return bars back from a date: copy_rates_from(symbol, timeframe, date_from, count)."""
    arguments.positional("copy_rates_from", args, kwargs, str, int, object, int)
    at = arguments.seconds(args[2], "3rd")
    return _array(ask("copy_rates_from", args[0], int(args[1]), at, int(args[3])), _RATES)


@api(None)
def copy_rates_from_pos(*args: Any, **kwargs: Any) -> Any:
    """Return bars back from a position, 0 the present bar: copy_rates_from_pos(symbol, timeframe, start, count)."""
    arguments.positional("copy_rates_from_pos", args, kwargs, str, int, int, int)
    return _array(ask("copy_rates_from_pos", args[0], *(int(value) for value in args[1:])), _RATES)


@api(None)
def copy_rates_range(*args: Any, **kwargs: Any) -> Any:
    """Return bars of a span: copy_rates_range(symbol, timeframe, date_from, date_to)."""
    arguments.positional("copy_rates_range", args, kwargs, str, int, object, object)
    span = arguments.seconds(args[2], "3rd"), arguments.seconds(args[3], "4th")
    return _array(ask("copy_rates_range", args[0], int(args[1]), *span), _RATES)


@api(None)
def copy_ticks_from(*args: Any, **kwargs: Any) -> Any:
    """Return ticks on from a date: copy_ticks_from(symbol, date_from, count, flags)."""
    arguments.positional("copy_ticks_from", args, kwargs, str, object, int, int)
    at = arguments.seconds(args[1], "2nd")
    return _array(ask("copy_ticks_from", args[0], at, int(args[2]), int(args[3])), _TICKS)


@api(None)
def copy_ticks_range(*args: Any, **kwargs: Any) -> Any:
    """Return ticks of a span: copy_ticks_range(symbol, date_from, date_to, flags)."""
    arguments.positional("copy_ticks_range", args, kwargs, str, object, object, int)
    span = arguments.seconds(args[1], "2nd"), arguments.seconds(args[2], "3rd")
    return _array(ask("copy_ticks_range", args[0], *span, int(args[3])), _TICKS)


# -- tables


@api(None)
def orders_total() -> int | None:
    """Return how many orders are active."""
    total: int | None = ask("orders_total")
    return total


@api(None)
def positions_total() -> int | None:
    """Return how many positions are open."""
    total: int | None = ask("positions_total")
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
        found = ask(method, None, ticket) if ticket else ask(method, "", 0)
        return many(name, found)
    found = many(name, ask(method, symbol, 0))
    return found if found is None or symbol is not None else arguments.of_group(found, group, "symbol")


@api(None)
def orders_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return active orders: orders_get(symbol=, group=, ticket=)."""
    return _rows("orders_get", "TradeOrder", args, kwargs)


@api(None)
def positions_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return open positions: positions_get(symbol=, group=, ticket=)."""
    return _rows("positions_get", "TradePosition", args, kwargs)


def _span(args: tuple[Any, ...]) -> tuple[int, int]:
    if len(args) != 2:
        raise BadArgument(INVALID)
    return arguments.seconds(args[0], "1st"), arguments.seconds(args[1], "2nd")


def _history(method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Struct, ...] | None:
    if not args and len(kwargs) == 1 and set(kwargs) <= {"ticket", "position"}:
        ticket = arguments.keyword("ticket", kwargs.get("ticket", 0), int)
        position = arguments.keyword("position", kwargs.get("position", 0), int)
        answer = pipe.call(method, 0, -1, ticket, position)
        if answer[0] == RES_E_NOT_FOUND:
            return ()
        note(answer[0], answer[1])
        return many(name, answer[2])
    if set(kwargs) - {"group"}:
        raise BadArgument(INVALID)
    span = _span(args)
    group = arguments.keyword("group", kwargs["group"], str) if "group" in kwargs else None
    found = many(name, ask(method, *span, 0, 0))
    return None if found is None else arguments.of_group(found, group, "symbol")


@api(None)
def history_orders_total(*args: Any) -> int | None:
    """Return how many orders were done in a span of server time."""
    total: int | None = ask("history_orders_total", *_span(args))
    return total


@api(None)
def history_deals_total(*args: Any) -> int | None:
    """Return how many deals were made in a span of server time."""
    total: int | None = ask("history_deals_total", *_span(args))
    return total


@api(None)
def history_orders_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return orders that are done: history_orders_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_orders_get", "TradeOrder", args, kwargs)


@api(None)
def history_deals_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Return deals: history_deals_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_deals_get", "TradeDeal", args, kwargs)
