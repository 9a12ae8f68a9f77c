"""The contract of the journal: what it answered is on disk, rows move only as drawn, and one process owns it."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.errors import ConfigurationError
from streamapp.messages.log import GENESIS_HASH, BrokerLogEntry, is_intact
from streamapp.messages.report import Report
from streamapp.terminal.account.synchronisation import known_deals
from streamapp.terminal.journal import broker_log, operation_rows
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal, View
from streamapp.terminal.journal.orders import MOVES
from streamapp.terminal.pipe.answers import Exchange
from tests.terminal.scripted import ACCOUNT, submit_request

NOW = datetime.now(UTC)
STARTED = facts.SubmitStarted(
    attempt=1,
    bid=Decimal("1.085"),
    ask=Decimal("1.0851"),
    quote_at=NOW,
    point=Decimal("0.00001"),
    contract_size=Decimal(100000),
    account_rate=Decimal(1),
    currency="USD",
    sent_at=NOW,
)
REFUSED = facts.SubmitRefused(attempt=1, reason="guard")
DOUBT = facts.OutcomeUnknown(attempt=1, why="deadline")
REJECTED = facts.BrokerRejected(attempt=1, retcode=10019, retcode_name="no_money")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Journal]:
    journal = Journal(path, ACCOUNT)
    task = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        journal.close()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    async with opened(tmp_path / "a.sqlite3") as journal:
        yield journal


def filled(deal: int, ticket: int, volume: str = "0.1", **fields: Any) -> facts.Filled:
    given = {
        "position_id": ticket,
        "symbol": "EURUSD",
        "side": "buy",
        "entry": "in",
        "reason": "expert",
        "price": Decimal("1.085"),
        "time": NOW,
    }
    return facts.Filled(deal=deal, ticket=ticket, volume=Decimal(volume), **{**given, **fields})


async def reports(journal: Journal) -> list[Report]:
    return [
        Report.model_validate_json(payload) for _, payload in await journal.write(lambda book: book.outbox(0, 1000))
    ]


async def kinds(journal: Journal) -> list[tuple[str, str | None]]:
    return [(report.kind, report.order_id) for report in await reports(journal)]


async def test_a_new_order_is_recorded_and_answers_every_later_submit(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    first = await journal.write(lambda book: book.submit(request))
    again = await journal.write(lambda book: book.submit(request))
    assert first.state == again.state == "recorded"
    assert first.row == again.row
    assert first.epoch == journal.book.epoch
    assert abs((datetime.now(UTC) - first.clock).total_seconds()) < 60


async def test_other_parameters_under_the_same_id_are_a_conflict_and_change_nothing(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    await journal.write(lambda book: book.submit(request))
    other = submit_request(epoch=journal.book.epoch, volume=Decimal(2))
    reply = await journal.write(lambda book: book.submit(other))
    assert reply.state == "conflict"
    assert reply.row is not None
    assert (reply.row.state, reply.row.hash) == ("recorded", request.hash)
    assert await kinds(journal) == []


async def test_an_unknown_order_past_its_time_is_refused_for_ever(journal: Journal) -> None:
    late = submit_request(epoch=journal.book.epoch, valid_s=-1)
    reply = await journal.write(lambda book: book.submit(late))
    valid_again = late.model_copy(update={"not_after": submit_request(epoch="").not_after})
    again = await journal.write(lambda book: book.submit(valid_again))
    assert reply.state == again.state == "refused"
    assert again.row is not None
    assert again.row.reason == "stale"
    assert await kinds(journal) == [("refused", late.order_id)]


@pytest.mark.parametrize("valid_s", [30, -1])
async def test_a_claim_for_a_foreign_epoch_is_a_doubt_and_never_to_be_sent(journal: Journal, valid_s: float) -> None:
    request = submit_request(epoch="another", valid_s=valid_s)
    reply = await journal.write(lambda book: book.submit(request))
    assert reply.state == "doubt"
    assert await journal.write(lambda book: book.unsent()) == []
    assert not await journal.write(lambda book: book.start(request.order_id, STARTED))
    (report,) = await reports(journal)
    assert isinstance(report.body, facts.OutcomeUnknown)
    assert report.body.why == "foreign_epoch"


async def test_a_foreign_order_whose_deals_were_seen_already_is_adopted(journal: Journal) -> None:
    request = submit_request(epoch="another")
    body = filled(7, 1001, magic=magic_of(request.order_id))
    await journal.write(lambda book: book.record_deal(body))
    await journal.write(lambda book: book.submit(request))
    assert await kinds(journal) == [
        ("deal", None),
        ("unknown", request.order_id),
        ("accepted", request.order_id),
        ("deal", request.order_id),
    ]


async def test_start_is_given_to_exactly_one_caller(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    await journal.write(lambda book: book.submit(request))
    starts = [journal.write(lambda book: book.start(request.order_id, STARTED)) for _ in range(5)]
    assert sorted(await asyncio.gather(*starts)) == [False, False, False, False, True]
    assert await kinds(journal) == [("started", request.order_id)]


def moved(book: Book, order_id: str, to: str) -> bool:
    match to:
        case "started":
            return book.start(order_id, STARTED)
        case "refused":
            return book.refuse(order_id, REFUSED)
        case "doubt":
            return book.doubt(order_id, DOUBT)
        case _:
            return book.reject(order_id, REJECTED)


@pytest.mark.parametrize(
    "path", [[], ["started"], ["refused"], ["started", "refused"], ["started", "doubt"], ["started", "result"]]
)
@pytest.mark.parametrize("to", ["started", "refused", "doubt", "result"])
async def test_a_row_moves_only_as_drawn_and_each_move_is_reported(journal: Journal, path: list[str], to: Any) -> None:
    request = submit_request(epoch=journal.book.epoch)
    await journal.write(lambda book: book.submit(request))
    for step in path:
        assert await journal.write(partial(moved, order_id=request.order_id, to=step))
    before = len(await reports(journal))
    state = path[-1] if path else "recorded"
    went = await journal.write(lambda book: moved(book, request.order_id, to))
    assert went == (state in MOVES[to])
    row = await journal.write(lambda book: book.row(request.order_id))
    assert row is not None
    assert row.state == (to if went else state)
    assert len(await reports(journal)) == before + went


async def test_an_order_that_was_started_in_an_earlier_life_is_a_doubt(tmp_path: Path) -> None:
    started, waiting = (submit_request(name, epoch="") for name in ("a", "b"))
    async with opened(tmp_path / "a.sqlite3") as journal:
        epoch = journal.book.epoch
        for request in (started, waiting):
            await journal.write(partial(Book.submit, request=request.model_copy(update={"epoch": epoch})))
        await journal.write(lambda book: book.start(started.order_id, STARTED))
    async with opened(tmp_path / "a.sqlite3") as journal:
        assert journal.book.epoch == epoch
        assert await journal.write(lambda book: book.recover()) == [started.order_id]
        assert await journal.write(lambda book: book.recover()) == []
        assert [request.order_id for request in await journal.write(lambda book: book.unsent())] == [waiting.order_id]
        assert await kinds(journal) == [("started", started.order_id), ("unknown", started.order_id)]


async def test_a_journal_that_is_lost_comes_back_with_another_epoch(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.sqlite3") as journal:
        before = journal.book.epoch
    for file in tmp_path.iterdir():
        file.unlink()
    async with opened(tmp_path / "a.sqlite3") as journal:
        assert journal.book.epoch != before


async def test_the_journal_of_another_account_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.sqlite3"):
        pass
    with pytest.raises(ConfigurationError, match="expected the journal of account other"):
        Journal(tmp_path / "a.sqlite3", "other")


async def test_a_journal_of_the_first_version_is_brought_up_with_all_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with opened(path) as journal:
        request = submit_request(epoch=journal.book.epoch)
        epoch = journal.book.epoch
        await journal.write(lambda book: book.submit(request))
    with closing(sqlite3.connect(path)) as db:  # what later versions added is taken away: this is how version 1 looked
        for statement in (
            "DROP TABLE operations",
            "DROP TABLE sendings",
            "DROP TABLE expected_levels",
            "DROP TABLE account_operations",
            "DROP INDEX rows_absent",
            "DROP INDEX tickets_by_order",
            "DROP INDEX deals_by_position",
            "DROP TABLE leaving",
            "UPDATE meta SET value = '1' WHERE key = 'schema'",
        ):
            db.execute(statement)
        db.commit()
    async with opened(path) as journal:
        row = await journal.write(lambda book: book.row(request.order_id))
        assert row is not None
        assert (row.state, journal.book.epoch, journal.book.meta("schema")) == ("recorded", epoch, "7")
        assert await journal.write(lambda book: book.db.execute("SELECT count(*) FROM operations").fetchone()) == (0,)
    async with opened(path) as journal:
        assert journal.book.meta("schema") == "7"


async def test_reports_that_were_messages_of_their_own_become_parts_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with opened(path) as journal:
        await journal.write(lambda book: book.record_deal(filled(1, 1001, comment="Größe ☂")))
        (report,) = await reports(journal)
        epoch = journal.book.epoch
    alone = {"schema": "report/1", "account": ACCOUNT, "epoch": epoch, **report.model_dump(mode="json")}
    with closing(sqlite3.connect(path)) as db:  # as version 3 kept it
        db.execute("UPDATE outbox SET payload = ?", (json.dumps(alone, ensure_ascii=False).encode(),))
        db.execute("DROP TABLE expected_levels")
        db.execute("DROP TABLE account_operations")
        db.execute("DROP INDEX deals_by_position")
        db.execute("DROP TABLE leaving")
        db.execute("UPDATE meta SET value = '3' WHERE key = 'schema'")
        db.commit()
    async with opened(path) as journal:
        ((_, payload),) = await journal.write(lambda book: book.outbox(0, 10))
    assert payload == report.model_dump_json().encode()


async def test_a_journal_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        db.commit()
    with pytest.raises(ConfigurationError, match="format 1 to 7, got 99"):
        Journal(path, ACCOUNT)


async def test_accepted_comes_before_the_first_deal_and_once(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    await journal.write(lambda book: (book.submit(request), book.start(request.order_id, STARTED)))
    assert await journal.write(lambda book: book.accept(request.order_id, 1001))
    assert not await journal.write(lambda book: book.accept(request.order_id, 1001))
    for body in (filled(7, 1001, "0.04"), filled(8, 1001, "0.06"), filled(7, 1001, "0.04")):
        await journal.write(partial(Book.record_deal, body=body))
    order = request.order_id
    assert await kinds(journal) == [("started", order), ("accepted", order), ("deal", order), ("deal", order)]
    assert not await journal.write(lambda book: book.is_live(1001))


async def test_a_doubt_is_adopted_when_its_magic_is_seen_from_an_expert(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    magic = magic_of(request.order_id)
    await journal.write(
        lambda book: (book.submit(request), book.start(request.order_id, STARTED), book.doubt(request.order_id, DOUBT))
    )
    stop_loss = filled(6, 1000, magic=magic, reason="sl", entry="out", side="sell")
    await journal.write(lambda book: book.record_deal(stop_loss))
    await journal.write(lambda book: book.record_deal(filled(7, 1001, magic=magic)))
    row = await journal.write(lambda book: book.row(request.order_id))
    assert row is not None
    assert (row.state, row.ticket) == ("result", 1001)
    assert (await kinds(journal))[2:] == [("deal", None), ("accepted", request.order_id), ("deal", request.order_id)]


async def test_a_rejected_order_that_was_executed_all_the_same_is_adopted(journal: Journal) -> None:
    request = submit_request(epoch=journal.book.epoch)
    await journal.write(
        lambda book: (
            book.submit(request),
            book.start(request.order_id, STARTED),
            book.reject(request.order_id, REJECTED),
        )
    )
    await journal.write(lambda book: book.record_deal(filled(7, 1001, magic=magic_of(request.order_id))))
    assert (await kinds(journal))[2:] == [("accepted", request.order_id), ("deal", request.order_id)]


def operation(deal: int = 5, amount: str = "-5", **fields: Any) -> facts.AccountOperation:
    return facts.AccountOperation(deal=deal, type="charge", amount=Decimal(amount), **{"at": NOW, **fields})


async def test_money_that_was_booked_without_a_trade_is_reported_once(journal: Journal) -> None:
    first, again = operation(), operation(amount="-5.00", comment="rewritten", at=NOW + timedelta(hours=1))
    assert await journal.write(lambda book: book.record_operation(first))
    assert not await journal.write(lambda book: book.record_operation(again))
    assert [(report.kind, report.order_id, report.body) for report in await reports(journal)] == [
        ("account_operation", None, first)
    ]


async def test_each_correction_of_such_money_is_reported_under_the_next_revision(journal: Journal) -> None:
    for amount, comment in (("-5", ""), ("-4", "mended"), ("-4", "mended"), ("0", ""), ("0", "other")):
        await journal.write(partial(Book.record_operation, body=operation(amount=amount, comment=comment)))
    said = [report.body for report in await reports(journal)]
    assert said == [
        operation(),
        operation(amount="-4", revision=1, comment="mended"),
        operation(amount="0", revision=2),
    ]


async def test_such_money_must_be_in_the_history_that_is_believed(journal: Journal) -> None:
    await journal.write(lambda book: book.record_deal(filled(4, 1001)))
    for deal, at in ((5, NOW), (6, NOW - timedelta(days=2))):
        await journal.write(partial(Book.record_operation, body=operation(deal, at=at)))
    assert (await journal.write(known_deals))[1] == [4, 5]


async def test_another_programs_magic_may_be_any_64_bits(journal: Journal) -> None:
    theirs = filled(1, 1001, magic=2**64 - 1)
    assert await journal.write(lambda book: book.record_deal(theirs))
    assert not await journal.write(lambda book: book.record_deal(theirs))
    assert not await journal.write(lambda book: book.explains(99, 2**64 - 1))
    assert await journal.write(lambda book: operation_rows.names(book, [(99, 2**63)])) == {}
    assert [report.body for report in await reports(journal)] == [theirs]


async def test_what_every_order_and_every_round_asks_reads_no_whole_table(journal: Journal) -> None:
    def plans(book: Book) -> list[str]:
        asked: list[str] = []
        book.db.set_trace_callback(asked.append)
        request = submit_request(epoch=book.epoch)
        book.submit(request)
        book.accept(request.order_id, 1001)
        book.record_deal(filled(1, 1001))
        book.record_operation(operation())
        known_deals(book)
        for ask in (book.counts, book.last_seq, book.unsent, book.recover, book.live_tickets):
            ask()
        book.doubts(500)
        book.cancel_requested(5)
        operation_rows.ticket_of(book, request.order_id)
        operation_rows.unfinished(book)
        book.db.set_trace_callback(None)
        reads = [statement for statement in asked if statement.startswith(("SELECT", "UPDATE"))]
        return [plan[3] for read in reads for plan in book.db.execute(f"EXPLAIN QUERY PLAN {read}")]

    found = await journal.write(plans)
    assert found
    assert [plan for plan in found if plan.startswith("SCAN") and "operations_unfinished" not in plan] == []


async def test_what_may_be_forgotten_goes_with_the_next_commit_that_changes_something(journal: Journal) -> None:
    for deal in range(1, 4):
        await journal.write(partial(Book.record_deal, body=filled(deal, 1)))
    journal.release("reports", 2)
    assert (journal.released_seq, journal.last_seq) == (2, 3)
    assert [report.seq for report in await reports(journal)] == [1, 2, 3]  # a read is no reason
    await journal.write(partial(Book.record_deal, body=filled(4, 1)))
    assert [report.seq for report in await reports(journal)] == [3, 4]
    assert journal.last_seq == 4


async def test_a_view_asks_again_only_after_a_commit_that_changed_something(journal: Journal) -> None:
    asked: list[int] = []

    def deals(book: Book) -> int:
        asked.append(1)
        return book.deals_seen()

    view = View(journal, deals)
    assert [await view.get(), await view.get()] == [0, 0]
    await journal.write(partial(Book.record_deal, body=filled(1, 1)))
    assert [await view.get(), await view.get()] == [1, 1]
    assert len(asked) == 2


async def test_a_write_that_raises_gives_its_numbers_back(journal: Journal) -> None:
    def failing(book: Book) -> None:
        book.record_deal(filled(1, 1))
        broker_log.append(book, [EXCHANGE])
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await journal.write(failing)
    await journal.write(partial(Book.record_deal, body=filled(2, 1)))
    await journal.write(lambda book: broker_log.append(book, [EXCHANGE]))
    assert [report.seq for report in await reports(journal)] == [1]
    (entry,) = [
        BrokerLogEntry.decode(row) for _, row in await journal.write(lambda book: broker_log.waiting(book, 0, 9))
    ]
    assert (entry.seq, entry.previous_hash) == (1, GENESIS_HASH)


EXCHANGE = Exchange("order_send", {"volume": 0.1}, None, (1, "Success"), at=1e9, duration_us=5)


async def test_a_deal_that_changed_is_a_correction_but_our_clock_is_not(journal: Journal) -> None:
    await journal.write(lambda book: book.record_deal(filled(7, 1001)))
    moved_clock = filled(7, 1001, time=datetime(2026, 1, 1, tzinfo=UTC))
    assert not await journal.write(lambda book: book.record_deal(moved_clock))
    corrected = filled(7, 1001, price=Decimal("1.2"))
    assert await journal.write(lambda book: book.record_deal(corrected))
    assert not await journal.write(lambda book: book.record_deal(corrected))
    body = (await reports(journal))[-1].body
    assert isinstance(body, facts.FillCorrected)
    assert (body.revision, body.deal.price) == (1, Decimal("1.2"))


async def test_seq_is_contiguous_over_release_and_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "a.sqlite3") as journal:
        for deal in range(5):
            await journal.write(partial(Book.record_deal, body=filled(deal + 1, 1)))
        assert await journal.write(lambda book: book.release(3)) == 3
        assert await journal.write(lambda book: book.release(2)) == 3
        assert [seq for seq, _ in await journal.write(lambda book: book.outbox(0, 10))] == [4, 5]
        assert await journal.write(lambda book: book.release(99)) == 5
    async with opened(tmp_path / "a.sqlite3") as journal:
        await journal.write(lambda book: book.record_deal(filled(6, 1)))
        assert [report.seq for report in await reports(journal)] == [6]


async def test_one_that_fails_hurts_no_other_of_its_commit(journal: Journal) -> None:
    first, second = submit_request("a", epoch=journal.book.epoch), submit_request("b", epoch=journal.book.epoch)

    def broken(book: Book) -> None:
        book.submit(submit_request("c", epoch=book.epoch))
        raise ValueError("no")

    results = await asyncio.gather(
        journal.write(lambda book: book.submit(first)),
        journal.write(broken),
        journal.write(lambda book: book.submit(second)),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    assert [request.order_id for request in await journal.write(lambda book: book.unsent())] == [
        first.order_id,
        second.order_id,
    ]


async def test_what_waits_together_is_one_commit_in_its_order(journal: Journal) -> None:
    commits: list[str] = []
    journal.book.db.set_trace_callback(lambda statement: commits.append(statement) if statement == "COMMIT" else None)
    requests = [submit_request(str(number), epoch=journal.book.epoch) for number in range(50)]
    await asyncio.gather(*(journal.write(partial(Book.submit, request=request)) for request in requests))
    assert len(commits) == 1
    assert await journal.write(lambda book: book.unsent()) == requests


async def test_the_file_is_written_through(journal: Journal) -> None:
    settings = {
        name: journal.book.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2}


async def test_the_broker_log_is_an_unbroken_chain(journal: Journal) -> None:
    exchange = EXCHANGE
    await journal.write(lambda book: broker_log.append(book, [exchange, exchange], "order"))
    await journal.write(lambda book: broker_log.release(book, 1))
    await journal.write(lambda book: broker_log.append(book, [exchange]))
    entries = [
        BrokerLogEntry.decode(payload)
        for _, payload in await journal.write(lambda book: broker_log.waiting(book, 0, 10))
    ]
    assert [entry.seq for entry in entries] == [2, 3]
    assert all(is_intact(entry) for entry in entries)
    assert entries[0].previous_hash != GENESIS_HASH
    assert entries[1].previous_hash == entries[0].hash


async def test_an_entry_that_nats_would_never_take_is_kept_without_what_was_answered(journal: Journal) -> None:
    answer = {"found": ["x" * 1000] * 2000}
    exchange = Exchange("positions_get", None, answer, (1, ""), at=1e9, duration_us=5)
    await journal.write(lambda book: broker_log.append(book, [exchange] * 2))
    found = await journal.write(lambda book: broker_log.waiting(book, 0, 10))
    entries = [BrokerLogEntry.decode(payload) for _, payload in found]
    assert all(len(payload) <= broker_log.LARGEST_B for _, payload in found)
    assert [entry.response["left_out_bytes"] > 2_000_000 for entry in entries] == [True, True]
    assert all(is_intact(entry) for entry in entries)
    assert entries[1].previous_hash == entries[0].hash


SECOND = """
import sys
from pathlib import Path
from streamapp.errors import ConfigurationError
from streamapp.terminal.journal.database import Journal
try:
    Journal(Path(sys.argv[1]), "scripted")
