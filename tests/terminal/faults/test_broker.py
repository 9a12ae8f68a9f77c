"""Quirks of brokers and deeds of others: reported as they are, and never mistaken for another order of ours."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp import subjects
from streamapp.domain import facts
from streamapp.messages.account import SnapshotMessage
from tests.kit.waiting import eventually
from tests.terminal.desk import ACCEPTED, Desk, proves
from tests.terminal.scripted import ACCOUNT

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOUBT = ("started", "returned", "unknown")
ADOPTED = (*DOUBT, "accepted", "deal")
SOON_MS = 300
WHOLE, HALF = Decimal("0.1"), Decimal("0.05")
REWRITINGS: list[dict[str, Any]] = [
    {"how": "truncate", "length": 8},
    {"how": "append", "text": "[partner]"},
    {"how": "replace", "text": "to #1"},
    {"how": "empty"},
]


def volumes(desk: Desk) -> list[Decimal]:
    """Return the volumes of the deals of the test's only order."""
    bodies = [report.body for report in desk.terminal.told(desk.orders[0].order_id)]
    return [body.volume for body in bodies if isinstance(body, facts.Filled)]


# -- placed, and in parts


@proves("placed_then_fill")
async def test_placed_is_an_acceptance_and_the_fill_comes_later(desk: Desk) -> None:
    desk.fault("placed_then_fill", nth=1, params={"ms": SOON_MS})
    bodies = await desk.submits(*ACCEPTED)
    assert (bodies["returned"].retcode, volumes(desk)) == (10008, [WHOLE])
    await desk.close()


@proves("placed_then_reject")
async def test_placed_and_then_rejected_ends_the_ticket_without_a_deal(desk: Desk) -> None:
    desk.fault("placed_then_reject", nth=1, params={"ms": SOON_MS})
    bodies = await desk.submits("started", "returned", "accepted", "rejected")
    assert bodies["rejected"].ticket == bodies["accepted"].ticket
    assert volumes(desk) == []
    await desk.close()


@proves("partial")
async def test_a_partial_fill_is_reported_with_the_end_of_its_rest(desk: Desk) -> None:
    desk.fault("partial", nth=1)
    bodies = await desk.submits(*ACCEPTED, "cancelled")
    assert (bodies["returned"].retcode, volumes(desk)) == (10010, [HALF])
    assert (bodies["cancelled"].ticket, bodies["cancelled"].reason) == (bodies["accepted"].ticket, "ioc_remainder")
    await desk.close()


@proves("partial_then_rest")
async def test_a_rest_that_comes_later_is_a_second_deal_of_the_same_ticket(desk: Desk) -> None:
    desk.fault("partial_then_rest", nth=1, params={"ms": SOON_MS})
    bodies = await desk.submits(*ACCEPTED, "deal")
    assert volumes(desk) == [HALF, HALF]
    assert bodies["deal"].ticket == bodies["accepted"].ticket
    await desk.close()


@proves("partial", "partial_then_rest")
@pytest.mark.parametrize(("kind", "end"), [("partial", "cancelled"), ("partial_then_rest", "deal")])
async def test_a_partial_fill_whose_reply_was_lost_is_adopted_to_its_end(desk: Desk, kind: str, end: str) -> None:
    desk.fault(kind, nth=1, params={"ms": SOON_MS})
    desk.fault("drop_after", nth=1)
    await desk.submits(*ADOPTED, end)
    assert sum(volumes(desk)) == (HALF if end == "cancelled" else WHOLE)
    await desk.close()


# -- names that the broker changes


@proves("comment_rewrite")
@pytest.mark.parametrize("params", REWRITINGS, ids=lambda params: params["how"])
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_a_rewritten_comment_leaves_the_magic_to_tell_whose_it_is(
    desk: Desk, params: dict[str, Any], lost: bool
) -> None:
    desk.fault("comment_rewrite", nth=1, params=params)
    if lost:
        desk.fault("drop_after", nth=1)
    await desk.submits(*(ADOPTED if lost else ACCEPTED))
    await desk.close()


