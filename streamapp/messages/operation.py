"""What a terminal can be asked to do to orders and positions that are there: request/reply on ``mt5.{account}.…``.

``cancel``, ``modify`` (a pending order), ``protect`` (stop loss and take profit of a position), ``close`` and
``close_by``. Each compares the target state first, so it may be asked again with the same ``request_id`` until the
answer is a final one. A partial close, and any close on a netting account, is an order of its own and takes the whole
protocol of a submit (design: submission "Closing"): its answer is ``recorded``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from streamapp.domain.limits import QuoteLimits
from streamapp.domain.vocabulary import BoundedDecimal, Lots, Ticket, UtcTime
from streamapp.messages.envelope import Message
from streamapp.messages.terminal import JournalRow

Outcome = Literal["done", "recorded", "refused", "rejected", "unknown", "conflict"]
"""done: the broker shows the wanted state. recorded: it is an order now, see ``row``. refused: nothing was sent and
nothing will be. rejected: the broker said no and the state is as before. unknown: not seen yet; ask again. conflict:
the request_id was used with other content; the first stands."""


class OperationRequest(Message):
    """What every operation carries: ``request_id`` is its idempotency key, ``not_after`` the end of its validity.

    Nothing is sent to the broker at or after ``not_after``, and asking again never moves it.
    """

    request_id: str = Field(min_length=1, max_length=128)
    account: str
    issued_by: str = Field("", max_length=128)
    not_after: UtcTime


class _OfOrder(OperationRequest):
    """By our order's id, or by a ticket of anybody's."""

    order_id: str | None = None
    ticket: Ticket | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> _OfOrder:
        if (self.order_id is None) == (self.ticket is None):
            raise ValueError("expected either order_id or ticket")
        return self


class CancelRequest(_OfOrder):
    """cancel: what works at the broker shall work no longer."""


class ModifyRequest(_OfOrder):
    """modify: new values for an order that works at the broker; null keeps the old one, 0 takes a level away.

    Prices may be negative where the symbol's are. An ``expiration`` makes it an order with time_in_force until.
    ``limits``: as in a submit; they are no part of what is asked for.
    """

    price: BoundedDecimal | None = None
    stop_limit_price: BoundedDecimal | None = None
    stop_loss: BoundedDecimal | None = None
    take_profit: BoundedDecimal | None = None
    expiration: UtcTime | None = None
    limits: QuoteLimits | None = None


class ProtectRequest(OperationRequest):
    """protect: stop loss and take profit of a position; null keeps the old one, 0 takes it away.

    ``limits``: as in a submit; they are no part of what is asked for.
    """

    position_id: Ticket
    stop_loss: BoundedDecimal | None = None
    take_profit: BoundedDecimal | None = None
    limits: QuoteLimits | None = None


class CloseRequest(OperationRequest):
    """close: the whole position, or ``volume`` lots of it. ``epoch``: the journal it is meant for, as in a submit."""

    position_id: Ticket
    volume: Lots | None = None
    epoch: str


class CloseByRequest(OperationRequest):
    """close_by: two opposite positions of one symbol against each other (hedging only)."""

    position_id: Ticket
    by_position_id: Ticket


class OperationReply(Message):
    """What became of it. ``message`` says why, and what to do, unless it is done; ``row`` only where it is an order.

    ``retcode`` is the broker's last answer, ``ticket`` the order or position that it is about. ``unknown`` is the only
    outcome that may change: ask again with the same request_id. ``refused`` and ``rejected`` end the request_id.
    """

    request_id: str
    account: str
    outcome: Outcome
    message: str = ""
    retcode: int | None = None
    ticket: int | None = None
    row: JournalRow | None = None
    epoch: str
    clock: UtcTime


class SettleRequest(Message):
    """settle: an operator says what became of an order that waits for a person.

    ``ticket``: the broker's order that it is; null: none, it never arrived.
    """

    account: str
    order_id: str
    ticket: int | None = Field(gt=0)
    issued_by: str = Field(min_length=1, max_length=128)


class SettleReply(Message):
    """``row`` is the order's, as it stands now. ``error``: nothing was done."""

    account: str
    row: JournalRow | None = None
    error: str | None = None
    clock: UtcTime


class ResumeRequest(Message):
    """resume: an operator lets a halted account open again.

    With a ``request_id``, which the journal remembers until another one comes, asking again lifts no later halt.
    """

    account: str
    issued_by: str = Field(min_length=1, max_length=128)
    request_id: str | None = Field(None, min_length=1, max_length=128)


class ResumeReply(Message):
    """``was`` is why it had been halted; null: it was not. ``error``: nothing was done."""

    account: str
    was: str | None = None
    error: str | None = None
    clock: UtcTime


OPERATIONS: dict[str, type[OperationRequest]] = {
    "cancel": CancelRequest,
    "modify": ModifyRequest,
    "protect": ProtectRequest,
    "close": CloseRequest,
    "close_by": CloseByRequest,
}
"""What is asked of orders and positions, by the word that ends its subject."""
