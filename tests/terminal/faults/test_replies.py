"""Lost, late and false replies: each is a doubt, and the doubt ends as the market's own ledger says."""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from tests.kit.waiting import eventually
from tests.terminal.conftest import SETTLE_WINDOW_S
from tests.terminal.desk import ACCEPTED, Desk, proves

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOUBT = ("started", "returned", "unknown")
ADOPTED = (*DOUBT, "accepted", "deal")
SOON_MS = 300
"""Within the settle window."""
LATE_MS = int(SETTLE_WINDOW_S * 1000) + 6000  # the window is judged first, also on a busy machine
"""After it."""


class Executed(NamedTuple):
    kind: str
    kinds: tuple[str, ...]
    why: str
    last_error: int = 1
    ms: int | None = None


EXECUTED = [
    Executed("drop_after", ADOPTED, "ambiguous_answer", last_error=-10002),
    Executed("desync", ADOPTED, "ambiguous_answer", last_error=-10000),
    Executed("timeout_executed", ADOPTED, "ambiguous_answer"),
    Executed("conn_executed", ADOPTED, "ambiguous_answer"),
    Executed("done_without_deal", ADOPTED, "ambiguous_answer"),
    Executed("false_answer", ADOPTED, "ambiguous_answer"),
    Executed("timeout_late", ADOPTED, "ambiguous_answer", ms=SOON_MS),
    Executed("terminal_restart", ADOPTED, "ambiguous_answer", -10002, SOON_MS),
    Executed("terminal_update", ADOPTED, "ambiguous_answer", -10002, SOON_MS),
    Executed("hang", ("started", "unknown", "accepted", "deal"), "deadline"),
    Executed("crash_client", ("started", "unknown", "accepted", "deal"), "worker_lost"),
]


@proves(*(row.kind for row in EXECUTED))
@pytest.mark.parametrize("row", EXECUTED, ids=lambda row: row.kind)
async def test_an_order_that_was_executed_without_a_proof_is_adopted_by_a_fresh_worker(
    desk: Desk, row: Executed
) -> None:
    before = desk.terminal.worker()
    desk.fault(row.kind, nth=1, params={} if row.ms is None else {"ms": row.ms})
    order = await desk.submit()
    bodies = await desk.says(order, *row.kinds)
    assert bodies["unknown"].why == row.why
    if "returned" in bodies:
        assert bodies["returned"].raw["last_error"][0] == row.last_error
    (taken,) = desk.orders_of(order)
    (deal,) = desk.deals_of(order)
    assert bodies["accepted"].ticket == taken["ticket"]
    assert (bodies["deal"].deal, bodies["deal"].ticket) == (deal["ticket"], taken["ticket"])
    await desk.terminal.ready()
    after = await eventually(desk.terminal.worker)
    assert before is not None
    assert after.pid != before.pid
    assert not before.is_running()
    assert "hung" in desk.connections() if row.kind == "hang" else "hung" not in desk.connections()
    assert (await desk.terminal.submit(order)).state == "result"
    await desk.submits(*ACCEPTED)
    await desk.close()


LOST = ["drop_before", "timeout_lost", "conn_lost"]


@proves(*LOST)
@pytest.mark.parametrize("kind", LOST)
async def test_an_order_that_never_arrived_is_absent_after_the_window_and_never_sent_again(
    desk: Desk, kind: str
) -> None:
    desk.fault(kind, nth=1)
    order = await desk.submit()
    bodies = await desk.says(order, *DOUBT, "absent")
    evidence = bodies["absent"].evidence
    assert evidence["polls"] >= 2
    assert evidence["window_from"] < evidence["window_until"]
    assert desk.orders_of(order) == []
    again = await desk.terminal.submit(order)
    assert (again.state, again.row and again.row.reason) == ("absent", "absent")
    await desk.submits(*ACCEPTED)
    assert desk.orders_of(order) == []
    await desk.close()


