"""A dead letter as it is kept: what it says of itself, in words, and what persons decided about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from aiokafka import ConsumerRecord

from streamapp import subjects, topics
from streamapp.domain.vocabulary import time_text, visible
from streamapp.errors import Unusable
from streamapp.messages.dead_letter import DECISION, DETAIL, REASON, LetterDecisionMessage
from streamapp.messages.dialect import renamed
from streamapp.messages.envelope import json_object
from streamapp.messages.routing import Family
from streamapp.settings import ExecutionSettings

SHOWN_BYTES = 4096
"""What is shown of a payload, and what is kept of it where many are listed."""
Disposition = Literal["open", "unfinished", "redriven", "acknowledged"]
"""unfinished: it was to be sent again, and nobody knows whether it was."""
_ID = re.compile(r"([0-9]{1,9})-([0-9]{1,18})")

MEANINGS: Mapping[str, str] = {
    "not_json": "it is no JSON",
    "not_an_object": "it is JSON, but no object",
    "no_signal_id": "nothing says which signal it is",
    "no_order_id": "nothing says which order it is about",
    "no_order": "nothing says which order it is about",
    "no_fill_id": "nothing says which fill it is, and a repeated one would count twice",
    "no_id": "nothing says which signal or order it is",
    "no_account": "nothing says which account it is for",
    "bad_field": "a field of it can't be used",
    "invalid": "a field of it can't be used",
    "bad_weight": "its weight for this account can't be used",
    "out_of_range": "a number or time of it is beyond what can be kept",
    "too_long": "it is longer than is taken",
    "unknown_subject": "it came on a subject that nobody here reads",
    "unknown_command": "there is no such command",
    "unknown_order": "it is about an order that is not known here",
    "unknown_schema": "it is of a kind that this version does not know",
    "unresolved": "no account was found for it in time",
    "wrong_account": "it names another account than the one whose it is",
    "wrong_key": "it stands under another account's key in Kafka",
    "wrong_partition": "it stands in another partition than its account's",
    "internal": "a rule of streamapp broke on it",
    "does_not_fit": "ClickHouse does not take it as it is",
    "bad_subject": "NATS takes no such subject",
}
"""What the reasons of dead letters mean."""

_FAMILIES: Mapping[str, Family] = {
    subjects.SIGNALS_APPROVED: "signal",
    subjects.ORDERS_SUBMITTED: "order",
    subjects.BROKER_FILL: "fill",
    subjects.BROKER_ERROR: "error",
    subjects.COMMANDS: "command",
    subjects.REPORT: "reports",
    subjects.BROKER_LOG: "log",
    subjects.SNAPSHOT: "snapshot",
}
_OURS = frozenset({topics.ARCHIVE, topics.BROKER_LOG, "outbox"})
"""The sources of letters that nobody sent: the warehouse and the publisher have them of us."""
_TO_DO: Mapping[Family, str] = {
    "signal": "Its sender was told on signals.refused. Have it mended there; once we can read it, it may be re-driven.",
    "order": "Its execution service was told on broker.error that the order is over. Have it mended there.",
    "fill": "Its connector was told on broker.error. Compare the account with the broker, and have the connector send "
    "the fill again: it counts once.",
    "error": "Its connector was told on broker.error. Look at the order, and have the connector mended.",
    "command": "Whoever gave it was told on command_results, if it has a request_id. Give it again.",
    "reports": "Compare the account with the broker (Positions, /breaks), and report the letter: a terminal of ours "
    "should not write what we can't read. Are both of the same version?",
    "log": "Report it: a terminal of ours should not write what we can't read. Are both of the same version?",
    "snapshot": "The next one takes its place. If they keep coming: are terminal and worker of the same version?",
}
_INTERNAL = "Its account may be halted: compare it with the broker, report the letter with its detail, then resume it."
_OF_OURS = "Report it with its detail; the archive has it, and nothing of an order's life depends on it."
_UNKNOWN = "Find out who writes it."


@dataclass(frozen=True)
class KeptLetter:
    """A dead letter of the topic; ``id`` is its partition and offset, ``payload`` may be cut (:attr:`is_whole`)."""

    id: str
    key: bytes | None
    payload: bytes
    reason: str
    detail: str
    source: str
    subject: str
    sequence: int
    length: int
    sha256: str
    at: datetime
    decisions: tuple[LetterDecisionMessage, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all of what came is here."""
        return len(self.payload) == self.length

    @property
    def is_ours(self) -> bool:
        """Whether nobody sent it: it is a record of ours that ClickHouse or NATS did not take."""
        return self.source in _OURS

    @property
    def family(self) -> Family | None:
        """What kind of message it is, None where nobody sent it or nobody knows."""
        if self.is_ours:
            return None
        return next((family for start, family in _FAMILIES.items() if self.subject.startswith(f"{start}.")), None)

    @property
    def meaning(self) -> str:
        """Why nobody could use it, in words."""
        return MEANINGS.get(self.reason, "nobody could use it")

    @property
    def todo(self) -> str:
        """What a person should do about it."""
        if self.reason == "internal":
            return _INTERNAL
        if self.is_ours:
            return _OF_OURS
        return _UNKNOWN if self.family is None else _TO_DO[self.family]

    @property
    def disposition(self) -> Disposition:
        """Where it stands: the first decision that settled it, or that it is open."""
        decided = [each.decision for each in self.decisions]
        settled = next((each for each in decided if each != "redrive"), None)
        if settled is None:
            return "unfinished" if decided else "open"
        return "redriven" if settled == "redriven" else "acknowledged"

    @property
    def settled_by(self) -> LetterDecisionMessage | None:
        """The decision that settled it."""
        return next((each for each in self.decisions if each.decision != "redrive"), None)

    @property
    def text(self) -> str:
        """The payload as far as it is shown: other bytes than UTF-8, and what can't be seen, are escaped."""
        return visible(self.payload[:SHOWN_BYTES].decode("utf-8", "backslashreplace"), "\t\n")

    def trimmed(self) -> KeptLetter:
        """Return it with no more of its payload than is shown."""
        return self if len(self.payload) <= SHOWN_BYTES else replace(self, payload=self.payload[:SHOWN_BYTES])

    def decided(self, decision: LetterDecisionMessage) -> KeptLetter:
        """Return it with one more decision."""
        return replace(self, decisions=(*self.decisions, decision))

    def named(self, execution: ExecutionSettings) -> dict[str, str | None]:
        """Return ``account``, ``symbol`` and ``message_id`` (of the signal, order or request) as far as known."""
        try:
            payload = json_object(self.payload) if self.is_whole else {}
        except Unusable:
            payload = {}
        fields = renamed(payload, execution) if self.family == "signal" else payload
        ids = (_text(fields, name) for name in ("signal_id", "order_id", "request_id", "fill_id"))
        keyed = self.source in _KEYED_BY_ACCOUNT and self.key is not None
        account = (self.key or b"").decode("utf-8", "replace") if keyed else _text(fields, "account")
        symbol = _text(fields, "symbol") or subjects.approved_symbol(self.subject)
        return {"account": account, "symbol": symbol, "message_id": next((each for each in ids if each), None)}

    def shown(self, execution: ExecutionSettings) -> dict[str, Any]:
        """Return it for JSON, but whether it may be re-driven."""
        return {
            "id": self.id,
            "at": time_text(self.at),
            "source": self.source,
            "subject": self.subject,
            "sequence": self.sequence,
            **self.named(execution),
            "reason": self.reason,
            "meaning": self.meaning,
            "detail": self.detail,
            "todo": self.todo,
            "payload": self.text,
            "length": self.length,
            "sha256": self.sha256,
            "disposition": self.disposition,
            "decisions": [each.model_dump(mode="json", exclude={"schema_", "letter_id"}) for each in self.decisions],
        }


