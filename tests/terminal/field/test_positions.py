"""Positions as the field has them: inherited levels, splits, old ones, and those that are too large for one order."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp.domain.facts import Filled
from streamapp.domain.identifiers import order_id_for
from streamapp.domain.orders import Deal
from streamapp.domain.positions import PositionState, fold_deals
from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk
from tests.terminal.field.conftest import Start
from tests.terminal.field.trading import change, closed, operator, position_of
from tests.terminal.scripted import ACCOUNT

MODES = pytest.mark.parametrize("mode", ["hedging", "netting"])
DAYS_S = 3 * 86_400
"""Longer than a journal looks back on its first day."""
LEVELS: dict[str, Any] = {"stop_loss": Decimal("1.05"), "take_profit": Decimal("1.2")}


def levels_of(position: Any) -> dict[str, Decimal | None]:
    return {"stop_loss": position.stop_loss, "take_profit": position.take_profit}


def executed(desk: Desk) -> list[tuple[str, Decimal]]:
    """Return entry and volume of every deal, by the market's own ledger."""
    return [(row["entry"], Decimal(row["volume"])) for row in desk.market.ledger("deal")]


async def holding(start: Start, mode: str, **order: Any) -> tuple[Desk, Any]:
    """Return a terminal whose account has one position, and the position."""
    desk = await start(mode=mode)
    await desk.open()
    await desk.submits(*ACCEPTED, **order)
    return desk, await position_of(desk, "EURUSD")


# -- levels


async def test_an_order_without_levels_that_adds_to_a_netting_position_leaves_it_its_own(netting_desk: Desk) -> None:
    desk = netting_desk
    await desk.submits(*ACCEPTED, **LEVELS)
    await desk.submits(*ACCEPTED)
    position = await position_of(desk, "EURUSD")
    assert (position.volume, levels_of(position)) == (Decimal("0.2"), LEVELS)
    await desk.close()


async def test_an_order_with_one_level_that_adds_to_a_netting_position_changes_that_one(netting_desk: Desk) -> None:
    desk = netting_desk
    await desk.submits(*ACCEPTED, **LEVELS)
    await desk.submits(*ACCEPTED, stop_loss=Decimal("1.06"))
    assert levels_of(await position_of(desk, "EURUSD")) == LEVELS | {"stop_loss": Decimal("1.06")}
    await desk.close()


async def test_a_pending_order_without_levels_that_takes_those_of_a_netting_position_is_told(
    netting_desk: Desk,
) -> None:
    desk = netting_desk
    desk.market.pin("EURUSD", "1.08500", "1.08510")
    first = await desk.submit(**LEVELS)
    await desk.says(first, *ACCEPTED)
    limit = await desk.submit(order_type="limit", price=Decimal("1.08"))
    await desk.says(limit, *ACCEPTED[:3])
    desk.market.pin("EURUSD", "1.07990", "1.08000")
    bodies = await desk.says(limit, *ACCEPTED, "unprotected")
    told = bodies["unprotected"]
    assert (told.stop_loss, told.take_profit) == (LEVELS["stop_loss"], LEVELS["take_profit"])
    assert (told.found_stop_loss, told.found_take_profit) == (None, None)
    await desk.close()


@MODES
async def test_a_stop_that_the_broker_left_out_is_told_once_and_can_be_set(start: Start, mode: str) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.fault("sl_tp_ignored_on_open", nth=1)
    bodies = await desk.submits(*ACCEPTED, "unprotected", **LEVELS)
    assert levels_of(bodies["unprotected"]) == LEVELS
    reply = await operator(desk).ask("protect", position_id=bodies["deal"].position_id, **LEVELS)
    assert reply.outcome == "done", reply
    position = await position_of(desk, "EURUSD")
    assert levels_of(position) == LEVELS
    await desk.close(sends=2)


LAG_MS = 1200
"""Longer than the road from an order to the next, and shorter than an exit waits for its position."""


