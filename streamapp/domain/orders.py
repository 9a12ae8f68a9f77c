"""An order as the sum of its facts: maps that only grow, whatever order they come in (design: order-status)."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from pydantic import Field

from streamapp.domain.facts import BrokerRejected, CancelReason, Filled, OrderCreated, SubmitRefused, SubmitStarted
from streamapp.domain.vocabulary import Frozen, UtcTime

EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
"""Wide enough for the product of three bounded decimals (37 digits each): no number from outside overflows it."""


class Attempt(Frozen):
    """One try to bring the order to the broker; ``doubts`` are the sorted reasons to call its outcome unknown."""

    claimed_at: UtcTime | None = None
    started: SubmitStarted | None = None
    returned: bool = False
    refused: SubmitRefused | None = None
    rejected: BrokerRejected | None = None
    absent: bool = False
    doubts: tuple[str, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether a refusal, a rejection or a proof of absence ended it."""
        return self.refused is not None or self.rejected is not None or self.absent

    @property
    def reached_terminal(self) -> bool:
        """Whether the terminal has said anything about it."""
        return self.closed or self.returned or self.started is not None


class Ticket(Frozen):
    """One order ticket at the broker."""

    accepted: bool = False
    cancelled: CancelReason | None = None
    expired: bool = False
    rejected: bool = False

    @property
    def live(self) -> bool:
        """Whether the broker may still fill it, as far as its history has shown."""
        return self.accepted and not self.rejected and not self.withdrawn

    @property
    def withdrawn(self) -> bool:
        """Whether it was cancelled or expired."""
        return self.expired or self.cancelled is not None


class Deal(Frozen):
    """One deal with its corrections: the content of the highest revision, and the revision that took it back.

    ``foreign``: someone else's connector said it, naming the order itself.
    """

    filled: Filled | None = None
    revision: int = -1
    busted: int = -1
    foreign: bool = False

    @property
    def stands(self) -> bool:
        """Whether it counts: seen, and not taken back by a revision as high as what we have seen of it."""
        return self.filled is not None and self.busted < self.revision

    def merged(self, other: Deal) -> Deal:
        """Return both together; the same whichever came first, as no two contents share a revision."""
        newer = other if other.revision > self.revision else self
        return Deal.model_construct(
            filled=newer.filled,
            revision=newer.revision,
            busted=max(self.busted, other.busted),
            foreign=self.foreign or other.foreign,
        )


class Request(Frozen):
    """A request to cancel or modify, and the answer to it; ``changes`` hold from ``modified_at`` on."""

    cancel: bool = False
    cancel_rejected: bool = False
    modify: bool = False
    modify_rejected: bool = False
    changes: dict[str, Any] | None = None
    modified_at: UtcTime | None = None


class OrderState(Frozen):
    """The fold of a set of facts of one order.

    ``facts`` maps the id of every fact in it, in the order of folding, to a digest of its content; everything else is a
    function of the set alone. ``conflicts`` are the ids under which a second, different content came: the first stands.
    """

    facts: dict[str, str] = Field(default_factory=dict)
    created: OrderCreated | None = None
    created_at: UtcTime | None = None
    attempts: dict[int, Attempt] = Field(default_factory=dict)
    tickets: dict[int, Ticket] = Field(default_factory=dict)
    deals: dict[int, Deal] = Field(default_factory=dict)
    requests: dict[str, Request] = Field(default_factory=dict)
    latest_at: UtcTime | None = None
    conflicts: tuple[str, ...] = ()

    @property
    def accepted_tickets(self) -> list[int]:
        """The tickets the broker accepted, ascending."""
        return sorted(number for number, ticket in self.tickets.items() if ticket.accepted)

    @property
    def fills(self) -> list[Filled]:
        """The deals that are volume of this order, by time and deal: of an accepted ticket, or foreign."""
        counted = [
            deal.filled
            for deal in self.deals.values()
            if deal.filled is not None and deal.stands and (deal.foreign or self._accepted(deal.filled.ticket))
        ]
        return sorted(counted, key=lambda filled: (filled.time, filled.deal)) if len(counted) > 1 else counted

    @property
    def last_attempt(self) -> int:
        """The number of the last attempt, 0 before the first."""
        return max(self.attempts, default=0)

    @property
    def has_open_attempt(self) -> bool:
        """Whether an attempt was begun and nothing has closed it."""
        return any(not attempt.closed for attempt in self.attempts.values())

    @property
    def started(self) -> SubmitStarted | None:
        """The market just before the last ``order_send``; None before it, and from a foreign connector."""
        begun = [number for number, attempt in self.attempts.items() if attempt.started is not None]
        return self.attempts[max(begun)].started if begun else None

    def _accepted(self, ticket: int) -> bool:
        return ticket in self.tickets and self.tickets[ticket].accepted


def filled_volume(fills: list[Filled]) -> Decimal:
    """Return the lots in ``fills``."""
    total = Decimal(0)
    for filled in fills:
        total = EXACT.add(total, filled.volume)
    return total