_KEYED_BY_ACCOUNT = frozenset(
    {
        *(topics.SIGNALS_APPROVED, topics.ORDERS_SUBMITTED, topics.ORDER_COMMANDS, topics.BROKER_REPORTS),
        *(topics.ACCOUNT_SNAPSHOTS, topics.ARCHIVE, topics.BROKER_LOG, "outbox"),
    }
)


def letter_id(partition: int, offset: int) -> str:
    """Return the id of the letter that stands there."""
    return f"{partition}-{offset}"


def place_of_letter(text: str, partitions: int) -> tuple[int, int]:
    """Return the partition and offset that an id names.

    Raises:
        Unusable: it is no id of a letter.
    """
    found = _ID.fullmatch(text)
    if found is None or int(found[1]) >= partitions:
        raise Unusable("bad_id", f"expected the id of a dead letter, such as 3-17, got {text!r:.80}: list them")
    return int(found[1]), int(found[2])


def kept_letter(record: ConsumerRecord) -> KeptLetter:
    """Return the letter in a record of the topic, whoever wrote it: a header that is none of ours says nothing."""
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    value = record.value or b""
    return KeptLetter(
        id=letter_id(record.partition, record.offset),
        key=record.key,
        payload=value,
        reason=headers.get(REASON, ""),
        detail=headers.get(DETAIL, ""),
        source=headers.get("source", ""),
        subject=headers.get("subject", ""),
        sequence=_number(headers.get("sequence"), record.offset),
        length=_number(headers.get("length"), len(value)),
        sha256=headers.get("sha256", ""),
        at=_time(headers.get("time"), record.timestamp),
    )


def decision_in(record: ConsumerRecord) -> LetterDecisionMessage | None:
    """Return the decision in a record of the topic, None where it is a letter, or nothing that can be read."""
    if not is_decision(record):
        return None
    try:
        return LetterDecisionMessage.decode(record.value or b"")
    except Unusable:
        return None


def is_decision(record: ConsumerRecord) -> bool:
    """Return whether a record of the topic is about a letter, and not one."""
    return any(name == DECISION for name, _ in record.headers)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value[:128] if isinstance(value, str) and value else None


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 19 else otherwise


def _time(text: str | None, timestamp_ms: int) -> datetime:
    try:
        if text is not None and (at := datetime.fromisoformat(text)).tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
