"""Between the broker agent and a terminal: request/reply on ``mt5.{account}.submit|hello|replay|ack``."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Literal

from pydantic import Field, field_validator

from streamapp.domain.limits import QuoteLimits
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import LARGEST_INTEGER, Connection, Frozen, Magic, Ticket, UtcTime
from streamapp.messages.envelope import Message

MOST_POINTS = 10**9
"""Beyond any slippage that means something, and within what the broker's module takes as a deviation."""
SubmitState = Literal["recorded", "refused", "started", "result", "doubt", "absent", "conflict"]


class SubmitRequest(Message):
    """submit: may be repeated for ever; the journal answers the second one.

    ``epoch`` is the journal the claim was made for. ``position_id``: the order closes (a part of) that position.
    ``limits``: what persons have set while it runs, in place of the terminal's own settings; null names keep those.
    """

    order_id: str
    account: str
    hash: str
    epoch: str
    attempt: int = Field(1, ge=1, le=LARGEST_INTEGER)
    not_after: UtcTime
    parameters: OrderParameters
    expected_price: str | None = None
    max_slippage_points: int | None = Field(None, ge=-MOST_POINTS, le=MOST_POINTS)
    position_id: Ticket | None = None
    limits: QuoteLimits | None = None

    @field_validator("expected_price")
    @classmethod
    def _a_price(cls, value: str | None) -> str | None:
        try:
            is_price = value is None or Decimal(value).is_finite()
        except InvalidOperation:
            is_price = False
        if not is_price:
            raise ValueError("expected a finite decimal number")
        return value


class JournalRow(Frozen):
    """One row of the terminal's journal, as it answers a submit.

    State ``conflict`` is never stored: it is an answer only.
    """

    order_id: str
    hash: str
    state: SubmitState
    attempt: int
    magic: Magic
    not_after: UtcTime
    recorded_at: UtcTime
    reason: str | None = None
    ticket: int | None = None


class SubmitReply(Message):
    """``row`` is None only when the terminal could not read its journal: no answer then, in effect.

    ``clock`` is the terminal's.
    """

    state: SubmitState | None
    epoch: str
    clock: UtcTime
    row: JournalRow | None = None
    error: str | None = None


class HelloReply(Message):
    """hello: who the terminal is now."""

    account: str
    epoch: str
    clock: UtcTime
    connection: Connection
    detail: str = ""
    last_seq: int = 0
    released_seq: int = 0


class ReplayRequest(Message):
    """replay.

    Say every report after ``after_seq`` again, on the report subject, with ``replay_id`` at the end of each message id.
    """

    epoch: str
    after_seq: int = Field(ge=0, le=LARGEST_INTEGER)
    replay_id: str


class ReplayReply(Message):
    """``published`` reports were said again; ``epoch`` is the journal's, so that a foreign one is noticed."""

    epoch: str
    published: int
    error: str | None = None


class AckRequest(Message):
    """ack: everything up to ``watermark`` is durable with us; the outbox may forget it."""

    epoch: str
    watermark: int = Field(ge=0, le=LARGEST_INTEGER)


class AckReply(Message):
    """What the outbox holds after the ack."""

    epoch: str
    released_seq: int
    last_seq: int
