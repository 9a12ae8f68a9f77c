"""break/1: a difference between our books and the broker's, on ``reconciliation.break.{account}``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.reconciliation import BreakCause, BreakKind
from streamapp.domain.vocabulary import Money, UtcTime
from streamapp.messages.envelope import Message

Disposition = Literal["open", "resolved", "settled"]
"""open: the books differ. resolved: they came to agree by themselves, and ``cause`` says by whose move. settled: a
person has judged it; it is told again only if another difference is found there."""


class BreakMessage(Message):
    """break/1.

    ``ours`` and ``theirs`` are what each side says, None where it has nothing; ``lots`` is theirs minus ours in signed
    lots, of positions only. ``first_seen`` and ``last_seen`` are times of snapshots; the last is as of this revision.
    ``reason`` and ``settled_by`` are a person's.
    """

    schema_: Literal["break/1"] = Field("break/1", alias="schema")
    break_id: str
    account: str
    kind: BreakKind
    disposition: Disposition = "open"
    cause: BreakCause = "unexplained"
    symbol: str
    position_id: int | None = None
    order_id: str | None = None
    ticket: int | None = None
    deal: int | None = None
    ours: str | None = None
    theirs: str | None = None
    lots: Money | None = None
    first_seen: UtcTime
    last_seen: UtcTime
    reason: str | None = None
    settled_by: str | None = None
    revision: int = Field(1, ge=1)
    at: UtcTime
