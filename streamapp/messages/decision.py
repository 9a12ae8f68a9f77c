"""signal/1, the decision on a signal, and what its sender is answered: accepted/1 or refused/1."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from streamapp.domain.vocabulary import Decision, UtcTime
from streamapp.errors import Unusable
from streamapp.messages.dead_letter import MAX_BYTES
from streamapp.messages.envelope import Message


class DecisionMessage(Message):
    """signal/1: one message of a signal and what was decided; ``payload`` is the text that came (at most 64 KiB).

    ``signal_id`` is empty where none can be read, ``account`` where none is known.
    """

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


class AcceptedMessage(Message):
    """accepted/1, on ``signals.accepted.{symbol}``: the signal is this order, however often it is sent again.

    ``order_ids`` are all of its orders: an exit's is one for each position that it closes. ``order_id`` is the first,
    None where nothing was open, as ``detail`` says then.

    ``stream_seq`` is the place in the stream of the message that is answered, as the sender's publish was acknowledged.
    ``detail`` says by which message a signal that was sent again had been accepted.
    """

    schema_: Literal["accepted/1"] = Field("accepted/1", alias="schema")
    signal_id: str
    account: str
    symbol: str
    strategy: str | None = None
    order_id: str | None
    order_ids: tuple[str, ...] = ()
    detail: str | None = None
    stream_seq: int
    at: UtcTime


class RefusedMessage(Message):
    """refused/1, on ``signals.refused.{symbol}``; ``order_id`` is the order that stands, for a conflict.

    ``stream_seq`` is the place in the stream of the message that is answered. ``signal_id`` is null where none can be
    read, and ``symbol`` is then the subject's. ``account`` is empty where none is known.
    """

    schema_: Literal["refused/1"] = Field("refused/1", alias="schema")
    signal_id: str | None = None
    account: str
    symbol: str
    reason: str
    detail: str | None = None
    order_id: str | None = None
    stream_seq: int | None = None
    at: UtcTime


def undecided(
    error: Unusable, *, signal_id: str | None, account: str, symbol: str, stream_seq: int, at: datetime, payload: bytes
) -> tuple[DecisionMessage, RefusedMessage]:
    """Return what is kept, and what the sender is told, of a message on which no desk could decide."""
    what: dict[str, Any] = {"account": account, "symbol": symbol, "reason": error.reason, "detail": error.detail}
    place: dict[str, Any] = {"stream_seq": stream_seq, "at": at}
    text = payload[:MAX_BYTES].decode("utf-8", "replace")
    decision = DecisionMessage(signal_id=signal_id or "", decision="refused", payload=text, **what, **place)
    return decision, RefusedMessage(signal_id=signal_id, **what, **place)