@proves("magic_zeroed")
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_without_its_magic_an_order_is_known_by_its_ticket_or_its_tag(desk: Desk, lost: bool) -> None:
    desk.fault("magic_zeroed", nth=1)
    if lost:
        desk.fault("drop_after", nth=1)
    bodies = await desk.submits(*(ADOPTED if lost else ACCEPTED))
    assert bodies["deal"].magic == 0
    await desk.close()


@proves("magic_zeroed", "comment_rewrite")
async def test_without_magic_and_tag_an_answered_order_is_known_by_its_ticket(desk: Desk) -> None:
    desk.fault("magic_zeroed", nth=1)
    desk.fault("comment_rewrite", nth=1, params={"how": "empty"})
    await desk.submits(*ACCEPTED)
    await desk.close()


# -- what is done otherwise than asked


@proves("volume_adjusted")
async def test_more_volume_than_asked_for_is_reported_as_it_was_executed(desk: Desk) -> None:
    desk.fault("volume_adjusted", nth=1)
    bodies = await desk.submits(*ACCEPTED)
    assert volumes(desk) == [Decimal("0.11")]
    assert bodies["deal"].ticket == bodies["accepted"].ticket
    await desk.close()


@proves("sl_tp_ignored_on_open")
async def test_a_stop_loss_that_the_broker_left_out_is_told_and_missing_in_the_snapshot(desk: Desk) -> None:
    desk.fault("sl_tp_ignored_on_open", nth=1)
    bodies = await desk.submits(*ACCEPTED, "unprotected", stop_loss=Decimal("1.05"), take_profit=Decimal("1.2"))
    told = bodies["unprotected"]
    assert (told.ticket, told.stop_loss, told.take_profit) == (
        bodies["accepted"].ticket,
        Decimal("1.05"),
        Decimal("1.2"),
    )
    position = await shown(desk, bodies["deal"].position_id)
    assert (position.stop_loss, position.take_profit) == (None, None)
    await desk.close()


async def shown(desk: Desk, position_id: int) -> Any:
    """Return a position as the snapshots show it."""
    jetstream = desk.terminal.client.jetstream()

    async def position() -> Any:
        stored = await jetstream.get_last_msg("ACCOUNT_SNAPSHOTS", subjects.snapshot(desk.terminal.account))
        found = SnapshotMessage.decode(stored.data or b"").positions
        return next((row for row in found if row.position_id == position_id), None)

    return await eventually(position)


@proves("ticket_reopen")
async def test_a_position_with_another_ticket_is_the_same_by_its_identifier(desk: Desk) -> None:
    desk.fault("ticket_reopen", nth=1)
    bodies = await desk.submits(*ACCEPTED)
    position = await shown(desk, bodies["deal"].position_id)
    assert position.ticket != position.position_id
    assert desk.of_nobody("deal") == []
    await desk.close()


@proves("ticket_reopen")
async def test_an_order_whose_position_was_reopened_before_its_doubt_ended_is_adopted(desk: Desk) -> None:
    desk.fault("ticket_reopen", nth=1)
    desk.fault("drop_after", nth=1)
    await desk.submits(*ADOPTED)
    await desk.close()


# -- others at the same account


@proves("foreign_activity")
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
async def test_a_closing_by_hand_is_nobodys_deal_and_the_order_stays_filled(desk: Desk, lost: bool) -> None:
    desk.fault("foreign_activity", nth=1, params={"action": "close"})
    if lost:
        desk.fault("drop_after", nth=1)
    bodies = await desk.submits(*(ADOPTED if lost else ACCEPTED))
    (closing,) = await eventually(lambda: [report.body for report in desk.of_nobody("deal")])
    assert (closing.position_id, closing.entry, closing.reason) == (bodies["deal"].position_id, "out", "mobile")
    assert volumes(desk) == [WHOLE]
    await desk.close()


