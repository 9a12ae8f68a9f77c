"""One receiver's queue: what waits for it, and one try after another until it is told or given up.

Each has a task and threads of its own, so none waits for another, and the consumer waits for none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from streamapp.clock import Clock
from streamapp.domain.notification import MINUTE, URGENCIES, Urgency, allowed, batch_size, held_until
from streamapp.notifier.addresses import Address
from streamapp.notifier.gauges import NotifierGauges
from streamapp.notifier.notices import Notice, old_ones, summed_up
from streamapp.notifier.told import Told
from streamapp.settings import NotifySettings

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that waits to be told; ``done`` is called once it is told or given up.

    ``is_old``: of before the notifier was away; told in one message with all the others that are.
    """

    notice: Notice
    give_up: datetime
    is_old: bool
    done: Callable[[], None]


class Receiver:
    """Tells one receiver what it is given, most urgent first, and loses nothing of it without saying so."""

    def __init__(
        self, address: Address, settings: NotifySettings, told: Told, gauges: NotifierGauges, clock: Clock
    ) -> None:
        self.address = address
        self.trouble = ""
        """Why it takes nothing now, empty if it does."""
        self._settings, self._told, self._gauges, self._clock = settings, told, gauges, clock
        self._waiting: list[Waiting] = []
        self._known: set[str] = set()
        self._has_caught_up = False
        self._sent: deque[datetime] = deque()
        self._changed = asyncio.Event()
        self._sending: asyncio.Future[str] | None = None

    def knows(self, notice_id: str) -> bool:
        """Return whether it was told of it, or is about to be."""
        return notice_id in self._known or self._key(notice_id) in self._told

    def put(self, notice: Notice, *, is_old: bool, done: Callable[[], None]) -> None:
        """Let it be told of an event."""
        now = self._clock()
        held = held_until(self._settings.quiet_hours, notice.urgency, now) or now
        give_up = held + timedelta(seconds=self._settings.give_up_s)
        self._waiting.append(Waiting(notice, give_up, is_old, done))
        self._known.add(notice.id)
        self._gauges.waiting.labels(self.address.name).set(len(self._known))
        self._changed.set()

    def catch_up(self, has_caught_up: bool) -> None:
        """Note whether all that is old has been read: then it is told in one message."""
        if has_caught_up != self._has_caught_up:
            self._has_caught_up = has_caught_up
            self._changed.set()

    async def run(self) -> None:
        """Tell what comes, for ever."""
        while True:
            batch = await self._next()
            await self._tell(batch)

    def _key(self, notice_id: str) -> str:
        return self.address.key(notice_id)

    async def _next(self) -> list[Waiting]:
        """Return what the next message tells, as soon as it may be sent; it waits no longer."""
        while True:
            self._changed.clear()
            now = self._clock()
            hours = self._settings.quiet_hours
            held = {urgency: held_until(hours, urgency, now) for urgency in URGENCIES}
            ready = [each for each in self._waiting if held[each.notice.urgency] is None]
            old = [each for each in ready if each.is_old]
            if not self._has_caught_up:
                ready = [each for each in ready if not each.is_old]
            may_send = allowed(self._sent, now, self._settings.per_minute)
            if ready and may_send:
                if self._has_caught_up and old:
                    batch = old
                else:
                    ready.sort(key=lambda each: URGENCIES.index(each.notice.urgency), reverse=True)
                    batch = ready[: batch_size(len(ready), may_send)]
                taken = {id(each) for each in batch}
                self._waiting = [each for each in self._waiting if id(each) not in taken]
                return batch
            # All that wait for the end of the quiet wait for the same one.
            ends = next((end for end in held.values() if end is not None), None)
            await self._sleep_until(self._sent[0] + MINUTE if ready else ends, now)

    async def _sleep_until(self, moment: datetime | None, now: datetime) -> None:
        # At most a minute: the clock may be set, and a laptop sleep.
        wait_s = 60.0 if moment is None else min(60.0, max(0.0, (moment - now).total_seconds()))
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _tell(self, batch: list[Waiting]) -> None:
        pause_s, own = FIRST_PAUSE_S, False
        while batch:
            # A try that is late may still succeed, and would be told twice if it were sent beside itself: the next one
            # awaits it. One of an earlier batch, which was given up, is awaited and says nothing of this one.
            if self._sending is not None and not own and await self._outcome() is not None:
                self._sending = None
            if self._sending is None:
                self._sending, own = self._send([each.notice for each in batch], is_old=batch[0].is_old), True
            trouble = await self._outcome() if own else None
            if trouble is not None:
                self._sending, own = None, False
            if trouble == "":
                self._took()
                self._finish(batch)
                return
            self._failed(trouble or f"no answer within {self._settings.send_timeout_s:g} s")
            batch = self._without_given_up(batch)
            if batch:
                await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _took(self) -> None:
        self._gauges.sent.labels(self.address.name).inc()
        if self.trouble:
            logger.info("%s: takes messages again", self.address.name)
        self.trouble = ""

    def _failed(self, trouble: str) -> None:
        self._gauges.failed.labels(self.address.name).inc()
        if trouble != self.trouble:
            logger.warning("%s: %s; trying again", self.address.name, trouble)
        self.trouble = trouble

    def _without_given_up(self, batch: list[Waiting]) -> list[Waiting]:
        now = self._clock()
        over = [each for each in batch if now >= each.give_up]
        for each in over:
            logger.error(
                "%s: given up after %g s, nobody was told of %s (%s): %s",
                self.address.name, self._settings.give_up_s, each.notice.id, each.notice.title, self.trouble,
            )  # fmt: skip
        self._gauges.given_up.labels(self.address.name).inc(len(over))
        self._finish(over)
        return [each for each in batch if now < each.give_up]

    def _finish(self, batch: Sequence[Waiting]) -> None:
        for each in batch:
            self._told.add(self._key(each.notice.id))
            self._known.discard(each.notice.id)
            each.done()
        self._gauges.waiting.labels(self.address.name).set(len(self._known))

    def _send(self, notices: Sequence[Notice], *, is_old: bool) -> asyncio.Future[str]:
        self._sent.append(self._clock())
        while len(self._sent) > self._settings.per_minute:
            self._sent.popleft()
        return in_a_thread(self.address, old_ones(notices) if is_old else summed_up(notices))

    async def _outcome(self) -> str | None:
        """Return what went wrong with what is being sent, empty if nothing did; None if it is not over in time."""
        assert self._sending is not None
        done, _ = await asyncio.wait((self._sending,), timeout=self._settings.send_timeout_s)
        return self._sending.result() if done else None


def in_a_thread(address: Address, message: tuple[str, str, Urgency]) -> asyncio.Future[str]:
    """Send in a thread that the end of this process does not wait for; apprise blocks for as long as it likes."""
    loop = asyncio.get_running_loop()
    sent: asyncio.Future[str] = loop.create_future()

    def finish(outcome: str) -> None:
        if not sent.done():
            sent.set_result(outcome)

    def send() -> None:
        outcome = address.send(*message)
        try:
            loop.call_soon_threadsafe(finish, outcome)
        except RuntimeError:  # the process is stopping
            return

    threading.Thread(target=send, name=f"notify {address.name}", daemon=True).start()
    return sent
