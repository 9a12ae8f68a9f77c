"""Which topic, key and partition a message belongs to: a pure function that has an answer for any bytes at all.

The tables of the design: architecture, "Kafka topics" and "Where an input that can't be executed goes".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Literal

from streamapp import subjects, topics
from streamapp.domain.identifiers import partition_of, partition_of_order
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.envelope import json_object
from streamapp.messages.routing import Addressee, Family, addressee
from streamapp.settings import ExecutionSettings, Role, Settings

TERMINAL_PAYLOAD_BYTES = 900_000
"""Our own terminals may send more than a stranger may: a snapshot of a thousand positions. Kafka takes one megabyte a
batch."""
TRACE_HEADER = "traceparent"

Indifference = Literal["own_origin", "not_our_role"]


@dataclass(frozen=True)
class RoutingRules:
    """What routing depends on, of the settings."""

    role: Role
    origin: str
    partitions: int
    execution: ExecutionSettings

    @classmethod
    def of(cls, settings: Settings) -> RoutingRules:
        """Return the rules of a deployment."""
        origin = subjects.origin(settings.deployment, settings.role)
        return cls(settings.role, origin, settings.kafka.partitions, settings.execution)


@dataclass(frozen=True)
class Arrival:
    """A message as it came from its stream; ``at`` is the stream's time."""

    subject: str
    payload: bytes
    stream: str
    sequence: int
    at: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MirrorRecord:
    """A record for Kafka. ``reason`` is set for dead letters, to be counted by."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]
    timestamp_ms: int
    reason: str | None = None


@dataclass(frozen=True)
class Dropped:
    """A message that is acknowledged and counted, and goes nowhere."""

    reason: Indifference


@dataclass(frozen=True)
class Route:
    """What comes on a subject, where it goes when its account is known, and the roles that read it there."""

    family: Family
    topic: str
    roles: tuple[Role, ...]


_EXECUTES_SIGNALS: tuple[Role, ...] = ("both", "execution")
_HAS_TERMINALS: tuple[Role, ...] = ("both", "connector")

_ROUTES = {
    subjects.SIGNALS_APPROVED: Route("signal", topics.SIGNALS_APPROVED, _EXECUTES_SIGNALS),
    subjects.ORDERS_SUBMITTED: Route("order", topics.ORDERS_SUBMITTED, ("connector",)),
    subjects.BROKER_FILL: Route("fill", topics.BROKER_REPORTS, _EXECUTES_SIGNALS),
    subjects.BROKER_ERROR: Route("error", topics.BROKER_REPORTS, _EXECUTES_SIGNALS),
    subjects.REPORT: Route("reports", topics.BROKER_REPORTS, _HAS_TERMINALS),
    subjects.BROKER_LOG: Route("log", topics.BROKER_LOG, _HAS_TERMINALS),
    subjects.SNAPSHOT: Route("snapshot", topics.ACCOUNT_SNAPSHOTS, _HAS_TERMINALS),
    subjects.COMMANDS: Route("command", topics.ORDER_COMMANDS, _HAS_TERMINALS),
}
_PUBLISHED_BY_US_TOO: frozenset[Family] = frozenset({"order", "fill", "error"})


def route(arrival: Arrival, rules: RoutingRules) -> MirrorRecord | Dropped:
    """Return where ``arrival`` goes; the payload is carried on untouched, or as a dead letter with the reason.

    The dead letter of a signal or a command goes by way of completion, which tells the sender before it counts as
    handled: mirror itself says nothing on NATS, or a full stream of ours would hold back everybody's messages.
    """
    found = next((one for subject, one in _ROUTES.items() if arrival.subject.startswith(f"{subject}.")), None)
    if found is not None and (reason := _indifference(arrival, found, rules)) is not None:
        return Dropped(reason)
    try:
        return _record(arrival, found, rules)
    except Unusable as error:
        letter = dead_letter(arrival, error.reason, error.detail, rules.partitions)
        return letter if found is None else _to_be_answered(letter, arrival, found.family)


def _to_be_answered(letter: MirrorRecord, arrival: Arrival, family: Family) -> MirrorRecord:
    if family not in {"signal", "command"}:
        return letter
    headers = {**letter.headers, **_headers(arrival, Addressee(family, None, None))}
    return replace(letter, topic=topics.INCOMPLETE, headers=headers, reason=None)


def _indifference(arrival: Arrival, found: Route, rules: RoutingRules) -> Indifference | None:
    if rules.role not in found.roles:
        return "not_our_role"
    if found.family in _PUBLISHED_BY_US_TOO and arrival.headers.get(subjects.ORIGIN_HEADER) == rules.origin:
        return "own_origin"
    return None


def _record(arrival: Arrival, found: Route | None, rules: RoutingRules) -> MirrorRecord:
    limit = TERMINAL_PAYLOAD_BYTES if arrival.subject.startswith("mt5.") else rules.execution.max_payload_bytes
    if len(arrival.payload) > limit:
        raise Unusable("too_long", f"expected {limit} bytes at most, got {len(arrival.payload)}")
    payload = json_object(arrival.payload)
    if found is None:
        raise Unusable("unknown_subject", "the stream captures a subject that nobody here reads")
    to = addressee(found.family, payload, rules.execution)
    topic, key, partition = _place(found, to, rules.partitions)
    headers = _headers(arrival, to)
    return MirrorRecord(topic, partition, key.encode(), arrival.payload, headers, _timestamp_ms(arrival.at))


def _place(found: Route, to: Addressee, partitions: int) -> tuple[str, str, int]:
    """Return the topic, the key and the partition."""
    if to.account is not None:
        return found.topic, to.account, _partition_of(to.account, partitions)
    if to.order_id is not None:
        # An order id of ours leads to its account's partition.
        ours = partition_of_order(to.order_id, partitions)
        return found.topic, to.order_id, _partition_of(to.order_id, partitions) if ours is None else ours
    assert to.id is not None
    return topics.INCOMPLETE, to.id, _partition_of(to.id, partitions)


# There are few accounts, and murmur2 in Python costs as much as reading the JSON.
_partition_of = lru_cache(maxsize=4096)(partition_of)


def dead_letter(arrival: Arrival, reason: str, detail: str, partitions: int) -> MirrorRecord:
    """Return the dead letter of ``arrival``.

    It has no key and is spread by its sequence, so that it is the same record when it is redelivered.
    """
    letter = DeadLetter(arrival.payload, reason, detail, arrival.stream, arrival.subject, arrival.sequence, arrival.at)
    partition = arrival.sequence % partitions
    at_ms = _timestamp_ms(arrival.at)
    return MirrorRecord(topics.DEAD_LETTERS, partition, None, letter.value, letter.headers, at_ms, reason)


def _headers(arrival: Arrival, to: Addressee) -> dict[str, bytes]:
    headers = {
        topics.FAMILY: to.family.encode(),
        topics.NATS_SUBJECT: arrival.subject.encode("utf-8", "replace"),
        topics.NATS_STREAM: arrival.stream.encode(),
        topics.NATS_SEQUENCE: str(arrival.sequence).encode(),
        topics.NATS_TIME: time_text(arrival.at).encode(),
    }
    known = {
        topics.MESSAGE_OF: to.id,
        topics.ACCOUNT: to.account,
        **{name: arrival.headers.get(name) for name in (subjects.ORIGIN_HEADER, TRACE_HEADER)},
    }
    for name, value in known.items():
        if value is not None:
            headers[name] = value.encode("utf-8", "replace")
    return headers


def _timestamp_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
