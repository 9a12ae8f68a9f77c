"""The Producer port: one contract for the fake and for the real one, on a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from streamapp.errors import Ambiguous, Definite
from streamapp.kafka.admin import create_topics
from streamapp.kafka.memory import MemoryProducer
from streamapp.kafka.partition import partition_of
from streamapp.kafka.producer import MAX_RECORD_BYTES, ClientProducer, Producer, Record
from streamapp.kafka.receipts import settle
from streamapp.topics import TopicSpec


@asynccontextmanager
async def kafka_producer(request: pytest.FixtureRequest, topic: str) -> AsyncIterator[Producer]:
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    await create_topics(
        bootstrap, [TopicSpec(topic, {"max.message.bytes": "50000"})], partitions=8, replication_factor=1
    )
    async with ClientProducer(bootstrap, "test") as producer:
        yield producer


@pytest.fixture
def topic() -> str:
    return f"topic-{uuid4().hex[:8]}"


@pytest.fixture(params=["memory", "kafka"])
async def producer(request: pytest.FixtureRequest, topic: str) -> AsyncIterator[Producer]:
    if request.param == "memory":
        yield MemoryProducer(partitions=8)
    else:
        async with kafka_producer(request, topic) as producer:
            yield producer


async def test_a_send_says_where_the_record_is(producer: Producer, topic: str) -> None:
    for offset in range(2):
        sent = await producer.send(topic, b"acc", b"value", headers={"a": b"b"})
        assert (sent.topic, sent.partition, sent.offset) == (topic, partition_of(b"acc", 8), offset)
    assert (await producer.send(topic, b"acc", b"value", partition=3)).partition == 3


async def test_records_begun_one_after_another_keep_their_order(producer: Producer, topic: str) -> None:
    receipts = [producer.begin(Record(topic, b"acc", b"%d" % number)) for number in range(100)]
    assert [sent.offset for sent in await settle(receipts)] == list(range(100))
    more = await producer.send_all([Record(topic, b"acc", b"%d" % number) for number in range(100)])
    assert [sent.offset for sent in more] == list(range(100, 200))


async def test_a_record_that_is_too_large_is_refused_before_anything_is_sent(producer: Producer, topic: str) -> None:
    with pytest.raises(Definite, match="expected 900000 at most"):
        await producer.send(topic, b"acc", b"x" * MAX_RECORD_BYTES)
    assert (await producer.send(topic, b"acc", b"value")).offset == 0


@pytest.mark.stack
async def test_a_record_that_kafka_refuses_is_definitely_not_there(request: pytest.FixtureRequest, topic: str) -> None:
    async with kafka_producer(request, topic) as producer:
        with pytest.raises(Definite, match="MessageSizeTooLargeError"):
            await producer.send(topic, b"acc", b"x" * 60_000)
        assert (await producer.send(topic, b"acc", b"value")).offset == 0


async def test_silence_is_ambiguous_and_the_record_is_not_called_back() -> None:
    producer = MemoryProducer()
    producer.silent = True
    receipt = producer.begin(Record("t", b"k", b"v"))
    with pytest.raises(Ambiguous, match="1 are missing"):
        await settle([receipt], timeout_s=0.01)
    assert not receipt.cancelled()
    task = asyncio.ensure_future(settle([receipt]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not receipt.cancelled()


async def test_the_partition_of_a_key_is_the_one_that_java_chooses() -> None:
    # Of org.apache.kafka.common.utils.Utils.murmur2, as its own tests give it: hash & 0x7fffffff.
    known = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    assert {key: partition_of(key, 2**31) for key in known} == {key: value & 0x7FFFFFFF for key, value in known.items()}
