"""Dead letters: the first 64 KiB of what nobody could use as the value, everything else in Kafka headers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from streamapp.domain.vocabulary import time_text

MAX_BYTES = 65536
REASON, DETAIL = "reason", "detail"
"""The headers by which a record of Kafka is known as a dead letter."""


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
