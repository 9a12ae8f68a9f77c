"""What lies in an account's past, as one number: two equal ones a while apart show that the terminal's cache is whole.

Runs in the worker. The number must be the same whatever happens *after* the moment of connecting, or a busy account
would never be believed; and another one whenever something from *before* that moment shows up late (reference mt5
§2.5: a stale cache after a reconnect, history in pieces with success, tables that lag behind each other).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import TRADES
from streamapp.terminal.worker.history import whole
from streamapp.terminal.worker.mt5_client import VOLUME_DIGITS, Calls

NAMED = 5
"""Most tickets that a message names."""


def look(calls: Calls, since: int, cut: int, until: int, known: Iterable[int]) -> dict[str, Any]:
    """Return ``digest`` of what lies before ``cut``, None if a table can't be read, and what is ``lacking``.

    Args:
        calls: The module.
        since: Where history is read from, in the server's seconds.
        cut: The moment of connecting: what is later does not count.
        until: Where history is read to.
        known: Deals of that history that were seen in earlier connections: they must be there.

    Returns:
        ``lacking`` says in words what else must be visible if the terminal showed everything; "" if nothing.
    """
    positions, orders = calls.call("positions_get", see=whole), calls.call("orders_get", see=whole)
    total = calls.call("history_deals_total", since, until)
    deals = calls.call("history_deals_get", since, until, see=whole)
    done = calls.call("history_orders_get", since, until, see=whole)
    if positions is None or orders is None or total is None or deals is None or done is None:
        return {"digest": None, "lacking": f"a table can't be read: {calls.error[1]} ({calls.error[0]})"}
    digest = hash(
        (
            frozenset(tuple(deal) for deal in deals if deal.time <= cut),
            frozenset((order.ticket, order.state) for order in done if order.time_done <= cut),
            frozenset(order.ticket for rows in (orders, done) for order in rows if order.time_setup <= cut),
            frozenset(_volumes(positions, deals, cut).items()),
        )
    )
    return {"digest": digest, "lacking": _lacking(total, deals, [p for p in positions if p.time > since], known)}


def _volumes(positions: Any, deals: Any, cut: int) -> dict[int, float]:
    """Return each position's volume, of sells negative, as it was at ``cut``: today's without the deals since."""
    volumes: dict[int, float] = {}
    for position in positions:
        signed = position.volume if position.type == mt5.POSITION_TYPE_BUY else -position.volume
        volumes[position.identifier] = volumes.get(position.identifier, 0.0) + signed
    for deal in deals:
        if deal.time > cut and deal.type in TRADES:
            signed = deal.volume if deal.type == mt5.DEAL_TYPE_BUY else -deal.volume
            volumes[deal.position_id] = volumes.get(deal.position_id, 0.0) - signed
    rounded = ((identifier, round(volume, VOLUME_DIGITS)) for identifier, volume in volumes.items())
    return {identifier: volume for identifier, volume in rounded if volume}


def _lacking(total: int, deals: Any, opened: list[Any], known: Iterable[int]) -> str:
    if len(deals) < total:
        return f"history has {total} deals and shows {len(deals)}"
    if missing := set(known).difference(deal.ticket for deal in deals):
        return f"history does not show {len(missing)} deals that were there before: {sorted(missing)[:NAMED]}"
    if missing := {position.identifier for position in opened}.difference(deal.position_id for deal in deals):
        return f"history does not show the deals of {len(missing)} open positions: {sorted(missing)[:NAMED]}"
    return ""
