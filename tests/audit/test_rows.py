"""The rows that the archive alone makes, against those of the desk whose archive it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from streamapp import topics
from streamapp.audit.rows import UNKNOWN, RowFold, halted_since
from streamapp.desk.inputs import Incoming
from streamapp.domain import facts as f
from streamapp.domain.facts import Fact
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.trading import TRADING
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.commit import Publication, encode_commit
from streamapp.messages.decision import undecided
from streamapp.messages.report import ConnectionChange
from streamapp.settings import AccountSettings, Settings
from tables.accounts import AccountRow, RebuildNote, account_key
from tables.bindings import BindingRow, binding_key
from tables.commands import CommandRow, command_key
from tables.orders import order_key
from tables.positions import PositionRow, position_key
from tables.signals import SignalRow, signal_key
from tables.store import KeyValue
from tests.agents.test_copies import House
from tests.audit.reports import corrected, traded
from tests.desk.test_lives import Days, cut, give, reports_of
from tests.desk.test_reconciliation import House as Reconciled
from tests.desk.test_reconciliation import position
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.examples import deal
from tests.kit.market import Market
from tests.kit.records import event

LATER = NOW + timedelta(hours=1)
EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None}


@contextmanager
def rebuilt(world: DeskWorld, records: Sequence[bytes] | None = None) -> Iterator[RowFold]:
    """Yield the fold of a desk's archive, or of these records of it, with every account halted."""
    fold = RowFold(world.policy)
    try:
        for offset, record in enumerate(archived(world) if records is None else records):
            fold.take(record, f"offset {offset}")
        yield fold
    finally:
        fold.close()


def archived(world: DeskWorld) -> list[bytes]:
    return [record.value for record in world.producer.on(topics.ARCHIVE)]


def living(world: DeskWorld, *prefixes: bytes) -> list[KeyValue]:
    """Return the desk's rows of these kinds, in all partitions."""
    return [row for one in sorted(world.store.owned) for prefix in prefixes for row in world.store.scan(one, prefix)]


def made(world: DeskWorld, fold: RowFold, *prefixes: bytes) -> list[KeyValue]:
    rows = [list(fold.scratch.rows(one)) for one in sorted(world.store.owned)]
    return [row for several in rows for prefix in prefixes for row in several if row[0].startswith(prefix)]


def readable(rows: Sequence[KeyValue]) -> dict[bytes, Any]:
    return {key: json.loads(value) for key, value in rows}


async def live(world: DeskWorld) -> None:
    """Let the account trade, be charged, corrected and refused, and its terminal come and go."""
    filled_id = await world.signal("s-1", volume="0.3", expected_price="1.08")
    await world.signal("s-1", volume="0.3", expected_price="1.08")
    await world.signal("s-1", volume="0.4")
    await world.signal("s-2", volume="NaN")
    working = await world.signal("s-3", order_type="limit", price="1.01")
    await world.signal("s-4", approved_at="2020-01-01T00:00:00Z")
    await world.report(
        ("connection", None, ConnectionChange(connection="ready")),
        *traded(filled_id),
    )
    await world.report(
        *corrected(filled_id, working),
        ("deal", "o-never-known", deal(40, "0.1", position_id=41)),
        first_seq=10,
    )


async def test_the_rows_of_orders_positions_and_signals_are_those_of_the_desk() -> None:
    world = await DeskWorld().start()
    await live(world)
    with rebuilt(world) as fold:
        assert fold.finish(LATER) == []
        assert list(fold.contradictions()) == []
        for prefix in (b"o/", b"p/", b"s/"):
            assert readable(made(world, fold, prefix)) == readable(living(world, prefix))
            assert made(world, fold, prefix) == living(world, prefix)
    assert world.failures == []


async def test_orders_that_somebody_elses_connector_executes_are_rebuilt_with_its_fills() -> None:
    world = await DeskWorld(Settings(role="execution", accounts={ACCOUNT: AccountSettings(login=1)})).start()
    filled, _ = await world.signal("s-1", volume="1"), await world.signal("s-2")
    fill: dict[str, Any] = {
        "fill_id": "f-1",
        "order_id": filled,
        "account": ACCOUNT,
        "volume": "0.4",
        "price": "1.085",
        "deal": 5,
    }
    await world.foreign("fill", **fill)
    await world.foreign("error", order_id=filled, account=ACCOUNT, kind="timeout", final=False)
    with rebuilt(world) as fold:
        fold.finish(LATER)
        assert made(world, fold, b"o/", b"p/", b"s/") == living(world, b"o/", b"p/", b"s/")
        assert fold.standings() == {"handed_over": 1}
        assert len(made(world, fold, b"p/")) == 1


