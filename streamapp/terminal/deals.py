"""The broker's deals and orders in our words: Decimal, UTC, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from streamapp.domain.facts import BrokerCancelled, BrokerExpired, BrokerRejected, CancelReason, Filled
from streamapp.domain.vocabulary import DealEntry, DealReason
from streamapp.terminal.codes import SIDES
from streamapp.terminal.request import FILLING_FOK, FILLING_IOC, number
from streamapp.terminal.servertime import ServerTime

ENTRIES: dict[int, DealEntry] = {0: "in", 1: "out", 2: "inout", 3: "out_by"}
"""A number that is not here is taken for ``in``: what a deal does to a position is told by its side, and a volume that
was executed must not be held up by a word."""
REASONS: dict[int, DealReason] = {
    0: "client",
    1: "mobile",
    2: "web",
    3: "expert",
    4: "sl",
    5: "tp",
    6: "so",
    7: "rollover",
    8: "vmargin",
    9: "split",
}
MARKET_TYPES = (0, 1)
STATE_CANCELED, STATE_PARTIAL, STATE_FILLED, STATE_REJECTED, STATE_EXPIRED = 2, 3, 4, 5, 6
ENDED = frozenset({STATE_CANCELED, STATE_PARTIAL, STATE_FILLED, STATE_REJECTED, STATE_EXPIRED})
"""The states of an order that is over. Whatever else history shows of it, it has not ended."""
REJECTED_LATER = 10006
"""History has no retcode: a request that was placed and then refused is the plain rejection."""


def filled(deal: dict[str, Any], currency: str, time: ServerTime) -> Filled:
    """Return a deal of the module's, type buy or sell, as the body of its fact."""
    return Filled(
        deal=deal["ticket"],
        ticket=deal["order"],
        position_id=deal["position_id"],
        symbol=deal["symbol"],
        side=SIDES[deal["type"]],
        entry=ENTRIES.get(deal["entry"], "in"),
        reason=REASONS.get(deal["reason"], "other"),
        volume=number(deal["volume"]),
        price=number(deal["price"]),
        commission=number(deal["commission"]),
        swap=number(deal["swap"]),
        fee=number(deal["fee"]),
        profit=number(deal["profit"]),
        currency=currency,
        magic=deal["magic"],
        comment=deal["comment"],
        time=time.utc(deal["time_msc"]),
    )


def end_of(
    order: dict[str, Any], attempt: int, *, asked: Decimal, by_user: bool
) -> BrokerCancelled | BrokerExpired | BrokerRejected | None:
    """Return what a history order's final state says about its ticket; None: done with all of its volume.

    Args:
        order: The order, as history shows it.
        attempt: Ours that led to it.
        asked: The volume that was asked for; a broker that made it less does not fill the rest.
        by_user: Whether we were asked to cancel it.
    """
    ticket, state = order["ticket"], order["state"]
    if state == STATE_REJECTED:
        return BrokerRejected(
            attempt=attempt,
            retcode=REJECTED_LATER,
            retcode_name="reject",
            message="rejected after it was placed",
            ticket=ticket,
        )
    if state == STATE_EXPIRED:
        return BrokerExpired(ticket=ticket)
    if state == STATE_CANCELED:
        return BrokerCancelled(ticket=ticket, reason="user" if by_user else _cancel_reason(order))
    done = state in (STATE_FILLED, STATE_PARTIAL)
    if done and (order["volume_current"] > 0 or number(order["volume_initial"]) < asked):
        return BrokerCancelled(ticket=ticket, reason=_cancel_reason(order) if order["volume_current"] > 0 else "broker")
    return None


def _cancel_reason(order: dict[str, Any]) -> CancelReason:
    at_once, filling = order["type"] in MARKET_TYPES, order["type_filling"]
    if filling == FILLING_IOC and (at_once or order["volume_current"] < order["volume_initial"]):
        return "ioc_remainder"  # a pending order's too, once its price came
    if filling == FILLING_FOK and at_once:
        return "fok"
    return "broker"


def net_volume(deals: Iterable[dict[str, Any]]) -> Decimal:
    """Return the lots that a position's deals leave open: bought minus sold."""
    signs = {0: 1, 1: -1}
    return sum((signs.get(deal["type"], 0) * number(deal["volume"]) for deal in deals), Decimal(0))


def agrees(position: dict[str, Any], deals: Sequence[dict[str, Any]]) -> bool:
    """Return whether a position is what its deals leave open."""
    lots = number(position["volume"])
    return net_volume(deals) == (lots if position["type"] == 0 else -lots)


def is_stale(position: dict[str, Any], deals: Sequence[dict[str, Any]]) -> bool:
    """Return whether a deal of the position is newer than what the terminal shows of it, and not in it.

    The tables lag one behind the other (reference mt5 §2.5): a position that was closed may be shown for a while.
    """
    last = max((deal["time_msc"] for deal in deals), default=0)
    return not agrees(position, deals) and position["time_update_msc"] < last