@MODES
async def test_an_exit_is_executed_though_the_table_does_not_show_its_position_yet(start: Start, mode: str) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.fault("visibility_lag", params={"positions": LAG_MS})
    bodies = await desk.submits(*ACCEPTED)
    closing = await desk.submit_exit(bodies["deal"].position_id)
    assert await operator(desk).positions() == ()
    await desk.says(closing, *ACCEPTED)
    assert executed(desk) == [("in", Decimal("0.1")), ("out", Decimal("0.1"))]
    await desk.close()


@MODES
async def test_a_stop_that_the_broker_left_out_is_told_once_its_position_is_shown(start: Start, mode: str) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.fault("visibility_lag", params={"positions": LAG_MS})
    desk.fault("sl_tp_ignored_on_open", nth=1)
    bodies = await desk.submits(*ACCEPTED, "unprotected", **LEVELS)
    assert levels_of(bodies["unprotected"]) == LEVELS
    await desk.close()


@pytest.mark.parametrize("ignored", [False, True], ids=["taken", "left out"])
@pytest.mark.parametrize("first", [{}, LEVELS], ids=["without levels", "with levels"])
async def test_a_netting_position_is_not_judged_by_how_it_was_before_the_order(
    netting_desk: Desk, first: dict[str, Any], ignored: bool
) -> None:
    desk = netting_desk
    await desk.submits(*ACCEPTED, **first)
    await position_of(desk, "EURUSD")
    desk.fault("visibility_lag", params={"positions": LAG_MS})
    if ignored:
        desk.fault("sl_tp_ignored_on_open", nth=1)
    kinds = [*ACCEPTED, *(["unprotected"] if ignored else [])]
    order = await desk.submit(**LEVELS)
    await desk.says(order, *kinds)

    async def is_shown() -> bool:
        return (await position_of(desk, "EURUSD")).volume == Decimal("0.2")

    await eventually(is_shown)
    assert levels_of(await position_of(desk, "EURUSD")) == (dict.fromkeys(LEVELS) if ignored else LEVELS)
    assert desk.terminal.kinds(order.order_id) == kinds
    await desk.close()


@MODES
async def test_a_pending_order_that_was_placed_without_its_levels_is_told_once_it_is_filled_and_shown(
    start: Start, mode: str
) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.market.pin("EURUSD", "1.08500", "1.08510")
    desk.fault("sl_tp_ignored_on_open", nth=1)
    limit = await desk.submit(order_type="limit", price=Decimal("1.08"), **LEVELS)
    await desk.says(limit, *ACCEPTED[:3])
    desk.fault("visibility_lag", params={"positions": LAG_MS})
    desk.market.pin("EURUSD", "1.07990", "1.08000")
    told = (await desk.says(limit, *ACCEPTED, "unprotected"))["unprotected"]
    assert levels_of(told) == LEVELS
    assert (told.found_stop_loss, told.found_take_profit) == (None, None)
    await desk.close()


# -- positions that no deal of ours explains


async def forgets(desk: Desk) -> None:
    """Let the terminal begin with a new journal, days after what its account holds was opened."""
    assert await desk.terminal.stop() == 0
    for file in desk.terminal.log.parent.rglob(f"*{desk.terminal.account}*.sqlite3*"):
        file.unlink()
    desk.market.shift_clock(DAYS_S)
    desk.terminal.reports.clear()
    desk.terminal.start()
    first_epoch, desk.epoch = desk.epoch, (await desk.terminal.ready()).epoch
    assert desk.epoch != first_epoch


def reported(desk: Desk, position: Any) -> PositionState:
    """Return what the reports of this journal make of a position."""
    bodies = {report.seq: report.body for report in desk.terminal.reports}
    deals = [body for body in bodies.values() if isinstance(body, Filled) and body.position_id == position.position_id]
    return fold_deals(Deal(filled=body, revision=0) for body in deals)


