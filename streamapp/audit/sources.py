"""Reading the witnesses.

NATS streams, the archive topic, ClickHouse, the web views and the simulated broker's ledger.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import aiohttp
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from streamapp import topics
from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.archive import KEYS, ArchiveFold, Key, Kind
from streamapp.audit.evidence import (
    DeadLetterView,
    DecisionView,
    Evidence,
    FillView,
    LedgerEntry,
    OperationView,
    OrderView,
    PositionView,
    SentView,
    Witness,
    fill_view,
    operation_view,
    order_view,
    position_view,
)
from streamapp.audit.places import WarehouseRows, WorkerTables
from streamapp.domain.identifiers import fill_id_for
from streamapp.errors import StreamappError
from streamapp.kafka.reader import TopicReader, place_of
from streamapp.letters.letter import is_decision
from streamapp.settings import Settings
from streamapp.subjects import EXECUTION_IN, EXECUTION_OUT

_AWAY = (aiohttp.ClientError, OSError, TimeoutError, StreamappError, KafkaError, NatsError, ClickHouseError)
"""What a witness that is being restarted raises: it is asked again."""


async def gather_evidence(settings: Settings, nats: Client, sent: Sequence[SentView] = ()) -> Evidence:
    """Return what all witnesses of a stack say now, beside what was ``sent``.

    Reads everything from the start: for demonstrations and tests.
    """
    archive = await archive_witness(settings)
    nats_witness, answers = await nats_witness_of(nats, settings)
    warehouse, decisions = await warehouse_witness(settings)
    ledger, operations = await ledger_of(settings)
    return Evidence(
        nats=nats_witness,
        warehouse=warehouse,
        archive=archive,
        tables=await tables_witness(settings, archive.orders),
        decisions=decisions,
        accepted=answers["accepted/1"],
        refused=answers["refused/1"],
        dead_letters=await _dead_letters(settings),
        ledger=ledger,
        ledger_operations=operations,
        sent=tuple(sent),
    )


async def settled_evidence(
    settings: Settings, nats: Client, *, within_s: float, sent: Sequence[SentView] = ()
) -> Evidence:
    """Return the evidence as soon as all agree and nothing is open, or as it is after ``within_s`` seconds.

    Args:
        settings: Of the stack.
        nats: A connected client.
        within_s: How long to wait for what is still on its way.
        sent: Everything that must have its answer by then.

    Raises:
        Whatever a witness that can't be asked raises, if it is still away after ``within_s``.
    """
    deadline = time.monotonic() + within_s
    while True:
        late = time.monotonic() > deadline
        try:
            evidence = await gather_evidence(settings, nats, sent)
        except _AWAY:
            if late:
                raise
        else:
            if late or not (disagreements(evidence) or unsettled(evidence)):
                return evidence
        await asyncio.sleep(1.0)


async def _dead_letters(settings: Settings) -> tuple[DeadLetterView, ...]:
    async with TopicReader(settings, topics.DEAD_LETTERS) as reader:
        return tuple([_dead_letter_view(record) async for record in reader.read() if not is_decision(record)])


def _dead_letter_view(record: ConsumerRecord) -> DeadLetterView:
    headers = {name: value.decode() for name, value in record.headers}
    return DeadLetterView(headers["subject"], int(headers["sequence"]), headers["reason"])


async def archive_witness(settings: Settings) -> Witness:
    """Return what the archive makes, by our own fold."""
    archive = ArchiveFold()
    try:
        async with TopicReader(settings, topics.ARCHIVE) as reader:
            async for record in reader.read():
                archive.take(record.value, place_of(record))
        known = {kind: {each.key: each.view for each in archive.entries(kind)} for kind in KEYS}
        return replace(_witness("archive", known), faults=tuple(map(str, archive.faults())))
    finally:
        archive.close()


async def nats_witness_of(nats: Client, settings: Settings) -> tuple[Witness, Counter[str]]:
    """Return what NATS was told, and how many answers to senders of signals, by schema."""
    orders: dict[str, OrderView] = {}
    fills: dict[str, FillView] = {}
    positions: dict[tuple[str, int], PositionView] = {}
    operations: dict[str, OperationView] = {}
    revs: dict[tuple[str, int], int] = {}
    deal_revs: dict[str, int] = {}
    answers: set[tuple[str, str]] = set()
    for stream in (EXECUTION_IN.name, EXECUTION_OUT.name):
        async for _, message in read_stream(nats, settings.nats.prefixed(stream)):
            schema = message.get("schema")
            if schema == "order/1" and message["rev"] > getattr(orders.get(message["order_id"]), "rev", 0):
                orders[message["order_id"]] = order_view(message)
            elif schema == "fill/1":
                if (revision := message.get("revision", 0)) >= deal_revs.get(message["fill_id"], 0):
                    deal_revs[message["fill_id"]], fills[message["fill_id"]] = revision, fill_view(message)
            elif schema == "account_operation/1":
                deal = fill_id_for(message["account"], message["deal"])
                if message["revision"] >= deal_revs.get(deal, 0):
                    deal_revs[deal], operations[deal] = message["revision"], operation_view(message)
            elif schema == "position/1":
                key = (message["account"], message["position_id"])
                if message["rev"] > revs.get(key, 0):
                    revs[key], positions[key] = message["rev"], position_view(message)
            elif schema in {"accepted/1", "refused/1"}:
                answers.add((schema, json.dumps(message, sort_keys=True)))
    witness = Witness("NATS", orders, fills, _open_only(positions.values()), operations)
    return witness, Counter(schema for schema, _ in answers)


async def read_stream(nats: Client, stream: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Yield (subject, JSON object) of everything in a stream, oldest first; what is no JSON object is left out."""
    js = nats.jetstream()
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, inactive_threshold=60.0)
    consumer = await js.pull_subscribe(">", stream=stream, config=config)
    try:
        left = (await consumer.consumer_info()).num_pending or 0
        while left > 0:
            batch = await consumer.fetch(min(left, 500), timeout=5)
            left -= len(batch)
            for message in batch:
                try:
                    content = json.loads(message.data)
                except ValueError:
                    continue
                if isinstance(content, dict):
                    yield message.subject, content
    finally:
        await consumer.unsubscribe()


