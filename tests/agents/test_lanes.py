"""Lanes: order within an account, company between accounts, acknowledgements from the head."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.lanes import GROUP, Lanes
from streamapp.errors import Ambiguous

Event = tuple[int, bytes]  # offset, account


class Log:
    """Remembers acknowledgements and failures."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.failures: list[BaseException] = []

    async def ack(self, event: Event) -> None:
        await asyncio.sleep(0)
        self.acked.append(event[0])

    def lanes(self, **options: object) -> Lanes:
        return Lanes(self.ack, on_failure=self.failures.append, **options)  # type: ignore[arg-type]


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 3)), max_size=40), st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_accounts_keep_their_order_and_acknowledgements_that_of_the_offsets(
    plan: list[tuple[bytes, int]], window: int
) -> None:
    async def story() -> None:
        log, handled, running = Log(), defaultdict[bytes, list[int]](list), set[bytes]()
        lanes = log.lanes(window=window)

        def handler(turns: int):  # type: ignore[no-untyped-def]
            async def handle(event: Event) -> None:
                assert event[1] not in running, "two events of one account at the same time"
                running.add(event[1])
                for _ in range(turns):
                    await asyncio.sleep(0)
                handled[event[1]].append(event[0])
                running.discard(event[1])

            return handle

        for offset, (account, turns) in enumerate(plan):
            await lanes.put(account, (offset, account), handler(turns))
            assert len(lanes) <= window
        await lanes.drain()
        assert log.acked == list(range(len(plan)))
        assert handled == {
            account: [offset for offset, (other, _) in enumerate(plan) if other == account] for account, _ in plan
        }

    asyncio.run(story())


async def test_an_account_that_waits_does_not_hold_up_the_others_but_their_acknowledgements() -> None:
    log, gate, done = Log(), asyncio.Event(), asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    async def quick(event: Event) -> None:
        if event[0] == 3:
            done.set()

    lanes = log.lanes()
    await lanes.put(b"slow", (0, b"slow"), slow)
    for offset in (1, 2, 3):
        await lanes.put(b"quick", (offset, b"quick"), quick)
    await asyncio.wait_for(done.wait(), 5)
    assert log.acked == []
    gate.set()
    await asyncio.wait_for(lanes.drain(), 5)
    assert log.acked == [0, 1, 2, 3]


async def test_a_failed_handler_stops_its_lane_and_nothing_after_it_is_acknowledged() -> None:
    log, handled = Log(), list[int]()

    async def handle(event: Event) -> None:
        await asyncio.sleep(0)
        if event[0] == 1:
            raise ValueError("boom")
        handled.append(event[0])

    lanes = log.lanes()
    for offset in range(4):
        await lanes.put(b"a", (offset, b"a"), handle)
    with pytest.raises(ValueError, match="boom"):
        await asyncio.wait_for(lanes.drain(), 5)
    with pytest.raises(ValueError, match="boom"):
        await lanes.put(b"b", (4, b"b"), handle)
    assert handled == [0]
    assert log.acked == [0]
    assert [str(error) for error in log.failures] == ["boom"]


async def test_a_handler_past_its_deadline_fails_as_ambiguous() -> None:
    log = Log()
    lanes = log.lanes(deadline_s=0.01)

    async def hang(event: Event) -> None:
        await asyncio.Event().wait()

    await lanes.put(b"a", (0, b"a"), hang)
    with pytest.raises(Ambiguous, match="was not back within"):
        await asyncio.wait_for(lanes.drain(), 5)
    assert log.acked == []


async def test_a_group_is_what_waited_for_the_same_account_and_never_waits_to_fill() -> None:
    log, gate, groups = Log(), asyncio.Event(), list[list[int]]()

    async def handle(events: list[Event]) -> None:
        groups.append([offset for offset, _ in events])
        await gate.wait()

    lanes = log.lanes(window=1000)
    await lanes.put_grouped(b"a", (0, b"a"), handle)
    await asyncio.sleep(0)
    assert groups == [[0]]
    for offset in range(1, GROUP + 3):
        await lanes.put_grouped(b"a", (offset, b"a"), handle)
    gate.set()
    await asyncio.wait_for(lanes.drain(), 5)
    assert groups == [[0], list(range(1, GROUP + 1)), [GROUP + 1, GROUP + 2]]
    assert log.acked == list(range(GROUP + 3))


async def test_a_full_lane_makes_the_next_event_of_that_account_wait() -> None:
    log, gate = Log(), asyncio.Event()

    async def slow(event: Event) -> None:
        await gate.wait()

    lanes = log.lanes(deadline_s=10)  # three deadlines fit into the drain time
    for offset in range(4):
        await lanes.put(b"a", (offset, b"a"), slow)
        await asyncio.sleep(0)
    full = asyncio.ensure_future(lanes.put(b"a", (4, b"a"), slow))
    await asyncio.sleep(0)
    assert not full.done()
    gate.set()
    await asyncio.wait_for(full, 5)
    await asyncio.wait_for(lanes.drain(), 5)
    assert log.acked == [0, 1, 2, 3, 4]


async def test_every_handler_runs_in_the_context_of_its_own_event() -> None:
    current: ContextVar[int] = ContextVar("current")
    log, seen = Log(), list[tuple[int, int]]()

    async def handle(event: Event) -> None:
        seen.append((event[0], current.get()))

    lanes = log.lanes()
    for offset in range(5):
        current.set(offset)
        await lanes.put(b"a", (offset, b"a"), handle)
    await asyncio.wait_for(lanes.drain(), 5)
    assert seen == [(offset, offset) for offset in range(5)]
