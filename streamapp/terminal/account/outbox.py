"""From the journal to JetStream: reports and broker log, in order of seq, pipelined, repeated until acknowledged.

Reports that wait together are one message: what one commit made, or more if more waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from streamapp import subjects
from streamapp.errors import Transient, Unusable
from streamapp.messages.log import BrokerLogPlace, encode_entries
from streamapp.messages.report import BatchPlace, encode_batch
from streamapp.nats.outlet import JetStreamPublisher
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal

logger = logging.getLogger(__name__)

Row = tuple[int, bytes]
"""seq and payload."""

WINDOW = 256
"""Most rows on their way at once: at 1 ms a round trip far more than one account makes, and little enough to publish
again."""
MOST_ROWS = 100
"""Most rows in one message: a batch of reports is one commit of the desk, and nothing else of its account goes on
meanwhile."""
LARGEST_B = 200_000
"""Most bytes of rows that share a message. NATS takes 1 MB; the desk's commit, 512 KiB at most, holds the facts of a
batch and the rows and messages that they make. A larger row goes alone, as it is."""
RETRY_S = 0.25
"""Between a failure and the next try. While NATS is away, every try fails at once."""
MOST_IN_MEMORY = 2000
"""Most rows kept in memory while JetStream does not take them."""
PATIENCE_S = {b'"kind":"started"': 0.25, b'"kind":"returned"': 0.1, b'"kind":"accepted"': 0.1}
"""How long the reports of an order that is just being sent wait for what follows them: the answer of ``order_send``,
and the deal that is looked for at once. Nobody acts on them before, and together they are one message and one commit of
the desk instead of three. An outcome waits for nothing, and takes along what waits."""
KIND_WITHIN_B = 160
"""Where a report's kind stands: seq and at are the only fields before it."""
LONGEST_PATIENCE_S = 1.0
"""How long rows wait for others at most, and entries of the broker log always: they are nobody's outcome, and those of
an order are one message then."""


