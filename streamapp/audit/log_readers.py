"""Reading the broker log's entries as the links of their chains, from Kafka and from ClickHouse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from streamapp import topics
from streamapp.audit.chain import ChainLink
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.reader import message_of
from streamapp.domain.vocabulary import LARGEST_INTEGER
from streamapp.errors import Unusable
from streamapp.kafka.reader import Progress, TopicReader, place_of
from streamapp.messages.envelope import json_object, reason_and_detail
from streamapp.messages.log import BrokerLogBatch, BrokerLogEntry
from streamapp.settings import Settings

_PAGE = 1000
"""Rows: one has up to 890 kB, most have one or two."""


class Unreadable(NamedTuple):
    """What stands where an entry should be, and why it is none."""

    place: str
    detail: str


async def in_kafka(
    settings: Settings, account: str | None = None, progress: Progress | None = None
) -> AsyncIterator[ChainLink | Unreadable]:
    """Yield what the topic holds, as it stands there.

    Raises:
        Transient: Kafka does not answer.
        ConfigurationError: there is no such topic.
    """
    async with TopicReader(settings, topics.BROKER_LOG, account=account, progress=progress) as reader:
        async for record in reader.read():
            for each in links_of(record.value, place_of(record)):
                yield each


async def in_clickhouse(settings: Settings, account: str | None = None) -> AsyncIterator[ChainLink | Unreadable]:
    """Yield what the table holds, copies that ClickHouse has not merged yet included.

    Raises:
        Transient: ClickHouse does not answer.
    """
    clickhouse = ClickHouse.of(settings)
    where, given = ("account = {of:String}", {"of": account}) if account is not None else ("true", {})
    after: dict[str, Any] = {}
    try:
        while True:
            beyond = " AND (account, epoch, seq) > ({account:String}, {epoch:String}, {seq:UInt64})" if after else ""
            rows = await clickhouse.query(
                f"SELECT * EXCEPT ingested_at FROM broker_log WHERE {where}{beyond}"
                f" ORDER BY account, epoch, seq LIMIT {_PAGE} WITH TIES",
                given | after,
            )
            for row in rows:
                place = f"row of {row['account']}, {row['epoch']}, {row['seq']}"
                try:
                    yield _link(BrokerLogEntry.model_validate(message_of(BrokerLogEntry, row)), place)
                except ValidationError as error:
                    yield Unreadable(place, reason_and_detail(error)[1])
                except ValueError as error:
                    yield Unreadable(place, str(error))
            if len(rows) < _PAGE:
                return
            after = {name: rows[-1][name] for name in ("account", "epoch", "seq")}
    finally:
        await clickhouse.close()


def links_of(payload: bytes, place: str) -> list[ChainLink | Unreadable]:
    """Return the links of a record, a log/2 or, as there were before it, one log/1; or why there is none."""
    try:
        if json_object(payload).get("schema") == "log/1":
            return [_link(BrokerLogEntry.decode(payload), place)]
        return [_link(entry, place) for entry in BrokerLogBatch.decode(payload).entries]
    except Unusable as error:
        return [Unreadable(place, f"expected log/2, got what is {error}")]


def _link(entry: BrokerLogEntry, place: str) -> ChainLink | Unreadable:
    if not 0 < entry.seq <= LARGEST_INTEGER:
        return Unreadable(place, f"expected a seq from 1 on, got {entry.seq}")
    return ChainLink.of(entry, place)
