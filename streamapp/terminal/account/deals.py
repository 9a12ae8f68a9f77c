"""The broker's deals and orders in our words: Decimal, UTC, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from streamapp.domain.facts import (
    AccountOperation,
    BrokerCancelled,
    BrokerExpired,
    BrokerRejected,
    CancelReason,
    Filled,
    Unprotected,
)
from streamapp.domain.vocabulary import ONLY_CLOSING
from streamapp.mt5 import constants as mt5
from streamapp.mt5.enums import ACCOUNT_OPERATIONS, ENTRIES, MARKET_ORDERS, REASONS, SIDES
from streamapp.mt5.retcodes import retcode_of
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.journal.orders import Expected
from streamapp.terminal.pipe.structs import TradeDeal, TradeOrder, TradePosition, number

CLOSING = frozenset(number for number, entry in ENTRIES.items() if entry in ONLY_CLOSING)


def filled(deal: TradeDeal, currency: str, time: ServerTime) -> Filled:
    """Return a deal of the module's, type buy or sell, as the body of its fact."""
    return Filled(
        deal=deal.ticket,
        ticket=deal.order,
        position_id=deal.position_id,
        symbol=deal.symbol,
        side=SIDES[deal.type],
        # What a deal does to a position is told by its side: no unknown number may hold up a volume that was executed.
        entry=ENTRIES.get(deal.entry, "in"),
        reason=REASONS.get(deal.reason, "other"),
        volume=number(deal.volume),
        price=number(deal.price),
        commission=number(deal.commission),
        swap=number(deal.swap),
        fee=number(deal.fee),
        profit=number(deal.profit),
        currency=currency,
        magic=deal.magic,
        comment=deal.comment,
        time=time.utc(deal.time_msc),
    )


def account_operation(deal: TradeDeal, currency: str, time: ServerTime) -> AccountOperation:
    """Return a deal of the module's that does not trade as the body of its fact; a type that nobody knows is other."""
    return AccountOperation(
        deal=deal.ticket,
        type=ACCOUNT_OPERATIONS.get(deal.type, "other"),
        # The amount stands in the profit; what a broker books beside it is money all the same.
        amount=sum(map(number, (deal.profit, deal.commission, deal.swap, deal.fee)), Decimal(0)),
        currency=currency,
        position_id=deal.position_id or None,
        symbol=deal.symbol or None,
        ticket=deal.order or None,
        comment=deal.comment,
        at=time.utc(deal.time_msc),
    )


def end_of(
    order: TradeOrder, attempt: int, *, asked: Decimal, by_user: bool
) -> BrokerCancelled | BrokerExpired | BrokerRejected | None:
    """Return what a history order's final state says about its ticket; None: done with all of its volume.

    Args:
        order: The order, as history shows it.
        attempt: Ours that led to it.
        asked: The volume that was asked for; a broker that made it less does not fill the rest.
        by_user: Whether we were asked to cancel it.
    """
    ticket, state = order.ticket, order.state
    if state == mt5.ORDER_STATE_REJECTED:
        # History has no retcode: a request that was placed and then refused is the plain rejection.
        retcode = mt5.TRADE_RETCODE_REJECT
        return BrokerRejected(
            attempt=attempt,
            retcode=retcode,
            retcode_name=retcode_of(retcode).name,
            message="rejected after it was placed",
            ticket=ticket,
        )
    if state == mt5.ORDER_STATE_EXPIRED:
        return BrokerExpired(ticket=ticket)
    if state == mt5.ORDER_STATE_CANCELED:
        return BrokerCancelled(ticket=ticket, reason="user" if by_user else _cancel_reason(order))
    done = state in (mt5.ORDER_STATE_FILLED, mt5.ORDER_STATE_PARTIAL)
    if done and (order.volume_current > 0 or number(order.volume_initial) < asked):
        return BrokerCancelled(ticket=ticket, reason=_cancel_reason(order) if order.volume_current > 0 else "broker")
    return None


def _cancel_reason(order: TradeOrder) -> CancelReason:
    at_once, filling = order.type in MARKET_ORDERS, order.type_filling
    if filling == mt5.ORDER_FILLING_IOC and (at_once or order.volume_current < order.volume_initial):
        return "ioc_remainder"  # a pending order's too, once its price came
    if filling == mt5.ORDER_FILLING_FOK and at_once:
        return "fok"
    return "broker"


def unprotected(expected: Expected, position: TradePosition, *, hedging: bool) -> Unprotected | None:
    """Return that a position does not have the levels that its order asked for; None: it has.

    Where a symbol has one position, another order may have brought other levels by now: there, only that one is missing
    says something.
    """
    asked = expected.stop_loss, expected.take_profit
    found = number(position.sl), number(position.tp)
    if all(have == wish or (have and not hedging) or not wish for wish, have in zip(asked, found, strict=True)):
        return None
    return Unprotected(
        ticket=expected.ticket,
        position_id=expected.position_id,
        stop_loss=asked[0] or None,
        take_profit=asked[1] or None,
        found_stop_loss=found[0] or None,
        found_take_profit=found[1] or None,
    )


def is_over(changes: Sequence[tuple[Decimal, bool]]) -> bool:
    """Return whether a position's deals show its end: it is proven by them alone, absence proves nothing.

    ``changes``: of each deal, oldest first, the lots, of sells negative, and whether it closes.
    """
    left = sum((lots for lots, _ in changes), Decimal(0))
    last, closes = next((change for change in reversed(changes) if change[0]), (left, False))
    # One that closed more than the deals say was open closed all of it: a split had changed it without a deal.
    return bool(changes) and (not left or (closes and (left > 0) == (last > 0)))


def is_closed(deals: Iterable[TradeDeal]) -> bool:
    """Return whether the deals of a position show its end."""
    oldest_first = sorted(deals, key=lambda deal: (deal.time_msc, deal.ticket))
    return is_over([(net_volume([deal]), deal.entry in CLOSING) for deal in oldest_first])


def net_volume(deals: Iterable[TradeDeal]) -> Decimal:
    """Return the lots that a position's deals leave open: bought minus sold."""
    signs = {mt5.DEAL_TYPE_BUY: 1, mt5.DEAL_TYPE_SELL: -1}
    return sum((signs.get(deal.type, 0) * number(deal.volume) for deal in deals), Decimal(0))


def agrees(position: TradePosition, deals: Sequence[TradeDeal]) -> bool:
    """Return whether a position is what its deals leave open."""
    return holds(position, net_volume(deals))


def holds(position: TradePosition, lots: Decimal) -> bool:
    """Return whether a position is of so many lots, of sells negative."""
    return number(position.volume) == (lots if position.type == mt5.POSITION_TYPE_BUY else -lots)


def is_stale(position: TradePosition, deals: Sequence[TradeDeal]) -> bool:
    """Return whether a deal of the position is newer than what the terminal shows of it, and not in it.

    The tables lag one behind the other (reference mt5 §2.5): a position that was closed may be shown for a while.
    """
    last = max((deal.time_msc for deal in deals), default=0)
    return not agrees(position, deals) and position.time_update_msc < last
