"""One order or one position, as it is now and as history tells it; and the tables, page by page.

For one target at a time: an account may have thousands of positions.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.terminal.pipe.answers import OrderSeen, Page, PositionSeen
from streamapp.terminal.pipe.calls import ListOrders, ListPositions, ListSymbols
from streamapp.terminal.pipe.structs import SymbolDetails, TradeDeal, TradeOrder, TradePosition
from streamapp.terminal.worker.mt5_client import Mt5Client, UnreadError, model_of, models_of, plain, whole

NOT_FOUND = (mt5.RES_E_NOT_FOUND,)
"""last_error of a name or ticket that nobody has."""


def order(calls: Mt5Client, ticket: int) -> OrderSeen:
    """Return an order if it works, or else as history has it."""
    live = calls.call("orders_get", ticket=ticket)
    if live is None:
        return OrderSeen(read=False)
    past = [] if live else calls.call("history_orders_get", ticket=ticket)
    calls.note_change("orders_get", {"ticket": ticket}, live or past)
    works, ended = (model_of(TradeOrder, (rows or [None])[0]) for rows in (live, past))
    return OrderSeen(past is not None, works, ended)


def position(calls: Mt5Client, position_id: int) -> PositionSeen:
    """Return a position if it is open, and its deals."""
    try:
        return needed_position(calls, position_id)
    except UnreadError:
        return PositionSeen(read=False)


def needed_position(calls: Mt5Client, position_id: int) -> PositionSeen:
    """Return the same.

    Raises:
        UnreadError: either could not be read.
    """
    rows = _positions(calls, position_id)
    deals = calls.needed("history_deals_get", position=position_id)
    calls.note_change("history_deals_get", {"position": position_id}, deals)
    return PositionSeen(True, model_of(TradePosition, (rows or [None])[0]), models_of(TradeDeal, deals))


def _positions(calls: Mt5Client, position_id: int) -> list[Any]:
    see = partial(_of_position, position_id)
    rows: list[Any] = calls.needed("positions_get", see=see, ticket=position_id)
    if not rows:  # its ticket may have changed (reference mt5 §2.6)
        rows = calls.needed("positions_get", see=see)
    calls.note_change("positions_get", {"position": position_id}, rows)
    return rows


def _of_position(position_id: int, rows: Any) -> list[Any] | None:
    return None if rows is None else [plain(row) for row in rows if row.identifier == position_id]


def positions(calls: Mt5Client, asked: ListPositions) -> Page[TradePosition]:
    """Return the next open positions in the order of their tickets."""
    rows, more = _page(_table(calls, "positions_get", asked), "ticket", asked)
    return Page(None if rows is None else models_of(TradePosition, rows), more)


def orders(calls: Mt5Client, asked: ListOrders) -> Page[TradeOrder]:
    """Return the next working orders in the order of their tickets."""
    rows, more = _page(_table(calls, "orders_get", asked), "ticket", asked)
    return Page(None if rows is None else models_of(TradeOrder, rows), more)


def symbols(calls: Mt5Client, asked: ListSymbols) -> Page[SymbolDetails]:
    """Return the next symbols in the order of their names, or the one that is asked for."""
    if asked.symbol is None:
        found = _table(calls, "symbols_get", asked)
    else:
        one = calls.call("symbol_info", asked.symbol, see=whole)
        found = (one,) if one is not None else () if calls.error[0] in NOT_FOUND else None
    rows, more = _page(found, "name", asked)
    return Page(None if rows is None else models_of(SymbolDetails, rows), more)


Listing = ListPositions | ListOrders | ListSymbols


def _table(calls: Mt5Client, function: str, asked: Listing) -> Any:
    named: dict[str, Any] = {"symbol": asked.symbol, "group": asked.group}
    return calls.call(function, see=whole, **{name: value for name, value in named.items() if value is not None})


def _page(rows: Any, key: str, asked: Listing) -> tuple[list[Any] | None, bool]:
    """Return the rows after ``after``, and whether there are more; None of a table that could not be read."""
    if rows is None:
        return None, False
    place = attrgetter(key)
    after = asked.after if asked.after is None or key == "name" else int(asked.after)
    wanted = sorted((row for row in rows if after is None or place(row) > after), key=place)
    return [plain(row) for row in wanted[: asked.limit]], len(wanted) > asked.limit
