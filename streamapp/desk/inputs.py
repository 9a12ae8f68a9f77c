"""What can happen at an account: records parsed once, and what comes from within the worker.

A record's family and account are known from the headers that the mirror wrote; a payload is parsed here and nowhere
else. What can't be used raises :class:`streamapp.errors.Unusable`, with the word that its dead letter carries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter, ValidationError

from streamapp import subjects, topics
from streamapp.desk.effects import Asker
from streamapp.desk.policy import Policy
from streamapp.domain.identifiers import partition_of
from streamapp.domain.signals import Verdict, fingerprint_of
from streamapp.domain.vocabulary import LARGEST_INTEGER, Lots
from streamapp.errors import Unusable
from streamapp.messages.account import SnapshotMessage
from streamapp.messages.command import CommandName, CommandRequest, is_command, is_of_account, read_command
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.dialect import (
    connector_fields,
    read_signal,
    renamed,
    require_known_fields,
    translated,
    with_text_ids,
)
from streamapp.messages.envelope import json_object, reason_and_detail
from streamapp.messages.error import ForeignError
from streamapp.messages.fill import BESIDE, ForeignFill
from streamapp.messages.operation import Outcome
from streamapp.messages.report import BadReport, Report, read_batch
from streamapp.messages.signal import AnySignal, account_of, no_signal_id, signal_id_of
from streamapp.messages.terminal import SubmitState

COMPLETED = "streamapp-completed"
"""Kafka header: a JSON object with the fields that completion found for a payload with only its id, in our names."""
TRACE = "traceparent"
SHOWN_SYMBOL = 64
"""Characters of an unreadable symbol that are kept: it becomes part of a subject, and no real one is longer."""
SHOWN_STRATEGY = 128
ANY_CONNECTOR = "foreign"
"""The executor that an execution service names when it means somebody else's connector: here, us."""
_WEIGHT = TypeAdapter[Decimal](Lots)


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
    def of(cls, event: Any, topic_prefix: str = "") -> Incoming:
        """Return the record of a Faust event; its topic by our name, without the cluster's prefix."""
        message = event.message
        headers = dict(event.headers or {})
        return cls(
            message.value or b"",
            message.key,
            headers,
            message.topic.removeprefix(topic_prefix),
            message.partition,
            _sequence(headers.get(topics.NATS_SEQUENCE), message.offset),
            _time(headers.get(topics.NATS_TIME), message.timestamp),
        )

    def text(self, header: str) -> str | None:
        """Return a header as text, None if it is not there."""
        value = self.headers.get(header)
        return None if value is None else value.decode("utf-8", "replace")

    @property
    def approved_symbol(self) -> str | None:
        """The symbol that the subject of a signal names, as far as it can be shown, None where it names none."""
        symbol = subjects.approved_symbol(self.text(topics.NATS_SUBJECT) or "")
        return None if symbol is None else symbol[:SHOWN_SYMBOL]

    @property
    def trace(self) -> str | None:
        """The traceparent that everything caused by this record carries on."""
        return self.text(TRACE)

    def dead(self, reason: str, detail: str) -> DeadLetter:
        """Return this record as a dead letter."""
        subject = self.text(topics.NATS_SUBJECT) or ""
        return DeadLetter(self.payload, reason, detail, self.topic, subject, self.sequence, self.at)


@dataclass(frozen=True, slots=True)
class NewSignal:
    """One message of a signal, or of an order that somebody else's execution service wants executed.

    ``id`` is what it is known by: the signal_id, or the order_id, and then ``order_id`` is set. ``signal`` is None
    where a field is bad; ``fault`` says which. ``approval`` is the second approval's verdict where one is asked for.
    ``closes``: the position that a foreign order closes. ``weight`` is set where this is the account's copy of a signal
    that completion sent to several.
    """

    incoming: Incoming
    account: str
    id: str
    signal_id: str
    symbol: str
    strategy: str | None
    signal: AnySignal | None
    fault: str | None
    fingerprint: str
    order_id: str | None = None
    approval: Verdict | None = None
    closes: int | None = None
    weight: Decimal | None = None


@dataclass(frozen=True, slots=True)
class NewCommand:
    """One message of a command that can be read; its account is its lane's where it names only an order."""

    incoming: Incoming
    name: CommandName
    request: CommandRequest