@MODES
async def test_a_position_that_is_older_than_the_journal_is_reported_whole_and_closed_and_no_other_one_comes_of_it(
    start: Start, mode: str
) -> None:
    desk, position = await holding(start, mode)
    await forgets(desk)
    await eventually(lambda: reported(desk, position).net == Decimal("0.1"), "the deal that opened it")
    await closed(desk, position)
    assert executed(desk) == [("in", Decimal("0.1")), ("out", Decimal("0.1"))]
    assert await operator(desk).positions() == ()
    await eventually(lambda: reported(desk, position).net == 0, "its end")


@pytest.mark.parametrize(("side", "volume", "left"), [("buy", "0.1", "1.1"), ("sell", "0.4", "0.6")])
async def test_what_is_added_to_an_older_netting_position_or_taken_from_it_leaves_what_the_broker_has(
    start: Start, side: str, volume: str, left: str
) -> None:
    desk, position = await holding(start, "netting", volume=Decimal(1))
    await forgets(desk)
    await desk.submits(*ACCEPTED, side=side, volume=Decimal(volume))
    await eventually(lambda: reported(desk, position).net == Decimal(left), f"{left} lots")
    assert (await position_of(desk, "EURUSD")).volume == Decimal(left)


@MODES
async def test_a_position_that_was_split_and_closed_is_flat_by_its_deals(start: Start, mode: str) -> None:
    desk, position = await holding(start, mode)
    split = {"action": "split", "position": position.position_id, "ratio": "4"}
    desk.market.fault("foreign_activity", account=ACCOUNT, params=split)

    async def is_split() -> bool:
        return (await position_of(desk, "EURUSD")).volume == Decimal("0.4")

    await eventually(is_split)
    await closed(desk, position)
    assert executed(desk) == [("in", Decimal("0.1")), ("out", Decimal("0.4"))]
    await eventually(lambda: reported(desk, position).beyond == Decimal("-0.3"), "the deal that closed it")
    assert reported(desk, position).net == 0
    assert desk.terminal.kinds(desk.orders[0].order_id) == ACCEPTED
    await desk.close(sends=2)


# -- volumes


PARTS = {
    "three": (Decimal(3), {"volume_max": "1"}, ["1", "1", "1"]),
    "a rest off the step": (
        Decimal("2.55"),
        {"volume_min": "0.1", "volume_max": "1", "volume_step": "0.1"},
        ["1", "1", "0.55"],
    ),
    "the most off the step": (Decimal("2.55"), {"volume_max": "1", "volume_step": "0.1"}, ["0.91", "0.91", "0.73"]),
    "less than the least": (Decimal("0.05"), {"volume_min": "0.1"}, ["0.05"]),
}


@MODES
@pytest.mark.parametrize("case", PARTS)
async def test_a_position_that_no_single_order_may_close_is_closed_in_parts_and_whole(
    start: Start, mode: str, case: str
) -> None:
    volume, limits, parts = PARTS[case]
    desk, position = await holding(start, mode, volume=volume)
    await change(desk, "EURUSD", **limits)
    await closed(desk, position)
    assert executed(desk) == [("in", volume), *(("out", Decimal(part)) for part in parts)]
    await desk.close(sends=1 + len(parts))


@MODES
async def test_a_part_of_a_position_off_the_step_is_refused_with_the_step(start: Start, mode: str) -> None:
    desk, position = await holding(start, mode, volume=Decimal(1))
    await change(desk, "EURUSD", volume_step="0.1")
    reply = await operator(desk).ask("close", position_id=position.position_id, volume=Decimal("0.55"))
    assert reply.outcome == "recorded", reply
    order_id = order_id_for("streamapp", desk.terminal.account, "close:r-1")
    await eventually(lambda: desk.terminal.kinds(order_id) == ["created", "refused"])
    refused = desk.terminal.told(order_id)[-1].body
    assert "whole steps of 0.1 lots, got 0.55" in getattr(refused, "message", "")
    assert executed(desk) == [("in", Decimal(1))]
    await desk.close(sends=1)
