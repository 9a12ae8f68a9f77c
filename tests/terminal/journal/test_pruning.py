"""What is over leaves the journal, and never what is needed: no order is sent twice, no report or open deal is lost."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from streamapp.messages.operation import CancelRequest, OperationReply
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.journal.pruning import DELETED, Due, PrunePlace, Shown, prune
from tests.terminal.journal.test_database import DOUBT, REJECTED, STARTED, filled
from tests.terminal.scripted import ACCOUNT, submit_request

T = TypeVar("T")
KEPT = timedelta(days=400)
NOTHING = Shown(frozenset(), frozenset())
BEGIN = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Lives:
    """Lives of one journal, whose clock may be set to anything, and what a terminal did with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = BEGIN
        self.sent: Counter[str] = Counter()
        self.requests: dict[str, SubmitRequest] = {}
        self.said: dict[int, bytes] = {}
        self.last = 0
        self.open: dict[int, list[facts.Filled]] = {}
        self.begin()

    def begin(self) -> None:
        self.journal = Journal(self.path, ACCOUNT, clock=lambda: self.now)
        self.journal.book.db.execute("PRAGMA synchronous=OFF")
        self.commit(Book.recover)

    def restart(self) -> None:
        self.journal.close()
        self.begin()

    def commit(self, action: Callable[[Book], T], *, killed: bool = False) -> T:
        book = self.journal.book
        book.fresh = {outbox: [] for outbox in book.fresh}
        book.db.execute("BEGIN")
        result = action(book)
        if killed:
            book.db.execute("ROLLBACK")
            self.restart()
            return result
        book.db.execute("COMMIT")
        self.said |= dict(book.fresh["reports"])
        return result

    def submit(self, name: str, valid_s: float = 30.0) -> str | None:
        """Submit an order as the desk does, always with what it said the first time, and send it if it may be."""
        request = self.requests.get(name)
        if request is None:
            not_after = self.now + timedelta(seconds=valid_s)
            request = submit_request(name, epoch=self.journal.book.epoch).model_copy(update={"not_after": not_after})
            self.requests[name] = request
        reply = self.commit(lambda book: book.submit(request))
        if reply.state == "recorded" and self.commit(lambda book: book.start(request.order_id, STARTED)):
            self.sent[name] += 1
        return reply.state

    def fill(self, name: str) -> None:
        """The broker executed a sent order: a position of its own is open."""
        order_id, ticket = self.requests[name].order_id, self.number()
        deal = filled(self.number(), ticket, time=self.now, magic=magic_of(order_id))
        self.commit(lambda book: (book.accept(order_id, ticket), book.record_deal(deal)))
        self.open[ticket] = [deal]

    def close(self, position_id: int) -> None:
        """The broker's stop closed a position."""
        deal = filled(self.number(), self.number(), position_id=position_id, side="sell", reason="sl", time=self.now)
        self.commit(lambda book: book.record_deal(deal))
        del self.open[position_id]

    def number(self) -> int:
        self.last += 1
        return self.last

    def acknowledge(self) -> None:
        self.commit(lambda book: book.release(book.last_seq()))

    def due(self, shown: Shown = NOTHING) -> Due:
        return Due(self.now - KEPT, shown, self.journal.book.released_seq())

    def walk(self, shown: Shown = NOTHING) -> int:
        """Walk to the end, or to where it has to wait; return how many rows left."""
        place: PrunePlace | None = PrunePlace()
        total = 0
        while place is not None:
            step = self.commit(lambda book, at=place: prune(book, at, self.due(shown)))  # type: ignore[misc]
            if not step.left and step.place == place:
                break
            total, place = total + step.left, step.place
        return total

    def count(self, table: str) -> int:
        return int(self.journal.book.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    def all(self) -> dict[str, int]:
        return {table: self.count(table) for table in ("rows", "tickets", "deals", "operations", "sendings")}


@contextmanager
def lives_in(folder: Path) -> Iterator[Lives]:
    lives = Lives(folder / "journal.sqlite3")
    yield lives
    lives.journal.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    with lives_in(tmp_path) as lives:
        yield lives


def closed(lives: Lives, name: str = "s-1") -> None:
    """An order that was filled, and whose position was closed."""
    lives.submit(name)
    lives.fill(name)
    lives.close(next(iter(lives.open)))


def a_year_passes(lives: Lives) -> None:
    lives.acknowledge()
    lives.now += KEPT + timedelta(days=1)


def test_what_is_over_leaves_with_all_that_was_said_of_it(lives: Lives) -> None:
    closed(lives)
    lives.submit("rejected")
    lives.commit(lambda book: book.reject(lives.requests["rejected"].order_id, REJECTED))
    cancelled(lives)
    a_year_passes(lives)
    lives.submit("young", valid_s=60)
    lives.fill("young")
    lives.acknowledge()
    assert lives.walk() == 2 + 3 + 1
    assert lives.all() == {"rows": 1, "tickets": 1, "deals": 1, "operations": 0, "sendings": 0}
    assert lives.walk() == 0


def cancelled(lives: Lives, outcome: str | None = "done") -> None:
    """An order that worked, and was cancelled."""
    lives.submit("pending")
    order_id, ticket = lives.requests["pending"].order_id, lives.number()
    request = CancelRequest(request_id="c-1", account=ACCOUNT, order_id=order_id, not_after=lives.now)
    body = facts.BrokerCancelled(ticket=ticket, reason="user")
    reply: dict[str, Any] = {"request_id": "c-1", "account": ACCOUNT, "outcome": outcome, "epoch": "", "message": ""}

    def cancel(book: Book) -> None:
        book.accept(order_id, ticket)
        operation_rows.record(book, "cancel", request)
        operation_rows.send(book, "c-1", 77, ticket, overwrites=False, unseen_s=1)
        book.end_ticket(ticket, order_id, body)
        if outcome is not None:
            operation_rows.finish(book, OperationReply(**reply, clock=lives.now), order_id)

    lives.commit(cancel)


def not_acknowledged(lives: Lives) -> Shown:
    lives.commit(lambda book: book.report("cancelled", None, facts.BrokerCancelled(ticket=1, reason="user")))
    return NOTHING


def in_doubt(lives: Lives) -> Shown:
    lives.submit("doubtful")
    lives.commit(lambda book: book.doubt(lives.requests["doubtful"].order_id, DOUBT))
    lives.acknowledge()
    return NOTHING


def shown_as_position(lives: Lives) -> Shown:
    return Shown(frozenset({1}), frozenset())


@pytest.mark.parametrize("needed", [not_acknowledged, in_doubt, shown_as_position])
def test_nothing_leaves_while_something_needs_it(lives: Lives, needed: Callable[[Lives], Shown]) -> None:
    closed(lives)
    a_year_passes(lives)
    shown = needed(lives)
    before = lives.all()
    assert lives.walk(shown) == 0
    assert lives.all() == before


def test_an_order_stays_while_its_magic_works_at_the_broker_or_an_operation_on_it_is_unfinished(lives: Lives) -> None:
    cancelled(lives, outcome=None)
    a_year_passes(lives)
    assert lives.walk() == 0
    lives.commit(lambda book: book.db.execute("UPDATE operations SET outcome = 'done'"))
    assert lives.walk(Shown(frozenset(), frozenset({magic_of(lives.requests["pending"].order_id)}))) == 0
    assert lives.walk() == 2


def test_the_deals_of_an_open_position_stay_whatever_their_age(lives: Lives) -> None:
    lives.submit("s-1")
    lives.fill("s-1")
    a_year_passes(lives)
    assert lives.walk() == 0
    assert lives.all() == {"rows": 1, "tickets": 1, "deals": 1, "operations": 0, "sendings": 0}


def test_an_order_that_left_is_looked_for_when_it_comes_again_also_if_the_clock_was_set_back(lives: Lives) -> None:
    closed(lives)
    a_year_passes(lives)
    lives.walk()
    lives.now = BEGIN  # it would still be valid
    lives.restart()
    assert lives.submit("s-1") == "doubt"
    order_id = lives.requests["s-1"].order_id
    (doubt,) = lives.commit(lambda book: book.sought([order_id]))
    assert (doubt.reason, doubt.may_be_old) == ("forgotten", True)
    assert lives.sent == {"s-1": 1}
    assert lives.submit("new", valid_s=31) == "recorded"


def test_an_operation_that_left_is_not_carried_out_again(lives: Lives) -> None:
    cancelled(lives)
    request = CancelRequest(request_id="c-1", account=ACCOUNT, ticket=1, not_after=lives.now)
    a_year_passes(lives)
    lives.walk()
    assert lives.commit(lambda book: operation_rows.record(book, "cancel", request)) is None
    later = request.model_copy(update={"request_id": "c-2", "not_after": lives.now})
    assert lives.commit(lambda book: operation_rows.record(book, "cancel", later)) is not None


def test_a_position_of_many_deals_leaves_in_steps_and_goes_on_after_a_kill(lives: Lives) -> None:
    for each in range(DELETED):
        lives.commit(lambda book, at=each: book.record_deal(filled(2 * at + 1, 1, position_id=1, time=BEGIN)))  # type: ignore[misc]
        lives.commit(
            lambda book, at=each: book.record_deal(filled(2 * at + 2, 2, side="sell", position_id=1, time=BEGIN))  # type: ignore[misc]
        )
    a_year_passes(lives)
    lives.commit(lambda book: prune(book, PrunePlace(), lives.due()))
    lives.commit(lambda book: prune(book, PrunePlace(), lives.due()))
    lives.commit(lambda book: prune(book, PrunePlace(), lives.due()), killed=True)
    assert (lives.count("deals"), lives.count("leaving")) == (DELETED, DELETED)
    assert lives.walk() == DELETED
    assert lives.journal.book.forgotten_history_s == int((lives.now - KEPT + timedelta(days=1)).timestamp())


def test_the_pages_of_what_left_are_the_next_rows_pages(lives: Lives) -> None:
    def a_life() -> int:
        for each in range(60):
            closed(lives, f"{lives.now}-{each}")
        a_year_passes(lives)
        assert lives.walk() == 60 * 3
        return int(lives.journal.book.db.execute("PRAGMA page_count").fetchone()[0])

    assert a_life() >= a_life()


NAMES = ("a", "b", "c")
TO_ORDERS = ("trade", "again", "submit", "fill", "reject", "absent")
OTHERS = ("a year", "a year", "a year", "close", "acknowledge", "walk", "step", "killed", "restart")
DO = st.sampled_from(
    [
        *((kind, name) for kind in TO_ORDERS for name in NAMES),
        *((kind,) for kind in OTHERS),
        *(("submit", name, 40 * 86400.0) for name in NAMES),
        *(("days", days) for days in (1, 401, 900, -401, -900)),
    ]
)


def done(lives: Lives, kind: str, *given: Any) -> None:
    """Do one thing that can happen now."""
    match kind:
        case "days":
            lives.now += timedelta(days=given[0])
        case "close" if lives.open:
            lives.close(next(iter(lives.open)))
        case "acknowledge":
            lives.acknowledge()
        case "walk":
            lives.walk()
        case "a year":
            for name in NAMES:
                done_to(lives, "reject", name)
                done_to(lives, "absent", name)
            a_year_passes(lives)
            lives.walk()
        case "step" | "killed":
            lives.commit(lambda book: prune(book, PrunePlace(), lives.due()), killed=kind == "killed")
        case "restart":
            lives.restart()
        case "submit":
            lives.submit(*given)
        case "trade":
            for step in (("submit", *given), ("fill", *given), ("close",)):
                done(lives, *step)
        case _ if given:
            done_to(lives, kind, *given)


def done_to(lives: Lives, kind: str, name: str) -> None:
    """Do one thing to an order that was submitted, if it stands where that can happen."""
    if (request := lives.requests.get(name)) is None:
        return
    order_id = request.order_id
    row = lives.commit(lambda book: book.row(order_id))
    state = "unknown" if row is None else row.state
    match kind:
        case "again":  # while it would still be valid, by a clock that was set back
            lives.now = min(lives.now, request.not_after - timedelta(seconds=1))
            lives.submit(name)
        case "fill" if state in {"started", "doubt"} and lives.sent[name]:
            lives.fill(name)
        case "reject" if state == "started":
            lives.commit(lambda book: book.reject(order_id, REJECTED))
        case "absent" if state == "doubt":
            lives.commit(lambda book: book.absent(order_id, facts.ProvenAbsent(attempt=1)))


@pytest.fixture(scope="module")
def new_journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal without rows, to begin with: making one waits for the disk for longer than a whole example."""
    path = tmp_path_factory.mktemp("journals") / "new.sqlite3"
    Journal(path, ACCOUNT).close()
    return path


@settings(max_examples=40, deadline=None)
@given(st.lists(DO, min_size=10, max_size=30))
def test_whatever_happens_no_order_is_sent_twice_and_no_report_and_no_open_deal_is_lost(
    new_journal: Path, doings: list[tuple[Any, ...]]
) -> None:
    for of_another_example in new_journal.parent.glob("journal.sqlite3*"):
        of_another_example.unlink()
    shutil.copy(new_journal, new_journal.with_name("journal.sqlite3"))
    with lives_in(new_journal.parent) as lives:
        for what in doings:
            done(lives, *what)
            assert all(times == 1 for times in lives.sent.values()), what
            book = lives.journal.book
            waiting = {seq: payload for seq, payload in lives.said.items() if seq > book.released_seq()}
            assert dict(book.outbox(0, 10_000)) == waiting
            known = {deal for (deal,) in book.db.execute("SELECT deal FROM deals")}
            left = {deal for (deal,) in book.db.execute("SELECT deal FROM leaving")}
            assert {deal.deal for deals in lives.open.values() for deal in deals} <= known - left
