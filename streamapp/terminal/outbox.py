"""From the journal to JetStream: reports and broker log, in order of seq, pipelined, repeated until acknowledged."""

from __future__ import annotations

import asyncio
import json
import logging
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

    Guarantees:
        Nothing is passed over: after a failure it goes back to the first message that was not acknowledged. Saying one
        twice is harmless, its id is the same.
    """

    def __init__(self, journal: Journal, out: Acknowledged, shelf: Shelf, name: str) -> None:
        self._journal = journal
        self._out = out
        self._shelf = shelf
        self._name = name
        self.wake = asyncio.Event()
        self.acknowledged = 0
        self.problem: str | None = None

    async def run(self) -> None:
        """Say what is on the shelf, for ever; on start everything that it still holds."""
        released_at = 0.0
        while True:
            self.wake.clear()
            rows = await self._journal.write(lambda book: self._shelf.read(book, self.acknowledged, WINDOW))
            if rows:
                await self._say(rows)
            else:
                await self.wake.wait()
            loop_time = asyncio.get_running_loop().time()
            if self._shelf.release and rows and loop_time - released_at > RELEASE_EVERY_S:
                released_at = loop_time
                await self._journal.write(
                    lambda book: self._shelf.release and self._shelf.release(book, self.acknowledged)
                )

    async def _say(self, rows: list[tuple[int, bytes]]) -> None:
        futures: list[asyncio.Future[None]] = []
        try:
            for seq, payload in rows:
                futures.append(await self._out.publish(self._shelf.subject, payload, self._shelf.message_id(seq)))
        except Transient as error:
            self._note(str(error))
        for (seq, _), result in zip(rows, await asyncio.gather(*futures, return_exceptions=True), strict=False):
            if isinstance(result, BaseException):
                self._note(str(result))
                break
            self.acknowledged = seq
        if self.acknowledged == rows[-1][0]:
            self.problem = None
        else:
            await asyncio.sleep(RETRY_S)

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            logger.warning("%s: %s", self._name, problem)
        self.problem = problem


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
