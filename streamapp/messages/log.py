"""log/2: exchanges with the broker's terminal, hash-chained per account, on ``mt5.log.{account}``; each is a log/1."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from streamapp.domain.vocabulary import UtcTime, time_text
from streamapp.messages.envelope import Message, encode_around

GENESIS_HASH = "0" * 64


class BrokerLogEntry(Message):
    """log/1.

    ``hash`` is SHA-256 over ``previous_hash`` and the canonical JSON of the rest: no entry can be changed or left out
    unseen.
    """

    schema_: Literal["log/1"] = Field("log/1", alias="schema")
    account: str
    epoch: str
    seq: int
    previous_hash: str
    hash: str
    at: UtcTime
    function: str
    request: dict[str, Any] | None = None
    response: Any = None
    last_error: tuple[int, str] | None = None
    order_id: str | None = None
    duration_us: int = 0


class BrokerLogPlace(Message):
    """Where a batch of entries stands: its account, the epoch of its journal, and the seq of its first entry."""

    schema_: Literal["log/2"] = Field("log/2", alias="schema")
    account: str
    epoch: str
    first_seq: int = Field(ge=1)


class BrokerLogBatch(BrokerLogPlace):
    """log/2: the entries that waited together, at most 100 and about 200 kB of them, or one that is larger.

    Their ``seq`` is contiguous from ``first_seq``. A batch may overlap others, earlier or later ones: what is
    published again is not cut where it was cut before.
    """

    entries: tuple[BrokerLogEntry, ...] = Field(min_length=1)


def encode_entries(place: BrokerLogPlace, entries: Sequence[bytes]) -> bytes:
    """Return the BrokerLogBatch of entries that are encoded already, without reading them."""
    return encode_around(place, "entries", entries)


def chained(previous_hash: str, **fields: Any) -> BrokerLogEntry:
    """Return the entry with its hash."""
    return BrokerLogEntry(previous_hash=previous_hash, hash=entry_hash(previous_hash, fields), **fields)


def entry_hash(previous_hash: str, fields: dict[str, Any]) -> str:
    """Return the hash of an entry's fields (all but schema, previous_hash and hash); times as on the wire."""
    content = {key: time_text(value) if hasattr(value, "astimezone") else value for key, value in fields.items()}
    return hashlib.sha256(
        (previous_hash + json.dumps(content, sort_keys=True, separators=(",", ":"))).encode()
    ).hexdigest()


def is_intact(entry: BrokerLogEntry) -> bool:
    """Return whether an entry still has the hash of its content."""
    fields = {
        name: getattr(entry, name)
        for name in BrokerLogEntry.model_fields
        if name not in {"schema_", "previous_hash", "hash"}
    }
    return entry.hash == entry_hash(entry.previous_hash, fields)
