"""Answers and executions as the field has them: flags that lie, prices that move on the way, deals that never show."""

from __future__ import annotations

from decimal import Decimal

import pytest

from streamapp.mt5 import constants as mt5
from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk
from tests.terminal.field.conftest import Start
from tests.terminal.field.trading import closed, position_of
from tests.terminal.scripted import ACCOUNT

AGAIN = ("returned", "started", "rejected")
ON_ITS_WAY = "700,700"
"""How long an order takes to the dealing desk: time enough to move a price meanwhile."""
NEVER_MS = 3_600_000
OTHER_MAGIC = 77
IOC, FOK, RETURN = mt5.ORDER_FILLING_IOC, mt5.ORDER_FILLING_FOK, mt5.ORDER_FILLING_RETURN


# -- filling flags that lie


async def fillings(desk: Desk) -> list[int]:
    """Return the filling modes that were sent, in order."""
    sent = await eventually(lambda: len(desk.logged(desk.orders[0])) == desk.sends() and desk.logged(desk.orders[0]))
    return [entry.request["type_filling"] for entry in sent]


async def test_where_the_flags_lie_the_next_filling_mode_is_tried_as_an_attempt_of_its_own(desk: Desk) -> None:
    desk.market.change("EURUSD", refused_fillings=[IOC])
    order = await desk.submit()
    bodies = await desk.says(order, "started", *AGAIN, "returned", "accepted", "deal")
    rejected = bodies["rejected"]
    assert (rejected.retcode, rejected.attempt, bodies["started"].attempt) == (mt5.TRADE_RETCODE_INVALID_FILL, 1, 2)
    assert await fillings(desk) == [IOC, FOK]
    await desk.close(sends=2)


async def test_where_every_filling_mode_is_denied_the_order_is_rejected_after_each_was_tried(desk: Desk) -> None:
    desk.market.change("EURUSD", refused_fillings=[IOC, FOK])
    bodies = await desk.submits("started", *AGAIN, *AGAIN, "returned", "rejected")
    assert (bodies["rejected"].retcode, bodies["rejected"].attempt) == (mt5.TRADE_RETCODE_INVALID_FILL, 3)
    assert await fillings(desk) == [IOC, FOK, RETURN]
    await desk.close(sends=3)


async def test_a_fill_policy_that_was_asked_for_and_is_denied_gives_way_to_no_other(desk: Desk) -> None:
    desk.market.change("EURUSD", refused_fillings=[FOK])
    bodies = await desk.submits("started", "returned", "rejected", fill_policy="fok")
    assert "its broker denied them all" in bodies["rejected"].message
    assert await fillings(desk) == [FOK]
    await desk.close(sends=1)


@pytest.mark.parametrize("mode", ["hedging", "netting"])
async def test_a_position_is_closed_although_the_flags_lie(start: Start, mode: str) -> None:
    desk = await start(mode=mode)
    await desk.open()
    await desk.submits(*ACCEPTED)
    desk.market.change("EURUSD", refused_fillings=[IOC])
    await closed(desk, await position_of(desk, "EURUSD"))
    assert [row["entry"] for row in desk.market.ledger("deal")] == ["in", "out"]
    await desk.close(sends=3)


# -- instant execution


async def moved_on_its_way(desk: Desk, ask: str) -> None:
    """Move the price once an order is on its way."""
    await eventually(lambda: desk.sends() == 1, "an order that is on its way")
    desk.market.pin("EURUSD", "1.08500", ask)


@pytest.fixture
async def instant(start: Start) -> Desk:
    """A broker that executes at the price that was asked for, and takes its time; 12 points are allowed for one."""
    settings = {"TERMINAL__DEVIATION_POINTS": '{"EURUSD": 12}'}
    desk = await start("--latency-ms", ON_ITS_WAY, profile="metaquotes_demo", settings=settings)
    await desk.open()
    desk.market.pin("EURUSD", "1.08500", "1.08510")
    return desk


async def test_a_price_that_moves_within_the_symbols_own_deviation_is_executed(instant: Desk) -> None:
    order = await instant.submit()
    await moved_on_its_way(instant, "1.08522")
    bodies = await instant.says(order, *ACCEPTED)
    assert (bodies["started"].ask, bodies["deal"].price) == (Decimal("1.08510"), Decimal("1.08522"))
    await instant.close()


async def test_a_price_that_moves_further_is_requoted_and_asked_for_again(instant: Desk) -> None:
    order = await instant.submit()
    await moved_on_its_way(instant, "1.08523")
    bodies = await instant.says(order, "started", *AGAIN, "returned", "accepted", "deal")
    assert (bodies["rejected"].retcode, bodies["deal"].price) == (mt5.TRADE_RETCODE_REQUOTE, Decimal("1.08523"))
    await instant.close(sends=2)


