"""Dead letters: the first 64 KiB of what nobody could use as the value, everything else in Kafka headers.

What persons decided about a letter (:class:`LetterDecisionMessage`) stands behind it, in its partition.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field, field_validator

from streamapp.domain.vocabulary import UtcTime, time_text
from streamapp.messages.envelope import Message

MAX_BYTES = 65536
REASON, DETAIL = "reason", "detail"
"""The headers by which a record of Kafka is known as a dead letter."""
DECISION = "decision"
"""The header by which a record of the topic is known as a decision about a letter."""
LetterDecision = Literal["redrive", "redriven", "acknowledge"]
"""redrive: it is to be sent again; recorded before it is. redriven: Kafka has it again. acknowledge: a person has dealt
with it otherwise."""


@dataclass(frozen=True)
class DeadLetter:
    """Something nobody could use: ``reason`` is a word, ``source`` the subject or topic it came by."""

    payload: bytes
    reason: str
    detail: str
    source: str
    subject: str
    sequence: int
    at: datetime

    @property
    def value(self) -> bytes:
        """The Kafka value: the payload, cut at 64 KiB."""
        return self.payload[:MAX_BYTES]

    @property
    def headers(self) -> dict[str, bytes]:
        """The Kafka headers: reason, detail, source, subject, sequence, length, sha256, time."""
        return {
            REASON: self.reason.encode(),
            DETAIL: self.detail.encode("utf-8", "replace")[:1000],
            "source": self.source.encode(),
            "subject": self.subject.encode(),
            "sequence": str(self.sequence).encode(),
            "length": str(len(self.payload)).encode(),
            "sha256": hashlib.sha256(self.payload).hexdigest().encode(),
            "time": time_text(self.at).encode(),
        }


class LetterDecisionMessage(Message):
    """dead_letter_decision/1: what a person decided about a dead letter, and what came of it.

    ``letter_id`` is the letter's partition and offset in the topic. ``by`` says who decided, over HTTP always the name
    of the token, and ``reason`` why, in that person's words. ``topic`` is where a letter that is ``redriven`` was
    written again.
    """

    schema_: Literal["dead_letter_decision/1"] = Field("dead_letter_decision/1", alias="schema")
    letter_id: str = Field(pattern=r"^[0-9]{1,9}-[0-9]{1,18}$")
    decision: LetterDecision
    by: str = Field(min_length=1, max_length=128)
    reason: str = Field(min_length=1, max_length=500)
    topic: str | None = None
    at: UtcTime

    @field_validator("by", "reason", mode="before")
    @classmethod
    def _on_one_line(cls, text: Any) -> Any:
        return " ".join(text.split()) if isinstance(text, str) else text
