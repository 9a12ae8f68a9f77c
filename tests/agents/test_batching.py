"""What all partitions have is handled at once, and acknowledged in each one's order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agents.batching import BatchProcessor

Event = tuple[str, int]


class Stream:
    """A stream of one partition as Faust gives it to an agent; it ends when it is cancelled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.coming: asyncio.Queue[int] = asyncio.Queue()
        self.acked: list[int] = []
        self.acknowledged = asyncio.Condition()

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.coming.put_nowait(number)

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield self.name, await self.coming.get()

    async def ack(self, event: Event) -> None:
        await asyncio.sleep(0)
        async with self.acknowledged:
            self.acked.append(event[1])
            self.acknowledged.notify_all()

    async def until_acked(self, *numbers: int) -> None:
        async with asyncio.timeout(30), self.acknowledged:
            await self.acknowledged.wait_for(lambda: self.acked == list(numbers))


class Sink:
    """Remembers the batches; each waits until it may go."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[list[Event]] = asyncio.Queue()
        self.go = asyncio.Event()
        self.abandoned = asyncio.Event()
        self.failures: asyncio.Queue[BaseException] = asyncio.Queue()

    async def handle(self, events: Sequence[Event]) -> None:
        self.begun.put_nowait(list(events))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise

    async def batch(self) -> list[Event]:
        return await asyncio.wait_for(self.begun.get(), 30)

    def processor(self, **options: Any) -> BatchProcessor:
        return BatchProcessor(self.handle, **{"linger_s": 0.01, "on_failure": self.failures.put_nowait, **options})


async def left(*agents: asyncio.Task[None]) -> None:
    """Take the partitions away, as Faust does it."""
    for agent in agents:
        agent.cancel()
    await asyncio.gather(*agents)


async def test_what_all_partitions_have_is_one_batch_acknowledged_in_each_ones_order() -> None:
    sink, a, b = Sink(), Stream("a"), Stream("b")
    processor = sink.processor()
    agents = [asyncio.create_task(processor.run(stream)) for stream in (a, b)]
    a.send(1, 2, 3)
    b.send(7, 8)
    assert await sink.batch() == [("a", 1), ("a", 2), ("a", 3), ("b", 7), ("b", 8)]
    assert (a.acked, b.acked) == ([], [])
    sink.go.set()
    await a.until_acked(1, 2, 3)
    await b.until_acked(7, 8)
    await left(*agents)


async def test_what_comes_during_a_batch_is_the_next_one() -> None:
    sink, a = Sink(), Stream("a")
    agent = asyncio.create_task(sink.processor().run(a))
    a.send(1)
    assert await sink.batch() == [("a", 1)]
    a.send(2, 3)
    sink.go.set()
    assert await sink.batch() == [("a", 2), ("a", 3)]
    await a.until_acked(1, 2, 3)
    await left(agent)


async def test_a_partition_at_its_limit_ends_the_wait_for_company_and_makes_its_reader_wait() -> None:
    sink, a, b = Sink(), Stream("a"), Stream("b")
    processor = sink.processor(limit=2, linger_s=3600)
    agents = [asyncio.create_task(processor.run(stream)) for stream in (a, b)]
    b.send(9)
    a.send(*range(6))
    assert sorted(await sink.batch()) == [("a", 0), ("a", 1), ("b", 9)]
    while a.coming.qsize() > 1:  # two wait for the next batch, one for room there
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert a.coming.qsize() == 1
    sink.go.set()
    await a.until_acked(*range(6))
    await b.until_acked(9)
    await left(*agents)


async def test_a_handler_that_fails_ends_the_process_and_acknowledges_nothing() -> None:
    sink, a = Sink(), Stream("a")

    async def fail(_events: Sequence[Event]) -> None:
        raise ValueError("boom")

    agent = asyncio.create_task(BatchProcessor(fail, linger_s=0.01, on_failure=sink.failures.put_nowait).run(a))
    a.send(1, 2)
    assert str(await asyncio.wait_for(sink.failures.get(), 30)) == "boom"
    assert a.acked == []
    await left(agent)


async def test_a_partition_that_was_taken_away_is_not_acknowledged_and_stops_nobody_else() -> None:
    sink, leaving, staying = Sink(), Stream("leaving"), Stream("staying")
    processor = sink.processor()
    agents = [asyncio.create_task(processor.run(stream)) for stream in (leaving, staying)]
    leaving.send(1, 2)
    staying.send(1, 2)
    assert len(await sink.batch()) == 4
    leaving.send(3)
    await left(agents[0])
    staying.send(3)
    sink.go.set()
    await staying.until_acked(1, 2, 3)
    assert leaving.acked == []
    assert await sink.batch() == [("staying", 3)]
    await left(agents[1])


async def test_a_batch_that_nobody_waits_for_ends_and_the_next_owner_begins_another() -> None:
    sink, before, after = Sink(), Stream("before"), Stream("after")
    processor = sink.processor()
    agent = asyncio.create_task(processor.run(before))
    before.send(1)
    await sink.batch()
    await left(agent)
    await asyncio.wait_for(sink.abandoned.wait(), 30)
    sink.go.set()
    agent = asyncio.create_task(processor.run(after))
    after.send(1)
    assert await sink.batch() == [("after", 1)]
    await after.until_acked(1)
    assert before.acked == []
    await left(agent)


async def test_a_partition_taken_away_while_its_reader_waits_for_room_leaves_in_peace() -> None:
    sink, a = Sink(), Stream("a")
    agent = asyncio.create_task(sink.processor(limit=1).run(a))
    a.send(1, 2, 3)
    await sink.batch()
    while a.coming.qsize():
        await asyncio.sleep(0)
    await left(agent)
    assert a.acked == []
    assert sink.failures.empty()


@pytest.mark.parametrize("partitions", [1, 8])
async def test_everything_is_acknowledged_once_whatever_the_batches_are(partitions: int) -> None:
    sink, streams = Sink(), [Stream(str(number)) for number in range(partitions)]
    sink.go.set()
    processor = sink.processor(limit=3, linger_s=0.001)
    agents = [asyncio.create_task(processor.run(stream)) for stream in streams]
    for number in range(40):
        for stream in streams:
            stream.send(number)
        for _ in range(number % 7):
            await asyncio.sleep(0)
    for stream in streams:
        await stream.until_acked(*range(40))
    await left(*agents)