except ConfigurationError as error:
    sys.exit(str(error))
"""
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from streamapp.terminal.journal.database import Journal
from tests.terminal.scripted import submit_request
async def main():
    journal = Journal(Path(sys.argv[1]), "scripted")
    asyncio.create_task(journal.run())
    for number in range(10):
        await journal.write(lambda book: book.submit(submit_request(str(number), epoch=book.epoch)))
    journal.write(lambda book: os.kill(os.getpid(), signal.SIGKILL))
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_second_process_is_told_which_journal_is_owned_by_another_terminal(journal: Journal) -> None:
    second = subprocess.run(
        [sys.executable, "-c", SECOND, str(journal.path)], capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert str(journal.path) in second.stderr
    assert "another" in second.stderr


async def test_what_was_answered_survives_a_kill_and_the_lock_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    async with opened(path) as journal:
        assert len(await journal.write(lambda book: book.unsent())) == 10


async def test_a_journal_that_can_not_be_written_ends_the_process_and_answers_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.sqlite3", ACCOUNT)
    journal.book.db.execute("PRAGMA query_only=1")
    answer = journal.write(lambda book: book.submit(submit_request(epoch=book.epoch)))
    with pytest.raises(ConfigurationError, match="readonly"):
        await journal.run()
    assert not answer.done()
    journal.close()


def test_a_file_that_is_no_journal_is_refused_in_a_sentence_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(b"not a database, but longer than the header that SQLite looks at first: " * 20)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match=r"expected to read and write the journal .*not a database"):
        Journal(path, ACCOUNT)
    assert path.read_bytes() == before


async def test_asking_again_to_open_with_the_same_request_id_lifts_no_later_halt_in_any_life(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    async with opened(path) as journal:
        await journal.write(lambda book: book.halt("first"))
        assert await journal.write(lambda book: book.resume("r-1"))
        await journal.write(lambda book: book.halt("second"))
        assert not await journal.write(lambda book: book.resume("r-1"))
        assert journal.book.halted() == "second"
    async with opened(path) as journal:
        assert not await journal.write(lambda book: book.resume("r-1"))
        assert journal.book.halted() == "second"
        assert await journal.write(lambda book: book.resume("r-2"))
    async with opened(path) as journal:
        assert journal.book.halted() is None


async def test_opening_again_without_a_request_id_lifts_every_halt(journal: Journal) -> None:
    for reason in ("first", "second"):
        await journal.write(partial(Book.halt, reason=reason))
        assert await journal.write(lambda book: book.resume())
        assert not await journal.write(lambda book: book.resume())
    assert await journal.write(lambda book: book.resume("r-1")) is False


async def test_a_full_disk_ends_the_journal_with_a_sentence_and_the_next_start_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path, ACCOUNT)
    running = asyncio.create_task(journal.run())
    await journal.write(partial(Book.record_deal, body=filled(1, 1)))
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")  # as on a full disk
    unanswered = [journal.write(partial(Book.record_deal, body=filled(number, 1))) for number in range(2, 500)]
    with pytest.raises(ConfigurationError, match=r"expected to read and write the journal .*full"):
        await running
    assert not any(each.done() for each in unanswered)
    journal.close()
    async with opened(path) as again:
        assert [report.seq for report in await reports(again)] == [1]
        assert await again.write(partial(Book.record_deal, body=filled(2, 1)))
