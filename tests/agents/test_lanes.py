"""Lanes: order and groups within an account, company between accounts."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from itertools import takewhile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.lanes import GROUP, GROUP_COST, Lanes
from streamapp.kafka.window import AckWindow, Unfinished, take_all


class Handled:
    """Lanes whose groups are remembered, and whose handler waits at ``gate``."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.groups: list[tuple[str, list[int]]] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.lanes: Lanes[int] = Lanes(self.handle, cost=lambda item: item, on_failure=self.failures.append)
        if is_open:
            self.gate.set()

    async def handle(self, account: str, items: list[int]) -> None:
        self.groups.append((account, items))
        await self.gate.wait()


plans = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from([1, GROUP_COST // 2, GROUP_COST])), max_size=40
)


@given(plans, st.booleans())
@settings(deadline=None, max_examples=60)
def test_an_account_keeps_its_order_one_group_at_a_time_and_offsets_are_acknowledged_in_theirs(
    plan: list[tuple[str, int, int]], patient: bool
) -> None:
    async def story() -> None:
        acked, handled, running = list[int](), defaultdict[str, list[int]](list), set[str]()

        async def ack(event: int) -> None:
            await asyncio.sleep(0)
            acked.append(event)

        async def handle(account: str, group: list[Unfinished]) -> None:
            assert account not in running, "two groups of one account at the same time"
            running.add(account)
            assert sum(plan[one.event][2] for one in group[:-1]) < GROUP_COST
            for one in group:
                for _ in range(plan[one.event][1]):
                    await asyncio.sleep(0)
                handled[account].append(one.event)
                await one.finish()
            running.discard(account)

        failures = list[BaseException]()
        window = AckWindow(ack)
        lanes: Lanes[Unfinished] = Lanes(handle, cost=lambda one: plan[one.event][2], on_failure=failures.append)
        for offset, (account, _, _) in enumerate(plan):
            lanes.put(account, await window.add(offset))
            if patient:
                await asyncio.sleep(0)
        await lanes.drain()
        await window.drain()
        assert failures == []
        assert acked == list(range(len(plan)))
        assert handled == {
            account: [offset for offset, (other, _, _) in enumerate(plan) if other == account] for account, _, _ in plan
        }

    asyncio.run(story())


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.data())
@settings(deadline=None, max_examples=40)
def test_a_handler_that_fails_stops_its_lane_and_nothing_from_there_on_is_acknowledged(
    accounts: list[str], data: st.DataObject
) -> None:
    bad = data.draw(st.integers(0, len(accounts) - 1))

    async def story() -> None:
        acked, handled, failures = list[int](), list[int](), list[BaseException]()

        async def ack(event: int) -> None:
            acked.append(event)

        async def handle(_account: str, group: list[Unfinished]) -> None:
            for one in group:
                await asyncio.sleep(0)
                if one.event == bad:
                    raise ValueError("boom")
                handled.append(one.event)
                await one.finish()

        window = AckWindow(ack)
        lanes: Lanes[Unfinished] = Lanes(handle, on_failure=failures.append)
        for offset, account in enumerate(accounts):
            lanes.put(account, await window.add(offset))
        await lanes.drain()
        assert [str(error) for error in failures] == ["boom"]
        assert acked == list(range(bad))
        others = {offset for offset, account in enumerate(accounts) if account != accounts[bad] or offset < bad}
        assert set(handled) == others

    asyncio.run(story())


