"""Lanes: order within an account, company between accounts, acknowledgements from the head."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextvars import ContextVar
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.lanes import GROUP, Lanes
from streamapp.errors import Ambiguous

Event = tuple[int, bytes]  # offset, account
MOST_TURNS = 50
"""Of the event loop without a handler at work: what can go on has gone on."""


class Step(NamedTuple):
    """One event: whose, whether with those that wait beside it, and how its handler ends."""

    account: bytes
    grouped: bool
    ending: str


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


class Story:
    """Events of some accounts on their way through lanes; chance decides whose handler ends next, and when."""

    def __init__(self, plan: list[Step], window: int, chance: Random) -> None:
        self.plan, self.window, self.chance = plan, window, chance
        self.log = Log()
        self.lanes = self.log.lanes(window=window)
        self.running: dict[bytes, tuple[list[int], asyncio.Future[None]]] = {}
        self.handled = defaultdict[bytes, list[int]](list)
        self.returned = set[int]()
        self.failed, self.cancelled = set[bytes](), False

    async def handle(self, events: list[Event]) -> None:
        offsets, account = [offset for offset, _ in events], events[0][1]
        assert account not in self.running, "two events of one account at the same time"
        assert account not in self.failed, "an event after one that failed"
        self.running[account] = offsets, asyncio.get_running_loop().create_future()
        self.handled[account] += offsets
        try:
            await self.running[account][1]
        finally:
            del self.running[account]
        self.returned.update(offsets)

    async def handle_one(self, event: Event) -> None:
        await self.handle([event])

    async def feed(self) -> None:
        for offset, (account, grouped, _) in enumerate(self.plan):
            if grouped:
                await self.lanes.put_grouped(account, (offset, account), self.handle)
            else:
                await self.lanes.put(account, (offset, account), self.handle_one)
        await self.lanes.drain()

    def end_one(self) -> None:
        """Have one handler return, or end as one of its events shall."""
        account = self.chance.choice(sorted(self.running))
        offsets, gate = self.running[account]
        endings = {self.plan[offset].ending for offset in offsets}
        if gate.done():  # it ends with the loop's next turn
            return
        if "fails" in endings:
            self.failed.add(account)
            gate.set_exception(ValueError("boom"))
        elif "is cancelled" in endings:
            self.cancelled = gate.cancel()
        else:
            gate.set_result(None)

    def check(self) -> None:
        assert len(self.lanes) <= self.window
        assert self.log.acked == list(range(len(self.log.acked)))
        assert self.returned.issuperset(self.log.acked)
        for account, offsets in self.handled.items():
            assert offsets == [n for n, step in enumerate(self.plan) if step.account == account][: len(offsets)]

    async def run(self) -> None:
        feeding, idle = asyncio.ensure_future(self.feed()), 0
        while idle < MOST_TURNS:
            await asyncio.sleep(0)
            self.check()
            if self.running and self.chance.random() < 0.5:
                self.end_one()
            idle = 0 if self.running else idle + 1
        if self.failed:
            assert feeding.done()
            assert str(feeding.exception()) == "boom"
            assert len(self.log.failures) == 1
        elif self.cancelled:  # as in a loop that shuts down: what was not handled to its end stays unacknowledged
            assert feeding.cancel()
        else:
            assert feeding.done(), "the lanes stand still"
            await feeding
            assert self.log.acked == list(range(len(self.plan)))


_steps = st.builds(
    Step,
    st.sampled_from([b"a", b"b", b"c"]),
    st.booleans(),
    st.sampled_from([*["returns"] * 20, "fails", "is cancelled"]),
)


@given(st.lists(_steps, max_size=40), st.integers(1, 8), st.randoms(use_true_random=True))
def test_accounts_keep_their_order_and_nothing_is_acknowledged_beyond_what_has_not_returned(
    plan: list[Step], window: int, chance: Random
) -> None:
    asyncio.run(Story(plan, window, chance).run())


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
