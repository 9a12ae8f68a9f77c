"""report/1: what a terminal saw, on ``mt5.report.{account}``. Its body is the body of the fact that it becomes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from streamapp.domain import facts
from streamapp.domain.vocabulary import Connection, Frozen, UtcTime
from streamapp.messages.envelope import Message

ReportKind = Literal[
    "refused",
    "started",
    "returned",
    "unknown",
    "absent",
    "accepted",
    "rejected",
    "cancelled",
    "expired",
    "deal",
    "deal_correction",
    "deal_busted",
    "created",
    "cancel_requested",
    "cancel_rejected",
    "modify_requested",
    "modified",
    "modify_rejected",
    "connection",
]
"""``created``: an order that began at the terminal itself, by a close that takes the protocol of a submit."""


class ConnectionChange(Frozen):
    """The terminal's connection changed; ``detail`` says what a person should do."""

    connection: Connection
    detail: str = ""


REPORT_BODIES: dict[str, type[Frozen]] = {
    "refused": facts.SubmitRefused,
    "started": facts.SubmitStarted,
    "returned": facts.SubmitReturned,
    "unknown": facts.OutcomeUnknown,
    "absent": facts.ProvenAbsent,
    "accepted": facts.BrokerAccepted,
    "rejected": facts.BrokerRejected,
    "cancelled": facts.BrokerCancelled,
    "expired": facts.BrokerExpired,
    "deal": facts.Filled,
    "deal_correction": facts.FillCorrected,
    "deal_busted": facts.FillBusted,
    "created": facts.OrderCreated,
    "cancel_requested": facts.CancelRequested,
    "cancel_rejected": facts.CancelRejected,
    "modify_requested": facts.ModifyRequested,
    "modified": facts.Modified,
    "modify_rejected": facts.ModifyRejected,
    "connection": ConnectionChange,
}

ReportBody = (
    facts.SubmitRefused
    | facts.SubmitStarted
    | facts.SubmitReturned
    | facts.OutcomeUnknown
    | facts.ProvenAbsent
    | facts.BrokerAccepted
    | facts.BrokerRejected
    | facts.BrokerCancelled
    | facts.BrokerExpired
    | facts.Filled
    | facts.FillCorrected
    | facts.FillBusted
    | facts.OrderCreated
    | facts.CancelRequested
    | facts.CancelRejected
    | facts.ModifyRequested
    | facts.Modified
    | facts.ModifyRejected
    | ConnectionChange
)


class Report(Message):
    """report/1.

    ``seq`` is contiguous within (account, epoch), from 1; ``order_id`` None for what is no order's of ours.
    """

    schema_: Literal["report/1"] = Field("report/1", alias="schema")
    account: str
    epoch: str
    seq: int = Field(ge=1)
    at: UtcTime
    kind: ReportKind
    order_id: str | None = None
    body: ReportBody

    @field_validator("body", mode="before")
    @classmethod
    def _body_of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        kind = REPORT_BODIES.get(info.data.get("kind", ""))
        if kind is None:
            raise ValueError("expected a known kind")
        return value if isinstance(value, kind) else kind.model_validate(value)
