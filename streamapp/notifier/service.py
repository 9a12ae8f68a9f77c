"""The notifier: from Kafka's archive, dead letters and snapshots to whatever persons read.

It reads Kafka and not NATS: the archive is kept for ever and dead letters for a month, so that what happened while it
was away is still there, and NATS has no dead letters at all. Its consumer group is its own; nobody waits for it.

What it promises:

1. An event is told to each of its receivers once it is in Kafka, or given up in words after ``notify.give_up_s``.
2. An offset is committed only when everything up to it was told or given up; what was told is remembered on disk
   (:mod:`streamapp.notifier.told`). A kill between a receiver's taking a message and that tells it once more.
3. A receiver that is slow or away delays no other, nor the reading.

Begun for the first time it tells what comes from then on. Snapshots are news and are read from two minutes ago.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from streamapp import health, topics
from streamapp.clock import utc_now
from streamapp.domain.identifiers import partition_of
from streamapp.domain.notification import is_as_urgent
from streamapp.errors import ConfigurationError, Transient, Unusable
from streamapp.kafka.security import Cluster
from streamapp.messages.account import AccountMessage, SnapshotMessage
from streamapp.notifier.addresses import addresses_for, read_addresses, require_receivers
from streamapp.notifier.gauges import NotifierGauges
from streamapp.notifier.notices import CommitReader, Notice, TerminalWatch, letter_notice
from streamapp.notifier.receiver import Receiver
from streamapp.notifier.statement import StatementDay, last_day, read_statement
from streamapp.notifier.told import Told
from streamapp.processes.stopping import within_grace
from streamapp.settings import Settings

logger = logging.getLogger(__name__)

POLL_MS = 250
COMMIT_S = 1.0
"""Between two commits of offsets: what is read, and found told already, again after a kill."""
RETRY_S = 2.0
"""Between two tries at a Kafka that is not there."""
STALL_S = 5.0
"""A loop that stood still for longer heard no terminal meanwhile, and blames none."""
SNAPSHOTS_OF = timedelta(minutes=2)


class OffsetLedger:
    """How far each partition is read, and which of its events are not told yet."""

    def __init__(self) -> None:
        self._read: dict[TopicPartition, int] = {}
        self._open: dict[TopicPartition, Counter[int]] = {}

    def read(self, place: TopicPartition, offset: int) -> None:
        """Note that everything before ``offset`` is read."""
        self._read[place] = offset

    def begin(self, place: TopicPartition, offset: int) -> None:
        """Note that a receiver is to be told of the record at ``offset``."""
        self._open.setdefault(place, Counter())[offset] += 1

    def finish(self, place: TopicPartition, offset: int) -> None:
        """Note that one was; what is of a partition that was given away since changes nothing."""
        if (left := self._open.get(place)) is not None and offset in left:
            left[offset] -= 1
            if left[offset] <= 0:
                del left[offset]

    def forget(self, places: Iterable[TopicPartition]) -> None:
        """Forget partitions that are another's now."""
        for place in places:
            self._read.pop(place, None)
            self._open.pop(place, None)

    def is_at(self, end: Callable[[TopicPartition], int | None]) -> bool:
        """Return whether every partition is read to its end, as far as that is known."""
        ends = {place: end(place) for place in self._read}
        return bool(ends) and all(known is not None and self._read[place] >= known for place, known in ends.items())

    def committable(self) -> dict[TopicPartition, int]:
        """Return where reading may begin anew, for each partition."""
        return {place: min(self._open.get(place) or (offset,)) for place, offset in self._read.items()}