class Stream:
    """A stream of one partition as Faust gives it to an agent: offsets, one a turn of the loop."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.acked: list[int] = []

    def noack(self) -> Stream:
        return self

    async def events(self) -> AsyncIterator[int]:
        for offset in range(self._length):
            await asyncio.sleep(0)
            yield offset

    async def ack(self, event: int) -> None:
        await asyncio.sleep(0)
        self.acked.append(event)


class Struck:
    """A reader and its lanes, of which any task may be cancelled at any turn of the loop."""

    def __init__(self, plan: list[tuple[str, int]]) -> None:
        self.plan = plan
        self.stream = Stream(len(plan))
        self.taken: list[int] = []
        self.window: AckWindow | None = None
        self.handled = defaultdict[str, list[int]](list)
        self.running: set[str] = set()
        self.troubles: list[object] = []
        self.lanes: Lanes[Unfinished] = Lanes(self.handle, on_failure=self.troubles.append)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.troubles.append(context))
        self.reader = loop.create_task(take_all(self.stream, self.take))

    async def take(self, event: int, record: Unfinished) -> None:
        self.taken.append(event)
        self.window = record._window
        self.lanes.put(self.plan[event][0], record)

    async def handle(self, account: str, group: list[Unfinished]) -> None:
        assert account not in self.running, "two groups of one account at the same time"
        self.running.add(account)
        try:
            for one in group:
                for _ in range(self.plan[one.event][1]):
                    await asyncio.sleep(0)
                self.handled[account].append(one.event)
                await one.finish()
        finally:
            self.running.discard(account)

    def strike(self, whom: str) -> bool:
        """Cancel the reader, or the lane of an account; return whether a lane was hit."""
        if whom == READER:
            self.reader.cancel()
        elif whom in self.lanes._tasks:
            self.lanes._tasks[whom].cancel()
            return True
        return False

    @property
    def finished(self) -> set[int]:
        return {event for events in self.handled.values() for event in events}

    def check(self) -> None:
        acked = self.stream.acked
        assert acked == list(range(len(acked))), "out of order, twice, or beyond an unfinished one"
        assert set(acked) <= self.finished
        for account, events in self.handled.items():
            mine = [event for event in self.taken if self.plan[event][0] == account]
            assert events == [event for event in mine if event in self.finished]
        assert self.troubles == []


READER = "reader"
struck_plans = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=30)
strikes = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", "c", READER])), max_size=5)


@given(struck_plans, strikes)
@settings(deadline=None, max_examples=150)
def test_whatever_is_cancelled_whenever_nothing_unfinished_is_acknowledged_and_nothing_hangs(
    plan: list[tuple[str, int]], strikes: list[tuple[int, str]]
) -> None:
    async def story() -> None:
        world, hit = Struck(plan), False
        await asyncio.sleep(0)
        for turns, whom in strikes:
            for _ in range(turns):
                await asyncio.sleep(0)
                world.check()
            hit |= world.strike(whom)
        async with asyncio.timeout(30):
            await world.reader
            await world.lanes.drain()
        world.check()
        if not hit:  # what a reader has taken is the lanes' to finish, whatever becomes of the reader
            assert world.stream.acked == world.taken
        if world.window is not None:  # as whoever finishes the next one would
            async with asyncio.timeout(30):
                await world.window.acknowledge()
            assert world.stream.acked == list(takewhile(world.finished.__contains__, world.taken))

    asyncio.run(story())


@given(struck_plans, st.integers(0, 60))
@settings(deadline=None, max_examples=100)
def test_in_a_loop_that_shuts_down_nothing_more_is_handled_or_acknowledged(
    plan: list[tuple[str, int]], turns: int
) -> None:
    async def story() -> None:
        world = Struck(plan)
        for _ in range(1 + turns):
            await asyncio.sleep(0)
        while any(task.done() for task in world.lanes._tasks.values()):
            await asyncio.sleep(0)  # between two tasks a lane has none to be cancelled
        for whom in (READER, *"abc"):
            world.strike(whom)
        finished, acked = world.finished, list(world.stream.acked)
        async with asyncio.timeout(30):
            await world.reader
            await world.lanes.drain()
        world.check()
        assert (world.finished, world.stream.acked) == (finished, acked)

    asyncio.run(story())


async def test_an_account_that_waits_does_not_hold_up_the_others() -> None:
    done, gate = asyncio.Event(), asyncio.Event()

    async def handle(account: str, _items: list[int]) -> None:
        await gate.wait() if account == "slow" else done.set()

    lanes: Lanes[int] = Lanes(handle)
    lanes.put("slow", 0)
    lanes.put("quick", 1)
    await asyncio.wait_for(done.wait(), 5)
    assert (lanes.is_busy("slow"), len(lanes)) == (True, 0)
    gate.set()
    await asyncio.wait_for(lanes.drain(), 5)
    assert not lanes.is_busy()


async def test_a_group_is_what_waited_for_the_same_account_and_never_waits_to_fill() -> None:
    handled = Handled(is_open=False)
    handled.lanes.put("a", 0)
    await asyncio.sleep(0)
    assert handled.groups == [("a", [0])]
    for item in range(1, GROUP + 3):
        handled.lanes.put("a", item)
    handled.gate.set()
    await asyncio.wait_for(handled.lanes.drain(), 5)
    assert handled.groups == [("a", [0]), ("a", list(range(1, GROUP + 1))), ("a", [GROUP + 1, GROUP + 2])]


@pytest.mark.parametrize(
    ("costs", "groups"),
    [
        ([GROUP_COST, 1, 1], [1, 2]),
        ([1, GROUP_COST - 2, 1, 1], [3, 1]),
        ([10 * GROUP_COST] * 2, [1, 1]),
    ],
)
async def test_a_group_is_closed_by_the_item_with_which_it_is_large_enough(costs: list[int], groups: list[int]) -> None:
    handled = Handled()
    for cost in costs:
        handled.lanes.put("a", cost)
    await asyncio.wait_for(handled.lanes.drain(), 5)
    assert [len(items) for _, items in handled.groups] == groups


async def test_what_is_put_while_the_last_group_ends_is_handled_too() -> None:
    handled = Handled()
    for item in range(20):
        handled.lanes.put("a", item)
        for _ in range(item % 5):
            await asyncio.sleep(0)
    await asyncio.wait_for(handled.lanes.drain(), 5)
    assert [item for _, items in handled.groups for item in items] == list(range(20))


async def test_what_waits_in_a_lane_that_is_dropped_is_never_handled_and_what_is_being_handled_ends() -> None:
    handled = Handled(is_open=False)
    for account in ("a", "b"):
        handled.lanes.put(account, 0)
    await asyncio.sleep(0)
    for account in ("a", "b"):
        handled.lanes.put(account, 1)
    handled.lanes.drop(lambda account: account == "a")
    handled.gate.set()
    await asyncio.wait_for(handled.lanes.drain(), 5)
    assert handled.groups == [("a", [0]), ("b", [0]), ("b", [1])]
    assert handled.failures == []
