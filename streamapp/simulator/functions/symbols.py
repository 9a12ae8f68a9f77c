"""Symbols, their last ticks, and the depth of market."""

from typing import Any

from streamapp.simulator import arguments
from streamapp.simulator.arguments import INVALID, BadArgument
from streamapp.simulator.functions.calls import api, ask, many, one
from streamapp.simulator.structs import Struct


@api(None)
def symbols_total() -> int | None:
    """How many symbols there are."""
    total: int | None = ask("symbols_total")
    return total


@api(None)
def symbols_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """All symbols, or those of a group."""
    if len(args) > 1 or set(kwargs) - {"group"} or (args and kwargs):
        raise BadArgument(INVALID)
    group = args[0] if args else kwargs.get("group")
    if group is not None:
        arguments.keyword("group", group, str)
    found = many("SymbolInfo", ask("symbols_get"))
    return None if found is None else arguments.of_group(found, group, "name")


@api(None)
def symbol_info(*args: Any, **kwargs: Any) -> Struct | None:
    """Everything about a symbol."""
    arguments.positional("symbol_info", args, kwargs, str)
    return one("SymbolInfo", ask("symbol_info", *args))


@api(None)
def symbol_info_tick(*args: Any, **kwargs: Any) -> Struct | None:
    """The last tick of a symbol."""
    arguments.positional("symbol_info_tick", args, kwargs, str)
    return one("Tick", ask("symbol_info_tick", *args))


@api(False)
def symbol_select(*args: Any, **kwargs: Any) -> bool:
    """Puts a symbol into the Market Watch, or takes it out with False."""
    both = (*args, True) if len(args) == 1 else args
    arguments.positional("symbol_select", both, kwargs, str, int)
    return ask("symbol_select", both[0], bool(both[1])) is not None


@api(False)
def market_book_add(*args: Any, **kwargs: Any) -> bool:
    """Subscribes to a symbol's depth of market."""
    arguments.positional("market_book_add", args, kwargs, str)
    return ask("market_book_add", *args) is not None


@api(None)
def market_book_get(*args: Any, **kwargs: Any) -> tuple[Struct, ...] | None:
    """The depth of market of a symbol that is subscribed to."""
    arguments.positional("market_book_get", args, kwargs, str)
    return many("BookInfo", ask("market_book_get", *args))


@api(False)
def market_book_release(*args: Any, **kwargs: Any) -> bool:
    """Ends a subscription."""
    arguments.positional("market_book_release", args, kwargs, str)
    return ask("market_book_release", *args) is not None
