"""Faust events as agents see them, without Faust."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from streamapp import topics
from streamapp.domain.identifiers import partition_of
from streamapp.domain.vocabulary import time_text

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
PARTITIONS = 8
_offsets = itertools.count()


@dataclass(frozen=True)
class FakeMessage:
    value: bytes
    key: bytes | None
    topic: str
    partition: int
    offset: int
    timestamp: float


@dataclass(frozen=True)
class FakeEvent:
    message: FakeMessage
    headers: dict[str, bytes] = field(default_factory=dict)


def event(
    value: bytes,
    *,
    account: str = "a",
    topic: str = topics.SIGNALS_APPROVED,
    sequence: int | None = None,
    at: datetime = NOW,
    headers: dict[str, bytes] | None = None,
    partition: int | None = None,
) -> Any:
    """Return an event of ``account``'s partition; with ``sequence`` it came from a NATS stream at ``at``."""
    stream = {}
    if sequence is not None:
        stream = {topics.NATS_SEQUENCE: str(sequence).encode(), topics.NATS_TIME: time_text(at).encode()}
    where = partition_of(account, PARTITIONS) if partition is None else partition
    message = FakeMessage(value, account.encode(), topic, where, next(_offsets), at.timestamp())
    return FakeEvent(message, stream | (headers or {}))


class FakeClock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now
