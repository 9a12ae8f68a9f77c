"""A record as an agent reads it: the payload, and where in the stream it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streamapp import topics
from streamapp.messages.dead_letter import DeadLetter

ACCOUNT = topics.ACCOUNT
COMPLETED = "streamapp-completed"
"""Kafka header: a JSON object with the fields that completion found for a payload with only its id, in our names."""
TRACE = "traceparent"


@dataclass(frozen=True, slots=True)
class Incoming:
    """One record. ``sequence`` and ``at`` are the NATS stream's, or the topic's own for one produced by hand."""

    payload: bytes
    key: bytes | None
    headers: Mapping[str, bytes]
    topic: str
    partition: int
    sequence: int
    at: datetime

    @classmethod
    def of(cls, event: Any) -> Incoming:
        """Return the record of a Faust event."""
        message = event.message
        headers = dict(event.headers or {})
        return cls(
            message.value or b"",
            message.key,
            headers,
            message.topic,
            message.partition,
            _sequence(headers.get(topics.NATS_SEQUENCE), message.offset),
            _time(headers.get(topics.NATS_TIME), message.timestamp),
        )

    def text(self, header: str) -> str | None:
        """Return a header as text, None if it is not there."""
        value = self.headers.get(header)
        return None if value is None else value.decode("utf-8", "replace")

    @property
    def trace(self) -> dict[str, bytes]:
        """The headers that everything caused by this record carries on."""
        return {TRACE: self.headers[TRACE]} if TRACE in self.headers else {}

    def dead(self, reason: str, detail: str) -> DeadLetter:
        """Return this record as a dead letter."""
        subject = self.text(topics.NATS_SUBJECT) or ""
        return DeadLetter(self.payload, reason, detail, self.topic, subject, self.sequence, self.at)


def _sequence(header: bytes | None, offset: int) -> int:
    return int(header) if header is not None and header.isdigit() and len(header) < 19 else offset


def _time(header: bytes | None, timestamp_s: float | None) -> datetime:
    try:
        if header is not None and (at := datetime.fromisoformat(header.decode())).tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # made by hand and wrong: the topic's own time is as good
    return datetime.fromtimestamp(timestamp_s or 0.0, UTC)
