"""What becomes of a signal that goes to several accounts: copy/1, one of its decisions, and answer/1, all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import Decision, Frozen, Lots, UtcTime
from streamapp.messages.envelope import Message


class CopyDecision(Frozen):
    """The decision on one account's copy; ``volume`` and ``order_id`` are the order's, null where there is none."""

    account: str
    weight: Lots
    decision: Decision
    reason: str | None = None
    detail: str | None = None
    order_id: str | None = None
    volume: Lots | None = None


class CopyMessage(Message):
    """copy/1: what one account's desk decided on its copy; in the archive, and to completion on ``incomplete``."""

    schema_: Literal["copy/1"] = Field("copy/1", alias="schema")
    signal_id: str
    symbol: str
    copy_: CopyDecision = Field(alias="copy")
    at: UtcTime


class AnswerMessage(Message):
    """answer/1, on ``signals.answered.{symbol}``: every copy's decision, in the order of the route. Once a signal."""

    schema_: Literal["answer/1"] = Field("answer/1", alias="schema")
    signal_id: str
    symbol: str
    copies: tuple[CopyDecision, ...]
    at: UtcTime
