"""Facts: the only truth about an order.

A fact's id makes adding it twice the same as adding it once (design: order-status).

The bodies are also what a terminal reports (messages/report.py): a report is a fact that has not been archived yet.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import (
    AccountOperationType,
    BoundedDecimal,
    DealEntry,
    DealReason,
    Frozen,
    Intent,
    Lots,
    Magic,
    Money,
    Side,
    UtcTime,
)

RefusedReason = Literal["stale", "guard", "invalid", "not_connected", "halted", "cancelled"]
CancelReason = Literal["user", "broker", "ioc_remainder", "fok", "kill_switch"]


class OrderCreated(Frozen):
    """We mean to send this order. Said by execution, once for each accepted signal; of an exit once a position.

    ``position_id``: it closes (a part of) that position.
    """

    parameters: OrderParameters
    parameters_hash: str
    signal_id: str
    strategy: str | None = None
    intent: Intent = "open"
    position_id: int | None = None
    expected_price: BoundedDecimal | None = None
    max_slippage_points: int | None = None
    signal_at: UtcTime
    not_after: UtcTime
    executor: str
    metadata: dict[str, Any] = Field(default_factory=dict)


class SubmitClaimed(Frozen):
    """The broker agent has the right to call the terminal; durable before it does."""

    attempt: int
    epoch: str
    not_after: UtcTime


class SubmitRefused(Frozen):
    """The request never left and never will.

    ``largest``: it was more than the symbol takes in one order, which is so many lots, and nothing else was wrong with
    its volume.
    """

    attempt: int
    reason: RefusedReason
    message: str = ""
    largest: Lots | None = None


class SubmitStarted(Frozen):
    """Durable before ``order_send``: the market as the terminal saw it just before.

    ``account_rate`` is the value of one unit of the symbol's profit currency in the account's ``currency``.
    """

    attempt: int
    bid: Money
    ask: Money
    quote_at: UtcTime
    point: Money
    contract_size: Money
    account_rate: Money
    currency: str
    sent_at: UtcTime


class SubmitReturned(Frozen):
    """``order_send`` came back; ``raw`` is the answer as it was, JSON-ready. ``retcode`` None: it returned None."""

    attempt: int
    retcode: int | None
    retcode_name: str = ""
    request_id: int = 0
    returned_at: UtcTime
    raw: dict[str, Any] = Field(default_factory=dict)


class OutcomeUnknown(Frozen):
    """Nobody can say whether the attempt was executed.

    ``why``: no_answer (the terminal did not answer the broker agent), deadline, worker_lost, restarted,
    ambiguous_answer, foreign_epoch, conflict, foreign_timeout; forgotten: it is so old that the journal may have had
    it; suspicion: what may be the order is at the broker without its name, and a person must look; no_deals: the
    broker calls it filled, or shows it in no table, and shows no deal of it.
    """

    attempt: int
    why: str
    message: str = ""


class ProvenAbsent(Frozen):
    """The resolver looked through a whole settle window of a stable connection and found nothing."""

    attempt: int
    evidence: dict[str, Any] = Field(default_factory=dict)


class BrokerRejected(Frozen):
    """The broker said no; it ends the ticket too, where there was one."""

    attempt: int
    retcode: int
    retcode_name: str
    message: str = ""
    ticket: int | None = None


class BrokerAccepted(Frozen):
    """First sight of an order ticket of ours at the broker."""

    ticket: int = Field(gt=0)


class Unprotected(Frozen):
    """The ticket is filled, and its position does not have the stop loss and take profit that it should; None is none.

    ``stop_loss``, ``take_profit``: as they should be; ``found_…``: as the broker shows them.
    """

    ticket: int
    position_id: int
    stop_loss: Money | None = None
    take_profit: Money | None = None
    found_stop_loss: Money | None = None
    found_take_profit: Money | None = None


class BrokerCancelled(Frozen):
    """The broker's history shows the ticket cancelled, or done with less than its volume."""

    ticket: int
    reason: CancelReason


class BrokerExpired(Frozen):
    """The broker's history shows the ticket expired."""

    ticket: int


class Filled(Frozen):
    """One deal at the broker, ours or not; ``ticket`` is the order ticket that made it.

    Money in ``currency``, the account's.
    """

    deal: int
    ticket: int
    position_id: int
    symbol: str
    side: Side
    entry: DealEntry
    reason: DealReason
    volume: Lots
    price: BoundedDecimal
    commission: Money = Decimal(0)
    swap: Money = Decimal(0)
    fee: Money = Decimal(0)
    profit: Money = Decimal(0)
    currency: str = ""
    magic: Magic = 0
    comment: str = ""
    time: UtcTime


