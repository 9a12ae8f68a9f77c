"""Adding facts to an order: set union keyed by the fact's id (design: order-status).

So neither repetition nor order of arrival can matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from streamapp.domain import facts
from streamapp.domain.facts import Fact
from streamapp.domain.orders import Attempt, ChangeRequest, Deal, OrderState, Ticket, replaced
from streamapp.domain.parameters import plain

FOREIGN = "foreign:"
"""How the causation id of a fact begins that someone else's connector said: its fills name the order themselves."""


def is_foreign(fact: Fact) -> bool:
    """Return whether someone else's connector said ``fact``."""
    return fact.causation_id is not None and fact.causation_id.startswith(FOREIGN)


def fold(state: OrderState, new: Iterable[Fact]) -> OrderState:
    """Return ``state`` with every fact of ``new`` in it."""
    for fact in new:
        state = apply(state, fact)
    return state


def apply(state: OrderState, fact: Fact) -> OrderState:
    """Return ``state`` with ``fact`` in it; commutative, associative and idempotent over facts of distinct ids.

    A fact whose id is there already changes nothing. If its content differs where money hangs on it, the id is noted in
    ``conflicts`` and the first content stands (it is what has been published and acted upon).
    """
    content = content_digest(fact.body)
    known = state.facts.get(fact.fact_id)
    if known is None:
        return _added(state, fact, content)
    if contradicts(known, fact) and fact.fact_id not in state.conflicts:
        return replaced(state, conflicts=tuple(sorted((*state.conflicts, fact.fact_id))))
    return state


def contradicts(known: str, fact: Fact) -> bool:
    """Return whether ``fact`` differs, where money hangs on it, from the content that stands under its id."""
    return isinstance(fact.body, _WEIGHTY) and content_digest(fact.body) != known


def facts_digest(state: OrderState) -> str:
    """Return 32 hex digits over the ids and contents of all facts: two orders with the same facts have the same."""
    content = "\n".join(f"{fact_id}={digest}" for fact_id, digest in sorted(state.facts.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:32]


_WEIGHTY = (facts.OrderCreated, facts.Filled, facts.FillCorrected)


def content_digest(body: facts.Body) -> str:
    """Return 16 hex digits of what ``body`` says.

    0.10 and 0.1 lots are the same, and a deal's comment does not count: brokers rewrite it.
    """
    match body:
        case facts.Filled():
            content = _deal_content(body)
        case facts.FillCorrected():
            content = f"{body.revision}|{_deal_content(body.deal)}"
        case facts.OrderCreated():
            content = f"{body.parameters_hash}|{body.signal_id}|{body.not_after.isoformat()}"
        case _:
            content = body.model_dump_json()
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _deal_content(deal: facts.Filled) -> str:
    numbers = (deal.volume, deal.price, deal.commission, deal.swap, deal.fee, deal.profit)
    words = (deal.deal, deal.ticket, deal.position_id, deal.symbol, deal.side, deal.entry, deal.time.isoformat())
    return "|".join((*map(str, words), *(str(plain(number)) for number in numbers)))


def _added(state: OrderState, fact: Fact, content: str) -> OrderState:
    update = _effect(state, fact)
    update["facts"] = {**state.facts, fact.fact_id: content}
    update["latest_at"] = fact.at if state.latest_at is None else max(state.latest_at, fact.at)
    return replaced(state, **update)


def _effect(state: OrderState, fact: Fact) -> dict[str, Any]:
    body: Any = fact.body
    if said := _OF_ATTEMPT.get(type(body)):
        return _attempt(state, body.attempt, **said(fact, body))
    if said := _OF_TICKET.get(type(body)):
        return _ticket(state, body.ticket, **said(fact, body))
    if said := _OF_REQUEST.get(type(body)):
        return _request(state, body.request_id, **said(fact, body))
    if isinstance(body, facts.OrderCreated):
        return {"created": body, "created_at": fact.at}
    if isinstance(body, facts.OutcomeUnknown | facts.BrokerRejected):
        return _doubted(state, body) if isinstance(body, facts.OutcomeUnknown) else _rejected(state, body)
    return {"deals": with_deal(state.deals, fact)}


def _doubted(state: OrderState, body: facts.OutcomeUnknown) -> dict[str, Any]:
    doubts = state.attempts.get(body.attempt, Attempt()).doubts
    return _attempt(state, body.attempt, doubts=tuple(sorted((*doubts, body.why))))


def _rejected(state: OrderState, body: facts.BrokerRejected) -> dict[str, Any]:
    ended = {} if body.ticket is None else _ticket(state, body.ticket, rejected=True)
    return {**_attempt(state, body.attempt, rejected=body), **ended}


_Said = Callable[[Fact, Any], dict[str, Any]]
_OF_ATTEMPT: dict[type, _Said] = {
    facts.SubmitClaimed: lambda fact, _: {"claimed_at": fact.at},
    facts.SubmitRefused: lambda _, body: {"refused": body},
    facts.SubmitStarted: lambda _, body: {"started": body},
    facts.SubmitReturned: lambda *_: {"returned": True},
    facts.ProvenAbsent: lambda *_: {"absent": True},
}
_OF_TICKET: dict[type, _Said] = {
    facts.BrokerAccepted: lambda *_: {"accepted": True},
    facts.Unprotected: lambda *_: {},  # of the position's levels the order knows nothing
    facts.BrokerCancelled: lambda _, body: {"cancelled": body.reason},
    facts.BrokerExpired: lambda *_: {"expired": True},
}
_OF_REQUEST: dict[type, _Said] = {
    facts.CancelRequested: lambda *_: {"cancel": True},
    facts.CancelRejected: lambda *_: {"cancel_rejected": True},
    facts.ModifyRequested: lambda *_: {"modify": True},
    facts.ModifyRejected: lambda *_: {"modify_rejected": True},
    facts.Modified: lambda fact, body: {"changes": body.changes, "modified_at": fact.at},
}


def with_deal(deals: dict[int, Deal], fact: Fact) -> dict[int, Deal]:
    """Return ``deals`` with what a Filled, FillBusted or FillCorrected says."""
    number, said = deal_of(fact)
    return {**deals, number: deals[number].merged(said) if number in deals else said}


def deal_of(fact: Fact) -> tuple[int, Deal]:
    """Return the deal's ticket and what this one fact (Filled, FillBusted or FillCorrected) says of it."""
    match fact.body:
        case facts.Filled() as body:
            return body.deal, Deal(filled=body, revision=0, foreign=is_foreign(fact))
        case facts.FillCorrected() as body:
            return body.deal.deal, Deal(filled=body.deal, revision=body.revision, foreign=is_foreign(fact))
        case facts.FillBusted() as body:
            return body.deal, Deal(busted=body.revision)
        case _:
            raise TypeError(f"expected a fact about a deal, got {fact.fact}")


def _attempt(state: OrderState, number: int, **said: Any) -> dict[str, Any]:
    attempt = replaced(state.attempts.get(number, Attempt()), **said)
    return {"attempts": {**state.attempts, number: attempt}}


def _ticket(state: OrderState, number: int, **said: Any) -> dict[str, Any]:
    ticket = replaced(state.tickets.get(number, Ticket()), **said)
    return {"tickets": {**state.tickets, number: ticket}}


def _request(state: OrderState, number: str, **said: Any) -> dict[str, Any]:
    request = replaced(state.requests.get(number, ChangeRequest()), **said)
    return {"requests": {**state.requests, number: request}}
