"""reports/1: what a terminal saw, on ``mt5.report.{account}``. A body is the body of the fact that it becomes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from streamapp.domain import facts
from streamapp.domain.vocabulary import Connection, Frozen, UtcTime
from streamapp.messages.envelope import Message, encode_around, reason_and_detail

ReportKind = Literal[
    "refused",
    "started",
    "returned",
    "unknown",
    "absent",
    "accepted",
    "unprotected",
    "rejected",
    "cancelled",
    "expired",
    "deal",
    "deal_correction",
    "deal_busted",
    "account_operation",
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


_DEAL_KINDS = {"Filled": "deal", "FillCorrected": "deal_correction", "FillBusted": "deal_busted"}


def _kind_of(fact: str) -> str:
    """Return a fact's name on this wire: in snake case, without the word for whose it is."""
    short = re.sub("^(Submit|Broker|Order|Outcome|Proven)(?=[A-Z])", "", fact)
    return _DEAL_KINDS.get(fact) or re.sub("(?<=[a-z])(?=[A-Z])", "_", short).lower()


REPORT_BODIES: dict[str, type[Frozen]] = {
    # A claim is the desk's own; no terminal reports it.
    _kind_of(fact): body
    for fact, body in facts.BODIES.items()
    if body is not facts.SubmitClaimed
} | {"connection": ConnectionChange}
"""The body of each :data:`ReportKind`."""

ReportBody = facts.Body | ConnectionChange


class Report(Frozen):
    """One thing that a terminal saw.

    ``seq`` is contiguous within (account, epoch), from 1; ``order_id`` None for what is no order's of ours.
    """

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


class BatchPlace(Message):
    """Where a batch of reports stands: its account, the epoch of its journal, and the seq of its first report."""

    schema_: Literal["reports/1"] = Field("reports/1", alias="schema")
    account: str
    epoch: str
    first_seq: int = Field(ge=1)


class ReportBatch(BatchPlace):
    """reports/1: the reports that waited together, at most 100 and about 200 kB of them.

    Their ``seq`` is contiguous from ``first_seq``. A batch may overlap others, earlier or later ones: what is
    published again is not cut where it was cut before.
    """

    reports: tuple[Report, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _contiguous(self) -> Self:
        for seq, report in enumerate(self.reports, self.first_seq):
            if report.seq != seq:
                raise ValueError(f"reports: expected seq {seq}, got {report.seq}")
        return self


class _OpenBatch(BatchPlace):
    reports: tuple[Any, ...] = Field(min_length=1)


@dataclass(frozen=True)
class BadReport:
    """A report that is not of its model, by the seq that its place in the batch gives it; reason as in Unusable."""

    seq: int
    reason: str
    detail: str


def encode_batch(place: BatchPlace, reports: Sequence[bytes]) -> bytes:
    """Return the ReportBatch of reports that are encoded already, without reading them."""
    return encode_around(place, "reports", reports)


def read_batch(payload: bytes) -> tuple[BatchPlace, list[Report | BadReport]]:
    """Return where a batch stands and its reports in order of seq; a bad one does not spoil its neighbours.

    Raises:
        Unusable: the envelope can't be read: not JSON, or no account, epoch, first_seq or reports.
    """
    batch = _OpenBatch.decode(payload)
    place = BatchPlace(account=batch.account, epoch=batch.epoch, first_seq=batch.first_seq)
    return place, [_read_report(seq, value) for seq, value in enumerate(batch.reports, batch.first_seq)]


def _read_report(seq: int, value: Any) -> Report | BadReport:
    try:
        report = Report.model_validate(value)
    except ValidationError as error:
        return BadReport(seq, *reason_and_detail(error))
    if report.seq != seq:
        return BadReport(seq, "invalid", f"seq: expected {seq}, got {report.seq}")
    return report