@proves("call_failed")
@pytest.mark.parametrize("executed", [False, True], ids=["lost", "executed"])
@pytest.mark.parametrize("code", [-1, -3, -99])
async def test_an_error_that_proves_nothing_is_a_doubt_with_either_end(desk: Desk, code: int, executed: bool) -> None:
    desk.fault("call_failed", nth=1, params={"code": code, "executed": executed})
    order = await desk.submit()
    bodies = await desk.says(order, *(ADOPTED if executed else (*DOUBT, "absent")))
    assert bodies["returned"].raw["last_error"][0] == code
    assert len(desk.orders_of(order)) == executed
    await desk.close()


@proves("call_failed")
@pytest.mark.parametrize("code", [-2, -5, -6, -7])
async def test_an_error_that_proves_that_nothing_was_sent_is_a_refusal(desk: Desk, code: int) -> None:
    desk.fault("call_failed", nth=1, params={"code": code})
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "refused")
    assert bodies["refused"].reason == ("invalid" if code == -2 else "not_connected")
    assert desk.orders_of(order) == []
    await desk.close()


async def test_an_execution_after_the_window_outranks_the_absence_and_is_alarmed(desk: Desk) -> None:
    alarms = desk.terminal.status()["metrics"]["late_appearances"]
    desk.fault("timeout_late", nth=1, params={"ms": LATE_MS})
    order = await desk.submit()
    bodies = await desk.says(order, *DOUBT, "absent", "accepted", "deal")
    assert len(desk.orders_of(order)) == 1
    assert bodies["deal"].deal == desk.deals_of(order)[0]["ticket"]
    await eventually(lambda: desk.terminal.status()["metrics"]["late_appearances"] == alarms + 1)
    assert (await desk.terminal.submit(order)).state == "result"
    await desk.close()


@proves("false_answer")
async def test_a_refusal_of_what_was_executed_all_the_same_is_outranked_by_the_deal(desk: Desk) -> None:
    desk.fault("false_answer", nth=1, params={"retcode": 10021})
    order = await desk.submit()
    bodies = await desk.says(order, "started", "returned", "rejected", "accepted", "deal")
    assert bodies["deal"].deal == desk.deals_of(order)[0]["ticket"]
    await desk.close()


async def test_a_worker_that_hangs_for_a_while_only_is_waited_for(desk: Desk) -> None:
    before = desk.terminal.worker()
    desk.fault("hang", nth=1, params={"ms": SOON_MS})
    await desk.submits(*ACCEPTED)
    assert before is not None
    assert before.is_running()
    await desk.close()


READS = ["history_deals_total", "terminal_info", "symbol_info_tick"]
OF_READS = ["drop_before", "drop_after", "desync", "crash_client"]


@pytest.mark.parametrize(
    ("kind", "function"), [*((kind, name) for kind in OF_READS for name in READS), ("hang", "terminal_info")]
)
async def test_a_read_that_fails_costs_a_connection_and_no_order(desk: Desk, kind: str, function: str) -> None:
    desk.fault(kind, on=function, nth=1)
    await eventually(lambda: all(row["hits"] for row in desk.market.faults() if row["kind"] == kind))
    orders = [await desk.submit(), await desk.submit()]
    for order in orders:
        await desk.says(order, *ACCEPTED)
    assert {"connecting", "hung"} & set(desk.connections())
    await desk.close()


BEFORE_AN_ORDER = {"symbol_info": "USDCHF", "symbol_info_tick": "AUDUSD", "terminal_info": "EURUSD"}
"""What fails before an order, and a symbol of which nothing is known yet where that matters."""


@proves("call_failed")
@pytest.mark.parametrize("function", [*BEFORE_AN_ORDER, "account_info"])
async def test_an_order_waits_for_a_read_that_fails_for_a_while(desk: Desk, function: str) -> None:
    desk.fault("call_failed", on=function, for_ms=SOON_MS)
    await desk.submits(*ACCEPTED, symbol=BEFORE_AN_ORDER.get(function, "EURUSD"))
    assert "disconnected" not in desk.connections()
    await desk.close()


