"""Reading the witnesses.

NATS streams, the archive topic, ClickHouse, the web views and the simulated broker's ledger.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from clickhouse_connect.driver.exceptions import ClickHouseError
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from streamapp import topics
from streamapp.audit.agreement import disagreements, unsettled
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
)
from streamapp.clickhouse.client import open_client
from streamapp.domain import facts as f
from streamapp.domain.fold import apply, deal_of
from streamapp.domain.identifiers import fill_id_for, magic_of
from streamapp.domain.orders import Deal, OrderState
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.domain.status import average_price_of, detail_of, filled_of, status_of
from streamapp.errors import StreamappError
from streamapp.messages.commit import CommitMessage
from streamapp.settings import Settings
from streamapp.subjects import EXECUTION_IN, EXECUTION_OUT

_READ_DEADLINE_S = 30.0
_AWAY = (aiohttp.ClientError, OSError, TimeoutError, StreamappError, KafkaError, NatsError, ClickHouseError)
"""What a witness that is being restarted raises: it is asked again."""


async def gather_evidence(settings: Settings, nats: Client, sent: Sequence[SentView] = ()) -> Evidence:
    """Return what all witnesses of a stack say now, beside what was ``sent``.

    Reads everything from the start: for demonstrations and tests.
    """
    archive = await archive_witness(settings)
    nats_witness, answers = await nats_witness_of(nats)
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
        dead_letters=tuple(map(_dead_letter_view, await read_topic(settings, topics.DEAD_LETTERS))),
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


async def read_topic(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """Return every record with a value of a topic up to the end it has now, partition by partition.

    Raises:
        TimeoutError: the topic could not be read to its end.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        await consumer.start()
        parts = [TopicPartition(topic, number) for number in range(settings.kafka.partitions)]
        ends = await consumer.end_offsets(parts)
        consumer.assign(parts)
        async with asyncio.timeout(_READ_DEADLINE_S):
            return await _up_to(consumer, {part: end for part, end in ends.items() if end})
    finally:
        await consumer.stop()


async def _up_to(consumer: AIOKafkaConsumer, left: dict[TopicPartition, int]) -> list[ConsumerRecord]:
    found: list[ConsumerRecord] = []
    while left:
        for part, records in (await consumer.getmany(timeout_ms=500)).items():
            found += [record for record in records if record.value is not None]
            if part in left and await consumer.position(part) >= left[part]:
                del left[part]
    return found


def _dead_letter_view(record: ConsumerRecord) -> DeadLetterView:
    headers = {name: value.decode() for name, value in record.headers}
    return DeadLetterView(headers["subject"], int(headers["sequence"]), headers["reason"])


async def archive_witness(settings: Settings) -> Witness:
    """Return the orders, fills and operations that the archive makes, by our own fold."""
    states: dict[tuple[str, str], OrderState] = {}
    owners: dict[str, str | None] = {}
    deals: dict[str, Deal] = {}
    operations: dict[str, f.AccountOperation] = {}
    seen: set[str] = set()
    commits = [CommitMessage.decode(record.value) for record in await read_topic(settings, topics.ARCHIVE)]
    for fact in (fact for commit in commits for fact in commit.facts):
        if isinstance(fact.body, f.Filled | f.FillCorrected | f.FillBusted):
            number, said = deal_of(fact)
            fill_id = fill_id_for(fact.account, number)
            owners[fill_id] = fact.order_id
            deals[fill_id] = deals.get(fill_id, Deal()).merged(said)
        if isinstance(fact.body, f.AccountOperation):
            key = fill_id_for(fact.account, fact.body.deal)
            operations[key] = max(operations.get(key, fact.body), fact.body, key=lambda body: body.revision)
        if fact.order_id is not None and fact.fact_id not in seen:
            place = (fact.account, fact.order_id)
            states[place] = apply(states.get(place, OrderState()), fact)
        seen.add(fact.fact_id)
    fills = (deal_view(fill_id, owners[fill_id], deal) for fill_id, deal in deals.items())
    return Witness(
        "archive",
        {key[1]: _view_of(*key, state) for key, state in states.items()},
        {fill.fill_id: fill for fill in fills if fill is not None},
        operations={key: operation_view(body.model_dump()) for key, body in operations.items()},
    )


def deal_view(fill_id: str, order_id: str | None, deal: Deal) -> FillView | None:
    """Return a deal as it counts now, None if it was never seen."""
    filled = deal.filled
    if filled is None:
        return None
    volume = filled.volume.normalize() if deal.stands else Decimal(0)
    return FillView(fill_id, order_id, filled.position_id, volume, filled.price.normalize())


def _view_of(account: str, order_id: str, state: OrderState) -> OrderView:
    created = state.created
    return OrderView(
        order_id=order_id,
        account=account,
        signal_id=created.signal_id if created else "",
        status=status_of(state),
        detail=detail_of(state),
        filled_volume=filled_of(state).normalize(),
        average_price=_plain(average_price_of(state)),
        rev=len(state.facts),
        magic=magic_of(order_id),
        asked="" if state.parameters is None else parameters_hash(state.parameters),
    )


