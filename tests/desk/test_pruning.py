"""What is over leaves the store: put away it answers like any other row, and what comes after its end is too old."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest

from agents.pruning import DECODED, PAUSE_S, REST_S, Pruner
from streamapp.desk.inputs import Prune
from streamapp.domain import facts
from streamapp.domain.fold import fold
from streamapp.domain.identifiers import partition_of
from streamapp.domain.orders import OrderState
from streamapp.errors import ConfigurationError
from streamapp.messages.report import REPORT_BODIES
from tables.accounts import AccountRow
from tables.commands import command_key
from tables.orders import OrderRow, order_key
from tables.positions import position_key
from tables.row import Row, is_put_away
from tables.signals import signal_key
from tests.desk.test_exits import EXIT
from tests.desk.test_reconciliation import House, position
from tests.kit.desk import ACCOUNT, NOW, DeskWorld
from tests.kit.examples import accepted, created, deal, operation

KINDS = {body: kind for kind, body in REPORT_BODIES.items()}
DAY_S = 86400.0
CLOSING = deal(8, "0.1", "1.09", ticket=8, side="sell", entry="out", profit=Decimal(5))
PARTITION = partition_of(ACCOUNT, 8)


async def a_world() -> DeskWorld:
    return await DeskWorld().start()


async def after(world: DeskWorld, days: float) -> None:
    """Let days pass, and what is over by then leave."""
    world.later(days * DAY_S)
    await world.prune()


class Traded:
    """One order of ours that opened position 7 by deal 7, and what a journal reports after it."""

    def __init__(self, world: DeskWorld, order_id: str) -> None:
        self.world, self.order_id, self.seq = world, order_id, 0

    @classmethod
    async def of(cls, world: DeskWorld, volume: str = "0.1") -> Traded:
        self = cls(world, await world.signal(volume=volume))
        await self.reports(facts.BrokerAccepted(ticket=7), deal(7, "0.1"))
        return self

    async def reports(self, *bodies: Any, ours: bool = True) -> None:
        batch = [(KINDS[type(body)], self.order_id if ours else None, body) for body in bodies]
        await self.world.report(*batch, first_seq=self.seq + 1)
        self.seq += len(batch)

    async def closed(self) -> Traded:
        """Return it when its position was closed by somebody else."""
        await self.reports(CLOSING, ours=False)
        return self

    def stored(self, key: bytes | None = None) -> bytes | None:
        return self.world.store.get(key or order_key(self.order_id), partition=PARTITION)


def is_away(world: DeskWorld, key: bytes) -> bool:
    value = world.store.get(key, partition=PARTITION)
    assert value is not None
    return is_put_away(value)


# --- put away


async def test_what_is_over_for_as_long_as_is_set_is_put_away_in_a_quarter_of_the_bytes_and_says_what_it_said() -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    keys = (order_key(order.order_id), position_key(ACCOUNT, 7), signal_key(ACCOUNT, "s-1"))
    whole = {key: world.store.get(key, partition=PARTITION) or b"" for key in keys}
    rows = world.order_row(order.order_id), world.position_row(7), world.signal_row("s-1")
    await after(world, 29)
    assert not any(is_away(world, key) for key in keys)
    said = len(world.commits)
    await after(world, 1.1)
    assert all(is_away(world, key) for key in keys)
    assert (world.order_row(order.order_id), world.position_row(7), world.signal_row("s-1")) == rows
    assert len(world.commits) == said, "nothing is said of it"
    assert sum(len(order.stored(key) or b"") for key in keys) * 4 < sum(map(len, whole.values()))
    written = len(world.store.commits)
    await after(world, 1)
    assert len(world.store.commits) == written, "it is put away once"


async def test_what_is_open_stays_as_it_is() -> None:
    world = await a_world()
    order = await Traded.of(world, volume="1")  # 0.9 lots of it work
    await after(world, 2000)
    assert not is_away(world, order_key(order.order_id))
    assert not is_away(world, position_key(ACCOUNT, 7))
    assert is_away(world, signal_key(ACCOUNT, "s-1")), "the key of an order that stands is kept with it"


async def test_more_than_was_asked_for_stays_as_it_is_for_it_halts_the_account() -> None:
    world = await a_world()
    order = await Traded.of(world)
    await order.reports(deal(9, "0.1"))
    await order.closed()
    await after(world, 2000)
    assert not is_away(world, order_key(order.order_id))
    await world.restart()
    assert world.desk.index.halting(ACCOUNT)


@pytest.mark.parametrize("days", [0, 31])
async def test_a_signal_that_comes_again_is_a_duplicate_with_its_order_or_a_conflict(days: float) -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    await after(world, days)
    await world.restart()
    await world.signal()
    await world.signal(volume="0.2")
    repeated = world.published("accepted/1")[-1]
    assert (repeated["order_id"], world.archived("signal/1")[-2]["decision"]) == (order.order_id, "duplicate")
    assert world.published("refused/1")[-1]["reason"] == "conflict"
    assert len(world.terminals.submits) == 1


@pytest.mark.parametrize("days", [0, 31])
async def test_a_deal_that_is_taken_back_late_is_no_volume_any_more_and_opens_the_position_again(days: float) -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    await after(world, days)
    await order.reports(facts.FillBusted(deal=8, revision=1, was=CLOSING), ours=False)
    message = world.published("position/1")[-1]
    assert (message["side"], message["volume"], message["rev"]) == ("buy", "0.1", 3)
    await order.reports(facts.FillBusted(deal=7, revision=1))
    row, message = world.order_row(order.order_id), world.published("order/1")[-1]
    assert (row.state.filled, row.status) == (Decimal(0), "submitted")
    assert (message["filled_volume"], message["rev"], message["order_id"]) == ("0", 5, order.order_id)
    assert not is_away(world, order_key(order.order_id)), "it is open, so it is written whole"
    assert order.order_id in world.desk.index.open


@pytest.mark.parametrize("days", [0, 31])
async def test_a_late_deal_is_volume_and_one_that_is_known_is_nothing(days: float) -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    await after(world, days)
    said = len(world.commits)
    await order.reports(facts.BrokerAccepted(ticket=7), deal(7, "0.1"))
    assert len(world.commits) == said
    await order.reports(deal(10, "0.1"))
    row = world.order_row(order.order_id)
    assert (row.state.filled, set(row.anomalies)) == (Decimal("0.2"), {"overfilled"})
    assert world.desk.index.halting(ACCOUNT), "more than was asked for"
    position_row = world.position_row(7)
    assert position_row is not None
    assert position_row.state.net == Decimal("0.1")


async def test_a_new_start_passes_over_what_was_put_away(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await a_world()
    await (await Traded.of(world)).closed()
    await world.command("account.halt", "c-1")
    await after(world, 31)
    assert is_away(world, command_key(ACCOUNT, "c-1"))
    told: list[Row] = []
    monkeypatch.setattr(world.desk, "_tell", lambda row, _: told.append(row))
    await world.desk.recover([PARTITION])
    assert [type(row) for row in told] == [AccountRow]


async def test_a_command_that_comes_again_is_answered_as_it_stands() -> None:
    world = await a_world()
    await world.command("account.halt", "c-1", reason="test")
    await after(world, 31)
    await world.command("account.halt", "c-1", reason="test")
    assert world.results("c-1")[-1] == ("done", None)
    assert len(world.results("c-1")) > 1


# --- ended


async def test_what_was_put_away_ends_when_its_key_has_been_kept_for_long_enough() -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    await world.command("account.halt", "c-1")
    await world.command("account.resume", "c-2")
    await after(world, 399)
    assert order.stored() is not None
    await after(world, 2)
    assert order.stored() is None
    await after(world, 1)  # the signal's after its order's
    left = [key for key, _ in world.store.scan(PARTITION, b"")]
    assert left == [b"a/" + ACCOUNT.encode()]
    assert (order_key(order.order_id), b"") in [row for _, rows in world.store.commits for row in rows.items()]


async def test_a_signal_whose_key_has_ended_is_refused_for_its_age_however_long_it_is_good() -> None:
    world = await a_world()
    at = world.clock.now
    good: dict[str, Any] = {"approved_at": at.isoformat(), "valid_until": "2040-01-01T00:00:00Z"}
    order = Traded(world, await world.signal(**good, sequence=1))
    await order.reports(facts.BrokerAccepted(ticket=7), deal(7, "0.1"))
    await order.closed()
    for days in (40, 365, 1):
        await after(world, days)
    assert world.signal_row("s-1") is None
    await world.signal(**good, sequence=1, at=at)  # redelivered
    await world.signal(**good)  # sent again
    assert [(each["reason"], each["order_id"]) for each in world.published("refused/1")] == [("stale", None)] * 2
    assert len(world.terminals.submits) == 1
    assert order.stored() is None


async def test_a_signal_that_was_refused_before_it_was_due_is_not_accepted_when_its_refusal_is_forgotten() -> None:
    world = await a_world()
    at = world.clock.now
    good: dict[str, Any] = {"approved_at": "2028-01-01T00:00:00Z"}
    await world.signal(**good, sequence=1)
    assert world.published("refused/1")[-1]["reason"] == "from_future"
    for days in (40, 367):
        await after(world, days)
    world.later(1.0)
    assert world.signal_row("s-1") is None
    await world.signal(**good, sequence=1, at=at)
    assert not world.terminals.submits


async def test_a_command_whose_key_has_ended_is_refused_for_its_age() -> None:
    world = await a_world()
    await world.command("account.halt", "c-1", issued_at=world.clock.now.isoformat())
    given_at = world.clock.now
    for days in (40, 361):
        await after(world, days)
    assert world.command_row("c-1") is None
    await world.command("account.halt", "c-1", issued_at=given_at.isoformat())
    assert world.results("c-1")[-1] == ("refused", "stale")


async def test_an_order_stays_as_long_as_a_position_of_its_deals_is_open() -> None:
    world = await a_world()
    order = await Traded.of(world)
    for days in (40, 400):
        await after(world, days)
    assert is_away(world, order_key(order.order_id))
    assert world.signal_row("s-1") is not None
    assert not is_away(world, position_key(ACCOUNT, 7))
    await order.reports(deal(8, "0.1", ticket=8, side="sell", entry="out", seconds=440 * DAY_S), ours=False)
    message = world.published("fill/1")[-1]
    assert (message["opening_order_id"], message["strategy"]) == (order.order_id, None)
    await after(world, 1)
    assert order.stored() is None
    assert world.position_row(7) is not None, "its own time is not over"


async def test_nothing_ends_while_an_exit_or_a_command_of_the_account_is_under_way() -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    await after(world, 40)
    await world.signal("s-2")
    await world.signal("x-1", **EXIT, valid_until="2040-01-01T00:00:00Z")  # it waits for the order that is on its way
    await after(world, 400)
    assert (account := world.account_row()) is not None
    assert account.goals == ("x-1",)
    assert order.stored() is not None


async def test_reports_of_an_order_that_has_ended_are_kept_and_its_deal_is_booked() -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    for days in (40, 365, 1):
        await after(world, days)
    await order.reports(deal(11, "0.2", ticket=7, position_id=11))
    row = world.order_row(order.order_id)
    assert (row.state.created, len(row.waiting), row.open) == (None, 1, True)
    booked = world.position_row(11)
    assert booked is not None
    assert booked.state.net == Decimal("0.2")


async def test_a_charge_without_a_trade_stays_for_nobody_knows_what_is_open() -> None:
    world = await a_world()
    await world.report(("account_operation", None, operation(3, position_id=9)))
    await after(world, 2000)
    assert world.position_row(9) is not None


async def test_a_break_that_is_over_ends_and_one_that_stands_stays() -> None:
    house = await House().start()
    world = house.world
    await house.opened("s-7", 7)
    await house.opened("s-8", 8)
    for shown in (position(number=8), position(number=8)):
        await house.shows(shown)
    for _ in range(2):
        await house.shows(position(number=7), position("0.2", number=8))
    over, standing = world.break_row("position:7"), world.break_row("position:8")
    assert over is not None
    assert standing is not None
    assert (over.stands, standing.stands) == (False, True)
    await after(world, 31)
    assert (world.break_row("position:7"), world.break_row("position:8")) == (None, standing)
    for _ in range(2):
        await house.shows(position("0.2", number=8))
    found = world.break_row("position:7")
    assert found is not None
    assert (found.message.revision, found.message.break_id == over.message.break_id) == (1, False)


# --- the walk


class BusyDesk:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Prune]] = []

    def prune(self, account: str, due: Prune) -> bool:
        self.asked.append((account, due))
        return False


async def test_a_step_decodes_and_gives_a_bounded_number_of_rows_and_what_a_busy_lane_left_is_found_again() -> None:
    world = await a_world()
    for number in range(2 * DECODED):
        await world.signal(f"s-{number}", status="rejected")
    world.later(31 * DAY_S)
    desk = BusyDesk()
    pruner = Pruner(world.store, desk, world.policy, world.clock)
    steps = [pruner.step()]
    while steps[-1] == PAUSE_S:
        steps.append(pruner.step())
    given = [due for _, due in desk.asked]
    assert {len(due.away) for due in given} <= set(range(DECODED + 1))
    assert sum(len(due.away) for due in given) == 2 * DECODED
    assert steps[-1] == max(REST_S, 4 * len(steps) * PAUSE_S), "the longer the walk, the longer the rest"
    while pruner.step() == PAUSE_S:
        pass
    assert sum(len(due.away) for _, due in desk.asked) == 4 * DECODED
    await world.prune()
    assert all(is_away(world, signal_key(ACCOUNT, f"s-{number}")) for number in range(2 * DECODED))


async def test_a_lane_that_has_something_to_do_or_to_say_is_left_alone() -> None:
    world = await a_world()
    assert world.desk.prune(ACCOUNT, Prune())
    await world.settled()
    await world.give_signal()
    assert not world.desk.prune(ACCOUNT, Prune())
    await world.settled()
    world.outlet.refuse = RuntimeError("away")
    await world.signal("s-2")
    assert not world.desk.prune(ACCOUNT, Prune())
    world.outlet.refuse = None


async def test_a_row_that_another_version_wrote_is_named() -> None:
    world = await a_world()
    await world.store.commit(PARTITION, {b"s/" + ACCOUNT.encode() + b"\0s-9": b'{"unheard_of":1}'})
    with pytest.raises(ConfigurationError, match="s-9"):
        await world.prune()


async def test_rows_of_partitions_that_are_another_workers_are_not_looked_at() -> None:
    world = await a_world()
    await (await Traded.of(world)).closed()
    world.later(31 * DAY_S)
    desk = BusyDesk()
    pruner = Pruner(world.store, desk, world.policy, world.clock)
    world.store.revoke()
    assert pruner.step() == REST_S
    world.store.recover([(PARTITION + 1) % 8])
    while pruner.step() == PAUSE_S:
        pass
    assert not desk.asked


async def test_a_row_that_a_commit_changes_is_not_put_away_by_it() -> None:
    world = await a_world()
    order = await (await Traded.of(world)).closed()
    world.later(31 * DAY_S)
    key = order_key(order.order_id)
    await world.give_signal("s-2")
    world.desk.put(ACCOUNT, Prune((key, b"o/nobody"), (signal_key(ACCOUNT, "s-1"),)))
    await order.reports(facts.FillBusted(deal=7, revision=1))
    assert not is_away(world, key) or world.order_row(order.order_id).state.filled == 0
    assert world.signal_row("s-1") is not None, "its time is not over"


def test_the_words_that_rows_are_packed_with_never_change() -> None:
    row = OrderRow(open=False, order_id="o-1", account="a", state=fold(OrderState(), [created("0.1"), accepted()]))
    assert OrderRow.decode(base64.b85decode(IN_A_CHANGELOG)) == row
    assert OrderRow.decode(row.put_away(NOW)) == row


IN_A_CHANGELOG = (
    "0RR910BZm?K(&@T4g(<!L{Efd8y3txasgxGHbv^(Jt9T+6IPoh6t2)%GUGR#XUIL^E=FXUBU#87!yZP{z@Gx^!A;g!M&hoqXdzP="
    "nm;KV@}i7astscs4#LJl^k>#jLCmbAp0h_L^yWs1YFQR{0IQz3CPY%O486CcDn?o%CgGxz<nTdxyhr{8TEswbL%Ig-_GY{U?G&x2"
    "%{IGRzIS)(%$-(To%wtL"
)
"""A row that was put away: it must be read for as long as keys are kept."""
