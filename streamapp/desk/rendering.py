"""Rows, revisions and facts as the messages that the world reads; web uses it too."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.domain.fold import deal_of, facts_digest, is_foreign
from streamapp.domain.identifiers import error_id_for, fill_id_for, magic_of
from streamapp.domain.orders import EXACT, Deal, OrderState, Owner
from streamapp.domain.slippage import Cost, Costs, expected_price, order_slippage, slippage
from streamapp.domain.status import (
    average_price_of,
    detail_of,
    reason_of,
    status_of,
)
from streamapp.domain.vocabulary import FINAL_STATUSES, decimal_text
from streamapp.messages import order as wire
from streamapp.messages.account import AccountOperationMessage
from streamapp.messages.error import ENDING, ErrorKind, ErrorMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from tables.orders import OrderRow
from tables.positions import PositionRevision, PositionRow


class Revision(NamedTuple):
    """What one fact made of an order. ``before`` is the order without it, None if nothing was published before."""

    rev: int
    fact_id: str
    before: OrderState | None
    state: OrderState


def current_order(row: OrderRow) -> OrderMessage | None:
    """Return order/1 of the newest revision of a row, None before its OrderCreated."""
    state = row.state
    if state.created is None:
        return None
    return order_message(row, Revision(len(state.facts), next(reversed(state.facts)), None, state))


def order_message(order: OrderRow, revision: Revision) -> OrderMessage:
    """Return order/1 of a revision; ``causation_id`` is its fact, ``updated_at`` the latest time of any fact so far."""
    state = revision.state
    created, parameters = state.created, state.parameters
    assert created is not None
    assert parameters is not None
    assert state.created_at is not None
    assert state.latest_at is not None
    filled, fills, tickets = state.filled, state.fills, state.accepted_tickets
    expected = expected_price(state)
    claimed = [attempt.claimed_at for attempt in state.attempts.values() if attempt.claimed_at is not None]
    return OrderMessage(
        **{name: getattr(parameters, name) for name in type(parameters).model_fields},
        order_id=order.order_id,
        signal_id=created.signal_id,
        account=order.account,
        strategy=created.strategy,
        intent=created.intent,
        status=status_of(state),
        detail=detail_of(state),
        reason=reason_of(state),
        rev=revision.rev,
        filled_volume=filled,
        remaining_volume=_remaining(state, parameters.volume, filled),
        average_price=average_price_of(state),
        expected_price=None if expected is None else expected[0],
        expected_price_source=None if expected is None else expected[1],
        quote=None if state.started is None else _quote(state.started),
        slippage=_wire_slippage(order_slippage(state)),
        ticket=tickets[0] if tickets else None,
        position_id=next((fill.position_id for fill in fills), created.position_id),
        magic=magic_of(order.order_id),
        attempt=state.last_attempt,
        executor=created.executor,
        not_after=created.not_after,
        signal_at=created.signal_at,
        created_at=state.created_at,
        submitted_at=state.started.sent_at if state.started is not None else min(claimed, default=None),
        updated_at=state.latest_at,
        causation_id=revision.fact_id,
        facts_digest=facts_digest(state),
    )


def is_news(revision: Revision, fact: Fact) -> bool:
    """Return whether a revision goes to NATS: it changed status, filled volume, parameters, or the price by correction.

    Without the last one, readers would keep an average price that never was.
    """
    before, state = revision.before, revision.state
    return (
        before is None
        or status_of(before) != status_of(state)
        or before.filled != state.filled
        or (before.parameters is not state.parameters and before.parameters != state.parameters)
        or (isinstance(fact.body, facts.FillCorrected) and average_price_of(before) != average_price_of(state))
    )


def known_deal(fact: Fact, order: OrderState | None) -> facts.Filled | None:
    """Return the deal that a fact is about, as far as it or its order shows it; None for one that was never seen."""
    number, said = deal_of(fact)
    known = Deal() if order is None else order.deals.get(number, Deal())
    return said.filled or known.filled or (fact.body.was if isinstance(fact.body, facts.FillBusted) else None)


def fill_message(account: str, fact: Fact, order: OrderState | None, opening: Owner | None) -> FillMessage | None:
    """Return fill/1 of a deal, its correction or its bust; None for a bust of a deal that was never seen.

    Args:
        account: The account.
        fact: Filled, FillCorrected or FillBusted.
        order: The order it belongs to, with the fact in it; None for a deal that is no order's of ours.
        opening: Whose order opened the position that the deal closes; None where it closes none of ours.
    """
    number, said = deal_of(fact)
    filled = known_deal(fact, order)
    if filled is None:
        return None
    created = None if order is None else order.created
    expected = None if order is None else expected_price(order)
    return FillMessage.model_construct(
        fill_id=fill_id_for(account, number),
        revision=max(said.revision, said.busted),
        order_id=fact.order_id,
        signal_id=None if created is None else created.signal_id,
        opening_order_id=None if opening is None else opening.order_id,
        opening_signal_id=None if opening is None else opening.signal_id,
        account=account,
        strategy=next((one.strategy for one in (created, opening) if one is not None and one.strategy), None),
        **{name: getattr(filled, name) for name in _OF_THE_DEAL},
        at=filled.time,
        expected_price=None if expected is None else expected[0],
        slippage=None if order is None or fact.order_id is None else _wire_slippage(slippage(order, [filled])),
        executor=None if created is None else created.executor,
        busted=said.filled is None,
    )


def account_operation_message(account: str, operation: facts.AccountOperation) -> AccountOperationMessage:
    """Return account_operation/1 of money that was booked without a trade."""
    return AccountOperationMessage.model_construct(account=account, **dict(operation))


def error_message(order: OrderRow, revision: Revision, fact: Fact) -> ErrorMessage | None:
    """Return error/1 of a revision whose fact is bad news, otherwise None; ``final``: the order is over by it."""
    kind, attempt, suffix = _bad_news(revision.state, fact)
    if kind is None:
        return None
    state, body = revision.state, fact.body
    parameters = state.parameters
    assert parameters is not None
    assert state.created is not None
    return ErrorMessage.model_construct(
        error_id=error_id_for(order.order_id, attempt, f"{kind}:{suffix}" if suffix else kind),
        order_id=order.order_id,
        account=order.account,
        symbol=parameters.symbol,
        kind=kind,
        retcode=body.retcode if isinstance(body, facts.BrokerRejected) else None,
        retcode_name=body.retcode_name if isinstance(body, facts.BrokerRejected) else None,
        message=_text(body),
        attempt=attempt,
        final=kind in ENDING and status_of(state) in FINAL_STATUSES,
        at=fact.at,
        executor=state.created.executor,
    )


def position_message(row: PositionRow, revision: PositionRevision) -> PositionMessage | None:
    """Return position/1 after one deal, ``at`` the latest deal's time; None while no trade of it was seen."""
    state, opened = revision.state, revision.state.opened_by
    if state.at is None:
        return None
    return PositionMessage.model_construct(
        account=row.account,
        strategy=None if opened is None else opened.strategy,
        opening_order_id=None if opened is None else opened.order_id,
        opening_signal_id=None if opened is None else opened.signal_id,
        symbol=state.symbol,
        position_id=row.position_id,
        side=state.side,
        volume=state.volume,
        average_price=state.average_price,
        realized_profit=state.realized_profit,
        currency=state.currency,
        rev=revision.rev,
        opened_at=state.opened_at,
        at=state.at,
    )