@pytest.mark.parametrize("function", ["history_deals_total", "history_deals_get"])
async def test_a_deal_that_was_read_in_the_moment_the_connection_went_is_told_afterwards(
    desk: Desk, function: str
) -> None:
    bodies = await desk.submits(*ACCEPTED)
    desk.fault("disconnect", on=function, nth=2 if function == "history_deals_total" else 1)
    position = {"action": "close", "position": bodies["deal"].position_id}
    desk.market.fault("foreign_activity", account=ACCOUNT, params=position)
    await desk.becomes("disconnected")
    desk.end_faults()
    await eventually(lambda: desk.of_nobody("deal"))
    await desk.close()


@proves("foreign_activity")
async def test_stops_that_a_person_moves_are_in_the_snapshot_and_no_report_of_the_order(desk: Desk) -> None:
    desk.fault("foreign_activity", nth=1, params={"action": "modify", "sl": 1.0, "tp": 1.3})
    bodies = await desk.submits(*ACCEPTED)
    position = await shown(desk, bodies["deal"].position_id)
    assert (position.stop_loss, position.take_profit) == (Decimal("1.0"), Decimal("1.3"))
    await desk.close()


async def resting(desk: Desk) -> tuple[Any, int]:
    """Submit a limit order below the market; return it and its ticket."""
    desk.market.pin("EURUSD", "1.08500", "1.08510")
    order = await desk.submit(order_type="limit", price=Decimal("0.9"))
    bodies = await desk.says(order, "started", "returned", "accepted")
    return order, bodies["accepted"].ticket


@proves("foreign_activity")
@pytest.mark.parametrize(("action", "kind"), [("cancel", "cancelled"), ("expire", "expired"), ("reject", "rejected")])
async def test_what_others_do_to_a_working_order_ends_it(desk: Desk, action: str, kind: str) -> None:
    order, ticket = await resting(desk)
    desk.market.fault("foreign_activity", account=ACCOUNT, params={"action": action, "order": ticket})
    bodies = await desk.says(order, "started", "returned", "accepted", kind)
    assert bodies[kind].ticket == ticket
    await desk.close()


@proves("foreign_activity")
@pytest.mark.parametrize(
    ("action", "kinds"), [("bust", ("deal_busted", "cancelled")), ("correct", ("deal_correction",))]
)
async def test_a_deal_that_the_broker_takes_back_or_mends_is_reported_so(
    desk: Desk, action: str, kinds: tuple[str, ...]
) -> None:
    bodies = await desk.submits(*ACCEPTED)
    deal = bodies["deal"].deal
    desk.market.fault("foreign_activity", account=ACCOUNT, params={"action": action, "deal": deal, "price": "1.05"})
    desk.fault("disconnect")  # all of history is read after each connection, else every 15 s
    await desk.becomes("disconnected")
    desk.end_faults()
    await desk.says(desk.orders[0], *ACCEPTED, *kinds)
    await desk.close()


@proves("activation_rejected")
async def test_a_pending_order_that_is_refused_when_its_price_comes_ends_rejected(desk: Desk) -> None:
    order, ticket = await resting(desk)
    desk.fault("activation_rejected")
    desk.market.pin("EURUSD", "0.89990", "0.90000")
    bodies = await desk.says(order, "started", "returned", "accepted", "rejected")
    assert bodies["rejected"].ticket == ticket
    await desk.close()


@proves("activation_partial")
@pytest.mark.parametrize(("rest", "end"), [("go_on", "deal"), ("cancel", "cancelled")])
async def test_a_pending_order_that_is_filled_in_part_is_followed_to_its_end(desk: Desk, rest: str, end: str) -> None:
    desk.fault("activation_partial", params={"rest": rest, "after_ms": SOON_MS})
    order, ticket = await resting(desk)
    desk.market.pin("EURUSD", "0.89990", "0.90000")
    bodies = await desk.says(order, *ACCEPTED, end)
    assert bodies[end].ticket == ticket
    assert volumes(desk) == ([HALF, HALF] if end == "deal" else [HALF])
    await desk.close()
