"""Whatever lands late, lags, breaks or loses its name: absence is never said of what could be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.messages.report import Report
from streamapp.messages.terminal import SubmitRequest
from streamapp.settings import TerminalSettings
from streamapp.terminal.account.deals import filled
from streamapp.terminal.account.resolver import Resolver
from streamapp.terminal.journal.book import Book
from tests.terminal.fake_broker import BEGAN, TABLES, Broker, Connection, PromptJournal, VirtualLoop, deals_of
from tests.terminal.scripted import submit_request

WINDOW_S, EQUAL_S, TICK_S, HORIZON_S = 10.0, 1.0, 0.25, 120.0
NAMES: dict[str, Callable[[str], tuple[int, str]]] = {
    "both": lambda order_id: (magic_of(order_id), tag_of(order_id)),
    "magic": lambda order_id: (magic_of(order_id), ""),
    "tag": lambda order_id: (0, tag_of(order_id)),
    "cut tag": lambda order_id: (0, tag_of(order_id)[:10]),
    "longer tag": lambda order_id: (0, tag_of(order_id) + "/partner"),
    "none": lambda order_id: (0, ""),
}
seconds = st.integers(0, 120).map(lambda quarters: quarters / 4)


@dataclass(frozen=True)
class Landing:
    """When and how the broker takes a request."""

    after_s: float
    named: str
    lags: dict[str, float]
    part: float
    pending: bool


@dataclass(frozen=True)
class Attempt:
    """An order in doubt from ``at_s`` on, and what becomes of it: nothing, one order, or two."""

    at_s: float
    landings: list[Landing]
    foreign: bool


lags = st.fixed_dictionaries({table: st.integers(0, 24).map(lambda quarters: quarters / 4) for table in TABLES})
landings = st.builds(
    Landing, seconds, st.sampled_from(list(NAMES)), lags, st.sampled_from([0.0, 0.5, 1.0]), st.booleans()
)
attempts = st.builds(
    Attempt, st.integers(0, 20).map(float), st.lists(landings, max_size=2), st.sampled_from([False, False, True])
)
breaks = st.lists(st.tuples(seconds, st.sampled_from([0.1, 1.0, 7.0])), max_size=3)


class World:
    """One journal, one broker, the resolver and a watch that takes deals."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.journal = PromptJournal(loop.utc)
        self.broker = Broker(loop)
        self.connection = Connection(self.broker)
        terminal = TerminalSettings(settle_window_s=WINDOW_S, equal_reads_s=EQUAL_S, poll_interval_s=TICK_S)
        self.resolver = Resolver(
            self.journal,  # type: ignore[arg-type]
            self.connection,  # type: ignore[arg-type]
            terminal,
            clock=loop.utc,
            on_adopted=lambda *_: None,
        )
        self.tickets: dict[int, tuple[str, Landing, float]] = {}
        self.broken: list[tuple[float, float]] = []
        self.made: dict[str, float] = {}

    async def watch(self) -> None:
        while True:
            await self.connection.readable()
            for row in sorted(deals_of(self.broker), key=lambda row: row.ticket):
                body = filled(row, "USD", self.connection.time)
                await self.journal.write(partial(Book.record_deal, body=body))
            await asyncio.sleep(TICK_S)

    async def attempt(self, name: str, attempt: Attempt) -> None:
        await asyncio.sleep(attempt.at_s)
        epoch = "e0" if attempt.foreign else "e1"
        order = submit_request(name, epoch=epoch).model_copy(
            update={"not_after": self.loop.utc() + timedelta(seconds=5)}
        )
        self.made[order.order_id] = self.loop.now_s
        async with asyncio.TaskGroup() as group:
            for landing in attempt.landings:
                group.create_task(self.land(order.order_id, landing))
            await self.journal.write(lambda book: doubted(book, order))

    async def land(self, order_id: str, landing: Landing) -> None:
        await asyncio.sleep(landing.after_s)
        magic, comment = NAMES[landing.named](order_id)
        ticket = self.broker.execute(magic, comment, landing.lags, part=landing.part, pending=landing.pending)
        self.tickets[ticket] = (order_id, landing, self.loop.now_s + first_shown_s(landing))

    async def break_at(self, at_s: float, lasts_s: float) -> None:
        await asyncio.sleep(at_s)
        self.broken.append((self.loop.now_s, self.loop.now_s + lasts_s))
        self.connection.breaks()
        await asyncio.sleep(lasts_s)
        self.connection.comes_back()

    def reports(self) -> list[Report]:
        return [Report.model_validate_json(payload) for _, payload in self.journal.book.outbox(0, 100_000)]


