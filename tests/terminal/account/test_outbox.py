"""The outbox over real JetStream: what waits together is one message, and no retry and no limit loses a report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from streamapp import subjects
from streamapp.domain.facts import BrokerAccepted
from streamapp.errors import Transient
from streamapp.messages.log import BrokerLogBatch
from streamapp.messages.report import ReportBatch
from streamapp.nats.outlet import JetStreamPublisher
from streamapp.terminal.account.outbox import (
    LARGEST_B,
    MOST_ROWS,
    WINDOW,
    OutboxPublisher,
    log_of,
    replay,
    reports_of,
)
from streamapp.terminal.account.outbox import PATIENCE_S as PATIENCE_OF
from streamapp.terminal.journal import broker_log
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.pipe.answers import Exchange
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.journal.test_database import filled

DEPLOYMENT = "outbox"


class Outbox:
    """A journal's reports and what the stream holds of them."""

    def __init__(self, journal: Journal, client: Client) -> None:
        self.journal = journal
        self.source = reports_of(journal.book, DEPLOYMENT)
        self.out = JetStreamPublisher(client, PATIENCE_S)
        self.publisher = OutboxPublisher(journal, self.out, self.source, "reports")
        self.stored: list[Msg] = []
        self._deals: Iterator[int] = iter(range(1, 10_000))

    async def report(self, count: int) -> None:
        """Have one commit make so many reports."""
        await asyncio.gather(
            *(self.journal.write(partial(Book.record_deal, body=filled(next(self._deals), 1001))) for _ in range(count))
        )

    def batches(self) -> list[tuple[int, int]]:
        """Return (first seq, last seq) of each message in the stream."""
        found = [ReportBatch.decode(message.data) for message in self.stored]
        return [(batch.first_seq, batch.reports[-1].seq) for batch in found]

    def ids(self) -> list[str]:
        """Return what follows account and epoch in the messages' ids."""
        place = f"{DEPLOYMENT}:report:{self.journal.book.account}:{self.journal.book.epoch}:"
        return [(message.headers or {})["Nats-Msg-Id"].removeprefix(place) for message in self.stored]


@asynccontextmanager
async def opened(folder: Path, client: Client) -> AsyncIterator[Outbox]:
    journal = Journal(folder / "journal.sqlite3", f"outbox-{uuid4().hex}")
    committing = asyncio.create_task(journal.run())
    outbox = Outbox(journal, client)

    async def on_stored(message: Msg) -> None:
        outbox.stored.append(message)

    # From the stream: a plain subscription would show the duplicates too that JetStream drops.
    stored = await client.jetstream().subscribe(outbox.source.subject, cb=on_stored, ordered_consumer=True)
    try:
        yield outbox
    finally:
        await stored.unsubscribe()
        committing.cancel()
        await asyncio.gather(committing, return_exceptions=True)
        journal.close()


