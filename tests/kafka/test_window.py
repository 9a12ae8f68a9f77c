"""The window: an event is acknowledged after it was finished, and after every event before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.kafka.window import WINDOW, AckWindow, Unfinished, take_all


class Log:
    """Remembers acknowledgements; each takes a turn of the loop."""

    def __init__(self) -> None:
        self.acked: list[int] = []

    async def ack(self, event: int) -> None:
        await asyncio.sleep(0)
        self.acked.append(event)


@given(st.lists(st.integers(1, 3), max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=80)
def test_acknowledgements_are_in_order_and_never_beyond_an_unfinished_event(parts: list[int], chance: object) -> None:
    async def story() -> None:
        log = Log()
        window = AckWindow(log.ack)
        events = [await window.add(offset) for offset in range(len(parts))]
        left = dict(enumerate(parts))
        steps = [offset for offset, count in left.items() for _ in range(count)]
        chance.shuffle(steps)  # type: ignore[attr-defined]
        for event, count in zip(events, parts, strict=True):
            event.parts = count

        async def finish(offset: int) -> None:
            left[offset] -= 1
            await events[offset].finish()

        finishing = set[asyncio.Task[None]]()
        for offset in steps:
            finishing.add(asyncio.create_task(finish(offset)))
            await asyncio.sleep(0)
            assert log.acked == list(range(len(log.acked)))
            assert not any(left[acked] for acked in log.acked)
        await asyncio.gather(*finishing)
        await window.drain()
        assert log.acked == list(range(len(parts)))

    asyncio.run(story())


async def test_an_event_that_waits_holds_up_the_acknowledgement_of_those_after_it_and_nothing_else() -> None:
    log = Log()
    window = AckWindow(log.ack)
    slow, *quick = [await window.add(offset) for offset in range(4)]
    for event in quick:
        await event.finish()
    assert (log.acked, len(window)) == ([], 4)
    await slow.finish()
    assert (log.acked, len(window)) == ([0, 1, 2, 3], 0)


async def test_an_event_in_several_parts_is_finished_with_the_last_of_them() -> None:
    log = Log()
    event = await AckWindow(log.ack).add(0)
    event.parts = 2
    await event.finish()
    assert log.acked == []
    await event.finish()
    assert log.acked == [0]


async def test_a_full_window_makes_the_reader_wait_until_its_first_event_is_acknowledged() -> None:
    log = Log()
    window = AckWindow(log.ack, limit=2)
    first, second = await window.add(0), await window.add(1)
    third = asyncio.ensure_future(window.add(2))
    await second.finish()
    await asyncio.sleep(0)
    assert not third.done()
    await first.finish()
    assert isinstance(await third, Unfinished)
    assert log.acked == [0, 1]


async def test_a_reader_whose_partition_is_taken_away_while_it_waits_for_room_leaves_in_peace() -> None:
    log, taken = Log(), list[Unfinished]()

    class Stream:
        ack = log.ack

        def noack(self) -> Stream:
            return self

        async def events(self) -> AsyncIterator[int]:
            for offset in range(WINDOW + 1):
                yield offset

    async def take(_event: int, record: Unfinished) -> None:
        taken.append(record)

    reader = asyncio.create_task(take_all(Stream(), take))
    await asyncio.sleep(0)
    assert (len(taken), reader.done()) == (WINDOW, False)
    reader.cancel()
    await asyncio.wait_for(reader, 5)
    await taken[1].finish()
    assert log.acked == []
    await taken[0].finish()
    assert log.acked == [0, 1]


async def test_an_acknowledgement_that_fails_is_its_finishers_to_know_and_may_be_tried_again() -> None:
    acked = list[int]()
    trouble: Exception | None = RuntimeError("closed")

    async def ack(event: int) -> None:
        if trouble is not None:
            raise trouble
        acked.append(event)

    window = AckWindow(ack)
    event = await window.add(0)
    for expected in ([], [0]):
        try:
            await event.finish()
        except RuntimeError:
            trouble = None
        assert acked == expected