@proves("call_failed")
@pytest.mark.parametrize("code", [-1, -3, -7])
async def test_a_symbol_that_can_not_be_read_is_not_called_unknown(desk: Desk, code: int) -> None:
    desk.fault("call_failed", on="symbol_info", params={"code": code})
    bodies = await desk.submits("refused", symbol="NZDUSD")
    assert bodies["refused"].reason == "not_connected"
    assert re.search(rf"a read failed: symbol_info: Terminal: .+ \({code}\)", bodies["refused"].message)
    await desk.close(sends=0)


@proves("call_failed")
async def test_a_symbol_is_unknown_only_where_the_terminal_says_so(desk: Desk) -> None:
    desk.fault("call_failed", on="symbol_info", params={"code": -4})
    bodies = await desk.submits("refused", symbol="NZDUSD")
    assert bodies["refused"].message == "expected a symbol of this broker, got NZDUSD"
    await desk.close(sends=0)


@proves("call_failed")
@pytest.mark.parametrize("function", ["account_info", "terminal_info"])
async def test_an_account_that_can_not_be_read_is_not_called_disconnected(desk: Desk, function: str) -> None:
    desk.fault("call_failed", on=function)
    await desk.becomes("connecting")
    bodies = await desk.submits("refused", valid_s=1.0)
    assert bodies["refused"].reason == "stale"
    assert f"a read failed: {function}: Terminal: Call failed (-1)" in bodies["refused"].message
    assert set(desk.connections()) == {"connecting"}
    await desk.close(sends=0)


async def opened(desk: Desk) -> int:
    """Return the position of an order that is filled."""
    return int((await desk.submits(*ACCEPTED))["deal"].position_id)


@proves("call_failed")
@pytest.mark.parametrize("function", ["positions_get", "history_deals_get"])
async def test_an_exit_whose_position_can_not_be_read_for_a_while_is_executed(desk: Desk, function: str) -> None:
    position_id = await opened(desk)
    desk.fault("call_failed", on=function, for_ms=SOON_MS)
    await desk.says(await desk.submit_exit(position_id), *ACCEPTED)
    await desk.close()


@proves("call_failed")
async def test_an_exit_whose_position_can_not_be_read_is_refused_so_and_not_as_closed(desk: Desk) -> None:
    position_id = await opened(desk)
    desk.fault("call_failed", on="positions_get")
    bodies = await desk.says(await desk.submit_exit(position_id), "refused")
    assert bodies["refused"].reason == "not_connected"
    assert bodies["refused"].message.endswith("a read failed: positions_get: Terminal: Call failed (-1)")
    desk.end_faults()
    await desk.says(await desk.submit_exit(position_id), *ACCEPTED)
    refused = await desk.says(await desk.submit_exit(position_id), "refused")
    assert refused["refused"].message == f"expected position {position_id} open, its deals have closed it"
    await desk.close(sends=2)


async def test_orders_that_wait_behind_a_doubt_are_sent_once_and_in_their_order(desk: Desk) -> None:
    desk.fault("drop_after", nth=2)
    orders = [await desk.submit() for _ in range(4)]
    await desk.says(orders[1], *ADOPTED)
    for order in (orders[0], *orders[2:]):
        await desk.says(order, *ACCEPTED)
    tickets = [desk.orders_of(order)[0]["ticket"] for order in orders]
    assert tickets == sorted(tickets)
    await desk.close()


async def test_two_doubts_at_once_are_told_apart(desk: Desk) -> None:
    desk.fault("timeout_lost", nth=1)
    desk.fault("timeout_executed", nth=2)
    lost, executed = await desk.submit(), await desk.submit()
    await desk.says(executed, *ADOPTED)
    await desk.says(lost, *DOUBT, "absent")
    assert (len(desk.orders_of(lost)), len(desk.orders_of(executed))) == (0, 1)
    await desk.close()
