"""A desk on rows that the archive made: what comes again adds nothing, and nothing is sent twice."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from streamapp import topics
from streamapp.audit.rows import RowFold
from streamapp.messages.account import AccountMessage
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import deal, operation
from tests.kit.market import Market

EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None, "intent": "close"}


async def reborn(world: DeskWorld, *, records: int | None = None, opening: tuple[str, ...] = (ACCOUNT,)) -> DeskWorld:
    """Return a desk on the rows that the archive of ``world`` makes, or its first records; the terminals live on."""
    after = DeskWorld(world.settings)
    after.terminals, after.clock = world.terminals, world.clock
    await after.restart()
    after.clock.now += timedelta(seconds=1)
    with closing(RowFold(world.policy)) as fold:
        for record in world.producer.on(topics.ARCHIVE)[:records]:
            fold.take(record.value, "")
        fold.finish(after.clock.now, opening)
        for partition in after.store.owned:
            await after.store.commit(partition, dict(fold.scratch.rows(partition)))
    await after.restart()
    return after


@pytest.fixture
async def world() -> DeskWorld:
    return await DeskWorld().start()


async def test_signals_and_reports_that_come_again_add_nothing(world: DeskWorld) -> None:
    order_id = await world.signal("s-1", sequence=1)
    reports: Any = (("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(1, "0.1")))
    await world.report(*reports, ("account_operation", None, operation(9)))
    submitted = len(world.terminals.submits)
    after = await reborn(world)
    await after.signal("s-1", sequence=1)
    await after.report(*reports, ("account_operation", None, operation(9)))
    await after.tick()
    assert (after.commits, len(after.terminals.submits)) == ([], submitted)
    assert after.failures == []


async def test_an_order_that_was_claimed_and_not_answered_is_asked_for_with_its_id_and_sent_once(
    world: DeskWorld,
) -> None:
    world.terminals.silent = True
    order_id = await world.signal("s-1")
    world.terminals.silent = False
    row = world.order_row(order_id)
    after = await reborn(world)
    await after.tick()
    assert row.status == "submitted"
    assert {request.order_id for request in after.terminals.submits} == {order_id}
    assert list(after.terminals.rows) == [order_id]


async def test_an_order_whose_commit_is_not_in_the_archive_is_made_again_under_its_id(world: DeskWorld) -> None:
    order_id = await world.signal("s-1", sequence=1)
    after = await reborn(world, records=0)
    await after.signal("s-1", sequence=1)
    assert after.order_row(order_id).status == "submitted"
    assert list(after.terminals.rows) == [order_id]
    assert {request.hash for request in after.terminals.submits if request.order_id == order_id} == {
        after.terminals.rows[order_id].hash
    }


@pytest.mark.parametrize("records", [0, 1])
async def test_where_the_journal_was_lost_too_what_came_before_is_a_doubt_and_not_sent(
    world: DeskWorld, records: int
) -> None:
    first = await world.signal("s-0", sequence=1)
    lost = await world.signal("s-1", sequence=2)
    world.terminals.epoch = "e2"
    world.terminals.rows.clear()
    after = await reborn(world, records=1 + records)
    await after.signal("s-1", sequence=2)
    await after.tick()
    assert {name: row.state for name, row in after.terminals.rows.items()} == {first: "doubt", lost: "doubt"}
    after.later(1)
    new = await after.signal("s-2", sequence=3)
    assert after.terminals.rows[new].state == "recorded"


async def test_a_halted_account_takes_reports_and_opens_nothing(world: DeskWorld) -> None:
    order_id = await world.signal("s-1")
    after = await reborn(world, opening=())
    await after.signal("s-2", sequence=50)
    row = after.signal_row("s-2")
    assert row is not None
    assert (row.verdict.decision, row.verdict.reason) == ("refused", "halted")
    await after.report(("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(1, "0.1")))
    assert after.order_row(order_id).status == "filled"


async def test_an_exit_from_before_is_refused_and_one_from_after_closes(world: DeskWorld) -> None:
    market = Market(world)
    await world.signal("s-1", volume="1", valid_until="2030-01-01T00:00:00Z")
    await market.run()
    came = world.clock.now
    after = await reborn(world)
    market.world = after
    await after.signal("x-1", at=came, sequence=50, **EXIT, valid_until="2030-01-01T00:00:00Z")
    row = after.signal_row("x-1")
    assert row is not None
    assert (row.verdict.decision, row.verdict.reason, row.goal) == ("refused", "rebuilt", None)
    after.later(1)
    await after.signal("x-2", sequence=51, **EXIT)
    closing_order = after.terminals.submits[-1]
    assert (closing_order.parameters.side, closing_order.parameters.volume) == ("sell", Decimal(1))


async def test_an_exit_that_had_closed_a_part_is_not_done_again(world: DeskWorld) -> None:
    await world.snapshot(AccountMessage(account=ACCOUNT, connection="ready", margin_mode="netting", at=world.clock.now))
    market = Market(world, netting=True)
    await world.signal("s-1", volume="1")
    await market.run()
    reverse = EXIT | {"intent": "reverse", "valid_until": "2030-01-01T00:00:00Z"}
    await world.signal("x-1", sequence=9, **reverse)
    submitted = {request.order_id for request in world.terminals.submits}
    after = await reborn(world)
    await after.signal("x-1", sequence=9, **reverse)
    await after.signal("x-1", sequence=60, **reverse)
    assert {request.order_id for request in after.terminals.submits} == submitted
    assert [message["reason"] for message in after.published("refused/1")] == ["conflict", "conflict"]


# --- reports that the terminal has forgotten


async def test_reports_that_the_journal_has_forgotten_are_waited_for_no_longer(world: DeskWorld) -> None:
    order_id = await world.signal("s-1", volume="1")
    after = await reborn(world)
    after.terminals.last_seq, after.terminals.released_seq = 8, 6
    await after.report(("deal", order_id, deal(7, "0.1")), first_seq=7)
    row = after.account_row()
    assert row is not None
    assert row.watermark == 0
    after.later(60)
    await after.tick()
    row = after.account_row()
    assert row is not None
    assert (row.epoch, row.watermark) == ("e1", 7)
    await after.report(("deal", order_id, deal(8, "0.1")), first_seq=8)
    assert [ack.watermark for ack in after.terminals.acks][-1] == 8


async def test_a_store_that_was_not_rebuilt_goes_on_asking_for_them(world: DeskWorld) -> None:
    order_id = await world.signal("s-1", volume="1")
    world.terminals.last_seq, world.terminals.released_seq = 8, 6
    await world.report(("deal", order_id, deal(7, "0.1")), first_seq=7)
    world.later(60)
    await world.tick()
    row = world.account_row()
    assert row is not None
    assert row.watermark == 0


async def test_a_charge_that_no_row_has_is_booked_although_its_report_counts_as_durable(world: DeskWorld) -> None:
    order_id = await world.signal("s-1", volume="0.1")
    await world.report(("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(1, "0.1")))
    unsaid = len(world.producer.on(topics.ARCHIVE))
    await world.report(("account_operation", None, operation(9)), first_seq=3)
    living = world.position_row(7)
    after = await reborn(world, records=unsaid)
    after.terminals.last_seq = after.terminals.released_seq = 3
    after.later(60)
    await after.tick()
    row = after.account_row()
    assert row is not None
    assert row.watermark == 3
    await after.report(("account_operation", None, operation(9)), first_seq=3)
    assert after.position_row(7) == living
