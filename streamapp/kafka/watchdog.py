"""What ends a worker that only seems to work: that stood still, reads nothing any more, or never gets assigned."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, NoReturn

from mode import Service

from streamapp.kafka.abort import abort

BEAT_S = 0.25
"""Between two beats of the event loop: short against any session timeout."""
CHECK_S = 5.0
"""Between two looks at lag and rebalancing, each of which asks Kafka for its offsets."""
STALL_S = 60.0
"""Records are waiting and none was committed for this long. Every step on the road has a deadline far below it."""
REBALANCE_S = 120.0
"""Assigning and recovering without progress for this long: twice the rebalance timeout, when Kafka has given up."""
SILENCE_S = 20.0
"""Kafka says nothing about our partitions for this long: it is away, or came back and the consumer did not notice, as
was seen after a broker was killed. Either way a new start is the way back, and nothing is lost by it."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)


def now_s() -> float:
    """Return seconds that go on counting while the process, and where the system offers it the machine, is asleep."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


class Pulse:
    """Whether the event loop stood still for longer than a worker may and still act.

    After half the session timeout without a beat Kafka may be about to give this worker's partitions to another one, so
    nothing more may be written or sent. ``check`` is called before every durable write and send: the first thing that a
    thawed process does.
    """

    def __init__(
        self, limit_s: float, *, clock: Callable[[], float] = now_s, end: Callable[[str], NoReturn] = abort
    ) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._end = end
        self._beat_s: float | None = None

    def beat(self) -> None:
        """Say that the loop is alive, unless it was away for too long."""
        self.check()
        self._beat_s = self._clock()

    def check(self) -> None:
        """End the process if the last beat is longer ago than the limit; before the first beat, do nothing."""
        if self._beat_s is None:
            return
        still_s = self._clock() - self._beat_s
        if still_s > self.limit_s:
            self._end(
                f"the event loop stood still for {still_s:.1f} s, expected {self.limit_s:.1f} s at most: "
                "another worker may own our partitions by now"
            )

    def stop(self) -> None:
        """Expect no more beats."""
        self._beat_s = None


class Standstill:
    """How long something has looked the same."""

    def __init__(self, clock: Callable[[], float] = now_s) -> None:
        self._clock = clock
        self._seen: Hashable = None
        self._since_s = clock()

    def unchanged_s(self, seen: Hashable) -> float:
        """Return for how many seconds ``seen`` has been what it is; 0 when it just changed."""
        if seen != self._seen:
            self._seen, self._since_s = seen, self._clock()
        return self._clock() - self._since_s

    def reset(self) -> None:
        """Start counting anew."""
        self._seen, self._since_s = None, self._clock()


class Watchdog(Service):
    """Watches one app for as long as it runs, and ends the process with exit code 70 when it must."""

    def __init__(
        self,
        app: Any,
        *,
        stall_s: float = STALL_S,
        rebalance_s: float = REBALANCE_S,
        silence_s: float = SILENCE_S,
        check_s: float = CHECK_S,
        clock: Callable[[], float] = now_s,
        end: Callable[[str], NoReturn] = abort,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._app = app
        self._limits_s = (stall_s, rebalance_s, silence_s)
        self._check_s = check_s
        self._end = end
        self._reading, self._assigning, self._answers = Standstill(clock), Standstill(clock), Standstill(clock)
        self._answered = 0

    async def on_start(self) -> None:
        """Begin to watch, from the loop and from a thread that a blocked loop can't hold up."""
        self._app.pulse.beat()
        threading.Thread(target=self._watch_loop, name="watchdog", daemon=True).start()

    async def on_stop(self) -> None:
        """Stop watching: an orderly shutdown has its own supervisor."""
        self._app.pulse.stop()

    def _watch_loop(self) -> None:
        while not self.should_stop:
            self._app.pulse.check()
            time.sleep(BEAT_S)

    @Service.task
    async def _beat(self) -> None:
        while not self.should_stop:
            self._app.pulse.beat()
            await self.sleep(BEAT_S)

    @Service.task
    async def _look(self) -> None:
        while not self.should_stop:
            await self.sleep(self._check_s)
            if not self.should_stop:
                await self.look()

    async def look(self) -> None:
        """Look once at lag, rebalancing and whether Kafka answers."""
        stall_s, rebalance_s, silence_s = self._limits_s
        if self._app.rebalancing:
            self._reading.reset()
            self._answers.reset()
            self._limit(
                "assigning partitions and recovering", self._assigning.unchanged_s(self._recovery()), rebalance_s
            )
            return
        self._assigning.reset()
        lag, committed = await self._lag()
        self._limit(
            "waiting for Kafka to say where our partitions end", self._answers.unchanged_s(self._answered), silence_s
        )
        if lag and not self._app.waits():
            self._limit(f"{lag} records wait and none is committed", self._reading.unchanged_s(committed), stall_s)
        else:
            self._reading.reset()

    def _limit(self, what: str, unchanged_s: float, limit_s: float) -> None:
        if unchanged_s > limit_s:
            self._end(f"{what}, without progress for {unchanged_s:.0f} s, expected {limit_s:.0f} s at most")

    def _recovery(self) -> Hashable:
        recovery = self._app.tables.recovery
        return self._app.rebalancing_count, recovery.in_recovery, recovery.active_remaining_total()

    async def _lag(self) -> tuple[int, Hashable]:
        """Return how many records of our partitions are not committed, and how far each is committed."""
        consumer = self._app.consumer
        tps = [tp for tp in consumer.assignment() if tp.topic not in self._app.tables.changelog_topics]
        if not tps:
            self._answered += 1
            return 0, None
        try:
            async with asyncio.timeout(self._check_s):
                ends = await consumer.highwaters(*tps)
                starts = await consumer.earliest_offsets(*tps)
        except (TimeoutError, OSError, RuntimeError) as error:
            self.log.warning("Kafka did not say where our partitions end: %r", error)
            return 0, None
        self._answered += 1
        done = {tp: max(consumer._committed_offset[tp] or 0, starts[tp] or 0) for tp in tps}
        return sum(max(0, (ends[tp] or 0) - done[tp]) for tp in tps), tuple(sorted(done.items()))
