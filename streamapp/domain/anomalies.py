"""What a person must hear of: contradicting facts and unexpected changes. No fact is ever discarded for it."""

from __future__ import annotations

from typing import Literal

from streamapp.domain.orders import OrderState
from streamapp.domain.reconciliation import differing_deals
from streamapp.domain.status import bad_modifications, is_overfilled
from streamapp.domain.vocabulary import Status

Anomaly = Literal[
    "overfilled", "duplicate_ticket", "reject_contradicted", "revived", "conflict", "bad_modification", "deal_differs"
]
HALTING: frozenset[Anomaly] = frozenset({"overfilled", "duplicate_ticket"})
"""After these more was executed than anyone asked for: the account stops opening."""

_ANY: frozenset[Status] = frozenset(
    {"pending", "submitted", "partially_filled", "filled", "cancelled", "rejected", "failed"}
)
_ALLOWED: dict[Status | None, frozenset[Status]] = {
    None: _ANY,
    "pending": _ANY,
    "submitted": _ANY - {"pending"},
    "partially_filled": frozenset({"filled", "cancelled"}),
    "cancelled": frozenset({"filled"}),
    "filled": frozenset(),
    "rejected": frozenset(),
    "failed": frozenset(),
}


def anomalies_of(state: OrderState) -> frozenset[Anomaly]:
    """Return every anomaly that the facts show, whatever order they came in.

    - ``overfilled``: more executed than asked for.
    - ``duplicate_ticket``: two tickets at the broker: sent twice, or somebody used our magic.
    - ``reject_contradicted``, ``revived``: every attempt was closed, the last one by a rejection or otherwise, and the
      broker shows a ticket or a fill all the same.
    - ``conflict``: one id with two contents.
    - ``bad_modification``: the broker is said to have taken over values that no order can have.
    - ``deal_differs``: a deal is of another symbol or side than the order, or larger.
    """
    found: dict[Anomaly, bool] = {
        "overfilled": is_overfilled(state),
        "duplicate_ticket": state.is_duplicate,
        "reject_contradicted": _is_contradicted(state, rejected=True),
        "revived": _is_contradicted(state, rejected=False),
        "conflict": bool(state.conflicts),
        "bad_modification": bad_modifications(state),
        "deal_differs": bool(differing_deals(state)),
    }
    return frozenset(anomaly for anomaly, holds in found.items() if holds)


def is_allowed(before: Status | None, after: Status, *, busted: bool = False) -> bool:
    """Return whether a published change is one that ordinary life brings (design: order-status).

    Args:
        before: The status published last, None for the first.
        after: The one published now; the same again (more volume, other parameters) is always allowed.
        busted: A deal was taken back: then ``filled`` and ``partially_filled`` may step back too.
    """
    if before == after or after in _ALLOWED[before]:
        return True
    return busted and (before, after) in {
        ("filled", "partially_filled"),
        ("filled", "submitted"),
        ("partially_filled", "submitted"),
    }


def _is_contradicted(state: OrderState, *, rejected: bool) -> bool:
    last = state.attempts.get(state.last_attempt)
    if last is None or state.has_open_attempt or (last.rejected is not None) != rejected:
        return False
    return bool(state.fills) or any(ticket.accepted and not ticket.rejected for ticket in state.tickets.values())
