"""Whatever is killed, the market's own ledger shows one order at most, and every order gets its truth."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from streamapp.domain import facts
from streamapp.domain.identifiers import magic_of
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.conftest import Market, TerminalProcess

ACCEPTED = ["started", "returned", "accepted", "deal"]


def whys(terminal: TerminalProcess) -> list[str]:
    return [report.body.why for report in terminal.reports if isinstance(report.body, facts.OutcomeUnknown)]


async def crashed(terminal: TerminalProcess, point: str, *names: str) -> tuple[list[str], str]:
    """Submit orders at once to a terminal that dies at ``point``; return (order ids, epoch) once it is dead."""
    process = terminal.start(crash_at=point)
    epoch = (await terminal.ready()).epoch
    orders = [terminal.order(name, epoch) for name in names]
    for order in orders:
        await terminal.client.publish(f"mt5.{terminal.account}.submit", order.encode())
    await eventually(lambda: process.poll() is not None, "the crash")
    assert process.returncode == -signal.SIGKILL
    return [order.order_id for order in orders], epoch


async def test_a_kill_after_intent_is_made_good_by_the_next_life(terminal: TerminalProcess, market: Market) -> None:
    # An order that nothing is before has no such moment: the second one's arrival makes one for both.
    order_ids, epoch = await crashed(terminal, "terminal.after_intent", "s-1", "s-2")
    assert market.ledger() == []
    terminal.start()
    assert (await terminal.ready()).epoch == epoch
    await eventually(lambda: [terminal.kinds(order_id) for order_id in order_ids] == [ACCEPTED, ACCEPTED])
    assert [row["magic"] for row in market.ledger()] == [magic_of(order_id) for order_id in order_ids]


async def test_a_kill_after_started_is_a_doubt_and_nothing_is_sent(terminal: TerminalProcess, market: Market) -> None:
    (order_id,), epoch = await crashed(terminal, "terminal.after_started", "s-1")
    terminal.start()
    await terminal.ready()
    await eventually(lambda: terminal.kinds(order_id) == ["started", "unknown", "absent"])
    assert whys(terminal) == ["restarted"]
    reply = await terminal.submit(terminal.order("s-1", epoch))
    assert reply.state == "absent"
    assert market.ledger() == []


async def test_a_worker_that_dies_in_order_send_is_a_doubt_that_the_watch_adopts(
    terminal: TerminalProcess, market: Market
) -> None:
    terminal.start(crash_at="terminal.in_order_send")
    epoch = (await terminal.ready()).epoch
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: terminal.kinds(order.order_id) == ["started", "unknown", "accepted", "deal"])
    assert whys(terminal) == ["worker_lost"]
    assert len(market.ledger()) == 1
    after = terminal.order("s-2", epoch)
    await terminal.submit(after)
    await eventually(lambda: terminal.kinds(after.order_id) == ACCEPTED)
    assert len(market.ledger()) == 2


async def test_a_kill_after_the_result_loses_no_deal(terminal: TerminalProcess, market: Market) -> None:
    (order_id,), _ = await crashed(terminal, "terminal.after_result", "s-1")
    terminal.start()
    await terminal.ready()
    await eventually(lambda: terminal.kinds(order_id) == ACCEPTED)
    assert len(market.ledger()) == 1


async def test_a_kill_in_a_burst_leaves_no_order_twice_and_none_without_an_answer(
    terminal: TerminalProcess, market: Market
) -> None:
    process = terminal.start()
    epoch = (await terminal.ready()).epoch
    orders = [terminal.order(str(number), epoch) for number in range(60)]
    for order in orders:
        await terminal.client.publish(f"mt5.{terminal.account}.submit", order.encode())
    await eventually(lambda: len(terminal.reports) > 40)
    process.kill()
    process.wait()
    terminal.start()
    await terminal.ready()
    for order in orders:  # what the agent does with every claim that has no answer
        await terminal.submit(order)

    def settled() -> bool:
        ends = {"deal", "unknown", "refused", "rejected"}
        return all(ends & set(terminal.kinds(order.order_id)) for order in orders)

    await eventually(settled)
    ledger = [row["magic"] for row in market.ledger()]
    assert len(ledger) == len(set(ledger))
    assert len(whys(terminal)) <= 1
    deals = {report.body.deal for report in terminal.reports if isinstance(report.body, facts.Filled)}
    await eventually(lambda: len(market.ledger("deal")) == len(ledger))
    assert deals == {row["ticket"] for row in market.ledger("deal")}


async def test_a_worker_that_hangs_is_ended_and_leaves_a_doubt(terminal: TerminalProcess, market: Market) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    market.fault("hang", nth=1, params={"ms": int(PATIENCE_S * 1000)})
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: "unknown" in terminal.kinds(order.order_id))
    assert whys(terminal) == ["deadline"]
    assert "hung" in {report.body.connection for report in terminal.reports if report.kind == "connection"}  # type: ignore[union-attr]
    after = terminal.order("s-2", epoch)
    await terminal.ready()
    await terminal.submit(after)
    await eventually(lambda: terminal.kinds(after.order_id) == ACCEPTED)
    magics = [row["magic"] for row in market.ledger()]
    assert len(magics) == len(set(magics))


@pytest.mark.parametrize("kind", ["drop_after", "timeout_executed", "conn_executed", "done_without_deal"])
async def test_an_order_that_was_executed_with_its_answer_lost_is_adopted(
    terminal: TerminalProcess, market: Market, kind: str
) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    market.fault(kind, nth=1)
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: terminal.kinds(order.order_id)[-2:] == ["accepted", "deal"])
    assert terminal.kinds(order.order_id) == ["started", "returned", "unknown", "accepted", "deal"]
    assert len(market.ledger()) == 1


@pytest.mark.parametrize("kind", ["drop_before", "timeout_lost", "conn_lost"])
async def test_an_order_that_was_lost_on_the_way_is_absent_in_the_end(
    terminal: TerminalProcess, market: Market, kind: str
) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    market.fault(kind, nth=1)
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: terminal.kinds(order.order_id) == ["started", "returned", "unknown", "absent"])
    assert (await terminal.submit(order)).state == "absent"
    assert market.ledger() == []


@pytest.mark.parametrize("kind", ["market_closed", "reject", "off_quotes"])
async def test_a_refusal_of_the_market_is_a_rejection(terminal: TerminalProcess, market: Market, kind: str) -> None:
    terminal.start()
    epoch = (await terminal.ready()).epoch
    market.fault(kind, nth=1)
    order = terminal.order("s-1", epoch)
    await terminal.submit(order)
    await eventually(lambda: terminal.kinds(order.order_id) == ["started", "returned", "rejected"])


async def test_a_terminal_that_is_frozen_beyond_not_after_sends_nothing(
    terminal: TerminalProcess, market: Market
) -> None:
    if sys.platform == "win32":
        pytest.skip("there is no SIGSTOP on Windows")
    process = terminal.start()
    epoch = (await terminal.ready()).epoch
    order = terminal.order("s-1", epoch, valid_s=0.5)
    os.kill(process.pid, signal.SIGSTOP)
    await terminal.client.publish(f"mt5.{terminal.account}.submit", order.encode())
    await terminal.client.flush()
    from datetime import UTC, datetime

    await eventually(lambda: datetime.now(UTC) > order.not_after)
    os.kill(process.pid, signal.SIGCONT)
    await eventually(lambda: terminal.kinds(order.order_id) == ["refused"])
    assert market.ledger() == []