async def test_the_deviation_of_a_symbol_without_one_is_its_spread(instant: Desk) -> None:
    instant.market.pin("BTCUSD", "65000.00", "65020.00")
    order = await instant.submit(symbol="BTCUSD")
    await instant.says(order, *ACCEPTED)
    (entry,) = await eventually(lambda: instant.logged(order))
    assert entry.request["deviation"] == 2000
    await instant.close()


# -- a refusal that passes, and the order's time


async def test_no_new_attempt_begins_after_the_orders_time(desk: Desk) -> None:
    desk.fault("too_many_requests")  # the pause after it is longer than the order is valid
    bodies = await desk.submits("started", "returned", "rejected", valid_s=0.8)
    assert (bodies["rejected"].retcode, bodies["rejected"].attempt) == (mt5.TRADE_RETCODE_TOO_MANY_REQUESTS, 1)
    assert "not tried again: not after" in bodies["rejected"].message
    await desk.close(sends=1)


# -- deals that never show


@pytest.mark.parametrize("hidden", [("hist_deals",), ("hist_deals", "hist_orders")], ids="+".join)
async def test_deals_that_do_not_show_while_the_position_does_are_an_alarm_that_names_the_order(
    start: Start, hidden: tuple[str, ...]
) -> None:
    desk = await start(settings={"TERMINAL__DEALS_WITHIN_S": "0.5"})
    await desk.open()
    desk.fault("visibility_lag", params=dict.fromkeys(hidden, NEVER_MS))
    order = await desk.submit()
    bodies = await desk.says(order, *ACCEPTED[:3], "unknown")
    ticket = bodies["accepted"].ticket
    assert bodies["unknown"].why == "no_deals"
    assert f"ticket {ticket}" in bodies["unknown"].message

    def told() -> list[str]:
        return [reason for reason in desk.terminal.status()["reasons"] if reason.startswith("deals: ")]

    (reason,) = await eventually(told, "the alarm")
    assert f"order {order.order_id}, ticket {ticket}" in reason
    assert (await position_of(desk, "EURUSD")).position_id == ticket
    desk.end_faults()
    await desk.says(order, *ACCEPTED[:3], "unknown", "deal")
    await eventually(lambda: not told(), "the end of the alarm")
    await desk.close()


# -- what is changed afterwards


async def test_another_magic_or_comment_of_a_deal_is_told_as_nothing_and_another_price_as_a_correction(
    desk: Desk,
) -> None:
    bodies = await desk.submits(*ACCEPTED)
    deal = {"deal": bodies["deal"].deal}

    async def seen_again(**params: object) -> None:
        desk.market.fault("foreign_activity", account=ACCOUNT, params={**deal, **params})
        changes = len(desk.connections())
        desk.fault("disconnect")  # all of history is read after each connection, else every 15 s
        await eventually(lambda: desk.has_become("disconnected", changes))
        desk.end_faults()
        await eventually(lambda: desk.has_become("ready", changes))

    await seen_again(action="relabel", magic=0, comment="[partner]")
    await seen_again(action="relabel", magic=OTHER_MAGIC)
    await seen_again(action="correct", price="1.05")
    bodies = await desk.says(desk.orders[0], *ACCEPTED, "deal_correction")
    corrected = bodies["deal_correction"].deal
    assert (corrected.price, corrected.magic) == (Decimal("1.05"), OTHER_MAGIC)
    await desk.close()


# -- units where lots are expected


@pytest.mark.parametrize("mode", ["hedging", "netting"])
async def test_a_hundred_ounces_of_gold_said_as_lots_are_refused_with_their_worth_and_one_lot_is_executed(
    start: Start, mode: str
) -> None:
    desk = await start(mode=mode)
    await desk.open()
    desk.market.operate("balance", "-800000")
    desk.market.pin("XAUUSD", "2349.80", "2350.00")
    bodies = await desk.submits("refused", symbol="XAUUSD", volume=Decimal(100))
    assert bodies["refused"].reason == "guard"
    assert bodies["refused"].message == (
        "max_order_leverage: expected 20000000.00 USD at most for XAUUSD, 100 times the equity, "
        "got 23500000.00 by 100 lots of 100"
    )
    await desk.submits(*ACCEPTED, symbol="XAUUSD", volume=Decimal(1))
    desk.market.operate("balance", "-200000")  # nothing is left, and what is open can still be closed
    refused = (await desk.submits("refused", symbol="XAUUSD", volume=Decimal("0.01")))["refused"]
    assert "max_order_leverage: expected an equity above 0 USD" in refused.message
    await closed(desk, await position_of(desk, "XAUUSD"))
    await desk.close(sends=2)
