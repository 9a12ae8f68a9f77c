"""signal/1, the decision on a signal, and refused/1, what the world hears of a refusal or a conflict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import Decision, UtcTime
from streamapp.messages.envelope import Message


class DecisionMessage(Message):
    """signal/1: one message of a signal and what was decided; ``payload`` is the text that came (at most 64 KiB)."""

    schema_: Literal["signal/1"] = Field("signal/1", alias="schema")
    account: str
    signal_id: str
    stream_seq: int
    symbol: str = ""
    strategy: str | None = None
    decision: Decision
    reason: str | None = None
    detail: str | None = None
    order_id: str | None = None
    parameters_hash: str | None = None
    at: UtcTime
    payload: str


class RefusedMessage(Message):
    """refused/1, on ``signals.refused.{symbol}``; ``order_id`` is the order that stands, for a conflict."""

    schema_: Literal["refused/1"] = Field("refused/1", alias="schema")
    signal_id: str
    account: str
    symbol: str
    reason: str
    detail: str | None = None
    order_id: str | None = None
    at: UtcTime
