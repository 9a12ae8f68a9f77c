"""Orders, positions, and the history of both."""

# ruff: noqa: D402
from typing import Any

from streamapp.mt5.constants import RES_E_NOT_FOUND
from streamapp.simulator import arguments
from streamapp.simulator.arguments import INVALID, NOT_UNNAMED, BadArgument
from streamapp.simulator.functions.calls import api, ask, many, note, pipe
from streamapp.simulator.structs import Struct


@api(None)
def orders_total() -> int | None:
    """How many orders are active."""
    total: int | None = ask("orders_total")
    return total


@api(None)
def positions_total() -> int | None:
    """How many positions are open."""
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
    """Active orders: orders_get(symbol=, group=, ticket=)."""
    return _rows("orders_get", "TradeOrder", args, kwargs)


@api(None)
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
    """How many orders were done in a span of server time."""
    total: int | None = ask("history_orders_total", *_span(args))
    return total


@api(None)
def history_deals_total(*args: Any) -> int | None:
    """How many deals were made in a span of server time."""
    total: int | None = ask("history_deals_total", *_span(args))
    return total


@api(None)
def history_orders_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Orders that are done: history_orders_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_orders_get", "TradeOrder", args, kwargs)


@api(None)
def history_deals_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """Deals: history_deals_get(from, to, [group=]) or (ticket=) or (position=)."""
    return _history("history_deals_get", "TradeDeal", args, kwargs)