class FillBusted(Frozen):
    """The broker took a deal back; ``was`` is what it was, or a deal that is no order's would not name its position."""

    deal: int
    revision: int
    was: Filled | None = None


class FillCorrected(Frozen):
    """The broker changed a deal after it was seen: the whole deal as it is now."""

    revision: int
    deal: Filled


class AccountOperation(Frozen):
    """Money that the broker booked without a trade: a deal of its history that neither bought nor sold.

    ``amount``, in ``currency``, the account's, is all that the deal booked; it changes the balance, but of type credit
    the credit alone. ``revision`` counts the deal's corrections; each says the whole deal as it is now.
    ``position_id``, ``symbol`` and ``ticket``, an order's, are None where the broker names none.
    """

    deal: int
    revision: int = 0
    type: AccountOperationType
    amount: Money
    currency: str = ""
    position_id: int | None = None
    symbol: str | None = None
    ticket: int | None = None
    comment: str = ""
    at: UtcTime


class CancelRequested(Frozen):
    """Somebody asked to cancel the order."""

    request_id: str
    issued_by: str = ""


class CancelRejected(Frozen):
    """The broker did not cancel; the order is neither alive nor dead by this."""

    request_id: str
    message: str = ""


class ModifyRequested(Frozen):
    """Somebody asked for other values; they hold only once ``Modified`` says so."""

    request_id: str
    changes: dict[str, Any]
    issued_by: str = ""


class Modified(Frozen):
    """The broker took the new values (field name of OrderParameters: value)."""

    request_id: str
    changes: dict[str, Any]


class ModifyRejected(Frozen):
    """The broker kept the old values."""

    request_id: str
    message: str = ""


Body = (
    OrderCreated
    | SubmitClaimed
    | SubmitRefused
    | SubmitStarted
    | SubmitReturned
    | OutcomeUnknown
    | ProvenAbsent
    | BrokerRejected
    | BrokerAccepted
    | Unprotected
    | BrokerCancelled
    | BrokerExpired
    | Filled
    | FillBusted
    | FillCorrected
    | AccountOperation
    | CancelRequested
    | CancelRejected
    | ModifyRequested
    | Modified
    | ModifyRejected
)
BODIES: dict[str, type[Frozen]] = {body.__name__: body for body in Body.__args__}


class Fact(Frozen):
    """One fact with its envelope. ``order_id`` is None only for a deal that is no order's of ours, trade or not.

    ``fact_id`` comes from :func:`fact_id_of` and never from chance; ``causation_id`` names what made us say it.
    """

    fact: str
    fact_id: str
    order_id: str | None
    account: str
    at: UtcTime
    causation_id: str | None = None
    body: Body

    @field_validator("body", mode="before")
    @classmethod
    def _body_of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        # The name decides the type: guessing by shape would take one body for another (several are an attempt and a
        # word).
        kind = BODIES.get(info.data.get("fact", ""))
        if kind is None:
            raise ValueError(f"expected a known fact, got {info.data.get('fact')!r}")
        return value if isinstance(value, kind) else kind.model_validate(value)


def fact_id_of(account: str, order_id: str | None, body: Body) -> str:  # noqa: PLR0911 -- one return a kind, as in the table
    """Return the id of a fact (the table of design: order-status).

    Deals are named by account, everything else by its order.
    """
    match body:
        case Filled():
            return f"{account}:deal:{body.deal}"
        case FillBusted():
            return f"{account}:deal:{body.deal}:busted:{body.revision}"
        case FillCorrected():
            return f"{account}:deal:{body.deal.deal}:corrected:{body.revision}"
        case AccountOperation():
            return f"{account}:operation:{body.deal}" + (f":corrected:{body.revision}" if body.revision else "")
        case OrderCreated():
            return f"{order_id}:created"
        case OutcomeUnknown():
            return f"{order_id}:unknown:{body.attempt}:{body.why}"
        case BrokerAccepted() | Unprotected() | BrokerCancelled() | BrokerExpired():
            return f"{order_id}:{type(body).__name__}:{body.ticket}"
        case SubmitClaimed() | SubmitRefused() | SubmitStarted() | SubmitReturned() | ProvenAbsent() | BrokerRejected():
            return f"{order_id}:{type(body).__name__}:{body.attempt}"
        case _:
            return f"{order_id}:{type(body).__name__}:{body.request_id}"


def make_fact(account: str, order_id: str | None, body: Body, *, at: Any, causation_id: str | None = None) -> Fact:
    """Return the fact that says ``body``; its id is a function of the arguments, so saying it again adds nothing."""
    return Fact(
        fact=type(body).__name__,
        fact_id=fact_id_of(account, order_id, body),
        order_id=order_id,
        account=account,
        at=at,
        causation_id=causation_id,
        body=body,
    )