def doubted(book: Book, order: SubmitRequest) -> None:
    if book.submit(order).state == "doubt":
        return
    one = Decimal(1)
    market = dict.fromkeys(("bid", "ask", "point", "contract_size", "account_rate"), one)
    started = facts.SubmitStarted(attempt=1, quote_at=BEGAN, currency="USD", sent_at=BEGAN, **market)
    assert book.start(order.order_id, started)
    assert book.doubt(order.order_id, facts.OutcomeUnknown(attempt=1, why="deadline"))


def first_shown_s(landing: Landing) -> float:
    if landing.pending:
        return landing.lags["orders"]
    tables = ["history_orders", *(["history_deals", "positions"] if landing.part else [])]
    if landing.lags["orders"] < landing.lags["history_orders"]:
        tables.append("orders")
    return min(landing.lags[table] for table in tables)


async def lived(loop: VirtualLoop, wanted: list[Attempt], breaks: list[tuple[float, float]]) -> World:
    world = World(loop)
    parts = [asyncio.create_task(part) for part in (world.resolver.run(), world.watch())]
    events = [asyncio.create_task(world.attempt(f"s-{number}", attempt)) for number, attempt in enumerate(wanted)]
    events += [asyncio.create_task(world.break_at(at_s, lasts_s)) for at_s, lasts_s in breaks]
    await asyncio.sleep(HORIZON_S)
    for part in (*events, *parts):
        assert part in parts or part.done()
        assert not part.done() or part.exception() is None
        part.cancel()
    await asyncio.gather(*parts, return_exceptions=True)
    return world


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(attempts, min_size=1, max_size=3), breaks)
def test_absence_is_never_said_of_what_could_be_seen_and_everything_executed_is_reported(
    wanted: list[Attempt], broken: list[tuple[float, float]]
) -> None:
    loop = VirtualLoop()
    try:
        world = loop.run_until_complete(lived(loop, wanted, broken))
    finally:
        loop.close()
    reports = world.reports()
    said = {(report.order_id, report.kind, str(report.body)) for report in reports}
    assert len(said) == len(reports), "something was said twice"
    for order_id, made_s in world.made.items():
        judge_order(world, [report for report in reports if report.order_id == order_id], order_id, made_s)
    shown = {row.ticket for row in deals_of(world.broker)}
    assert {report.body.deal for report in reports if isinstance(report.body, facts.Filled)} == shown


def judge_order(world: World, reports: list[Report], order_id: str, made_s: float) -> None:
    mine = {ticket: (landing, shown_s) for ticket, (of, landing, shown_s) in world.tickets.items() if of == order_id}
    named = {ticket for ticket, (landing, _) in mine.items() if landing.named != "none"}
    nameless = [shown_s for landing, shown_s in mine.values() if landing.named == "none"]
    row = world.journal.book.row(order_id)
    assert row is not None
    accepted = {report.body.ticket for report in reports if isinstance(report.body, facts.BrokerAccepted)}
    assert accepted == named
    if named:
        assert row.state == "result"
    if len(named) > 1:
        assert world.journal.book.halted() is not None
    absent = [report for report in reports if report.kind == "absent"]
    for report in absent:
        judge_absence(world, report, made_s, [shown_s for _, shown_s in mine.values()])
    if not mine:
        event("lost")
        others = any(landing.named == "none" for of, landing, _ in world.tickets.values() if of != order_id)
        assert row.state == "absent" or (others and row.reason == "suspicion")
    if not named and nameless and min(nameless) < made_s + WINDOW_S - EQUAL_S:
        event("nameless")
        assert (row.state, row.reason) == ("doubt", "suspicion")
    if absent and named:
        event("late")
        assert world.journal.book.counter("late_appearances") > 0
    for ticket in named:
        deals = {report.body.deal for report in reports if isinstance(report.body, facts.Filled)}
        assert (ticket + 100_000 in deals) == (mine[ticket][0].part > 0 and not mine[ticket][0].pending)


def judge_absence(world: World, report: Report, made_s: float, shown: list[float]) -> None:
    assert isinstance(report.body, facts.ProvenAbsent)
    began_s, said_s = (_seconds(report.body.evidence[name]) for name in ("window_from", "window_until"))
    assert made_s <= began_s <= said_s - WINDOW_S
    assert not any(began_s < until and since < said_s for since, until in world.broken)
    # The look itself takes a moment, and says so only afterwards.
    assert all(shown_s > said_s - 0.1 for shown_s in shown)


def _seconds(text: str) -> float:
    return (datetime.fromisoformat(text) - BEGAN).total_seconds()
