"""The bare hops: the same road with nothing but clients on it: no state, no decision, no await in between."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig

from streamapp.kafka.admin import create_topics
from streamapp.settings import Settings
from streamapp.topics import TopicSpec

_TOPICS = ("bench_hop_1", "bench_hop_2")
_STREAM = "BENCH_HOPS"
_GROUP_BATCH = 100


async def measure(settings: Settings, nats: Client, folder: Path, *, rate: float, seconds: float) -> list[float]:
    """Return the times from before the NATS publish to after the last fsync, in seconds.

    NATS publish → pull consumer → Kafka (acks=all) → consumer → Kafka → consumer → NATS request → SQLite (FULL).
    """
    await create_topics(
        settings.kafka_bootstrap,
        [TopicSpec(name) for name in _TOPICS],
        partitions=settings.kafka.partitions,
        replication_factor=1,
    )
    js = nats.jetstream()
    await js.add_stream(StreamConfig(name=_STREAM, subjects=["bench.hops"], retention=RetentionPolicy.LIMITS))
    times: list[float] = []
    database = sqlite3.connect(folder / "hops.sqlite", isolation_level=None, check_same_thread=False)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS hop (at REAL)")

    async def terminal(message: object) -> None:
        sent = float(message.data)  # type: ignore[attr-defined]
        await asyncio.to_thread(database.execute, "INSERT INTO hop VALUES (?)", (sent,))
        times.append(time.time() - sent)
        await message.respond(b"")  # type: ignore[attr-defined]

    requests = await nats.subscribe("bench.terminal", cb=terminal)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    consumers = [_consumer(settings, name) for name in _TOPICS]
    for consumer in consumers:
        await consumer.start()
    tasks = [
        asyncio.create_task(_mirror(nats, producer)),
        asyncio.create_task(_forward(consumers[0], producer)),
        asyncio.create_task(_request(consumers[1], nats)),
    ]
    try:
        begin, count = time.monotonic(), int(rate * seconds)
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            await js.publish("bench.hops", str(time.time()).encode())
        deadline = time.monotonic() + 10
        while len(times) < count and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in (*consumers, producer):
            await client.stop()
        await requests.unsubscribe()
        await js.delete_stream(_STREAM)
        database.close()
    return times


def _consumer(settings: Settings, topic: str) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        topic, bootstrap_servers=settings.kafka_bootstrap, auto_offset_reset="latest", fetch_max_wait_ms=50
    )


async def _mirror(nats: Client, producer: AIOKafkaProducer) -> None:
    pull = await nats.jetstream().pull_subscribe("bench.hops", stream=_STREAM, config=ConsumerConfig())
    while True:
        with contextlib.suppress(TimeoutError):
            for message in await pull.fetch(_GROUP_BATCH, timeout=1):
                await producer.send(_TOPICS[0], message.data, key=b"k")
                await message.ack()


async def _forward(consumer: AIOKafkaConsumer, producer: AIOKafkaProducer) -> None:
    async for record in consumer:
        await producer.send(_TOPICS[1], record.value, key=record.key)


async def _request(consumer: AIOKafkaConsumer, nats: Client) -> None:
    waiting: set[asyncio.Task[object]] = set()
    async for record in consumer:
        task: asyncio.Task[object] = asyncio.create_task(nats.request("bench.terminal", record.value or b"", timeout=5))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