async def warehouse_witness(settings: Settings) -> tuple[Witness, tuple[DecisionView, ...]]:
    """Return what ClickHouse holds, newest revisions only."""
    rows = WarehouseRows(settings)
    try:
        known = {kind: {key: view async for key, view in rows.entries(kind)} for kind in KEYS}
    finally:
        await rows.close()
    decisions = (view for view in known["decision"].values() if isinstance(view, DecisionView))
    return _witness("ClickHouse", known), tuple(decisions)


async def tables_witness(settings: Settings, order_ids: Iterable[str]) -> Witness:
    """Return what the trading workers' tables say through the web views."""
    async with WorkerTables(settings) as tables:
        found = await tables.orders(list(order_ids))
        positions = await tables.positions()
    return Witness(
        "tables", {order.order_id: order for order in found if order is not None}, positions=_open_only(positions)
    )


def _witness(name: str, known: Mapping[Kind, Mapping[Key, Any]]) -> Witness:
    return Witness(
        name,
        {view.order_id: view for view in known["order"].values()},
        {view.fill_id: view for view in known["fill"].values()},
        _open_only(known["position"].values()),
        {fill_id_for(*key): view for key, view in known["operation"].items()},  # type: ignore[arg-type]  # account, deal
    )


async def ledger_of(settings: Settings) -> tuple[tuple[LedgerEntry, ...] | None, dict[str, OperationView]]:
    """Return orders and deals of the simulated broker's ledger, and its operations; None where nothing is simulated."""
    if not any(account.module == "simulated" for account in settings.accounts.values()):
        return None, {}
    async with aiohttp.ClientSession() as http, http.get(f"http://{settings.market_address}/ledger") as answer:
        rows = [json.loads(line) for line in (await answer.text()).splitlines()]
    entries = tuple(
        LedgerEntry(
            account=row["account"],
            kind=row["kind"],
            ticket=row["ticket"],
            order_ticket=row.get("order", 0),
            reason=row["reason"],
            position_id=row["position_id"],
            magic=row["magic"],
            symbol=row["symbol"],
            side=row["side"],
            volume=Decimal(row["volume"]).normalize(),
            price=Decimal(row["price"]).normalize(),
        )
        for row in rows
        if row["kind"] != "operation"
    )
    operations = (row for row in rows if row["kind"] == "operation")  # the last line of a deal is what it is now
    return entries, {fill_id_for(row["account"], row["ticket"]): operation_view(row) for row in operations}


def _open_only(positions: Iterable[PositionView]) -> dict[tuple[str, int], PositionView]:
    # A closed position may be shown as flat or not at all: both say the same.
    return {(position.account, position.position_id): position for position in positions if position.volume}
