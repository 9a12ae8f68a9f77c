"""Batches: what waits is handled at once, and acknowledged in order."""

from __future__ import annotations

import asyncio

import pytest

from agents.window import Batches, BatchHandler
from streamapp.errors import Ambiguous


class Log:
    def __init__(self) -> None:
        self.acked: list[int] = []
        self.failures: list[BaseException] = []

    async def ack(self, event: int) -> None:
        await asyncio.sleep(0)
        self.acked.append(event)

    def batches(self, handler: BatchHandler, **options: object) -> Batches:
        return Batches(self.ack, handler, on_failure=self.failures.append, **options)  # type: ignore[arg-type]


async def test_what_came_in_during_one_batch_is_the_next() -> None:
    log, gate, seen = Log(), asyncio.Event(), list[list[int]]()

    async def handle(batch: list[int]) -> None:
        seen.append(batch)
        await gate.wait()

    batches = log.batches(handle)
    await batches.put(0)
    await asyncio.sleep(0)
    for event in (1, 2, 3):
        await batches.put(event)
    assert log.acked == []
    gate.set()
    await asyncio.wait_for(batches.drain(), 5)
    assert seen == [[0], [1, 2, 3]]
    assert log.acked == [0, 1, 2, 3]


async def test_a_lingering_batch_takes_company_up_to_its_limit() -> None:
    log, seen = Log(), list[list[int]]()

    async def handle(batch: list[int]) -> None:
        seen.append(batch)

    batches = log.batches(handle, limit=3, linger_s=5)
    for event in range(3):
        await batches.put(event)
        await asyncio.sleep(0)
    await asyncio.wait_for(batches.drain(), 4)
    assert seen == [[0, 1, 2]]


async def test_a_lingering_batch_goes_alone_when_nobody_comes() -> None:
    log, seen = Log(), list[list[int]]()

    async def handle(batch: list[int]) -> None:
        seen.append(batch)

    batches = log.batches(handle, linger_s=0.01)
    await batches.put(7)
    await asyncio.wait_for(batches.drain(), 5)
    assert seen == [[7]]


async def test_events_put_after_a_pause_are_handled_too() -> None:
    log, seen = Log(), list[list[int]]()

    async def handle(batch: list[int]) -> None:
        seen.append(batch)

    batches = log.batches(handle)
    for event in range(20):
        await batches.put(event)
        for _ in range(event % 7):
            await asyncio.sleep(0)
    await asyncio.wait_for(batches.drain(), 5)
    assert [event for batch in seen for event in batch] == list(range(20))
    assert log.acked == list(range(20))


async def test_a_full_batch_makes_the_reader_wait() -> None:
    log, gate = Log(), asyncio.Event()

    async def handle(batch: list[int]) -> None:
        await gate.wait()

    batches = log.batches(handle, limit=2)
    for event in range(2):
        await batches.put(event)
    await asyncio.sleep(0)
    for event in (2, 3):
        await batches.put(event)
    full = asyncio.ensure_future(batches.put(4))
    await asyncio.sleep(0)
    assert not full.done()
    gate.set()
    await asyncio.wait_for(full, 5)
    await asyncio.wait_for(batches.drain(), 5)
    assert log.acked == [0, 1, 2, 3, 4]


async def test_a_failed_batch_is_not_acknowledged_at_all() -> None:
    log = Log()

    async def handle(batch: list[int]) -> None:
        raise ValueError("boom")

    batches = log.batches(handle)
    await batches.put(0)
    await batches.put(1)
    with pytest.raises(ValueError, match="boom"):
        await asyncio.wait_for(batches.drain(), 5)
    with pytest.raises(ValueError, match="boom"):
        await batches.put(2)
    assert log.acked == []
    assert len(log.failures) == 1


async def test_a_batch_past_its_deadline_fails_as_ambiguous() -> None:
    log = Log()

    async def handle(batch: list[int]) -> None:
        await asyncio.Event().wait()

    batches = log.batches(handle, deadline_s=0.01)
    await batches.put(0)
    with pytest.raises(Ambiguous, match="was not back within"):
        await asyncio.wait_for(batches.drain(), 5)
    assert log.acked == []