def is_published_by_us(fact: Fact) -> bool:
    """Return whether a fill or an error is ours to publish: a foreign connector has said its own on NATS itself."""
    return not is_foreign(fact)


_OF_THE_DEAL = (
    "symbol",
    "side",
    "entry",
    "reason",
    "deal",
    "ticket",
    "position_id",
    "magic",
    "volume",
    "price",
    "commission",
    "swap",
    "fee",
    "profit",
    "currency",
)


def _remaining(state: OrderState, volume: Decimal, filled: Decimal) -> Decimal:
    # FIX: OrderQty = CumQty + LeavesQty while live, LeavesQty = 0 when dead.
    if status_of(state) in FINAL_STATUSES:
        return Decimal(0)
    return max(Decimal(0), EXACT.subtract(volume, filled))


def _quote(market: facts.SubmitStarted) -> wire.MarketQuote:
    return wire.MarketQuote.model_construct(bid=market.bid, ask=market.ask, at=market.quote_at)


def _wire_slippage(costs: Costs | None) -> wire.Slippage | None:
    if costs is None:
        return None
    return wire.Slippage.model_construct(
        expected=_wire_cost(costs.expected), touch=_wire_cost(costs.touch), currency=costs.currency
    )


def _wire_cost(cost: Cost | None) -> wire.OrderCost | None:
    return None if cost is None else wire.OrderCost.model_construct(points=cost.points, bps=cost.bps, money=cost.money)


def _bad_news(state: OrderState, fact: Fact) -> tuple[ErrorKind | None, int, str]:  # noqa: PLR0911  one line for each fact
    """Return the kind of error a fact is, its attempt, and what tells it from others of that kind and attempt."""
    match fact.body:
        case facts.BrokerRejected(attempt=attempt):
            return "rejected", attempt, ""
        case facts.SubmitRefused(attempt=attempt, reason="not_connected" | "cancelled" as reason):
            return reason, attempt, ""
        case facts.SubmitRefused(attempt=attempt):
            return "invalid", attempt, ""
        case facts.ProvenAbsent(attempt=attempt):
            return "absent", attempt, ""
        case facts.OutcomeUnknown(attempt=attempt, why=why):
            return "in_doubt", attempt, why
        case facts.BrokerCancelled(ticket=ticket):
            return "cancelled", state.last_attempt, str(ticket)
        case facts.BrokerExpired(ticket=ticket):
            return "expired", state.last_attempt, str(ticket)
        case facts.Unprotected(ticket=ticket):
            return "unprotected", state.last_attempt, str(ticket)
        case facts.BrokerAccepted(ticket=ticket) if state.is_duplicate:
            return "duplicate", state.last_attempt, str(ticket)
        case _:
            return None, 0, ""


def _text(body: facts.Body) -> str:  # noqa: PLR0911  one line for each fact
    match body:
        case facts.BrokerRejected() | facts.OutcomeUnknown():
            word = body.retcode_name if isinstance(body, facts.BrokerRejected) else body.why
            return body.message or word
        case facts.SubmitRefused():
            return f"{body.reason}: {body.message}" if body.message else body.reason
        case facts.ProvenAbsent():
            return "looked for through the whole settle window and not found at the broker"
        case facts.BrokerCancelled():
            return f"ticket {body.ticket}: {body.reason}"
        case facts.BrokerExpired():
            return f"ticket {body.ticket}: its time is over"
        case facts.Unprotected():
            asked, found = (
                _levels(body.stop_loss, body.take_profit),
                _levels(body.found_stop_loss, body.found_take_profit),
            )
            return f"ticket {body.ticket}, position {body.position_id}: expected {asked}, the broker shows {found}"
        case facts.BrokerAccepted():
            return f"ticket {body.ticket} is one more than this order should have"
        case _:
            return ""


def _levels(stop_loss: Decimal | None, take_profit: Decimal | None) -> str:
    said = ((name, value) for name, value in (("stop loss", stop_loss), ("take profit", take_profit)) if value)
    return " and ".join(f"{name} {decimal_text(value)}" for name, value in said) or "no level"
