"""The worker's half of operations: one order or one position, as it is now and as history tells it.

Runs in the worker, for one target at a time: an account may have thousands of positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from streamapp.terminal.worker.history import whole
from streamapp.terminal.worker.mt5_client import Calls, plain

ORDERED_BY = {"positions": "ticket", "orders": "ticket", "symbols": "name"}


def order(calls: Calls, ticket: int) -> dict[str, Any]:
    """Return ``live``, the order if it works, ``past``, as history has it, and whether both could be ``read``."""
    live = calls.call("orders_get", ticket=ticket)
    if live is None:
        return {"read": False}
    past = [] if live else calls.call("history_orders_get", ticket=ticket)
    calls.note_change("orders_get", {"ticket": ticket}, live or past)
    return {"read": past is not None, "live": (live or [None])[0], "past": (past or [None])[0]}


def position(calls: Calls, position_id: int) -> dict[str, Any]:
    """Return ``live``, the position if it is open, its ``deals``, and whether both could be ``read``."""
    rows = _positions(calls, position_id)
    deals = calls.call("history_deals_get", position=position_id)
    calls.note_change("history_deals_get", {"position": position_id}, deals)
    return {"read": rows is not None and deals is not None, "live": (rows or [None])[0], "deals": deals}


def _positions(calls: Calls, position_id: int) -> list[Any] | None:
    see = partial(_of_position, position_id)
    rows: list[Any] | None = calls.call("positions_get", see=see, ticket=position_id)
    if rows == []:  # its ticket may have changed (reference mt5 §2.6)
        rows = calls.call("positions_get", see=see)
    calls.note_change("positions_get", {"position": position_id}, rows)
    return rows


def _of_position(position_id: int, rows: Any) -> list[Any] | None:
    return None if rows is None else [plain(row) for row in rows if row.identifier == position_id]


def page(
    calls: Calls, table: str, *, symbol: str | None, group: str | None, after: str | None, limit: int
) -> dict[str, Any]:
    """Return the next ``rows`` of a table in the order of their tickets or names, and whether there are ``more``.

    ``rows`` is None if the table can't be read.
    """
    named: dict[str, Any] = {"group": group} if group is not None else {}
    if symbol is not None and table != "symbols":
        named["symbol"] = symbol
    key = ORDERED_BY[table]
    if symbol is not None and table == "symbols":
        found = calls.call("symbol_info", symbol, see=whole)
        rows = (found,) if found is not None else () if calls.error[0] == NOT_FOUND else None
    else:
        rows = calls.call(f"{table}_get", see=whole, **named)
    if rows is None:
        return {"rows": None, "more": False}
    start = None if after is None else after if key == "name" else int(after)
    wanted = sorted(
        (row for row in rows if start is None or getattr(row, key) > start), key=lambda row: getattr(row, key)
    )
    return {"rows": [plain(row) for row in wanted[:limit]], "more": len(wanted) > limit}


NOT_FOUND = -4