@dataclass(frozen=True)
class OutboxSource:
    """What an :class:`OutboxPublisher` publishes: where rows are read, how they become messages, and what follows.

    Attributes:
        read: Returns (seq, payload) of the next rows after a seq, at most so many.
        subject: Where they go.
        encode: Returns the message of rows whose seq is contiguous.
        message_id: Returns the Nats-Msg-Id of rows, from the first seq and the last.
        patience_s: Returns how long a row that was the last to come may wait for the next.
        released_by_jetstream: Whether rows may be forgotten once JetStream has them; otherwise somebody else says so.
    """

    read: Callable[[Book, int, int], list[Row]]
    subject: str
    encode: Callable[[list[Row]], bytes]
    message_id: Callable[[int, int], str]
    patience_s: Callable[[bytes], float]
    released_by_jetstream: bool = False

    def messages(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Cut rows that wait together into those of one message each."""
        together: list[Row] = []
        size = 0
        for row in rows:
            if together and (len(together) == MOST_ROWS or size + len(row[1]) > LARGEST_B):
                yield together
                together, size = [], 0
            together.append(row)
            size += len(row[1])
        if together:
            yield together


def reports_of(book: Book, deployment: str) -> OutboxSource:
    """Return the source of the account's reports; only the desk's watermark releases them (design: submission)."""

    def encode(rows: list[Row]) -> bytes:
        place = BatchPlace(account=book.account, epoch=book.epoch, first_seq=rows[0][0])
        return encode_batch(place, [payload for _, payload in rows])

    message_id = partial(_message_id, book, deployment, "report")
    return OutboxSource(Book.outbox, subjects.report(book.account), encode, message_id, _patience_s)


def _message_id(book: Book, deployment: str, kind: str, first: int, last: int) -> str:
    # It names both ends. A batch whose acknowledgement was lost is published again together with what waits by then:
    # under the id of its first seq alone, JetStream would drop that larger batch as a duplicate of the smaller one and
    # acknowledge it, and the rows that only the larger one holds would be lost, reports until somebody sees the gap.
    # With both ends an equal id is an equal message, since rows never change; an overlap repeats rows, which their
    # readers know by their seq.
    return subjects.message_id(deployment, kind, book.account, book.epoch, f"{first}-{last}")


def _patience_s(report: bytes) -> float:
    head = report[:KIND_WITHIN_B]
    return next((seconds for kind, seconds in PATIENCE_S.items() if kind in head), 0.0)


def log_of(book: Book, deployment: str) -> OutboxSource:
    """Return the source of the account's broker log; JetStream's acknowledgement releases it."""

    def encode(rows: list[Row]) -> bytes:
        place = BrokerLogPlace(account=book.account, epoch=book.epoch, first_seq=rows[0][0])
        return encode_entries(place, [payload for _, payload in rows])

    return OutboxSource(
        broker_log.waiting,
        subjects.broker_log(book.account),
        encode,
        partial(_message_id, book, deployment, "log"),
        lambda _: LONGEST_PATIENCE_S,
        released_by_jetstream=True,
    )


class OutboxPublisher:
    """Publishes all rows of its source in order of seq, for ever; those that wait together in one message.

    What a commit added comes from memory (:meth:`notify`); the journal is read at the start, after a failure, and
    when memory has a gap.

    Guarantees:
        Nothing is passed over: after a failure it goes back to the first row that was not acknowledged. Publishing a
        row twice is harmless: readers know it by its seq.
    """

    def __init__(self, journal: Journal, out: JetStreamPublisher, source: OutboxSource, name: str) -> None:
        self._journal = journal
        self._out = out
        self._source = source
        self._name = name
        self._wake = asyncio.Event()
        self._more = asyncio.Event()
        self._fresh: deque[Row] = deque()
        self._flying: deque[tuple[int, int, asyncio.Future[None]]] = deque()
        self._published = 0
        self._complete = False
        self.acknowledged = 0
        self.problem: str | None = None

    def notify(self, rows: list[Row]) -> None:
        """Add what became durable just now."""
        self._fresh.extend(rows)
        if len(self._fresh) > MOST_IN_MEMORY:  # the journal has them all
            self._fresh.clear()
            self._complete = False
        self._more.set()
        self._wake.set()

    async def run(self) -> None:
        """Publish for ever; at the start everything that the journal still holds."""
        self._journal.listen(self._name, self.notify)
        while True:
            self._wake.clear()
            try:
                self._collect()
                await self._linger()
                for rows in self._source.messages(await self._next()):
                    await self._publish(rows)
            except (Transient, Unusable) as error:  # a message that is too large is so until somebody sets the limit
                await self._go_back(str(error))
            await self._wait()

    def _collect(self) -> None:
        """Move ``acknowledged`` over what JetStream has.

        Raises:
            Transient, Unusable: the next one was not taken.
        """
        while self._flying and self._flying[0][2].done():
            _, last, future = self._flying[0]
            future.result()
            self.acknowledged = last
            self._flying.popleft()
            self.problem = None
            if self._source.released_by_jetstream:
                self._journal.release(self._name, last)

    async def _linger(self) -> None:
        """Wait as long as the newest row may for what follows it, while there is room in the message."""
        loop = asyncio.get_running_loop()
        latest_s = loop.time() + LONGEST_PATIENCE_S
        while 0 < len(self._fresh) < MOST_ROWS and (patience_s := self._source.patience_s(self._fresh[-1][1])):
            self._more.clear()
            try:
                async with asyncio.timeout_at(min(loop.time() + patience_s, latest_s)):
                    await self._more.wait()
            except TimeoutError:
                return

    @property
    def _room(self) -> int:
        return WINDOW - (self._published - self._flying[0][0] + 1 if self._flying else 0)

    async def _next(self) -> list[Row]:
        room = self._room
        if room <= 0:
            return []
        while self._fresh and self._fresh[0][0] <= self._published:
            self._fresh.popleft()
        if self._complete and (not self._fresh or self._fresh[0][0] == self._published + 1):
            return [self._fresh.popleft() for _ in range(min(room, len(self._fresh)))]
        rows = await self._journal.write(partial(_read, self._source, self._published, room))
        self._complete = len(rows) < room
        return rows

    async def _publish(self, rows: list[Row]) -> None:
        (first, _), (last, _) = rows[0], rows[-1]
        message_id = self._source.message_id(first, last)
        future = await self._out.publish(
            self._source.subject, self._source.encode(rows), {subjects.MESSAGE_ID_HEADER: message_id}
        )
        self._flying.append((first, last, future))
        self._published = last
        future.add_done_callback(lambda _: self._wake.set())

    async def _go_back(self, problem: str) -> None:
        if problem != self.problem:
            logger.warning("%s: %s", self._name, problem)
        self.problem = problem
        await asyncio.gather(*(future for _, _, future in self._flying), return_exceptions=True)
        self._flying.clear()
        self._published, self._complete = self.acknowledged, False
        await asyncio.sleep(RETRY_S)
        self._wake.set()

    async def _wait(self) -> None:
        if self._complete or self._room <= 0:
            await self._wake.wait()


def _read(source: OutboxSource, after_seq: int, limit: int, book: Book) -> list[Row]:
    return source.read(book, after_seq, limit)


async def replay(
    journal: Journal, out: JetStreamPublisher, source: OutboxSource, after_seq: int, replay_id: str
) -> int:
    """Publish every row after ``after_seq`` again under new ids, up to the last one now; return how many rows.

    Raises:
        Transient, Unusable: JetStream did not take all of them; the agent asks again.
    """
    published, last = 0, journal.last_seq
    while rows := await journal.write(partial(_part, source, after_seq, last)):
        futures = [
            await out.publish(
                source.subject,
                source.encode(together),
                {subjects.MESSAGE_ID_HEADER: f"{source.message_id(together[0][0], together[-1][0])}:{replay_id}"},
            )
            for together in source.messages(rows)
        ]
        for result in await asyncio.gather(*futures, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        after_seq, published = rows[-1][0], published + len(rows)
    return published


def _part(source: OutboxSource, after_seq: int, last_seq: int, book: Book) -> list[Row]:
    return [(seq, payload) for seq, payload in source.read(book, after_seq, WINDOW) if seq <= last_seq]