@dataclass(frozen=True, slots=True)
class TerminalReport:
    """One report of a terminal. ``bad``: it is not of its model; it is a dead letter and counts as seen."""

    incoming: Incoming
    account: str
    epoch: str
    seq: int
    report: Report | None = None
    bad: BadReport | None = None


@dataclass(frozen=True, slots=True)
class ForeignReport:
    """A fill or an error of somebody else's connector."""

    incoming: Incoming
    message: ForeignFill | ForeignError


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An account as its terminal sees it now; of several only the newest counts."""

    incoming: Incoming
    snapshot: SnapshotMessage


@dataclass(frozen=True, slots=True)
class Spoiled:
    """A record that nobody can use: a dead letter, and a notice to the connector or execution service that sent it."""

    incoming: Incoming
    error: Unusable
    final: bool = True


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that a rule of ours broke on when it was parsed; ``trace`` says where."""

    incoming: Incoming
    trace: str


@dataclass(frozen=True, slots=True)
class SubmitAnswered:
    """The terminal answered a submit."""

    order_id: str
    attempt: int
    state: SubmitState
    epoch: str


@dataclass(frozen=True, slots=True)
class SubmitUnanswered:
    """The terminal did not answer a submit in time: nobody knows whether it heard it."""

    order_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class OperationAnswered:
    """The terminal answered an operation. ``outcome`` is final: ``unknown`` is asked for again."""

    asker: Asker
    outcome: Outcome
    message: str = ""

    @property
    def said(self) -> str:
        """What is remembered of it: empty where it is done."""
        return "" if self.outcome == "done" else f"{self.outcome}: {self.message}"[:500]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Look again at orders that wait for their terminal, and at exits: it came back, or time has passed."""

    order_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """The account's journal has forgotten its reports up to ``seq``, further than we know any of them."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Rows that seem to be over for long: those to be put away, and those that may end."""

    away: tuple[bytes, ...] = ()
    ending: tuple[bytes, ...] = ()


RecordInput = NewSignal | NewCommand | TerminalReport | ForeignReport | Snapshot | Spoiled | Broken
Internal = SubmitAnswered | SubmitUnanswered | OperationAnswered | Sweep | Released | Prune
"""What comes from within the worker; it is not durable and repeats by itself."""
Input = RecordInput | Internal


_KINDS: dict[type, str] = {
    NewCommand: "command",
    TerminalReport: "report",
    ForeignReport: "foreign",
    Snapshot: "snapshot",
    Spoiled: "spoiled",
    Broken: "broken",
    SubmitAnswered: "answer",
    SubmitUnanswered: "answer",
    OperationAnswered: "answer",
    Sweep: "sweep",
    Released: "released",
    Prune: "prune",
}


def kind_of(new: Input) -> str:
    """Return what an input is, in a word: ``signal`` or ``order``, or one of the table above."""
    if isinstance(new, NewSignal):
        return "signal" if new.order_id is None else "order"
    return _KINDS[type(new)]


def parse(incoming: Incoming, policy: Policy) -> list[RecordInput]:
    """Return what a record says, in its order: several for a batch of reports, none for what is not meant for us."""
    try:
        match incoming.topic:
            case topics.SIGNALS_APPROVED:
                return [_signal(incoming, policy)]
            case topics.ORDERS_SUBMITTED:
                return _order(incoming, policy)
            case topics.ORDER_COMMANDS:
                return [_command(incoming, policy)]
            case topics.ACCOUNT_SNAPSHOTS:
                return [_snapshot(incoming)]
            case _:
                return _broker_answer(incoming)
    except Unusable as error:
        return [Spoiled(incoming, error)]


def require_place(incoming: Incoming, account: str, partitions: int) -> None:
    """Return if a record stands where its account's records stand: only there one after another is handled.

    Raises:
        Unusable: ``wrong_key`` or ``wrong_partition``.
    """
    if incoming.key != account.encode():
        raise Unusable(
            "wrong_key", f"expected the account {account!r:.80} as the record's key, got {incoming.key!r:.80}"
        )
    if partition_of(account, partitions) != incoming.partition:
        raise Unusable(
            "wrong_partition", f"expected the partition of account {account!r:.80}, got {incoming.partition}"
        )


