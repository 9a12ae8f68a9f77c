"""The watchdog ends a worker that only seems to work, and no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from faust.types import TP

from streamapp.kafka.watchdog import Pulse, Watchdog


class EndedError(Exception):
    """Stands for the end of the process."""


def end(reason: str) -> NoReturn:
    raise EndedError(reason)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Consumer:
    """A source partition and its offsets."""

    def __init__(self) -> None:
        self.tp = TP("in", 0)
        self.start, self.end, self.done = 0, 0, 0
        self.broken = False

    @property
    def _committed_offset(self) -> dict[TP, int | None]:
        return {self.tp: self.done or None}

    def assignment(self) -> set[TP]:
        return {self.tp, TP("app-rows-changelog", 0)}

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        if self.broken:
            raise RuntimeError("no coordinator")
        return dict.fromkeys(tps, self.end)

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, self.start)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock()


@pytest.fixture
def app() -> Any:
    recovery: Any = SimpleNamespace(in_recovery=False, remaining=0)
    recovery.active_remaining_total = lambda: recovery.remaining
    tables = SimpleNamespace(recovery=recovery, changelog_topics={"app-rows-changelog"})
    return SimpleNamespace(
        rebalancing=False, rebalancing_count=1, tables=tables, consumer=Consumer(), waits=lambda: False
    )


@pytest.fixture
async def watchdog(app: Any, clock: Clock) -> Watchdog:
    return Watchdog(app, stall_s=60, rebalance_s=120, silence_s=120, end=end, clock=clock)


def test_a_loop_that_stood_still_for_too_long_ends_the_process(clock: Clock) -> None:
    pulse = Pulse(5.0, clock=clock, end=end)
    pulse.check()
    pulse.beat()
    clock.now_s += 4.9
    pulse.check()
    pulse.beat()
    clock.now_s += 5.1
    with pytest.raises(EndedError, match=r"stood still for 5\.1 s"):
        pulse.check()
    pulse.stop()
    pulse.check()


async def test_records_that_wait_while_none_is_committed_end_the_process(
    watchdog: Watchdog, app: Any, clock: Clock
) -> None:
    app.consumer.end = 10
    await watchdog.look()
    clock.now_s += 50
    app.consumer.done = 3
    await watchdog.look()
    clock.now_s += 59
    await watchdog.look()
    clock.now_s += 2
    with pytest.raises(EndedError, match="7 records wait and none is committed"):
        await watchdog.look()


async def test_a_topic_whose_records_expired_before_anyone_read_them_has_no_lag(
    watchdog: Watchdog, app: Any, clock: Clock
) -> None:
    app.consumer.start = app.consumer.end = 1000
    for _ in range(5):
        await watchdog.look()
        clock.now_s += 100


async def test_a_sink_that_waits_for_the_outside_world_may_lag(watchdog: Watchdog, app: Any, clock: Clock) -> None:
    app.consumer.end, app.waits = 10, lambda: True
    for _ in range(3):
        await watchdog.look()
        clock.now_s += 100
    app.waits = lambda: False
    await watchdog.look()
    clock.now_s += 59
    await watchdog.look()


async def test_an_idle_worker_goes_on_for_ever(watchdog: Watchdog, app: Any, clock: Clock) -> None:
    for _ in range(5):
        await watchdog.look()
        clock.now_s += 1000
    app.consumer.end = 1
    await watchdog.look()
    clock.now_s += 30
    await watchdog.look()


async def test_a_rebalance_without_progress_ends_the_process_and_a_long_recovery_does_not(
    watchdog: Watchdog, app: Any, clock: Clock
) -> None:
    app.rebalancing, app.tables.recovery.in_recovery = True, True
    for remaining in range(10, 0, -1):
        app.tables.recovery.remaining = remaining
        await watchdog.look()
        clock.now_s += 100
    await watchdog.look()
    clock.now_s += 25
    with pytest.raises(EndedError, match="assigning partitions and recovering"):
        await watchdog.look()


async def test_a_kafka_that_says_nothing_for_too_long_ends_the_process(
    watchdog: Watchdog, app: Any, clock: Clock
) -> None:
    await watchdog.look()
    app.consumer.broken = True
    clock.now_s += 100
    await watchdog.look()
    clock.now_s += 25
    with pytest.raises(EndedError, match="waiting for Kafka to say where our partitions end"):
        await watchdog.look()
