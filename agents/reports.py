"""Reports: what terminals and foreign connectors saw becomes facts; then terminals may forget it (design: submission).

For each group of records of one account:

1. send the facts, awaited (with them what the world is told at once: connections, complaints, dead letters);
2. put the watermark, awaited;
3. tell the terminal, not awaited: a lost ack is repeated with the next one. Then the caller acknowledges.

A report beyond a gap is used at once; the watermark waits for the gap. Facts are known by their ids, so repeating any
of it is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agents.dead_letters import dead_record
from agents.facts import fact_record
from agents.folding import DEALS
from agents.foreign import Answer, complaint, is_foreign_answer, read_answer
from agents.incoming import Incoming
from agents.outboxes import Outboxes
from streamapp import subjects, topics
from streamapp.crashpoints import reach
from streamapp.domain.facts import Fact, make_fact
from streamapp.domain.identifiers import partition_of
from streamapp.domain.reports import Progress
from streamapp.errors import Transient, Unusable
from streamapp.kafka.producer import Producer, Record
from streamapp.messages.account import AccountMessage
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.report import ConnectionChange, Report
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings
from tables.accounts import AccountRow, AccountStateRow, WatermarkRow, account_key, watermark_key
from tables.durable import DurableTable
from tables.orders import OrderRow, order_key


@dataclass(slots=True)
class _Batch:
    """What one group comes to: records to send, and the reports by (account, epoch, seq)."""

    records: list[Record] = field(default_factory=list)
    places: list[tuple[str, str, int]] = field(default_factory=list)


class Reports:
    """The reports agent's work on one account's records at a time; it alone writes the watermarks.

    Args:
        accounts: Table ``accounts``.
        orders: Table ``orders``, read only: what a foreign connector leaves out is known there.
        producer: Where facts, updates and dead letters go.
        outboxes: The terminals' outboxes: told what is durable, asked for what is missing.
        settings: The deployment's name, its accounts and the number of partitions.
        metrics: Counters.
    """

    def __init__(
        self,
        accounts: DurableTable[AccountRow],
        orders: DurableTable[OrderRow],
        producer: Producer,
        *,
        outboxes: Outboxes,
        settings: Settings,
        metrics: TradingMetrics,
    ) -> None:
        self._accounts = accounts
        self._orders = orders
        self._producer = producer
        self._outboxes = outboxes
        self._deployment = settings.deployment
        self._partitions = settings.kafka.partitions
        self._homes = {account: partition_of(account, self._partitions) for account in settings.accounts}
        self._metrics = metrics
        self._progress: dict[str, Progress] = {}
        self._checked: dict[str, Progress | None] = {}

    async def handle(self, events: list[Any]) -> None:
        """Make facts of one account's records; all is durable on return.

        Raises:
            Ambiguous, Definite, Transient: Kafka did not take something. Let it end the worker; everything comes again.
        """
        batch = _Batch()
        for event in events:
            incoming = Incoming.of(event)
            if is_foreign_answer(incoming):
                self._take_answer(incoming, batch)
            else:
                self._take_report(incoming, batch)
        await self._producer.send_all(batch.records)
        reach("reports.after_fact")
        if batch.places:
            await self._advance(batch.places, events[0].message.partition)

    def check(self) -> None:
        """Ask the terminals of this worker's accounts for what is missing: at the start, and then every few seconds.

        A gap shows itself with the next report; a lost last report only by this. Nothing is asked while the watermark
        moves. Writes nothing, so a timer may call it.
        """
        for account, partition in self._homes.items():
            try:
                row = self._accounts.get(watermark_key(account), partition=partition)
            except Transient:
                continue  # another worker's, or not recovered yet
            progress = self._known(account, None if row is None else row.root)
            if account not in self._checked or self._checked[account] == progress:
                self._outboxes.ask(account, progress)
            self._checked[account] = progress

    # --- our terminals

    def _take_report(self, incoming: Incoming, batch: _Batch) -> None:
        try:
            report = Report.decode(incoming.payload)
            if incoming.key != report.account.encode():
                raise Unusable("wrong_key", f"expected the account as key, {report.account!r:.80}")
            batch.records.append(self._record_of(report, incoming))
            batch.places.append((report.account, report.epoch, report.seq))
            self._metrics.reports.labels(report.kind).inc()
        except Unusable as error:
            self._bury(incoming, error, batch)
            # It is a dead letter now, durable like any other: the watermark may pass it, or it would wait for ever.
            batch.places.extend(_place_of(incoming))

    def _record_of(self, report: Report, incoming: Incoming) -> Record:
        body = report.body
        if isinstance(body, ConnectionChange):
            message_id = ("account", subjects.token(report.account), report.epoch, report.seq)
            return self._update(
                incoming, report.account, self._connection(report, body, incoming.partition), message_id
            )
        if report.order_id is None and not isinstance(body, DEALS):
            raise Unusable("no_order", f"order_id: expected one for {report.kind}, got null")
        cause = f"report:{report.account}:{report.epoch}:{report.seq}"
        fact = make_fact(report.account, report.order_id, body, at=report.at, causation_id=cause)
        return fact_record(fact, incoming.partition, incoming.trace)

    def _connection(self, report: Report, change: ConnectionChange, partition: int) -> AccountMessage:
        row = self._accounts.get(account_key(report.account), partition=partition)
        known = row.root.state if row is not None and isinstance(row.root, AccountStateRow) else None
        state = known or AccountMessage(account=report.account, connection=change.connection, at=report.at)
        return state.model_copy(
            update={
                "connection": change.connection,
                "detail": change.detail,
                "trading": "open" if change.connection == "ready" else "not_ready",
                "epoch": report.epoch,
                "at": report.at,
            }
        )

    async def _advance(self, places: list[tuple[str, str, int]], partition: int) -> None:
        account = places[0][0]
        key = watermark_key(account)
        row = self._accounts.get(key, partition=partition)
        before = self._known(account, row.root if row is not None else None)
        after = before or Progress(places[0][1])
        for _, epoch, seq in places:
            after = after.seen(epoch, seq)
        if before is None or (after.epoch, after.watermark) != (before.epoch, before.watermark):
            new = WatermarkRow(account=account, epoch=after.epoch, watermark=after.watermark, earlier=after.earlier)
            await self._accounts.put(key, AccountRow(new), partition=partition)
        self._progress[account] = after
        self._outboxes.durable(account, after)

    def _known(self, account: str, row: WatermarkRow | AccountStateRow | None) -> Progress | None:
        """Return the row's progress; what was seen beyond its gap is remembered here only."""
        if not isinstance(row, WatermarkRow):
            return None
        known = Progress(row.epoch, row.watermark, earlier=row.earlier)
        here = self._progress.get(account)
        if here is not None and here.epoch == row.epoch:
            for seq in sorted(here.ahead):
                known = known.seen(row.epoch, seq)
        return known

    # --- foreign connectors

    def _take_answer(self, incoming: Incoming, batch: _Batch) -> None:
        try:
            said = read_answer(incoming)
            row = self._orders.get(order_key(said.order_id), partition=incoming.partition)
            answer = Answer(incoming, said, row, self._partitions)
            fact: Fact | None = answer.fact()
            if fact is not None:
                batch.records.append(fact_record(fact, incoming.partition, incoming.trace))
            else:
                batch.records.append(self._update(incoming, answer.account, answer.notice(), None))
            self._metrics.reports.labels(
                "foreign_fill" if fact is not None and _is_deal(fact) else "foreign_error"
            ).inc()
        except Unusable as error:
            self._bury(incoming, error, batch)
            message = complaint(incoming, error, self._deployment)
            message_id = ("error", *message.error_id.split(":"))
            batch.records.append(self._update(incoming, message.account, message, message_id))

    # --- both

    def _bury(self, incoming: Incoming, error: Unusable, batch: _Batch) -> None:
        letter = incoming.dead(error.reason, error.detail)
        batch.records.append(dead_record(letter, incoming.key, incoming.partition))
        self._metrics.dead_letters.labels(incoming.topic, error.reason).inc()

    def _update(
        self, incoming: Incoming, account: str, message: Message, message_id: tuple[object, ...] | None
    ) -> Record:
        headers = incoming.trace
        if message_id is not None:
            subject = _subject_of(message)
            name = subjects.message_id(self._deployment, *message_id)
            headers = headers | {topics.PUBLISH_SUBJECT: subject.encode(), topics.PUBLISH_ID: name.encode()}
        return Record(topics.UPDATES, account.encode(), message.encode(), headers, incoming.partition)


def _subject_of(message: Any) -> str:
    if isinstance(message, AccountMessage):
        return subjects.account_state(message.account)
    return subjects.error(message.symbol)


def _is_deal(fact: Fact) -> bool:
    return isinstance(fact.body, DEALS)


def _place_of(incoming: Incoming) -> list[tuple[str, str, int]]:
    """Return the place of a report that can't be used, as far as it can be made out."""
    try:
        named = json_object(incoming.payload)
    except Unusable:
        return []
    account, epoch, seq = named.get("account"), named.get("epoch"), named.get("seq")
    if not (isinstance(account, str) and isinstance(epoch, str) and type(seq) is int and seq > 0):
        return []
    return [(account, epoch, seq)] if incoming.key == account.encode() else []