async def test_rows_that_are_not_what_the_facts_say_are_named() -> None:
    world = await DeskWorld().start()
    await live(world)
    filled, working = (order_id_for("streamapp", ACCOUNT, name) for name in ("s-1", "s-3"))
    with rebuilt(world) as fold:
        order = fold.order(working, ACCOUNT)
        assert order is not None
        fold.scratch.put(ACCOUNT, order_key(filled), order)
        fold.scratch.put(ACCOUNT, position_key(ACCOUNT, 41), PositionRow(account=ACCOUNT, position_id=41))
        wrong = list(fold.contradictions())
        assert [filled in each for each in wrong] == [True, False]
        assert "position_id=41" in wrong[1]


async def test_orders_that_wait_for_a_terminal_are_counted_by_where_they_stand() -> None:
    world = await DeskWorld().start()
    first = await world.signal("s-1")
    await world.report(("accepted", first, {"ticket": 7}))
    await world.signal("s-2")
    await world.signal("s-3", volume="NaN")
    with rebuilt(world) as fold:
        assert fold.standings() == {"unanswered": 1}


async def test_an_account_goes_on_with_its_numbers_and_opens_nothing_until_a_person_has_looked() -> None:
    world = await DeskWorld().start()
    await live(world)
    row = world.account_row()
    assert row is not None
    for opening, trading in (((), halted_since(LATER)), ((ACCOUNT,), TRADING)):
        with rebuilt(world) as fold:
            fold.finish(LATER, opening)
            account = fold.scratch.read(ACCOUNT, account_key(ACCOUNT), AccountRow)
            assert account is not None
            assert account.trading == trading
            assert (account.number, account.epoch, account.earlier) == (row.number, "e1", ())
            assert account.rebuilt == RebuildNote(at=LATER, epoch="e1")
            assert account.state == row.state