@asynccontextmanager
async def publishing(outbox: Outbox) -> AsyncIterator[None]:
    task = asyncio.create_task(outbox.publisher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def outbox(tmp_path: Path, client: Client) -> AsyncIterator[Outbox]:
    async with opened(tmp_path, client) as outbox:
        yield outbox


async def test_what_one_commit_made_is_one_message_named_by_both_of_its_ends(outbox: Outbox) -> None:
    async with publishing(outbox):
        await outbox.report(1)
        await eventually(lambda: outbox.batches() == [(1, 1)])
        await outbox.report(4)
        await eventually(lambda: outbox.batches() == [(1, 1), (2, 5)])
    assert outbox.ids() == ["1-1", "2-5"]


ACCEPTED = b'"kind":"accepted"'


async def accept(outbox: Outbox) -> None:
    await outbox.journal.write(partial(Book.report, kind="accepted", order_id="o-1", body=BrokerAccepted(ticket=1001)))


async def test_the_reports_of_an_order_in_flight_go_with_its_outcome(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATIENCE_OF, ACCEPTED, 2 * PATIENCE_S)
    async with publishing(outbox):
        await outbox.report(1)
        await eventually(lambda: outbox.batches() == [(1, 1)])
        await accept(outbox)
        await outbox.report(1)
        await eventually(lambda: outbox.batches() == [(1, 1), (2, 3)])


async def test_a_report_in_flight_goes_alone_when_its_patience_is_over(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PATIENCE_OF, ACCEPTED, 0.01)
    async with publishing(outbox):
        await outbox.report(1)
        await eventually(lambda: outbox.batches() == [(1, 1)])
        await accept(outbox)
        await eventually(lambda: outbox.batches() == [(1, 1), (2, 2)])


ENTRY = Exchange("order_send", {"volume": 0.1}, None, (1, "Success"), at=1e9, duration_us=5)


async def test_the_broker_log_goes_in_batches_and_is_forgotten_with_the_next_commit_that_something_needs(
    outbox: Outbox, client: Client
) -> None:
    book, batches = outbox.journal.book, list[BrokerLogBatch]()

    async def on_batch(message: Msg) -> None:
        batches.append(BrokerLogBatch.decode(message.data))

    await client.subscribe(subjects.broker_log(book.account), cb=on_batch)
    publisher = OutboxPublisher(outbox.journal, outbox.out, log_of(book, DEPLOYMENT), "log")
    task = asyncio.create_task(publisher.run())
    await outbox.journal.write(lambda book: broker_log.append(book, [ENTRY]))
    await eventually(lambda: publisher.acknowledged == 1)
    for entries in ([ENTRY, ENTRY], [ENTRY]):
        await outbox.journal.write(partial(broker_log.append, exchanges=entries, order_id="o-1"))
    await eventually(lambda: publisher.acknowledged == 4)
    await eventually(lambda: len(batches) == 2)
    assert [[entry.seq for entry in batch.entries] for batch in batches] == [[1], [2, 3, 4]]
    assert [batch.first_seq for batch in batches] == [1, 2]
    assert await outbox.journal.write(lambda book: broker_log.waiting(book, 0, 10))
    await outbox.report(1)
    assert await outbox.journal.write(lambda book: broker_log.waiting(book, 0, 10)) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_waited_while_nobody_published_goes_in_few_messages_and_beyond_the_window(outbox: Outbox) -> None:
    await outbox.report(WINDOW + 10)
    async with publishing(outbox):
        await eventually(lambda: outbox.publisher.acknowledged == WINDOW + 10)
        await eventually(lambda: sum(last - first + 1 for first, last in outbox.batches()) == WINDOW + 10)
    firsts, lasts = zip(*outbox.batches(), strict=True)
    assert list(firsts) == [1, *(last + 1 for last in lasts[:-1])]
    assert lasts[:2] == (MOST_ROWS, 2 * MOST_ROWS)


async def test_a_retry_that_carries_more_than_the_batch_whose_acknowledgement_was_lost_loses_nothing(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, tries = outbox.out.publish, []

    async def losing_the_first_acknowledgement(
        subject: str, payload: bytes, headers: Mapping[str, str]
    ) -> asyncio.Future[None]:
        acknowledged = await publish(subject, payload, headers)
        tries.append(headers["Nats-Msg-Id"])
        if len(tries) > 1:
            return acknowledged
        await acknowledged
        await outbox.report(2)
        lost = asyncio.get_running_loop().create_future()
        lost.set_exception(Transient("no acknowledgement"))
        return lost

    monkeypatch.setattr(outbox.out, "publish", losing_the_first_acknowledgement)
    await outbox.report(3)
    async with publishing(outbox):
        await eventually(lambda: outbox.publisher.acknowledged == 5)
    await eventually(lambda: outbox.batches()[-1:] and outbox.batches()[-1][1] == 5, "the reports of the retry")
    assert outbox.batches()[0] == (1, 3)


async def test_a_batch_that_is_published_again_as_it_was_is_stored_once(outbox: Outbox) -> None:
    await outbox.report(3)
    async with publishing(outbox):
        await eventually(lambda: outbox.publisher.acknowledged == 3)
    again = OutboxPublisher(outbox.journal, outbox.out, outbox.source, "reports")  # as the next life does
    outbox.publisher = again
    async with publishing(outbox):
        await eventually(lambda: again.acknowledged == 3)
        await outbox.report(1)
        await eventually(lambda: outbox.batches() == [(1, 3), (4, 4)])


async def test_a_replay_is_stored_again_in_batches_under_ids_of_its_own(outbox: Outbox) -> None:
    await outbox.report(MOST_ROWS + 20)
    assert await replay(outbox.journal, outbox.out, outbox.source, 10, "r1") == MOST_ROWS + 10
    assert await replay(outbox.journal, outbox.out, outbox.source, 110, "r2") == 10
    await eventually(lambda: len(outbox.stored) == 3)
    assert outbox.ids() == ["11-110:r1", "111-120:r1", "111-120:r2"]


async def test_jetstream_has_the_reports_and_the_journal_keeps_them_until_the_watermark(outbox: Outbox) -> None:
    await outbox.report(3)
    async with publishing(outbox):
        await eventually(lambda: outbox.publisher.acknowledged == 3)
    assert len(await outbox.journal.write(lambda book: book.outbox(0, 10))) == 3
    await outbox.journal.write(lambda book: book.release(2))
    assert [seq for seq, _ in await outbox.journal.write(lambda book: book.outbox(0, 10))] == [3]


async def test_a_message_is_bounded_in_bytes_and_a_row_beyond_the_bound_goes_alone(outbox: Outbox) -> None:
    sizes = [LARGEST_B // 2, LARGEST_B // 2, 1, 1, LARGEST_B + 1, 1]
    rows = [(seq, b"x" * size) for seq, size in enumerate(sizes, 1)]
    assert [[seq for seq, _ in together] for together in outbox.source.messages(rows)] == [[1, 2], [3, 4], [5], [6]]
