from __future__ import annotations

import asyncio

import pytest

from agents.rounds import Rounds


class Written:
    """Remembers the rounds, and lets each go when it is told."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.go = asyncio.Event()
        self.failure: Exception | None = None
        self.abandoned = asyncio.Event()

    async def write(self, items: list[int]) -> None:
        self.rounds.append(items)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        if self.failure is not None:
            raise self.failure


async def begun(written: Written, rounds: int) -> None:
    async with asyncio.timeout(30):
        while len(written.rounds) < rounds:
            await asyncio.sleep(0)


async def test_what_comes_together_is_written_together() -> None:
    written = Written()
    written.go.set()
    rounds = Rounds(written.write, gather_s=0.01)
    await asyncio.gather(rounds.store([1, 2]), rounds.store([3]), rounds.store([4, 5]))
    assert written.rounds == [[1, 2, 3, 4, 5]]


async def test_what_comes_during_a_round_is_the_next_one() -> None:
    written = Written()
    rounds = Rounds(written.write, gather_s=0.0)
    first = asyncio.create_task(rounds.store([1]))
    await begun(written, 1)
    second, third = asyncio.create_task(rounds.store([2])), asyncio.create_task(rounds.store([3]))
    written.go.set()
    await asyncio.gather(first, second, third)
    assert written.rounds == [[1], [2, 3]]


async def test_a_failure_is_raised_to_each_that_waited_for_it() -> None:
    written = Written()
    written.failure = ValueError("full")
    written.go.set()
    rounds = Rounds(written.write, gather_s=0.0)
    results = await asyncio.gather(rounds.store([1]), rounds.store([2]), return_exceptions=True)
    assert [str(result) for result in results] == ["full", "full"]
    written.failure = None
    await rounds.store([3])
    assert written.rounds[-1] == [3]


async def test_one_that_stops_waiting_stops_nobody_else() -> None:
    written = Written()
    rounds = Rounds(written.write, gather_s=0.0)
    leaving, staying = asyncio.create_task(rounds.store([1])), asyncio.create_task(rounds.store([2]))
    await begun(written, 1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    written.go.set()
    await staying
    assert written.rounds == [[1, 2]]


async def test_a_round_that_nobody_waits_for_ends() -> None:
    written = Written()
    rounds = Rounds(written.write, gather_s=0.0)
    alone = asyncio.create_task(rounds.store([1]))
    await begun(written, 1)
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    written.go.set()
    await rounds.store([2])
    assert written.abandoned.is_set()
    assert written.rounds == [[1], [2]]
