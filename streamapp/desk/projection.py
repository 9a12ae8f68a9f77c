"""Facts into rows: the order and the position that a fact belongs to, and the messages that it makes.

Adding a fact is set union by its id (:mod:`streamapp.domain.fold`), so one that is known changes nothing and says
nothing: what an earlier commit said is the outbox's business.
"""

from __future__ import annotations

from collections.abc import Iterator

from streamapp import subjects
from streamapp.desk.rendering import (
    Revision,
    account_operation_message,
    error_message,
    fill_message,
    is_news,
    is_published_by_us,
    known_deal,
    order_message,
    position_message,
)
from streamapp.desk.state import Draft
from streamapp.domain import facts
from streamapp.domain.anomalies import is_allowed
from streamapp.domain.facts import Fact
from streamapp.domain.fold import apply, deal_of
from streamapp.domain.orders import Deal, OrderState, Owner, replaced
from streamapp.domain.status import status_of
from streamapp.messages.fill import FillMessage
from tables.orders import OrderRow
from tables.positions import DealRecord, PositionRow

DEALS = (facts.Filled, facts.FillCorrected, facts.FillBusted)
BOOKED = (*DEALS, facts.AccountOperation)
"""What positions are made of, and what may be no order's."""
MOST_WAITING = 200
"""Facts that wait whole for OrderCreated, at most: beyond it they are only counted, or the row would not fit into a
commit. Our own OrderCreated is always first; so many come only for an order that will never be known here."""
_STEPS_BACK = {"FillBusted", "FillCorrected", "Modified"}


def add_fact(draft: Draft, fact: Fact, trace: str | None = None, *, journal_epoch: str | None = None) -> None:
    """Add a fact to the rows of its order and its position, and what it makes to the commit's words.

    Args:
        draft: The commit.
        fact: The fact; nothing happens if its order has it already, but that a second content is noted.
        trace: The traceparent of what caused it.
        journal_epoch: The epoch of the journal that reported it, None for the desk's own and a foreign connector's.
    """
    state: OrderState | None = None
    if fact.order_id is not None:
        row = draft.order(fact.order_id) or OrderRow(open=True, order_id=fact.order_id, account=fact.account)
        state = _add_to_order(draft, row, fact, trace, journal_epoch)
        if state is None:
            return
        if isinstance(fact.body, facts.OrderCreated) and state.deals:
            _own_deals(draft, fact, state)
    elif isinstance(fact.body, BOOKED):
        if not _is_new_deal(draft, fact):
            return
        _publish_booked(draft, fact, trace)
    moved = _add_to_positions(draft, fact, state, trace) if isinstance(fact.body, BOOKED) else False
    if state is not None or moved:
        draft.facts.append(fact)
        draft.counts["facts", fact.fact] += 1


def _add_to_order(
    draft: Draft, row: OrderRow, fact: Fact, trace: str | None, journal_epoch: str | None
) -> OrderState | None:
    """Return the order just after ``fact``, None if it was known."""
    before = row.state
    after = apply(before, fact)
    changes = {"journal_epoch": journal_epoch} if journal_epoch and journal_epoch != row.journal_epoch else {}
    if fact.fact_id in before.facts:
        if after is not before or changes:
            _put(draft, row, row.changed(state=after, **changes))
        if after is not before:
            draft.facts.append(fact)  # a second content under one id: the archive shows both, the first one stands
        return None
    if isinstance(fact.body, facts.SubmitClaimed):
        changes["claim_epoch"] = fact.body.epoch
    if after.created is None:
        waiting = (*row.waiting, fact) if len(row.waiting) < MOST_WAITING else row.waiting
        _put(draft, row, row.changed(state=after, waiting=waiting, **changes))
        return after
    new = row.changed(state=after, waiting=(), **changes)
    _put(draft, row, new)
    for revision, cause in _revisions(row, fact, after):
        _publish_revision(draft, new, revision, cause, trace)
    return after


def _revisions(row: OrderRow, fact: Fact, after: OrderState) -> Iterator[tuple[Revision, Fact]]:
    """Return the revision that a fact makes; with OrderCreated first those of the facts that waited for it."""
    before, rev = row.state, len(after.facts)
    if before.created is None and row.waiting:
        state = apply(OrderState(), fact)
        places = {fact_id: place for place, fact_id in enumerate(after.facts, start=1)}
        for waited in row.waiting:
            earlier, state = state, apply(state, waited)
            number = places[waited.fact_id]
            yield Revision(number, waited.fact_id, earlier if number > 1 else None, state), waited
        before = state
    yield Revision(rev, fact.fact_id, before if rev > 1 else None, after), fact


def _put(draft: Draft, before: OrderRow, after: OrderRow) -> None:
    draft.put_order(after)
    for anomaly in sorted(after.anomalies - before.anomalies):
        text = f"order {after.order_id} of account {after.account}: {after.status}"
        draft.alarm(anomaly, text, after.order_id)