async def test_reports_count_as_durable_as_far_as_the_archive_has_each_of_them() -> None:
    world = await DeskWorld().start()
    order_id = await world.signal("s-1", volume="1")
    await world.report(("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(1, "0.1")))
    await world.report(("deal", order_id, deal(3, "0.1")), first_seq=4)
    with rebuilt(world) as fold:
        fold.finish(LATER)
        account = fold.scratch.read(ACCOUNT, account_key(ACCOUNT), AccountRow)
        assert account is not None
        assert (account.epoch, account.watermark) == ("e1", 2)


async def test_a_journal_that_was_lost_is_over_in_the_rows_as_well() -> None:
    world = await DeskWorld().start()
    first, second = await world.signal("s-1"), await world.signal("s-2")
    await world.report(("accepted", first, {"ticket": 7}))
    state = AccountMessage(account=ACCOUNT, connection="ready", epoch="e0", at=NOW - timedelta(days=1))
    await world.report(("accepted", second, {"ticket": 8}), epoch="e2")
    await world.report(("deal", first, deal(1, "0.1")), first_seq=2)
    records = [encode_commit(ACCOUNT, 0, NOW, (), [Publication(state.encode())]), *archived(world)]
    with rebuilt(world, records) as fold:
        fold.finish(LATER)
        account = fold.scratch.read(ACCOUNT, account_key(ACCOUNT), AccountRow)
        assert account is not None
        assert (account.epoch, account.watermark, account.earlier) == ("e2", 1, ("e0", "e1"))
        assert made(world, fold, b"o/") == living(world, b"o/")


async def test_an_exit_that_is_done_is_known_with_its_orders() -> None:
    world = await DeskWorld().start()
    market = Market(world)
    for name in ("s-1", "s-2"):
        await world.signal(name, volume="1")
        await market.run()
    await world.signal("x-1", **EXIT, intent="close")
    await market.run()
    living_row = world.signal_row("x-1")
    assert living_row is not None
    with rebuilt(world) as fold:
        assert fold.finish(LATER) == []
        row = fold.scratch.read(ACCOUNT, signal_key(ACCOUNT, "x-1"), SignalRow)
        assert row is not None
        assert len(row.order_ids) == 2
        assert row == living_row.model_copy(update={"decided_at": row.decided_at})
        assert made(world, fold, b"o/", b"p/") == living(world, b"o/", b"p/")


async def test_an_exit_that_was_under_way_is_over_and_is_named() -> None:
    world = await DeskWorld().start()
    await world.snapshot(AccountMessage(account=ACCOUNT, connection="ready", margin_mode="netting", at=world.clock.now))
    market = Market(world, netting=True)
    await world.signal("s-1", volume="1")
    await market.run()
    await world.signal("x-1", **EXIT, intent="reverse")  # it closes, and opens when that is filled
    living_row, account = world.signal_row("x-1"), world.account_row()
    assert living_row is not None
    assert living_row.goal is not None
    assert account is not None
    assert account.goals == ("x-1",)
    with rebuilt(world) as fold:
        assert fold.finish(LATER) == [(ACCOUNT, "x-1")]
        row = fold.scratch.read(ACCOUNT, signal_key(ACCOUNT, "x-1"), SignalRow)
        assert row is not None
        assert (row.verdict.decision, row.verdict.reason, row.goal) == ("refused", UNKNOWN, None)
        assert row.order_ids == living_row.goal.orders
        assert made(world, fold, b"o/", b"p/") == living(world, b"o/", b"p/")


async def test_a_message_that_nobody_could_use_does_not_stand_in_the_way_of_the_decision() -> None:
    world = await DeskWorld().start()
    await world.give(
        b'{"signal_id": "s-1", "account": "a", "volume": 1, "volume": 2}', topics.SIGNALS_APPROVED, "signal"
    )
    await world.settled()
    await world.signal("s-1")
    row = world.signal_row("s-1")
    with rebuilt(world) as fold:
        fold.finish(LATER)
        assert fold.scratch.read(ACCOUNT, signal_key(ACCOUNT, "s-1"), SignalRow) == row


# --- what incomplete signals were given


async def test_an_incomplete_signal_keeps_the_accounts_it_was_split_over_and_what_they_decided() -> None:
    house = await House().start()
    await house.send()
    await house.decide()
    await house.collect()
    living_row = house.binding()
    assert living_row is not None
    assert living_row.answered_at is not None
    with rebuilt(house.world) as fold:
        fold.finish(LATER)
        row = fold.scratch.read("s-1", binding_key(topics.SIGNALS_APPROVED, "s-1"), BindingRow)
        assert row == living_row.model_copy(update={"bound_at": row.bound_at if row else None})
        assert made(house.world, fold, b"s/") == living(house.world, b"s/")


async def test_what_was_forwarded_and_not_decided_is_bound_by_its_record() -> None:
    house = await House(route="b").start()
    await house.send()
    [record] = house.copies()
    account = record.key.decode() if record.key else ""
    incoming = Incoming.of(event(record.value, topic=record.topic, account=account, headers=dict(record.headers)))
    with rebuilt(house.world) as fold:
        fold.bindings.take_forwarded(incoming)
        fold.bindings.take_forwarded(incoming)
        fold.finish(LATER)
        row = fold.scratch.read("s-1", binding_key(topics.SIGNALS_APPROVED, "s-1"), BindingRow)
        assert row is not None
        assert (row.account, row.weights, row.fields) == ("b", {}, {})


async def test_a_signal_that_names_its_account_binds_nothing() -> None:
    world = await DeskWorld().start()
    await world.signal("s-1")
    with rebuilt(world) as fold:
        fold.finish(LATER)
        assert "bindings" not in fold.scratch.counts()


async def test_a_signal_for_which_no_account_was_found_stays_refused() -> None:
    house = await House(route={"a": "1"}).start()
    error = Unusable("unresolved", "no account by execution.routing")
    said, _ = undecided(
        error, signal_id="s-1", account="", symbol="EURUSD", stream_seq=5, at=NOW, payload=b'{"signal_id": "s-1"}'
    )
    with rebuilt(house.world, [encode_commit("", 0, NOW, (), [Publication(said.encode())])]) as fold:
        fold.finish(LATER)
        row = fold.scratch.read("s-1", binding_key(topics.SIGNALS_APPROVED, "s-1"), BindingRow)
        assert row is not None
        assert (row.is_bound, row.detail) == (False, "no account by execution.routing")


# --- any archive


@examples(max_examples=40, deadline=None)
@given(Days, st.frozensets(st.integers(1, 14)), st.data())
async def test_any_day_is_rebuilt(several: list[Fact], strangers: frozenset[int], data: Any) -> None:
    world = await DeskWorld().start()
    reports = reports_of(several, strangers)
    signalled = data.draw(st.integers(0, len(reports)), label="reports before the signal")
    for group in [*cut(reports[:signalled], data), None, *cut(reports[signalled:], data)]:
        await give(world, group)
        await world.settled()
    records = archived(world)
    again = data.draw(st.integers(0, len(records)), label="said again from here")
    with rebuilt(world, [*records, *records[again:]]) as fold:
        fold.finish(LATER)
        assert list(fold.contradictions()) == []
        assert made(world, fold, b"p/", b"s/") == living(world, b"p/", b"s/")
        # A report of what is known is no fact: it says nothing but that this journal has the order.
        rows, known = readable(made(world, fold, b"o/")), readable(living(world, b"o/"))
        assert all(rows[key].get("journal_epoch") in {None, known[key].pop("journal_epoch", None)} for key in known)
        for row in rows.values():
            row.pop("journal_epoch", None)
        assert rows == known


async def test_what_was_said_later_than_asked_for_makes_no_rows_but_takes_its_number() -> None:
    world = await DeskWorld().start()
    first = await world.signal("s-1")
    until = world.clock.now
    world.later(5)
    second = await world.signal("s-2")
    fold = RowFold(world.policy, until=until)
    for record in archived(world):
        fold.take(record, "")
    fold.finish(LATER)
    account = fold.scratch.read(ACCOUNT, account_key(ACCOUNT), AccountRow)
    assert account is not None
    assert (fold.order(first, ACCOUNT) is None, fold.order(second, ACCOUNT)) == (False, None)
    assert (account.number, fold.left_out) == (len(archived(world)), 1)
    fold.close()


async def test_a_message_of_another_version_is_named() -> None:
    world = await DeskWorld().start()
    newer = {"schema": "signal/2", "account": ACCOUNT, "signal_id": "s-1", "verdict": "accepted"}
    records = [encode_commit(ACCOUNT, 1, NOW, (), [Publication(json.dumps(newer).encode())])]
    with rebuilt(world, records) as fold:
        [fault] = fold.faults()
        assert fault.kind == "unreadable"
        assert "offset 0: a message of it is none that this version can read" in str(fault)


async def test_commands_are_known_again_and_one_that_was_under_way_has_failed() -> None:
    world = await DeskWorld().start()
    order_id = await world.signal("s-1", order_type="limit", price="1.05")
    await world.report(("accepted", order_id, f.BrokerAccepted(ticket=1)))
    await world.command("account.halt", "c-1", reason="news", issued_by="ops")
    await world.command("account.halt", "c-1", reason="news", issued_by="ops")
    await world.command("account.reduce", "c-1")
    world.terminals.silent = True
    await world.command("order.cancel", "c-2", order_id=order_id)
    with rebuilt(world) as fold:
        fold.finish(LATER)
        halt, cancel = (fold.scratch.read(ACCOUNT, command_key(ACCOUNT, name), CommandRow) for name in ("c-1", "c-2"))
    known = world.command_row("c-1")
    assert halt is not None
    assert known is not None
    assert halt.model_copy(update={"not_after": known.not_after}) == known
    assert cancel is not None
    assert (cancel.state, cancel.why) == ("failed", UNKNOWN)


async def test_breaks_stand_as_they_were_told_last_and_those_that_ended_do_not() -> None:
    house = await Reconciled().start()
    for number in (7, 8):
        await house.opened(f"s-{number}", number)
    for lots in ("0.4", "0.4", "0.5", "0.5"):
        await house.shows(position(lots, 7), position("0.2", 8))
    await house.shows(position("0.5", 7), position("0.1", 8))
    world = house.world
    with rebuilt(world) as fold:
        assert made(world, fold, b"d/") == living(world, b"d/")
        fold.finish(LATER)
        account = fold.scratch.read(ACCOUNT, account_key(ACCOUNT), AccountRow)
        assert account is not None
        assert account.breaks == house.standing == ("position:7",)
        assert fold.scratch.counts()["breaks"] == 2
    with rebuilt(world, archived(world) * 2) as fold:
        assert made(world, fold, b"d/") == living(world, b"d/")
