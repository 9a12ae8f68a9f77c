"""The judge: pure comparison of the witnesses. An empty list means that they all tell the same story."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from decimal import Decimal
from operator import attrgetter
from typing import Any

from streamapp import subjects
from streamapp.audit.evidence import Evidence, OrderView, PositionView, SentView, View, Witness
from streamapp.domain.vocabulary import FINAL_STATUSES

CLOSING = "close:"
"""Begins the signal_id of an order that closes a position."""


def disagreements(evidence: Evidence) -> list[str]:
    """Return one sentence for each difference between the witnesses.

    The archive is the truth that the others are projections of, and the broker's ledger is the truth that the archive
    must match. What was sent must have been answered, rightly: a signal by its decision, a broken message by a dead
    letter.
    """
    found = [
        *evidence.archive.faults,
        *_orders_differ(evidence.archive, evidence.tables),
        *_orders_differ(evidence.archive, evidence.warehouse),
        # A revision that changed neither status nor volume is not published, so the newest one on NATS may be an older
        # one.
        *_orders_differ(evidence.archive, evidence.nats, but=("detail", "rev", "digest")),
        *_differ("fill", evidence.archive, evidence.warehouse, attrgetter("fills")),
        *_differ("fill", evidence.archive, evidence.nats, attrgetter("fills")),
        *_differ("operation", evidence.archive, evidence.warehouse, attrgetter("operations")),
        *_differ("operation", evidence.archive, evidence.nats, attrgetter("operations")),
        *_differ("position", evidence.archive, evidence.tables, attrgetter("positions")),
        *_differ("position", evidence.archive, evidence.warehouse, attrgetter("positions")),
        *_differ("position", evidence.archive, evidence.nats, attrgetter("positions")),
        *_decisions_differ(evidence),
        *_answers_differ(evidence),
    ]
    if evidence.ledger is not None:
        found += [
            *_ledger_orders_differ(evidence),
            *_ledger_deals_differ(evidence),
            *_ledger_positions_differ(evidence),
            *_differ(
                "operation",
                Witness("ledger", operations=evidence.ledger_operations),
                evidence.archive,
                attrgetter("operations"),
            ),
        ]
    return found


def unsettled(evidence: Evidence) -> list[OrderView]:
    """Return the orders without a final status; those in doubt among them are the open doubts."""
    return [order for order in evidence.archive.orders.values() if order.status not in FINAL_STATUSES]


def doubts(evidence: Evidence) -> list[OrderView]:
    """Return the orders of which nobody can say yet whether they were executed."""
    return [order for order in unsettled(evidence) if order.detail == "in_doubt"]


def difference(ours: View, theirs: View, *, but: Collection[str] = ()) -> str | None:
    """Return in which fields two views of one thing differ and how, ours first; None if they are the same.

    Args:
        ours: One view.
        theirs: Another of the same kind.
        but: Fields in which they may differ.
    """
    differ = [
        f"{each.name} {getattr(ours, each.name)} / {getattr(theirs, each.name)}"
        for each in fields(ours)
        if each.name not in but and getattr(ours, each.name) != getattr(theirs, each.name)
    ]
    return ", ".join(differ) or None


def _orders_differ(truth: Witness, other: Witness, *, but: Collection[str] = ()) -> Iterator[str]:
    for order_id in sorted(truth.orders.keys() | other.orders.keys()):
        ours, theirs = truth.orders.get(order_id), other.orders.get(order_id)
        if ours is None or theirs is None:
            knows, knows_not = (other, truth) if ours is None else (truth, other)
            yield f"order {order_id}: known to {knows.name}, not to {knows_not.name}"
        elif (found := difference(ours, theirs, but=but)) is not None:
            yield f"order {order_id}: {truth.name} and {other.name} differ: {found}"


def _differ(what: str, truth: Witness, other: Witness, known: Callable[[Witness], dict[Any, Any]]) -> Iterator[str]:
    for key in sorted(known(truth).keys() | known(other).keys()):
        ours, theirs = known(truth).get(key), known(other).get(key)
        if ours != theirs:
            yield f"{what} {key}: {truth.name} {ours}, {other.name} {theirs}"


def _decisions_differ(evidence: Evidence) -> Iterator[str]:
    # An order that closes a position by itself is somebody's request to the terminal, and no signal's.
    of_signals = {
        key: order for key, order in evidence.archive.orders.items() if not order.signal_id.startswith(CLOSING)
    }
    decided = {(each.account, each.signal_id) for each in evidence.decisions if each.order_id is not None}
    accepted = {each.order_id for each in evidence.decisions if each.decision == "accepted"} - {None}
    for order_id in sorted(accepted - of_signals.keys(), key=str):
        yield f"order {order_id}: there is a decision but no order"
    for order_id, order in sorted(of_signals.items()):
        if (order.account, order.signal_id) not in decided:
            yield f"order {order_id}: there is an order but no decision"
    # A duplicate is answered with what stands: it has the reason of the decision that it repeats.
    refused = sum(decision.reason is not None for decision in evidence.decisions)
    for answer, count, told in (
        ("accepted", len(evidence.decisions) - refused, evidence.accepted),
        ("refused", refused, evidence.refused),
    ):
        if count != told:
            yield f"signals {answer}: {count} decided, {told} answered on NATS"


def _answers_differ(evidence: Evidence) -> Iterator[str]:
    decisions = {decision.stream_seq: decision for decision in evidence.decisions}
    dead = {
        letter.stream_seq
        for letter in evidence.dead_letters
        if letter.subject.startswith(f"{subjects.SIGNALS_APPROVED}.")
    }
    for sent in evidence.sent:
        decision = decisions.get(sent.stream_seq)
        if decision is None:
            answer, reason = ("dead_letter" if sent.stream_seq in dead else "no answer"), None
        else:
            answer, reason = decision.decision, decision.reason
        if answer not in sent.answers:
            expected = " or ".join(sorted(sent.answers))
            yield f"{_name_of(sent)}: expected {expected}, got {answer}{f' ({reason})' if reason else ''}"
        elif decision is not None and decision.signal_id != sent.signal_id:
            yield f"{_name_of(sent)}: the decision is on {decision.signal_id}"
        elif answer == "accepted" and decision is not None and decision.order_id is not None:
            yield from _end_differs(sent, evidence.archive.orders.get(decision.order_id))


def _end_differs(sent: SentView, order: OrderView | None) -> Iterator[str]:
    if order is None or order.status not in FINAL_STATUSES:
        return  # an accepted signal without its order is found by _decisions_differ, an open order by unsettled
    if order.signal_id != sent.signal_id:
        yield f"{_name_of(sent)}: its order {order.order_id} is of {order.signal_id}"
    elif order.status not in sent.ends:
        expected = " or ".join(sorted(sent.ends))
        yield f"{_name_of(sent)}: expected its order to be {expected}, got {order.status}/{order.detail}"


def _name_of(sent: SentView) -> str:
    return f"{sent.kind} signal {sent.signal_id or '-'} (stream sequence {sent.stream_seq})"


def _ledger_orders_differ(evidence: Evidence) -> Iterator[str]:
    assert evidence.ledger is not None
    ours = {order.magic: order for order in evidence.archive.orders.values()}
    at_broker = Counter(
        e.magic for e in evidence.ledger if e.kind == "order" and e.reason == "expert" and e.magic in ours
    )
    for magic, count in at_broker.items():
        if count > 1:
            yield f"order {ours[magic].order_id}: {count} orders at the broker, at most 1 may ever be"
    for order in evidence.archive.orders.values():
        if order.filled_volume and not at_broker[order.magic]:
            yield f"order {order.order_id}: filled {order.filled_volume}, but no order at the broker"
        if order.status == "failed" and at_broker[order.magic]:
            yield f"order {order.order_id}: failed/{order.detail}, but there is an order at the broker"
    # The close of a whole position is no order of ours but a request to the terminal, and can't happen twice.
    strangers = {e.magic for e in evidence.ledger if e.kind == "order" and e.reason == "expert" and not e.closes}
    strangers -= ours.keys()
    for magic in sorted(strangers):
        yield f"the broker has an order with magic {magic}, that no order of ours has"


def _ledger_deals_differ(evidence: Evidence) -> Iterator[str]:
    assert evidence.ledger is not None
    deals = evidence.ledger_deals
    for fill_id in sorted(deals.keys() ^ evidence.archive.fills.keys()):
        where = "the ledger only: executed volume is missing" if fill_id in deals else "the archive only"
        yield f"deal {fill_id}: in {where}"
    # By its order ticket and not by its magic: the closing deal of a stop-loss carries the magic of the position it
    # closes.
    magic_of = {(e.account, e.ticket): e.magic for e in evidence.ledger if e.kind == "order" and e.reason == "expert"}
    owners = {order.magic: order.order_id for order in evidence.archive.orders.values()}
    executed: defaultdict[int, Decimal] = defaultdict(Decimal)
    for fill_id, deal in deals.items():
        if (known := evidence.archive.fills.get(fill_id)) and (known.volume, known.price) != (deal.volume, deal.price):
            yield f"deal {fill_id}: ledger {deal.volume} at {deal.price}, archive {known.volume} at {known.price}"
        magic = magic_of.get((deal.account, deal.order_ticket), 0)
        executed[magic] += deal.volume
        if known and known.order_id != (owner := owners.get(magic)):
            yield f"deal {fill_id}: booked for order {known.order_id}, the ledger's order is {owner}"
    for order in evidence.archive.orders.values():
        if executed[order.magic] != order.filled_volume:
            yield f"order {order.order_id}: filled {order.filled_volume}, the ledger says {executed[order.magic]}"


def _ledger_positions_differ(evidence: Evidence) -> Iterator[str]:
    assert evidence.ledger is not None
    net: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for deal in evidence.ledger_deals.values():
        net[deal.account, deal.position_id] += deal.volume if deal.side == "buy" else -deal.volume
    for key in sorted(net.keys() | evidence.tables.positions.keys()):
        known = evidence.tables.positions.get(key, PositionView(*key, Decimal(0)))
        if known.volume != net[key]:
            yield f"position {key}: the ledger's deals make {net[key]}, the tables say {known.volume}"
