"""An order as the sum of its facts: maps that only grow, whatever order they come in (design: order-status)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import Any, TypeVar

from pydantic import ValidationError

from streamapp.domain.facts import BrokerRejected, CancelReason, Filled, OrderCreated, SubmitRefused, SubmitStarted
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import UtcTime

EXACT = Context(prec=120, rounding=ROUND_HALF_EVEN)
"""Wide enough for the product of three bounded decimals (37 digits each): no number from outside overflows it."""


def exact_sum(amounts: Iterable[Decimal]) -> Decimal:
    """Return the sum, which the precision of the moment does not round."""
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


RecordT = TypeVar("RecordT")


def replaced(record: RecordT, **changes: Any) -> RecordT:
    """Return a frozen dataclass with other values, as ``dataclasses.replace`` does in five times the time.

    What was derived from the old values (cached properties) is not carried over.
    """
    new = object.__new__(type(record))
    known = record.__dict__
    # The folds of a whole day go through this line; __init__ of a frozen dataclass sets its fields one by one.
    new.__dict__.update({name: known[name] for name in record.__dataclass_fields__}, **changes)  # type: ignore[attr-defined]
    return new


@dataclass(frozen=True)
class Attempt:
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


@dataclass(frozen=True)
class Ticket:
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


@dataclass(frozen=True)
class Owner:
    """Whose order made a deal."""

    order_id: str
    signal_id: str
    strategy: str | None = None


@dataclass(frozen=True)
class Deal:
    """One deal with its corrections: the content of the highest revision, and the revision that took it back.

    ``foreign``: someone else's connector said it, naming the order itself. ``owner``: said to its position only, None
    for a deal that is no order's of ours.
    """

    filled: Filled | None = None
    revision: int = -1
    busted: int = -1
    foreign: bool = False
    owner: Owner | None = None

    @property
    def stands(self) -> bool:
        """Whether it counts: seen, and not taken back by a revision as high as what we have seen of it."""
        return self.filled is not None and self.busted < self.revision

    def merged(self, other: Deal) -> Deal:
        """Return both together; the same whichever came first, as no two contents share a revision."""
        newer = other if other.revision > self.revision else self
        return Deal(
            filled=newer.filled,
            revision=newer.revision,
            busted=max(self.busted, other.busted),
            foreign=self.foreign or other.foreign,
            owner=newer.owner or self.owner or other.owner,
        )


@dataclass(frozen=True)
class ChangeRequest:
    """A request to cancel or modify, and the answer to it; ``changes`` hold from ``modified_at`` on."""

    cancel: bool = False
    cancel_rejected: bool = False
    modify: bool = False
    modify_rejected: bool = False
    changes: dict[str, Any] | None = None
    modified_at: UtcTime | None = None


@dataclass(frozen=True)
class OrderState:
    """The fold of a set of facts of one order.

    ``facts`` maps the id of every fact in it, in the order of folding, to a digest of its content; everything else is a
    function of the set alone. ``conflicts`` are the ids under which a second, different content came: the first stands.
    """

    facts: dict[str, str] = field(default_factory=dict)
    created: OrderCreated | None = None
    created_at: UtcTime | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)
    tickets: dict[int, Ticket] = field(default_factory=dict)
    deals: dict[int, Deal] = field(default_factory=dict)
    requests: dict[str, ChangeRequest] = field(default_factory=dict)
    latest_at: UtcTime | None = None
    conflicts: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> OrderParameters | None:
        """What the order asks for now: as created, then as the broker modified it; None before OrderCreated."""
        if self.created is None:
            return None
        parameters = self.created.parameters
        for changes in self.modifications:
            parameters = modified(parameters, changes) or parameters
        return parameters

    @property
    def modifications(self) -> list[dict[str, Any]]:
        """The changes the broker took over, by their time."""
        taken = [
            (request.modified_at, request_id, request.changes)
            for request_id, request in self.requests.items()
            if request.changes is not None and request.modified_at is not None
        ]
        return [changes for _, _, changes in sorted(taken, key=lambda item: item[:2])]

    @property
    def accepted_tickets(self) -> list[int]:
        """The tickets the broker accepted, ascending."""
        return sorted(number for number, ticket in self.tickets.items() if ticket.accepted)

    @property
    def is_duplicate(self) -> bool:
        """Whether the broker has more than one ticket of it: sent twice, or somebody used our magic.

        However many attempts there were: a new one begins only after proof that the one before came to nothing.
        """
        return sum(ticket.accepted and not ticket.rejected for ticket in self.tickets.values()) > 1

    @cached_property
    def memo(self) -> dict[str, Any]:
        """Room for what others derive from this state and need again."""
        return {}

    @cached_property
    def filled(self) -> Decimal:
        """The lots executed for this order: cum."""
        return filled_volume(self.fills)

    @cached_property
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

    @cached_property
    def started(self) -> SubmitStarted | None:
        """The market just before the last ``order_send``; None before it, and from a foreign connector."""
        begun = [number for number, attempt in self.attempts.items() if attempt.started is not None]
        return self.attempts[max(begun)].started if begun else None

    def _accepted(self, ticket: int) -> bool:
        return ticket in self.tickets and self.tickets[ticket].accepted


def filled_volume(fills: list[Filled]) -> Decimal:
    """Return the lots in ``fills``."""
    return exact_sum(filled.volume for filled in fills)


def modified(parameters: OrderParameters, changes: dict[str, Any]) -> OrderParameters | None:
    """Return the parameters with ``changes``, None where no order can have those."""
    try:
        return OrderParameters.model_validate({**parameters.model_dump(), **changes})
    except ValidationError:
        return None
