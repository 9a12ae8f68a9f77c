"""commit/1: what one commit of an account's lane said, on the archive topic; one Kafka record a commit (design: desk).

A commit is written once: its bytes go into the account's outbox, from there into the archive, and its messages to NATS,
so that whoever repeats it after a crash repeats the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from streamapp.domain.vocabulary import Frozen, UtcTime, time_text
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage


class ArchivedMessage(Frozen):
    """One message of a commit: ``message`` as it goes to NATS on ``subject`` under ``id``.

    ``subject`` and ``id`` are None for what is not published: revisions that changed nothing readers act upon,
    decisions, and what a foreign connector has published itself. ``not_after``: it is not published after this moment.
    ``trace`` is the traceparent of the input that caused it. ``copy_of``: it is the decision on a copy of this signal,
    and goes to completion as well.
    """

    subject: str | None = None
    id: str | None = None
    trace: str | None = None
    not_after: UtcTime | None = None
    copy_of: str | None = None
    message: dict[str, Any]


class CommitMessage(Message):
    """commit/1: the facts and messages of one commit, in the order they were made. Kafka key: the account.

    ``number`` counts the commits of ``account`` from 1; 0 is news that no row keeps: an account's money as it is now.
    """

    schema_: Literal["commit/1"] = Field("commit/1", alias="schema")
    account: str
    number: int
    at: UtcTime
    facts: tuple[FactMessage, ...] = ()
    messages: tuple[ArchivedMessage, ...] = ()


@dataclass(frozen=True, slots=True)
class Publication:
    """One message of a commit as bytes; the fields are those of :class:`ArchivedMessage`."""

    message: bytes
    subject: str | None = None
    id: str | None = None
    trace: str | None = None
    not_after: datetime | None = None
    copy_of: str | None = None

    @property
    def kind(self) -> str | None:
        """What is published, in a word, as its id has it: ``order``, ``fill``; None for what is not published."""
        return None if self.id is None else self.id.split(":")[1]

    def encode(self) -> bytes:
        """Return it as JSON, the message's own bytes inside; what is None is left out."""
        place = {"subject": self.subject, "id": self.id, "trace": self.trace, "copy_of": self.copy_of}
        known = {name: value for name, value in place.items() if value is not None}
        if self.not_after is not None:
            known["not_after"] = time_text(self.not_after)
        head = json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
        return head + (b"," if known else b"") + b'"message":' + self.message + b"}"


def encode_commit(
    account: str, number: int, at: datetime, facts: Iterable[bytes], publications: Iterable[Publication]
) -> bytes:
    """Return commit/1 from facts (fact/1 as bytes) and messages that are encoded already: nothing is written twice."""
    head = {"schema": "commit/1", "account": account, "number": number, "at": time_text(at)}
    return b"".join(
        (
            json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()[:-1],
            b',"facts":[',
            b",".join(facts),
            b'],"messages":[',
            b",".join(publication.encode() for publication in publications),
            b"]}",
        )
    )


def publications_of(commit: bytes) -> list[Publication]:
    """Return the messages of an encoded commit, in their order, for whoever publishes them again."""
    return [
        Publication(
            message=json.dumps(each["message"], ensure_ascii=False, separators=(",", ":")).encode(),
            subject=each.get("subject"),
            id=each.get("id"),
            trace=each.get("trace"),
            not_after=None if each.get("not_after") is None else datetime.fromisoformat(each["not_after"]),
            copy_of=each.get("copy_of"),
        )
        for each in json.loads(commit)["messages"]
    ]