def _publish_revision(draft: Draft, row: OrderRow, revision: Revision, fact: Fact, trace: str | None) -> None:
    was = None if revision.before is None else status_of(revision.before)
    now = status_of(revision.state)
    if not is_allowed(was, now, busted=fact.fact in _STEPS_BACK):
        text = f"order {row.order_id} rev {revision.rev}: {was} to {now} by {fact.fact_id}"
        draft.alarm("unexpected_change", text, row.order_id)
    if now != was:
        draft.counts["orders", now] += 1
    if draft.policy.owns_orders:
        message = order_message(row, revision)
        draft.publish(
            message,
            subject=subjects.order_status(message.status, message.symbol) if is_news(revision, fact) else None,
            id_parts=("order", subjects.token(row.order_id), message.rev),
            trace=trace,
            # What asks somebody else's connector for an execution is not said after its time.
            not_after=message.not_after if not draft.policy.executes and now == "submitted" else None,
        )
    ours = is_published_by_us(fact)
    if isinstance(fact.body, DEALS):
        fill = fill_message(row.account, fact, revision.state, _opening_of(draft, fact, revision.state))
        if fill is not None:
            _publish_fill(draft, fill, trace, ours=ours)
        return
    if draft.policy.owns_orders and isinstance(fact.body, facts.BrokerCancelled | facts.BrokerExpired):
        return  # orders.cancelled says it
    error = error_message(row, revision, fact)
    if error is not None:
        parts = ("error", *map(subjects.token, error.error_id.split(":")))
        draft.publish(error, subject=subjects.error(error.symbol) if ours else None, id_parts=parts, trace=trace)


def _publish_booked(draft: Draft, fact: Fact, trace: str | None) -> None:
    """Publish what is no order's: a deal, or money that was booked without a trade."""
    if isinstance(fact.body, facts.AccountOperation):
        operation = account_operation_message(fact.account, fact.body)
        parts = ("operation", subjects.token(fact.account), operation.deal, operation.revision)
        draft.publish(operation, subject=subjects.account_operation(fact.account), id_parts=parts, trace=trace)
        return
    fill = fill_message(fact.account, fact, None, _opening_of(draft, fact, None))
    if fill is not None:
        _publish_fill(draft, fill, trace, ours=is_published_by_us(fact))


def _publish_fill(draft: Draft, fill: FillMessage, trace: str | None, *, ours: bool) -> None:
    parts = ("fill", subjects.token(fill.account), fill.deal, fill.revision)
    draft.publish(fill, subject=subjects.fill(fill.symbol) if ours else None, id_parts=parts, trace=trace)


# --- positions


def _add_to_positions(draft: Draft, fact: Fact, state: OrderState | None, trace: str | None) -> bool:
    """Book what a fact about a deal or a charge says; return whether anything of it was new."""
    position_id, records = _records_of(fact, state)
    if position_id is None:
        return state is None
    row = draft.position(position_id) or PositionRow(account=fact.account, position_id=position_id)
    new = [record for record in records if record.fact_id not in row.known]
    if not new:
        return False
    after = row.extended(new)
    draft.put_position(after)
    if draft.policy.owns_orders:
        for revision in after.revisions({record.fact_id for record in new}):
            message = position_message(after, revision)
            if message is not None:
                parts = ("position", subjects.token(message.account), message.position_id, message.rev)
                draft.publish(message, subject=subjects.position(message.symbol), id_parts=parts, trace=trace)
    return True


def _is_new_deal(draft: Draft, fact: Fact) -> bool:
    """Return whether its position lacks what a fact of no order's says; without a position it is new."""
    position_id, records = _records_of(fact, None)
    row = None if position_id is None else draft.position(position_id)
    return row is None or any(record.fact_id not in row.known for record in records)


def _records_of(fact: Fact, state: OrderState | None) -> tuple[int | None, list[DealRecord]]:
    """Return the position of a fact's deal and what it says of it: the deal, and a bust that came before the deal."""
    # Trades and operations share the broker's numbers, so a deal's is enough.
    name = fact.fact_id.removeprefix(f"{fact.account}:").partition(":")[2]
    if isinstance(fact.body, facts.AccountOperation):
        operation = fact.body
        return operation.position_id, [DealRecord(fact_id=name, number=operation.deal, operation=operation)]
    number, deal = deal_of(fact)
    known = Deal() if state is None else state.deals.get(number, Deal())
    filled = known_deal(fact, state)
    if filled is None or filled.position_id == 0:
        return None, []
    records = [DealRecord(fact_id=name, number=number, deal=replaced(deal, owner=_owner_of(fact, state)))]
    if known.busted >= 0 and deal.busted < 0:
        taken_back = Deal(busted=known.busted)
        records.append(DealRecord(fact_id=f"{number}:busted:{known.busted}", number=number, deal=taken_back))
    return filled.position_id, records


def _opening_of(draft: Draft, fact: Fact, state: OrderState | None) -> Owner | None:
    """Return whose order opened the position that a fact's deal closes; None where it closes none of ours."""
    filled = known_deal(fact, state)
    row = None if filled is None else draft.position(filled.position_id)
    if filled is None or row is None:
        return None
    before = row.before(filled)
    return None if before.side in {None, filled.side} else before.opened_by


def _own_deals(draft: Draft, fact: Fact, state: OrderState) -> None:
    """Name the owner of deals that came before their order's OrderCreated."""
    owner = _owner_of(fact, state)
    assert owner is not None
    places: dict[int, set[int]] = {}
    for number, deal in state.deals.items():
        if deal.filled is not None:
            places.setdefault(deal.filled.position_id, set()).add(number)
    for position_id, numbers in places.items():
        row = draft.position(position_id)
        if row is not None:
            draft.put_position(row.owned(numbers, owner))


def _owner_of(fact: Fact, state: OrderState | None) -> Owner | None:
    if fact.order_id is None or state is None or state.created is None:
        return None
    return Owner(fact.order_id, state.created.signal_id, state.created.strategy)
