"""The status of an order: a function of its facts by precedence, never the last message (design: order-status)."""

from __future__ import annotations

from decimal import Decimal

from streamapp.domain.orders import EXACT, Attempt, OrderState, Ticket, modified
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import Status

_AVERAGE = Decimal("1e-10")  # what the warehouse keeps of a price
_AWAITED = "no_answer"  # the broker agent's own doubt: it was not answered, which says nothing about the terminal
_UNSHOWN = "no_deals"  # the ticket does not work any more; how much of it was filled only a deal can tell
_UNSAID = "foreign_timeout"  # a foreign connector can't show a ticket, so a partial fill says nothing about the rest


def parameters_of(state: OrderState) -> OrderParameters | None:
    """Return what the order asks for now; None before OrderCreated."""
    return state.parameters


def filled_of(state: OrderState) -> Decimal:
    """Return cum: the lots executed for this order."""
    return state.filled


def average_price_of(state: OrderState) -> Decimal | None:
    """Return the volume-weighted price of the fills, rounded to ten digits behind the point; None without one."""
    fills = state.fills
    if not fills:
        return None
    if len({filled.price for filled in fills}) == 1:
        return fills[0].price
    value = Decimal(0)
    for filled in fills:
        value = EXACT.fma(filled.price, filled.volume, value)
    return EXACT.divide(value, state.filled).quantize(_AVERAGE, context=EXACT)


def status_of(state: OrderState) -> Status:
    """Return the status: the first line that holds."""
    known: Status | None = state.memo.get("status")
    if known is None:
        known = state.memo["status"] = _first_that_holds(state)
    return known


def _first_that_holds(state: OrderState) -> Status:
    filled, parameters = state.filled, state.parameters
    if parameters is not None and filled >= parameters.volume:
        return "filled"
    live = _is_live(state)
    if not live and (_withdrawn(state) or _is_called_off(state)):
        return "cancelled"
    if filled > 0:
        return "partially_filled"
    if live or state.has_open_attempt:
        return "submitted"
    last = state.attempts.get(state.last_attempt)
    if last is None:
        return "pending"
    return "failed" if last.rejected is None else "rejected"


def detail_of(state: OrderState) -> str:  # noqa: PLR0911  one line for each status
    """Return the one word beside the status; for a filled order nothing, or ``overfilled``."""
    match status_of(state):
        case "pending":
            return "created"
        case "submitted":
            return _submitted_detail(state)
        case "partially_filled":
            return "in_doubt" if doubts_of(state) else _pending_request(state, "cancel_pending") or "working"
        case "filled":
            return "overfilled" if is_overfilled(state) else ""
        case "cancelled":
            return _cancelled_detail(state)
        case "rejected":
            rejected = state.attempts[state.last_attempt].rejected
            assert rejected is not None
            return rejected.retcode_name or str(rejected.retcode)
        case _:
            refused = state.attempts[state.last_attempt].refused
            return "absent" if refused is None else refused.reason


def reason_of(state: OrderState) -> str | None:
    """Return why, in words, it did not go as asked (rejection, refusal, withdrawal, doubt); otherwise None."""
    status = status_of(state)
    last = state.attempts.get(state.last_attempt, Attempt())
    if status == "rejected" and last.rejected is not None:
        return last.rejected.message or detail_of(state)
    if status == "failed":
        return (last.refused.message if last.refused is not None else "") or detail_of(state)
    if status == "cancelled":
        return detail_of(state)
    return ", ".join(doubts_of(state)) or None if status in {"submitted", "partially_filled"} else None


def doubts_of(state: OrderState) -> list[str]:
    """Return the reasons for which nobody knows whether an attempt was executed, unless evidence has answered them.

    Any word of the terminal answers ``no_answer``. Everything else is answered only by evidence of the outcome: an
    accepted ticket, a deal, a rejection, a refusal, a proof of absence; ``no_deals`` only by a deal; and
    ``foreign_timeout`` not by a fill that leaves volume open, as a foreign connector has no other word for what became
    of the rest.
    """
    return sorted(
        {why for attempt in state.attempts.values() for why in attempt.doubts if not _answered(why, attempt, state)}
    )


def is_overfilled(state: OrderState) -> bool:
    """Return whether more was executed than asked for: it is booked all the same, and the account must stop opening."""
    return state.parameters is not None and state.filled > state.parameters.volume


def bad_modifications(state: OrderState) -> bool:
    """Return whether a Modified fact carries values that no order can have; it is passed over."""
    if state.created is None:
        return False
    return any(modified(state.created.parameters, changes) is None for changes in state.modifications)


def _answered(why: str, attempt: Attempt, state: OrderState) -> bool:
    if attempt.closed:
        return True
    if why in {_UNSAID, _UNSHOWN}:
        return why == _UNSHOWN and bool(state.deals)
    return bool(state.deals or state.tickets) or (why == _AWAITED and attempt.reached_terminal)


def _is_live(state: OrderState) -> bool:
    return any(ticket.live for ticket in state.tickets.values())


def _withdrawn(state: OrderState) -> dict[int, Ticket]:
    return {number: ticket for number, ticket in state.tickets.items() if ticket.withdrawn}


def _is_called_off(state: OrderState) -> bool:
    """Return whether somebody cancelled it before it was sent: its last attempt was refused for that."""
    last = state.attempts.get(state.last_attempt)
    is_refused = last is not None and last.refused is not None and last.refused.reason == "cancelled"
    return is_refused and not state.has_open_attempt


def _cancelled_detail(state: OrderState) -> str:
    withdrawn = _withdrawn(state)
    if not withdrawn:
        return "user"
    return withdrawn[max(withdrawn)].cancelled or "expired"


def _submitted_detail(state: OrderState) -> str:
    if doubts_of(state):
        return "in_doubt"
    if pending := _pending_request(state, "cancel_pending", "modify_pending"):
        return pending
    if _is_live(state):
        return "working"
    sent = any(attempt.started or attempt.returned for attempt in state.attempts.values() if not attempt.closed)
    return "in_flight" if sent else "claimed"


def _pending_request(state: OrderState, *words: str) -> str | None:
    requests = state.requests.values()
    pending = {
        "cancel_pending": any(request.cancel and not request.cancel_rejected for request in requests),
        "modify_pending": any(r.modify and not r.modify_rejected and r.changes is None for r in requests),
    }
    return next((word for word in words if pending[word]), None)
