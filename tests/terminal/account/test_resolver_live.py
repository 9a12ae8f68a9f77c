"""What becomes of a doubt on the real market and the real terminal process, where its faults alone don't say it."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from streamapp.domain import facts
from streamapp.messages.operation import SettleReply, SettleRequest
from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.journal.database import journal_path
from tests.kit.waiting import eventually
from tests.terminal.conftest import SETTLE_WINDOW_S, Market, TerminalProcess
from tests.terminal.desk import ACCEPTED, Desk

DOUBT = ("started", "returned", "unknown")
WITHIN_MS, BEYOND_MS = int(SETTLE_WINDOW_S * 400), int(SETTLE_WINDOW_S * 4000)


@pytest.fixture
async def desk(terminal: TerminalProcess, market: Market) -> Desk:
    terminal.start()
    desk = Desk(terminal, market, count())
    await desk.open()
    return desk


def suspicion_reasons(desk: Desk) -> list[Any]:
    return [reason for reason in desk.terminal.status()["reasons"] if "wait for a person" in reason]


async def settled(desk: Desk, order: SubmitRequest, ticket: int | None) -> SettleReply:
    """Say as a person what an order is."""
    account = desk.terminal.account
    request = SettleRequest(account=account, order_id=order.order_id, ticket=ticket, issued_by="a test")
    return SettleReply.decode(await desk.terminal.request("settle", request.encode()))


@pytest.mark.parametrize(
    "rewriting",
    [None, {"how": "append", "text": "/p"}, {"how": "truncate", "length": 10}],
    ids=["whole", "longer", "cut"],
)
async def test_an_order_that_lost_its_magic_is_adopted_by_its_tag(desk: Desk, rewriting: dict[str, Any] | None) -> None:
    desk.fault("drop_after", nth=1)
    desk.fault("magic_zeroed", nth=1)
    if rewriting:
        desk.fault("comment_rewrite", nth=1, params=rewriting)
    order = await desk.submit()
    bodies = await desk.says(order, *DOUBT, "accepted", "deal")
    assert bodies["deal"].magic == 0
    await desk.close()


async def test_an_order_that_lost_magic_and_tag_is_left_to_a_person_until_its_owner_is_known(desk: Desk) -> None:
    desk.fault("drop_after", nth=1)
    desk.fault("magic_zeroed", nth=1)
    desk.fault("comment_rewrite", nth=1, params={"how": "empty"})
    order = await desk.submit()
    bodies = await desk.says(order, *DOUBT, "unknown")
    (taken,) = desk.orders_of(order)
    assert bodies["unknown"].why == "suspicion"
    assert str(taken["ticket"]) in bodies["unknown"].message
    await eventually(lambda: suspicion_reasons(desk))
    assert desk.terminal.status()["metrics"]["suspicions"] == 1
    assert (await desk.terminal.submit(order)).state == "doubt"
    assert desk.sends() == 1
    nobodys = desk.of_nobody("deal")
    assert [report.body.ticket for report in nobodys if isinstance(report.body, facts.Filled)] == [taken["ticket"]]
    said = await settled(desk, order, taken["ticket"])
    assert said.row is not None
    assert (said.row.state, said.row.ticket) == ("result", taken["ticket"])
    await desk.says(order, *DOUBT, "unknown", "accepted", "deal")
    await eventually(lambda: not suspicion_reasons(desk))
    assert (await settled(desk, order, taken["ticket"])).error is not None
    await desk.close()


async def test_a_person_may_say_that_an_order_never_arrived_but_only_of_one_that_waits_for_a_person(desk: Desk) -> None:
    with_hands = {"volume": Decimal("0.3")}
    desk.fault("magic_zeroed", nth=1)
    desk.fault("comment_rewrite", nth=1, params={"how": "empty"})
    desk.fault("drop_after", nth=1)
    desk.fault("timeout_lost", nth=2)
    there, lost = await desk.submit(**with_hands), await desk.submit(**with_hands)
    for order in (there, lost):  # either may be the one that is there
        await desk.says(order, *DOUBT, "unknown")
    assert (await settled(desk, lost, None)).error is None
    await desk.says(lost, *DOUBT, "unknown", "absent")
    refused = await settled(desk, lost, None)
    assert "waits for a person" in str(refused.error)
    assert (await settled(desk, there, desk.orders_of(there)[0]["ticket"])).error is None
    await desk.says(there, *DOUBT, "unknown", "accepted", "deal")
    assert "no order's" in str((await settled(desk, lost, desk.orders_of(there)[0]["ticket"])).error)
    await desk.close()


async def test_a_kill_during_the_window_begins_it_anew_and_says_nothing_twice(desk: Desk) -> None:
    desk.fault("timeout_lost", nth=1)
    order = await desk.submit()
    await desk.says(order, *DOUBT)
    assert desk.terminal.process is not None
    desk.terminal.process.kill()
    desk.terminal.process.wait()
    desk.terminal.start()
    await desk.terminal.ready()
    bodies = await desk.says(order, *DOUBT, "absent")
    evidence = bodies["absent"].evidence
    assert evidence["window_from"] > max(
        report.at.isoformat() for report in desk.terminal.told(order.order_id) if report.kind == "unknown"
    )
    await desk.close()


async def test_an_order_executed_while_the_terminal_is_dead_is_adopted_by_the_next_life(desk: Desk) -> None:
    desk.fault("timeout_late", nth=1, params={"ms": WITHIN_MS})
    order = await desk.submit()
    await desk.says(order, *DOUBT)
    assert desk.terminal.process is not None
    desk.terminal.process.kill()
    desk.terminal.process.wait()
    await eventually(lambda: desk.deals_of(order))
    desk.terminal.start()
    await desk.terminal.ready()
    await desk.says(order, *DOUBT, "accepted", "deal")
    await desk.close()


async def test_a_pending_order_in_doubt_is_adopted_and_works_on(desk: Desk) -> None:
    desk.fault("drop_after", nth=1)
    order = await desk.submit(order_type="limit", price=Decimal("0.9"))
    bodies = await desk.says(order, *DOUBT, "accepted")
    assert bodies["accepted"].ticket == desk.orders_of(order)[0]["ticket"]
    assert (await desk.terminal.submit(order)).state == "result"
    await desk.close()


async def test_a_pending_order_that_lands_beyond_the_window_is_adopted_and_alarmed(desk: Desk) -> None:
    desk.fault("timeout_late", nth=1, params={"ms": BEYOND_MS})
    order = await desk.submit(order_type="limit", price=Decimal("0.9"))
    await desk.says(order, *DOUBT, "absent", "accepted")
    await eventually(lambda: desk.terminal.status()["metrics"]["late_appearances"] == 1)
    await desk.close()


async def test_an_order_partly_filled_in_doubt_is_adopted_and_its_rest_ended(desk: Desk) -> None:
    desk.fault("drop_after", nth=1)
    desk.fault("partial", nth=1)
    order = await desk.submit()
    await eventually(lambda: "cancelled" in desk.terminal.kinds(order.order_id))
    assert sorted(desk.terminal.kinds(order.order_id)[3:]) == ["accepted", "cancelled", "deal"]
    await desk.close()


async def test_an_order_whose_position_another_terminal_closed_is_adopted_with_its_own_deal_only(desk: Desk) -> None:
    desk.fault("drop_after", nth=1)
    desk.fault("foreign_activity", nth=1, params={"action": "close"})
    order = await desk.submit()
    await desk.says(order, *DOUBT, "accepted", "deal")
    await eventually(lambda: desk.of_nobody("deal"))
    await desk.close()


@pytest.mark.parametrize("executed", [True, False])
async def test_a_closing_order_in_doubt_is_resolved_as_an_order_of_its_own(desk: Desk, executed: bool) -> None:
    opened = await desk.submits(*ACCEPTED)
    desk.fault("drop_after" if executed else "drop_before", nth=1)
    closing = desk.terminal.order("close-1", desk.epoch, side="sell", volume=Decimal("0.04"))
    closing = closing.model_copy(update={"position_id": opened["deal"].position_id})
    desk.orders.append(closing)
    await desk.terminal.submit(closing)
    bodies = await desk.says(closing, *DOUBT, *(("accepted", "deal") if executed else ("absent",)))
    if executed:
        assert (bodies["deal"].entry, bodies["deal"].position_id) == ("out", opened["deal"].position_id)
    await desk.close()


async def test_an_order_of_a_journal_that_was_lost_is_found_at_the_broker(desk: Desk) -> None:
    first, second = await desk.submit(), desk.terminal.order("never-sent", desk.epoch)
    await desk.says(first, *ACCEPTED)
    process, lost = desk.terminal.process, desk.epoch
    assert process is not None
    process.kill()
    process.wait()
    journal = journal_path(desk.terminal.log.parent / "terminal", desk.terminal.account)
    for path in journal.parent.glob(f"{journal.name}*"):
        path.unlink()
    desk.terminal.reports.clear()
    desk.terminal.start()
    assert (await desk.terminal.ready()).epoch != lost
    for order in (first, second):
        assert (await desk.terminal.submit(order)).state == "doubt"
    await eventually(lambda: desk.terminal.kinds(first.order_id) == ["unknown", "accepted", "deal"])
    await eventually(lambda: desk.terminal.kinds(second.order_id) == ["unknown", "absent"])
    assert desk.sends() == 1