class Notifier:
    """Tells persons what somebody should look at, until it is told to stop.

    Raises:
        ConfigurationError: ``notify.urls_file`` is not set or can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        notify = settings.notify
        if notify.urls_file is None:
            raise ConfigurationError(
                "expected notify.urls_file in the settings, such as urls_file = 'secrets/notify.urls' in [notify] of "
                "streamapp.toml, got none: without it nobody is notified (docs/notifications.md)"
            )
        addresses = read_addresses(notify.urls_file)
        require_receivers(notify, addresses)
        self._settings = settings
        self._gauges = NotifierGauges()
        self._told = Told(settings.local.data / "notifier" / "told")
        receivers = {each: Receiver(each, notify, self._told, self._gauges, utc_now) for each in addresses}
        self._receivers = tuple(receivers.values())
        self._of_event = {
            event: tuple(receivers[each] for each in addresses_for(notify.rule(event).tag, addresses))
            for event in notify.events
        }
        self._archive, self._letters, self._snapshots = map(
            settings.kafka.prefixed, (topics.ARCHIVE, topics.DEAD_LETTERS, topics.ACCOUNT_SNAPSHOTS)
        )
        self._commits, self._terminals = CommitReader(), TerminalWatch(timedelta(seconds=notify.disconnected_s))
        self._ledger = OffsetLedger()
        self._committed: dict[TopicPartition, int] = {}
        self._offsets_s: dict[str, int] = {}
        self._stated: dict[str, str] = {}
        self._statements: asyncio.Queue[StatementDay] = asyncio.Queue()
        self._waiting_for = "starting"
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Commit what is told, and end."""
        self._stopping.set()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether it reads (see :mod:`streamapp.health`)."""
        reasons = [self._waiting_for] if self._waiting_for else []
        return not reasons, {"status": "starting" if reasons else "ok", "reasons": reasons}

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Return how it is; a receiver that takes nothing is named by its line."""
        reasons = [self._waiting_for] if self._waiting_for else []
        reasons += [f"{each.address.name}: {each.trouble}" for each in self._receivers if each.trouble]
        status = "starting" if self._waiting_for else "unhealthy" if reasons else "ok"
        return not reasons, {"status": status, "reasons": reasons}

    async def run(self) -> None:
        """Run until ``stop``.

        Raises:
            OSError: The port of /health is in use.
            ConfigurationError: Kafka does not let us in, or has no such topics.
        """
        settings = self._settings
        server = await health.serve(
            settings.ports.notifier, self.health, self._gauges.text, host=settings.web.bind, ready=self.ready
        )
        async with server:
            stop = asyncio.create_task(self._stopping.wait())
            work = [
                asyncio.create_task(self._consume()),
                asyncio.create_task(self._state()),
                *(asyncio.create_task(each.run()) for each in self._receivers),
            ]
            try:
                await asyncio.wait((stop, *work), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stop, *work):
                    task.cancel()
                outcomes = await asyncio.gather(stop, *work, return_exceptions=True)
                self._told.close()
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome

    # --- reading

    async def _consume(self) -> None:
        cluster = Cluster.of(self._settings)
        while True:
            consumer = AIOKafkaConsumer(
                group_id=f"{self._settings.kafka_deployment}-notifier",
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # of what expired while it was away, the rest
                # The same partitions of each topic: an account's commits and snapshots go to the same one of several.
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=int(self._settings.kafka.session_timeout_s * 1000),
                **cluster.client_options(),
            )
            try:
                await consumer.start()
                self._waiting_for = "Kafka gives it no partitions yet. Are the topics there? Run `streamapp init`"
                consumer.subscribe(
                    (self._archive, self._letters, self._snapshots), listener=_Assignment(self, consumer)
                )
                await self._read(consumer)
            except (KafkaError, OSError) as error:
                explained = await cluster.explained(error)
                if not isinstance(explained, Transient):
                    raise explained from error
                if self._waiting_for != str(explained):
                    logger.warning("waiting: %s", explained)
                self._waiting_for = str(explained)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await self._commit(consumer)
                await consumer.stop()
            await asyncio.sleep(RETRY_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        last = committed = utc_now()
        while True:
            batches = await consumer.getmany(timeout_ms=POLL_MS)
            now = utc_now()
            if (gap := now - last) > timedelta(seconds=STALL_S):
                self._terminals.forgive(gap)
            last = now
            for place, records in batches.items():
                for record in records:
                    self._take(place, record, now)
                if place.topic != self._snapshots:
                    self._ledger.read(place, records[-1].offset + 1)
            is_at_end = self._ledger.is_at(consumer.highwater)
            for each in self._receivers:
                each.catch_up(is_at_end)
            for found in self._terminals.due(now):
                self._offer(found, now)
            self._ask_for_statements(now)
            if now - committed >= timedelta(seconds=COMMIT_S):
                committed = now
                await self._commit(consumer)

    def _take(self, place: TopicPartition, record: ConsumerRecord, now: datetime) -> None:
        """Take in one record."""
        at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        if place.topic == self._snapshots:
            self._hear(record.value, at)
            return
        try:
            if place.topic == self._letters:
                found = [letter_notice(record.headers, at)]
            else:
                found = list(self._commits.notices(record.value))
        except Unusable as error:
            self._gauges.unreadable.inc()
            logger.warning("archive, partition %d, offset %d: %s", record.partition, record.offset, error)
            return
        for each in found:
            self._offer(each, now, place, record.offset)

    def _hear(self, value: bytes, at: datetime) -> None:
        try:
            state: AccountMessage = SnapshotMessage.decode(value).state
        except Unusable:
            return  # the desk's to judge
        self._terminals.hear(state, at)
        if state.server_offset_s is not None:
            self._offsets_s[state.account] = state.server_offset_s

    def _offer(self, notice: Notice, now: datetime, place: TopicPartition | None = None, offset: int = 0) -> None:
        """Give an event to the receivers of its rule that do not know it."""
        rule = self._settings.notify.rule(notice.event)
        if not rule.on or not is_as_urgent(notice.urgency, rule.minimum):
            return
        unaware = [each for each in self._of_event[notice.event] if not each.knows(notice.id)]
        # A day's statement, and a terminal that is away, are news whenever they are found.
        is_old = place is not None and now - notice.at > timedelta(seconds=self._settings.notify.max_age_s)
        if unaware:
            self._gauges.events.labels(notice.event).inc()
        for each in unaware:
            if place is None:
                each.put(notice, is_old=is_old, done=_nothing)
            else:
                self._ledger.begin(place, offset)
                each.put(notice, is_old=is_old, done=partial(self._ledger.finish, place, offset))

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        reached = self._ledger.committable()
        if reached != self._committed:
            await consumer.commit(reached)
            self._committed = reached

    async def assigned(self, consumer: AIOKafkaConsumer, places: Iterable[TopicPartition]) -> None:
        """Begin where the group was; where it never was, at the end, and say so to Kafka at once."""
        now = utc_now()
        for place in places:
            if place.topic == self._snapshots:
                since = int((now - SNAPSHOTS_OF).timestamp() * 1000)
                found = (await consumer.offsets_for_times({place: since}))[place]
                consumer.seek(place, (await _end(consumer, place)) if found is None else found.offset)
            elif (offset := await consumer.committed(place)) is None:
                self._ledger.read(place, end := await _end(consumer, place))
                consumer.seek(place, end)
            else:
                self._ledger.read(place, offset)
        await consumer.commit(self._ledger.committable())
        count = self._settings.kafka.partitions
        ours = {place.partition for place in places if place.topic == self._snapshots}
        accounts = self._settings.accounts if self._settings.is_executor else ()
        self._terminals.expect([name for name in accounts if partition_of(name, count) in ours], now)
        self._offsets_s = {name: known for name, known in self._offsets_s.items() if partition_of(name, count) in ours}
        logger.info("reading %d partitions, for %d receivers", len(ours), len(self._receivers))
        self._waiting_for = ""

    def revoked(self, places: Iterable[TopicPartition]) -> None:
        """Leave partitions to another notifier, which tells what is not committed."""
        self._ledger.forget(places)
        self._committed = {}

    # --- statements

    def _ask_for_statements(self, now: datetime) -> None:
        if not self._settings.notify.rule("statement").on:
            return
        for account, offset_s in self._offsets_s.items():
            day = last_day(account, now, offset_s)
            if day is not None and self._stated.get(account) != day.id:
                self._stated[account] = day.id
                if not all(each.knows(day.id) for each in self._of_event["statement"]):
                    self._statements.put_nowait(day)

    async def _state(self) -> None:
        while True:
            day = await self._statements.get()
            while True:
                try:
                    found = await read_statement(self._settings, day)
                except (KafkaError, OSError) as error:
                    logger.warning("statement of account %s, %s: %r; trying again", day.account, day.on, error)
                    await asyncio.sleep(RETRY_S)
                else:
                    break
            if found is not None:
                self._offer(found, utc_now())


class _Assignment(ConsumerRebalanceListener):
    def __init__(self, notifier: Notifier, consumer: AIOKafkaConsumer) -> None:
        self._notifier, self._consumer = notifier, consumer

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._notifier.assigned(self._consumer, list(assigned))

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._notifier.revoked(revoked)


async def _end(consumer: AIOKafkaConsumer, place: TopicPartition) -> int:
    return int((await consumer.end_offsets([place]))[place])


def _nothing() -> None:
    """Of what has no place in Kafka."""


async def run(settings: Settings) -> None:
    """Run a notifier until SIGTERM or SIGINT."""
    notifier = Notifier(settings)
    with contextlib.ExitStack() as grace:

        def stop() -> None:
            grace.enter_context(within_grace(settings.stop_grace_s, "what is not told is told at the next start"))
            notifier.stop()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop)
        await notifier.run()
    logger.info("stopped; what is not told yet is told at the next start")
