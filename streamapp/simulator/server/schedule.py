"""Time and what is to happen in it: the agenda of this process, and what the broker has begun and will finish."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

from streamapp.simulator.books.store import MarketStore
from streamapp.simulator.prices.feed import Feed
from streamapp.simulator.prices.server_clock import Clock, VirtualClock

Action = Callable[[], None]


class Timeline:
    """Plays ticks and entries of the agenda in order of time and, within a millisecond, of entry.

    Nothing here is kept over a restart: see ``ScheduledEvents``. ``changed`` is called after each new entry.
    """

    def __init__(self, clock: Clock, feed: Feed) -> None:
        self.clock = clock
        self.changed: Action = lambda: None
        self._feed = feed
        self._heap: list[tuple[int, int, Action]] = []
        self._entries = 0

    def at(self, utc_ms: int, action: Action) -> None:
        """Have ``action`` done at ``utc_ms``; what is overdue is done at the next opportunity."""
        self._entries += 1
        heapq.heappush(self._heap, (utc_ms, self._entries, action))
        self.changed()

    def at_server_time(self, server_ms: int, action: Action) -> None:
        """Have ``action`` done when the server's clock, as it goes now, shows ``server_ms``, and never at once."""
        self.at(max(self.clock.utc_of(server_ms), self.clock.utc_ms() + 1), action)

    def after(self, delay_ms: float, action: Action) -> None:
        """Have ``action`` done in ``delay_ms``, one millisecond at least."""
        self.at(self.clock.utc_ms() + max(1, round(delay_ms)), action)

    def wait(self, delay_ms: float, action: Action) -> None:
        """Do something for a client that waits for it: at once without a delay, and a virtual clock goes there."""
        if delay_ms <= 0:
            action()
            return
        self.after(delay_ms, action)
        if self.clock.virtual:
            self.run_until(self.clock.utc_ms() + max(1, round(delay_ms)))

    def next_ms(self) -> int | None:
        """Return when the next entry is due, in UTC milliseconds."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, utc_ms: int) -> None:
        """Do all that is due by then, ticks and entries in order of time; a virtual clock goes along."""
        while (due := self.next_ms()) is not None and due <= utc_ms:
            self.move(due)
            self._feed.advance(due)
            heapq.heappop(self._heap)[2]()
        self.move(utc_ms)
        self._feed.advance(utc_ms)

    def move(self, utc_ms: int) -> None:
        """Take a virtual clock to ``utc_ms``; a real one goes by itself."""
        if isinstance(self.clock, VirtualClock):
            self.clock.move_to(utc_ms)


class ScheduledEvents:
    """What the broker has begun and will do later. It survives a restart of the market, as a broker's word does.

    Each event is a name with arguments of JSON, kept in the store until it is done; ``handlers`` gives what to do for
    each name.
    """

    def __init__(self, timeline: Timeline, store: MarketStore) -> None:
        self.handlers: dict[str, Callable[..., None]] = {}
        self._timeline = timeline
        self._store = store
        self._numbers = itertools.count(1)

    def after(self, delay_ms: float, name: str, *arguments: Any) -> None:
        """Have the handler ``name`` called with ``arguments`` in ``delay_ms``, after a restart too."""
        due_ms = self._timeline.clock.utc_ms() + max(1, round(delay_ms))
        number = next(self._numbers)
        self._store.put("effect", "", number, json.dumps([due_ms, name, *arguments]))
        self._enter(number, due_ms, name, arguments)

    def restore(self) -> None:
        """Take back what an earlier life of the market had begun; what is overdue happens at once."""
        last = 0
        for _, number, body in list(self._store.rows("effect")):
            due_ms, name, *arguments = json.loads(body)
            last = max(last, number)
            self._enter(number, due_ms, name, tuple(arguments))
        self._numbers = itertools.count(last + 1)

    def kept(self) -> Iterator[list[Any]]:
        """Yield the arguments of each event that the store had at the start."""
        for _, _, body in self._store.rows("effect"):
            _, _, *arguments = json.loads(body)
            yield arguments

    def _enter(self, number: int, due_ms: int, name: str, arguments: tuple[Any, ...]) -> None:
        def act() -> None:
            self._store.delete("effect", "", number)
            self.handlers[name](*arguments)

        self._timeline.at(due_ms, act)