async def nats_witness_of(nats: Client) -> tuple[Witness, Counter[str]]:
    """Return what NATS was told, and how many answers to senders of signals, by schema."""
    orders: dict[str, OrderView] = {}
    fills: dict[str, FillView] = {}
    positions: dict[tuple[str, int], PositionView] = {}
    operations: dict[str, OperationView] = {}
    revs: dict[tuple[str, int], int] = {}
    deal_revs: dict[str, int] = {}
    answers: set[tuple[str, str]] = set()
    for stream in (EXECUTION_IN.name, EXECUTION_OUT.name):
        async for _, message in read_stream(nats, stream):
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
    client = await open_client(settings)
    try:
        orders = await _rows(client, "SELECT * FROM {db}.orders FINAL", settings)
        fills = await _rows(client, "SELECT * FROM {db}.executions FINAL", settings)
        positions = await _rows(client, "SELECT * FROM {db}.positions FINAL", settings)
        operations = await _rows(client, "SELECT * FROM {db}.account_operations FINAL", settings)
        decisions = await _rows(client, "SELECT * FROM {db}.signals FINAL", settings)
    finally:
        await client.close()
    return (
        Witness(
            "ClickHouse",
            {row["order_id"]: order_view(row) for row in orders},
            {row["fill_id"]: fill_view(row) for row in fills},
            _open_only(position_view(row) for row in positions),
            {fill_id_for(row["account"], row["deal"]): operation_view(row) for row in operations},
        ),
        tuple(
            DecisionView(
                row["account"],
                row["signal_id"],
                row["stream_seq"],
                row["decision"],
                row["reason"] or None,
                row["order_id"] or None,
            )
            for row in decisions
        ),
    )


async def _rows(client: Any, query: str, settings: Settings) -> list[dict[str, Any]]:
    result = await client.query(query.format(db=settings.clickhouse.database))
    return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]


async def tables_witness(settings: Settings, order_ids: Iterable[str]) -> Witness:
    """Return what the trading workers' tables say through the web views."""
    base = f"http://127.0.0.1:{settings.ports.trading()}"
    async with aiohttp.ClientSession(base, timeout=aiohttp.ClientTimeout(total=_READ_DEADLINE_S)) as http:
        limit = asyncio.Semaphore(16)

        async def one(order_id: str) -> OrderView | None:
            async with limit, http.get(f"/orders/{order_id}") as answer:
                return order_view(await answer.json()) if answer.status == 200 else None

        orders = [order for order in await asyncio.gather(*map(one, order_ids)) if order]
        async with http.get("/positions") as answer:
            # A worker that is not ready yet answers 503: then nothing is known, and the witnesses differ.
            positions = [position_view(item) for item in (await answer.json()).get("positions", ())]
    return Witness(
        "tables",
        {order.order_id: order for order in orders},
        positions=_open_only(positions),
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


def order_view(row: dict[str, Any]) -> OrderView:
    """Return the view of an order/1 message or row."""
    return OrderView(
        order_id=row["order_id"],
        account=row["account"],
        signal_id=row["signal_id"],
        status=row["status"],
        detail=row["detail"],
        filled_volume=Decimal(row["filled_volume"]).normalize(),
        average_price=_plain(row["average_price"]),
        rev=row["rev"],
        magic=row["magic"],
        asked=parameters_hash(_parameters(row)),
    )


def _parameters(row: dict[str, Any]) -> OrderParameters:
    # The ClickHouse driver gives times in UTC without saying so.
    end = row["expiration"]
    known = end.replace(tzinfo=UTC) if isinstance(end, datetime) and end.tzinfo is None else end
    return OrderParameters.model_validate(row | {"expiration": known})


def fill_view(row: dict[str, Any]) -> FillView:
    """Return the view of a fill/1 message or row."""
    return FillView(
        row["fill_id"],
        row["order_id"] or None,
        row["position_id"],
        Decimal(0) if row.get("busted") else Decimal(row["volume"]).normalize(),
        Decimal(row["price"]).normalize(),
    )


def operation_view(row: dict[str, Any]) -> OperationView:
    """Return the view of an account_operation/1 message or row, of such a fact's body, or of the ledger's line."""
    return OperationView(row["type"], row["position_id"] or 0, Decimal(row["amount"]).normalize())


def position_view(row: dict[str, Any]) -> PositionView:
    """Return the view of a position/1 message or row."""
    sign = -1 if row["side"] == "sell" else 1
    return PositionView(row["account"], row["position_id"], (sign * Decimal(row["volume"])).normalize())


def _open_only(positions: Iterable[PositionView]) -> dict[tuple[str, int], PositionView]:
    # A closed position may be shown as flat or not at all: both say the same.
    return {(position.account, position.position_id): position for position in positions if position.volume}


def _plain(value: Any) -> Decimal | None:
    # ClickHouse keeps ten digits behind the point; compare no more of an average than that.
    return None if value is None else round(Decimal(value), 8).normalize()
