"""Connections that go, lie and come back: nothing is sent into them, and nothing that they hide is lost."""

from __future__ import annotations

from functools import partial

import pytest

from tests.kit.waiting import eventually
from tests.terminal.conftest import OTHER_LOGIN, SETTLE_WINDOW_S
from tests.terminal.desk import ACCEPTED, Desk, proves
from tests.terminal.scripted import ACCOUNT

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON_MS = 300
LAG_MS = 600
LONGER_MS = int(SETTLE_WINDOW_S * 1000) + 800
"""Longer than the settle window: nobody may call an order absent meanwhile."""
NEVER_MS = 3_600_000
"""Until the test ends it."""


@proves("disconnect")
async def test_without_a_connection_orders_are_refused_and_afterwards_the_next_one_goes(desk: Desk) -> None:
    desk.fault("disconnect")
    await desk.becomes("disconnected")
    refused = await desk.submits("refused")
    assert refused["refused"].reason == "not_connected"
    desk.end_faults()
    await desk.terminal.ready()
    assert desk.connections()[:1] == ["disconnected"]
    await eventually(lambda: desk.connections()[-1] == "ready", "the report of it")
    await desk.submits(*ACCEPTED)
    await desk.close(sends=1)


@proves("disconnect")
async def test_a_connection_that_goes_in_the_moment_of_sending_leaves_a_doubt_for_the_next_one(desk: Desk) -> None:
    desk.fault("disconnect", nth=1, params={"ms": SOON_MS})
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "unknown", "absent")
    assert bodies["returned"].retcode == 10031
    assert desk.orders_of(order) == []
    await desk.close()


async def test_no_order_is_called_absent_while_the_connection_keeps_breaking(desk: Desk) -> None:
    desk.fault("timeout_late", nth=1, params={"ms": LONGER_MS})
    order = await desk.submit()
    await desk.says(order, "started", "returned", "unknown")
    while not desk.orders_of(order):  # each break begins the window anew, and so the execution comes in time
        changes = len(desk.connections())
        desk.fault("disconnect")
        await eventually(partial(desk.has_become, "disconnected", changes))
        desk.end_faults()
        await desk.terminal.ready()
    await desk.says(order, "started", "returned", "unknown", "accepted", "deal")
    await desk.close()


@proves("account_switched")
async def test_a_terminal_on_another_account_trades_nothing_until_it_is_back(desk: Desk) -> None:
    desk.fault("account_switched", params={"login": OTHER_LOGIN})
    await desk.becomes("wrong_account")
    assert str(OTHER_LOGIN) in desk.detail("wrong_account")
    refused = await desk.submits("refused")
    assert refused["refused"].reason == "not_connected"
    assert desk.market.ledger("order", OTHER_LOGIN) == []
    desk.end_faults()
    await desk.terminal.ready()
    await desk.submits(*ACCEPTED)
    await desk.close(sends=1)


@proves("terminal_restart", "terminal_update")
@pytest.mark.parametrize("kind", ["terminal_restart", "terminal_update"])
async def test_an_order_that_is_being_judged_when_the_terminal_restarts_waits_for_it(desk: Desk, kind: str) -> None:
    # Only an order has a symbol read, and this one for the first time.
    symbol = {"terminal_restart": "GBPUSD", "terminal_update": "USDJPY"}[kind]
    desk.fault(kind, on="symbol_info", nth=1, params={"ms": LAG_MS})
    await desk.submits(*ACCEPTED, symbol=symbol)
    assert desk.connections()[:1] == ["connecting"]
    await desk.close()


@proves("terminal_restart", "terminal_update")
@pytest.mark.parametrize("kind", ["terminal_restart", "terminal_update"])
async def test_an_order_whose_time_ends_before_the_terminal_is_back_is_refused(desk: Desk, kind: str) -> None:
    desk.fault(kind, params={"ms": NEVER_MS})
    await desk.becomes("connecting")
    await desk.submits("refused", valid_s=1.0)
    desk.end_faults()
    await desk.terminal.ready()
    await desk.submits(*ACCEPTED)
    await desk.close(sends=1)


@proves("visibility_lag")
@pytest.mark.parametrize(
    "tables",
    [["orders"], ["positions"], ["hist_orders"], ["hist_deals"], ["orders", "positions", "hist_orders", "hist_deals"]],
    ids="+".join,
)
async def test_a_table_that_lags_delays_a_deal_and_loses_none(desk: Desk, tables: list[str]) -> None:
    desk.fault("visibility_lag", params=dict.fromkeys(tables, LAG_MS))
    await desk.submits(*ACCEPTED)
    await desk.close()


@proves("visibility_lag")
@pytest.mark.parametrize("kind", ["drop_after", "timeout_executed", "done_without_deal"])
async def test_an_order_that_is_in_no_table_yet_is_not_absent(desk: Desk, kind: str) -> None:
    desk.fault("visibility_lag", params=dict.fromkeys(("orders", "positions", "hist_orders", "hist_deals"), LAG_MS))
    desk.fault(kind, nth=1)
    order = await desk.submit()
    await desk.says(order, "started", "returned", "unknown", "accepted", "deal")
    await desk.close()


@proves("history_partial")
async def test_a_history_that_comes_in_pieces_loses_no_deal_and_makes_no_order_absent(desk: Desk) -> None:
    desk.fault("history_partial", params={"share": 0.0, "after_login_ms": LONGER_MS})
    desk.fault("drop_after", nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "unknown", "accepted", "deal")
    assert bodies["deal"].deal == desk.deals_of(order)[0]["ticket"]
    await desk.close()


@proves("history_partial")
async def test_a_history_without_the_newest_deal_delays_its_report_only(desk: Desk) -> None:
    desk.fault("history_partial", params={"share": 0.0})
    order = await desk.submit()
    await desk.says(order, *ACCEPTED[:3])
    await eventually(lambda: desk.deals_of(order), "a deal that history does not show")
    desk.end_faults()
    await desk.says(order, *ACCEPTED)
    await desk.close()


@proves("stale_after_reconnect")
async def test_what_happened_without_a_terminal_is_reported_once_the_cache_is_whole(desk: Desk) -> None:
    await desk.submits(*ACCEPTED)
    (order,) = desk.orders
    (deal,) = desk.deals_of(order)
    desk.fault("stale_after_reconnect", params={"ms": LAG_MS})
    assert await desk.terminal.stop() == 0
    desk.market.fault("foreign_activity", account=ACCOUNT, params={"action": "close", "position": deal["position_id"]})
    desk.terminal.start()
    await desk.terminal.ready()
    await eventually(lambda: [r for r in desk.of_nobody("deal") if r.body.position_id == deal["position_id"]])  # type: ignore[union-attr]
    assert desk.terminal.kinds(order.order_id) == ACCEPTED
    await desk.close()
    closings = [report.body for report in desk.of_nobody("deal")]
    assert [(body.entry, body.reason) for body in closings] == [("out", "mobile")]  # type: ignore[union-attr]


@proves("stale_after_reconnect")
async def test_an_order_that_was_executed_while_nobody_was_connected_is_adopted_from_a_stale_cache(desk: Desk) -> None:
    desk.fault("stale_after_reconnect", params={"ms": LAG_MS})
    desk.fault("timeout_late", nth=1, params={"ms": SOON_MS})
    # The terminal goes with the call itself and is away for longer than the execution takes, all by the market's clock.
    desk.fault("terminal_restart", nth=1, params={"ms": LAG_MS})
    await desk.submits("started", "returned", "unknown", "accepted", "deal")
    await desk.close()
