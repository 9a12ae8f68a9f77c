"""From the journal to JetStream: reports and broker log, in order of seq, pipelined, repeated until acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from streamapp import subjects
from streamapp.errors import Transient
from streamapp.terminal.book import Book
from streamapp.terminal.journal import Journal

logger = logging.getLogger(__name__)

WINDOW = 256
"""Most messages on their way at once: at 1 ms a round trip far more than one account makes, and little enough to say
again."""
RETRY_S = 0.25
"""Between a failure and the next try. While NATS is away, every try fails at once."""
MOST_HEARD = 2000
"""Most messages kept in memory while JetStream does not take them."""
RELEASE_EVERY_S = 1.0
"""How often acknowledged log entries are deleted: each time is a commit, and there is no hurry."""


class Acknowledged:
    """Publishes with JetStream's acknowledgement over one inbox; order is that of the calls."""

    def __init__(self, client: Client, deployment: str, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._headers = {
            subjects.ORIGIN_HEADER: subjects.origin(deployment, "terminal"),
            "Content-Type": "application/json",
        }
        self._inbox = client.new_inbox()
        self._number = 0
        self._futures: dict[str, asyncio.Future[None]] = {}
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Listen for the acknowledgements."""
        self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._on_answer)

    async def publish(self, subject: str, payload: bytes, message_id: str) -> asyncio.Future[None]:
        """Hand a message to the connection; the future is done when JetStream has it.

        Raises:
            Transient: there is no connection; the message was not handed over.
        """
        self._number += 1
        token = str(self._number)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures[token] = future
        timer = asyncio.get_running_loop().call_later(
            self._timeout_s, _fail, future, f"no acknowledgement within {self._timeout_s:g} s"
        )
        future.add_done_callback(partial(self._forget, token, timer))
        try:
            headers = {**self._headers, subjects.MESSAGE_ID_HEADER: message_id}
            await self._client.publish(subject, payload, reply=f"{self._inbox}.{token}", headers=headers)
        except (nats.errors.Error, OSError) as error:
            future.cancel()
            raise Transient(f"expected a connection to NATS, got {type(error).__name__}; it is tried again") from None
        return future

    def _forget(self, token: str, timer: asyncio.TimerHandle, _: asyncio.Future[None]) -> None:
        timer.cancel()
        self._futures.pop(token, None)

    async def _on_answer(self, message: Msg) -> None:
        future = self._futures.get(message.subject.rpartition(".")[2])
        if future is None or future.done():
            return
        if message.headers and message.headers.get("Status"):
            _fail(future, f"no stream takes it (status {message.headers['Status']}): run streamapp init")
        elif error := json.loads(message.data).get("error"):
            _fail(future, f"JetStream: {error.get('description')}")
        else:
            future.set_result(None)


def _fail(future: asyncio.Future[None], message: str) -> None:
    if not future.done():
        future.set_exception(Transient(message))


@dataclass(frozen=True)
class Shelf:
    """What a :class:`Speaker` says: its source, subject and ids, and what is done once JetStream has it."""

    read: Callable[[Book, int, int], list[tuple[int, bytes]]]
    subject: str
    message_id: Callable[[int], str]
    release: Callable[[Book, int], Any] | None = None


class Speaker:
    """Says everything on its shelf in order of seq, for ever.

    What a commit put there comes from memory (:meth:`hear`); the journal is read at the start, after a failure, and
    when memory has a gap.

    Guarantees:
        Nothing is passed over: after a failure it goes back to the first message that was not acknowledged. Saying one
        twice is harmless, its id is the same.
    """

    def __init__(self, journal: Journal, out: Acknowledged, shelf: Shelf, name: str) -> None:
        self._journal = journal
        self._out = out
        self._shelf = shelf
        self._name = name
        self._wake = asyncio.Event()
        self._heard: deque[tuple[int, bytes]] = deque()
        self._flying: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._said = 0
        self._complete = False
        self._released = 0
        self.acknowledged = 0
        self.problem: str | None = None

    def hear(self, rows: list[tuple[int, bytes]]) -> None:
        """Take what is durable on the shelf since just now."""
        self._heard.extend(rows)
        if len(self._heard) > MOST_HEARD:  # the journal has them all
            self._heard.clear()
            self._complete = False
        self._wake.set()

    async def run(self) -> None:
        """Say what is on the shelf, for ever; at the start everything that it still holds."""
        self._journal.listen(self._name, self.hear)
        release_at = 0.0
        while True:
            self._wake.clear()
            try:
                self._collect()
                for seq, payload in await self._next():
                    await self._say(seq, payload)
            except Transient as error:
                await self._go_back(str(error))
            if self._shelf.release and asyncio.get_running_loop().time() > release_at:
                release_at = asyncio.get_running_loop().time() + RELEASE_EVERY_S
                await self._release()
            await self._wait()

    def _collect(self) -> None:
        """Move ``acknowledged`` over what JetStream has.

        Raises:
            Transient: the next one was not taken.
        """
        while self._flying and self._flying[0][1].done():
            seq, future = self._flying[0]
            future.result()
            self.acknowledged = seq
            self._flying.popleft()
            self.problem = None

    async def _next(self) -> list[tuple[int, bytes]]:
        room = WINDOW - len(self._flying)
        if room <= 0:
            return []
        while self._heard and self._heard[0][0] <= self._said:
            self._heard.popleft()
        if self._complete and (not self._heard or self._heard[0][0] == self._said + 1):
            return [self._heard.popleft() for _ in range(min(room, len(self._heard)))]
        rows = await self._journal.write(partial(_read, self._shelf, self._said, room))
        self._complete = len(rows) < room
        return rows

    async def _say(self, seq: int, payload: bytes) -> None:
        future = await self._out.publish(self._shelf.subject, payload, self._shelf.message_id(seq))
        self._flying.append((seq, future))
        self._said = seq
        future.add_done_callback(lambda _: self._wake.set())

    async def _go_back(self, problem: str) -> None:
        if problem != self.problem:
            logger.warning("%s: %s", self._name, problem)
        self.problem = problem
        await asyncio.gather(*(future for _, future in self._flying), return_exceptions=True)
        self._flying.clear()
        self._said, self._complete = self.acknowledged, False
        await asyncio.sleep(RETRY_S)
        self._wake.set()

    async def _release(self) -> None:
        if self._shelf.release and self.acknowledged > self._released:
            self._released = self.acknowledged
            release, seq = self._shelf.release, self._released
            await self._journal.write(lambda book: release(book, seq))

    async def _wait(self) -> None:
        if self._complete or len(self._flying) >= WINDOW:
            await self._wake.wait()


def _read(shelf: Shelf, after_seq: int, limit: int, book: Book) -> list[tuple[int, bytes]]:
    return shelf.read(book, after_seq, limit)


async def replay(journal: Journal, out: Acknowledged, shelf: Shelf, after_seq: int, replay_id: str) -> int:
    """Say every report after ``after_seq`` again under a new id, up to the last one now; return how many.

    Raises:
        Transient: JetStream did not take all of them; the agent asks again.
    """
    said, last = 0, await journal.write(lambda book: book.last_seq())
    while rows := await journal.write(partial(_part, shelf, after_seq, last)):
        futures = [
            await out.publish(shelf.subject, payload, f"{shelf.message_id(seq)}:{replay_id}") for seq, payload in rows
        ]
        for result in await asyncio.gather(*futures, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        after_seq, said = rows[-1][0], said + len(rows)
    return said


def _part(shelf: Shelf, after_seq: int, last_seq: int, book: Book) -> list[tuple[int, bytes]]:
    return [(seq, payload) for seq, payload in shelf.read(book, after_seq, WINDOW) if seq <= last_seq]
