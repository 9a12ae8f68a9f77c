"""Which topic, key and partition a message belongs to: a pure function that has an answer for any bytes at all.

The tables of the design: architecture, "Kafka topics" and "Where an input that can't be executed goes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from streamapp import subjects, topics
from streamapp.domain.identifiers import murmur2, partition_of, partition_of_order
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import account_of, renamed, signal_id_of
from streamapp.settings import ExecutionSettings, Role, Settings

TERMINAL_PAYLOAD_BYTES = 900_000
"""Our own terminals may say more than a stranger may: a snapshot of a thousand positions. Kafka takes one megabyte a
batch."""
MAX_NAME_BYTES = 512
"""Of an account or id that becomes a Kafka key. Ours have 128 characters at most."""
TRACE_HEADER = "traceparent"

Indifference = Literal["own_origin", "not_our_role"]


@dataclass(frozen=True)
class Rules:
    """What sorting depends on, of the settings."""

    role: Role
    origin: str
    partitions: int
    execution: ExecutionSettings

    @classmethod
    def of(cls, settings: Settings) -> Rules:
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


class _NotOurs(Exception):  # noqa: N818  an answer, not an error
    def __init__(self, reason: Indifference) -> None:
        self.reason: Indifference = reason


@dataclass(frozen=True)
class _Place:
    topic: str
    key: str
    partition: int | None = None


def sort(arrival: Arrival, rules: Rules) -> MirrorRecord | Dropped:
    """Return where ``arrival`` goes; the payload is carried on untouched, or as a dead letter with the reason."""
    try:
        place = _place(arrival, rules)
    except _NotOurs as not_ours:
        return Dropped(not_ours.reason)
    except Unusable as error:
        return dead_letter(arrival, error.reason, error.detail, rules.partitions)
    partition = _partition_of(place.key, rules.partitions) if place.partition is None else place.partition
    key = place.key.encode()
    return MirrorRecord(place.topic, partition, key, arrival.payload, _headers(arrival), _timestamp_ms(arrival.at))


# There are few accounts, and murmur2 in Python costs as much as reading the JSON.
_partition_of = lru_cache(maxsize=4096)(partition_of)


def dead_letter(arrival: Arrival, reason: str, detail: str, partitions: int) -> MirrorRecord:
    """Return the dead letter of ``arrival``.

    It has no key and is spread by its sequence, so that it is the same record when it comes again.
    """
    letter = DeadLetter(arrival.payload, reason, detail, arrival.stream, arrival.subject, arrival.sequence, arrival.at)
    partition = arrival.sequence % partitions
    at_ms = _timestamp_ms(arrival.at)
    return MirrorRecord(topics.DEAD_LETTERS, partition, None, letter.value, letter.headers, at_ms, reason)


def _place(arrival: Arrival, rules: Rules) -> _Place:
    place, roles, limit = _family(arrival.subject, rules)
    if rules.role not in roles:
        raise _NotOurs("not_our_role")
    if arrival.subject.startswith(_ECHOING) and arrival.headers.get(subjects.ORIGIN_HEADER) == rules.origin:
        raise _NotOurs("own_origin")
    if len(arrival.payload) > limit:
        raise Unusable("too_long", f"expected {limit} bytes at most, got {len(arrival.payload)}")
    return place(json_object(arrival.payload), rules)


_Placing = Callable[[dict[str, Any], Rules], _Place]
_EXECUTES_SIGNALS: tuple[Role, ...] = ("both", "execution")
_HAS_TERMINALS: tuple[Role, ...] = ("both", "connector")
_ALL: tuple[Role, ...] = ("both", "execution", "connector")
_ECHOING = tuple(f"{name}." for name in (subjects.ORDERS_SUBMITTED, subjects.BROKER_FILL, subjects.BROKER_ERROR))
"""What we publish ourselves on subjects that we also read."""


def _family(subject: str, rules: Rules) -> tuple[_Placing, tuple[Role, ...], int]:
    """Return how a subject is placed, the roles that care, and the most bytes it may bring."""
    first, _, rest = subject.partition(".")
    second, dot, _ = rest.partition(".")
    if not rest or (first != subjects.COMMANDS and not dot):
        return _unexpected, _ALL, rules.execution.max_payload_bytes
    name = first if first == subjects.COMMANDS else f"{first}.{second}"
    place, roles = _FAMILIES.get(name, (_unexpected, _ALL))
    return place, roles, TERMINAL_PAYLOAD_BYTES if first == "mt5" else rules.execution.max_payload_bytes


def _signal(payload: dict[str, Any], rules: Rules) -> _Place:
    named = renamed(payload, rules.execution)
    signal_id = signal_id_of(named)
    if signal_id is None:
        raise Unusable("no_signal_id", "signal_id: expected 1 to 128 visible ASCII characters")
    account = account_of(named)
    if account is None:
        return _Place(topics.INCOMPLETE, signal_id)
    return _Place(topics.SIGNALS_APPROVED, _name(account, "account"))


def _order(payload: dict[str, Any], _rules: Rules) -> _Place:
    order_id = _text(payload, "order_id")
    if order_id is None:
        raise Unusable("no_order_id", "order_id: expected a text of 1 to 128 characters")
    account = account_of(payload)
    if account is None:
        return _Place(topics.INCOMPLETE, order_id)
    return _Place(topics.ORDERS_SUBMITTED, _name(account, "account"))


def _broker_answer(payload: dict[str, Any], rules: Rules) -> _Place:
    account, order_id = _text(payload, "account"), _text(payload, "order_id")
    if account is not None:
        return _Place(topics.BROKER_REPORTS, account)
    if order_id is None:
        raise Unusable("no_order_id", "order_id: expected a text of 1 to 128 characters, or an account")
    partition = partition_of_order(order_id, rules.partitions)
    if partition is None:
        partition = (murmur2(order_id.encode()) & 0x7FFFFFFF) % rules.partitions
    return _Place(topics.BROKER_REPORTS, order_id, partition)


def _of_terminal(topic: str) -> _Placing:
    def place(payload: dict[str, Any], _rules: Rules) -> _Place:
        account = _text(payload, "account")
        if account is None:
            raise Unusable("no_account", "account: expected a text of 1 to 128 characters")
        return _Place(topic, account)

    return place


def _command(_payload: dict[str, Any], _rules: Rules) -> _Place:
    raise Unusable("unsupported", "commands are not carried out by this version")


def _unexpected(_payload: dict[str, Any], _rules: Rules) -> _Place:
    raise Unusable("unknown_subject", "the stream captures a subject that nobody here reads")


_FAMILIES: dict[str, tuple[_Placing, tuple[Role, ...]]] = {
    subjects.SIGNALS_APPROVED: (_signal, _EXECUTES_SIGNALS),
    subjects.ORDERS_SUBMITTED: (_order, ("connector",)),
    subjects.BROKER_FILL: (_broker_answer, _EXECUTES_SIGNALS),
    subjects.BROKER_ERROR: (_broker_answer, _EXECUTES_SIGNALS),
    subjects.REPORT: (_of_terminal(topics.BROKER_REPORTS), _HAS_TERMINALS),
    subjects.BROKER_LOG: (_of_terminal(topics.BROKER_LOG), _HAS_TERMINALS),
    subjects.SNAPSHOT: (_of_terminal(topics.ACCOUNT_SNAPSHOTS), _HAS_TERMINALS),
    subjects.COMMANDS: (_command, _ALL),
}


def _text(payload: dict[str, Any], name: str) -> str | None:
    value = payload.get(name)
    return _name(value, name) if isinstance(value, str) and value else None


def _name(value: str, what: str) -> str:
    if len(value.encode()) > MAX_NAME_BYTES:
        raise Unusable("bad_field", f"{what}: expected {MAX_NAME_BYTES} bytes at most, got {len(value.encode())}")
    return value


def _headers(arrival: Arrival) -> dict[str, bytes]:
    headers = {
        topics.NATS_SUBJECT: arrival.subject.encode("utf-8", "replace"),
        topics.NATS_STREAM: arrival.stream.encode(),
        topics.NATS_SEQUENCE: str(arrival.sequence).encode(),
        topics.NATS_TIME: time_text(arrival.at).encode(),
    }
    for name in (subjects.ORIGIN_HEADER, TRACE_HEADER):
        if (value := arrival.headers.get(name)) is not None:
            headers[name] = value.encode("utf-8", "replace")
    return headers


def _timestamp_ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