def read_order(incoming: Incoming) -> dict[str, Any]:
    """Return the fields of a foreign order with what completion found for it.

    Raises:
        Unusable: it is no JSON object.
    """
    named = with_text_ids(json_object(incoming.payload))
    if COMPLETED in incoming.headers:
        named = json_object(incoming.headers[COMPLETED]) | known_fields(named)
    if named.get("account") is None and (account := incoming.text(topics.ACCOUNT)) is not None:
        named = named | {"account": account}
    return named


def known_fields(named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not null."""
    return {name: value for name, value in named.items() if value is not None}


def shown_symbol(named: Mapping[str, Any]) -> str:
    """Return the symbol as far as it can be shown, empty where there is none."""
    symbol = named.get("symbol")
    return symbol.strip()[:SHOWN_SYMBOL] if isinstance(symbol, str) else ""


# --- signals and orders


def _signal(incoming: Incoming, policy: Policy) -> NewSignal:
    payload = json_object(incoming.payload)
    named = renamed(payload, policy.execution)
    signal_id = signal_id_of(named)
    if signal_id is None:
        raise no_signal_id(named)
    account = account_of(named) if named.get("account") is not None else incoming.text(topics.ACCOUNT)
    if account is None:
        raise Unusable("no_account", "account: expected a name; send signals without one to topic incomplete")
    require_place(incoming, account, policy.partitions)
    found = json_object(incoming.headers[COMPLETED]) if COMPLETED in incoming.headers else {}

    def read() -> AnySignal:
        require_known_fields(payload, policy.execution)
        whole = found | translated(named, policy.execution)
        signal = read_signal(whole | {"account": whole.get("account", account)})
        _require_subject(incoming, signal.symbol)
        return signal

    signal, fault = _read(read)
    strategy = (found | named).get("strategy")
    return NewSignal(
        incoming,
        account,
        signal_id,
        signal_id,
        # The subject's first: its sender may listen there.
        incoming.approved_symbol or shown_symbol(found | named),
        strategy[:SHOWN_STRATEGY] if isinstance(strategy, str) else None,
        signal,
        fault,
        _fingerprint(signal, incoming),
        weight=_weight(incoming),
    )


def _weight(incoming: Incoming) -> Decimal | None:
    text = incoming.text(topics.WEIGHT)
    try:
        return None if text is None else _WEIGHT.validate_python(text)
    except ValidationError:
        raise Unusable("bad_weight", f"{topics.WEIGHT}: expected a number above 0, got {text!r:.80}") from None


def _order(incoming: Incoming, policy: Policy) -> list[RecordInput]:
    named = read_order(incoming)
    if named.get("executor") not in (None, ANY_CONNECTOR, policy.deployment):
        return []
    order_id = signal_id_of({"signal_id": named.get("order_id")})
    if order_id is None:
        raise Unusable("no_order_id", "order_id: expected 1 to 128 visible ASCII characters")
    account = account_of(named)
    if account is None:
        raise Unusable("no_account", "account: expected a name")
    require_place(incoming, account, policy.partitions)
    # An order has decided already what it closes: it is read as one that opens is.
    decided = {"approved_at": named.get("signal_at"), "valid_until": named.get("not_after"), "intent": None}
    closes, fault = _closes(named)
    said = named | decided | {"signal_id": order_id, "account": account, "position_id": None}
    signal, fault = (None, fault) if fault else _read(lambda: read_signal(said))
    return [
        NewSignal(
            incoming,
            account,
            order_id,
            signal_id_of(named) or order_id,
            shown_symbol(named),
            None if signal is None else signal.strategy,
            signal,
            fault,
            _fingerprint(signal, incoming),
            order_id=order_id,
            closes=closes,
        )
    ]


def _closes(named: dict[str, Any]) -> tuple[int | None, str | None]:
    """Return the position that a foreign order closes, None for one that opens, and what is wrong with it."""
    value = named.get("position_id")
    if named.get("intent") in (None, "open") or value is None:
        return None, None
    if isinstance(value, int) and 0 < value <= LARGEST_INTEGER:
        return value, None
    return None, f"position_id: expected a position's ticket, got {value!r:.40}"


def _read(read: Callable[[], AnySignal]) -> tuple[AnySignal | None, str | None]:
    try:
        return read(), None
    except Unusable as error:
        return None, error.detail


def _require_subject(incoming: Incoming, symbol: str) -> None:
    """Raise Unusable where a message names another symbol than its subject, on which NATS permits to publish."""
    subject = incoming.text(topics.NATS_SUBJECT) or ""
    permitted = subjects.approved_symbol(subject)
    if permitted not in {None, symbol}:
        raise Unusable(
            "bad_field", f"symbol: expected {permitted!r:.80} as in the subject {subject:.100}, got {symbol!r}"
        )


def _fingerprint(signal: AnySignal | None, incoming: Incoming) -> str:
    return fingerprint_of(signal, "" if signal is not None else hashlib.sha256(incoming.payload).hexdigest())


# --- commands


def _command(incoming: Incoming, policy: Policy) -> NewCommand:
    subject = incoming.text(topics.NATS_SUBJECT) or ""
    name = subjects.command_name(subject)
    request = read_command(name, json_object(incoming.payload))
    assert is_command(name)
    if request.account is not None:
        require_place(incoming, request.account, policy.partitions)
    # NATS permits to publish by subject: an account's command must not come on another one's.
    if is_of_account(name) and subject != subjects.command(name, request.account or ""):
        raise Unusable("invalid", f"account: expected the one in the subject {subject:.100}, got {request.account!r}")
    return NewCommand(incoming, name, request)


# --- what brokers answer


def _broker_answer(incoming: Incoming) -> list[RecordInput]:
    match incoming.text(topics.FAMILY):
        case "fill":
            return _fill(incoming)
        case "error":
            return [_error(incoming)]
        case _:
            return _reports(incoming)


def _fill(incoming: Incoming) -> list[RecordInput]:
    """Return a fill, and beside it what of it can't be used: no executed volume is lost for a field beside it."""
    fields = connector_fields(json_object(incoming.payload))
    try:
        return [ForeignReport(incoming, ForeignFill.model_validate(fields))]
    except ValidationError as error:
        wrong = {each["loc"][0] for each in error.errors()}
        reason, detail = reason_and_detail(error)
        if not wrong <= BESIDE:
            raise Unusable(reason, detail) from None
    usable = {name: value for name, value in fields.items() if name not in wrong}
    told = Spoiled(incoming, Unusable(reason, f"{detail}; booked without {', '.join(sorted(map(str, wrong)))}"))
    return [ForeignReport(incoming, ForeignFill.model_validate(usable)), told]


def _error(incoming: Incoming) -> ForeignReport:
    try:
        return ForeignReport(incoming, ForeignError.model_validate(connector_fields(json_object(incoming.payload))))
    except ValidationError as error:
        raise Unusable(*reason_and_detail(error)) from None


def _reports(incoming: Incoming) -> list[RecordInput]:
    place, reports = read_batch(incoming.payload)
    if incoming.key != place.account.encode():
        raise Unusable("wrong_key", f"expected the account as key, {place.account!r:.80}, got {incoming.key!r:.80}")
    return [
        TerminalReport(incoming, place.account, place.epoch, each.seq, each, None)
        if isinstance(each, Report)
        else TerminalReport(incoming, place.account, place.epoch, each.seq, None, each)
        for each in reports
    ]


def _snapshot(incoming: Incoming) -> Snapshot:
    snapshot = SnapshotMessage.decode(incoming.payload)
    if incoming.key != snapshot.account.encode() or snapshot.state.account != snapshot.account:
        raise Unusable("wrong_key", f"expected the account as key and in state, {snapshot.account!r:.80}")
    return Snapshot(incoming, snapshot)


def _sequence(header: bytes | None, offset: int) -> int:
    return int(header) if header is not None and header.isdigit() and len(header) < 19 else offset


def _time(header: bytes | None, timestamp_s: float | None) -> datetime:
    try:
        if header is not None and (at := datetime.fromisoformat(header.decode())).tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # made by hand and wrong: the topic's own time is as good
    return datetime.fromtimestamp(timestamp_s or 0.0, UTC)
