"""A store that is made anew: rows into an empty changelog, as a worker would have written them (design: rebuild).

1. Every partition begins with a row that says begun, so that no worker takes a part of a store for the whole.
2. Its rows follow, each with the offset that it gets, in batches that Kafka appends wholly or not at all.
3. All of it is read back, and compared row by row.
4. Only then every partition says that it is done.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streamapp.errors import ConfigurationError
from streamapp.kafka.admin import consumer_groups, create_topics, existing_topics, has_offsets
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.security import Cluster
from streamapp.settings import STORE_NAME, Settings
from streamapp.topics import TABLES, app_id, changelog, changelogs, is_trading_group, trading_part
from tables.adoption import in_batches, read_log, refuse_live_members
from tables.store import BEGUN, DONE, REBUILDING, KeyValue, fenced

RowsOf = Callable[[int], Iterable[KeyValue]]
"""Returns the rows of a partition, the same ones each time."""


async def refuse_unless_fresh(settings: Settings, store: str) -> None:
    """Return if nobody trades with the store that is, and there is none yet called ``store``.

    Raises:
        ConfigurationError: A trading worker is running, or the name was used: its changelog holds something, or its
            consumer group has read something, and would not read again what the rows may lack.
        Transient: Kafka does not answer.
    """
    if not re.fullmatch(STORE_NAME, store):
        raise ConfigurationError(f"--into: expected 1 to 32 letters, digits or _, got {store!r:.80}")
    if store == settings.kafka.store:
        raise ConfigurationError(f"--into: expected the name of a store that is not yet, {store} is the living one's")
    cluster, target = Cluster.of(settings), app_id(settings.kafka_deployment, trading_part(store))
    topic = changelog(settings.kafka_deployment, TABLES[0], store)
    async with _answering(cluster):
        for group in sorted(await consumer_groups(cluster)):
            if is_trading_group(settings.kafka_deployment, group):
                await refuse_live_members(cluster, group, settings.kafka.session_timeout_s)
        if topic in await existing_topics(cluster) and any((await _ends(cluster, topic)).values()):
            raise ConfigurationError(
                f"--into: expected a store that is not yet, but {topic} is not empty: choose another name"
            )
        if await has_offsets(cluster, target):
            raise ConfigurationError(
                f"--into: expected a store that is not yet, but the consumer group {target} has read its topics "
                "before, and would not read them again from their beginning: choose another name"
            )


async def write_store(
    settings: Settings, store: str, rows_of: RowsOf, progress: Callable[[str], None] = lambda _: None
) -> int:
    """Make the store ``store`` of rows, and return how many there are; it is whole once this returns.

    Args:
        settings: The deployment, and where Kafka is.
        store: Its name, see :func:`refuse_unless_fresh`.
        rows_of: Its rows.
        progress: Called with a sentence for each partition.

    Raises:
        ConfigurationError: As of :func:`refuse_unless_fresh`; or somebody else writes the changelog, or what was read
            back is not what was written.
        Definite, Transient, Ambiguous: Kafka refused a batch, or did not answer: rebuild into another name.
    """
    await refuse_unless_fresh(settings, store)
    cluster, topic = Cluster.of(settings), changelog(settings.kafka_deployment, TABLES[0], store)
    partitions = [TopicPartition(topic, number) for number in range(settings.kafka.partitions)]
    count = 0
    async with _answering(cluster):
        await create_topics(
            cluster,
            changelogs(settings.kafka_deployment, store),
            partitions=settings.kafka.partitions,
            replication_factor=settings.kafka.replication_factor,
            min_insync_replicas=settings.kafka.insync_replicas,
        )
        async with BatchProducer(cluster, f"{topic}-rebuilding") as producer:
            ends = {tp: await _append(producer, tp, 0, [(REBUILDING, BEGUN)]) for tp in partitions}
            for tp in partitions:
                for batch in in_batches(rows_of(tp.partition)):
                    ends[tp] = await _append(producer, tp, ends[tp], batch)
            for tp in partitions:
                written = await _compare(cluster, tp, rows_of)
                count += written
                progress(f"partition {tp.partition} of {topic}: {written} rows, read back and the same")
            for tp in partitions:
                await _append(producer, tp, ends[tp], [(REBUILDING, DONE)])
    return count


async def _append(producer: BatchProducer, tp: TopicPartition, following: int, rows: list[KeyValue]) -> int:
    """Append rows that are expected at an offset, and return the next one."""
    offset = await producer.send(tp.topic, tp.partition, fenced(rows, following))
    if offset != following:
        raise ConfigurationError(
            f"somebody else writes partition {tp.partition} of {tp.topic}: expected offset {following}, got {offset}. "
            "Stop it, then rebuild into another name"
        )
    return following + len(rows)


async def _compare(cluster: Cluster, tp: TopicPartition, rows_of: RowsOf) -> int:
    """Return how many rows recovery will find in a partition, if they are those that there should be."""
    log = await read_log(cluster, tp)
    found = {key: value for key, (value, there) in log.newest.items() if there and key != REBUILDING}
    count, wrong = 0, list[bytes]()
    for key, value in rows_of(tp.partition):
        count += 1
        if found.pop(key, None) != value:
            wrong.append(key)
    if wrong or found or log.is_foreign:
        names = ", ".join(repr(key) for key in (*wrong, *found)[:5])
        raise ConfigurationError(
            f"partition {tp.partition} of {tp.topic}: expected to read back what was written, got {len(wrong)} other "
            f"and {len(found)} more rows ({names}): somebody else writes it. Stop it, then rebuild into another name"
        )
    return count


async def _ends(cluster: Cluster, topic: str) -> dict[TopicPartition, int]:
    consumer = AIOKafkaConsumer(topic, enable_auto_commit=False, **cluster.client_options())
    await consumer.start()
    try:
        parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        return dict(await consumer.end_offsets(parts))
    finally:
        await consumer.stop()


@asynccontextmanager
async def _answering(cluster: Cluster) -> AsyncIterator[None]:
    try:
        yield
    except (KafkaError, OSError) as error:
        raise await cluster.explained(error) from error
