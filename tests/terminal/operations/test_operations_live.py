"""Cancel, modify, protect and close on the real market and the real terminal process; nothing ever happens twice."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from streamapp.domain import facts
from streamapp.domain.identifiers import order_id_for
from tests.kit.waiting import eventually
from tests.terminal.asking import Desk
from tests.terminal.conftest import Market, TerminalProcess

LOST = ("drop_after", "timeout_executed", "timeout_lost", "conn_executed", "drop_before")
"""Replies that prove nothing: executed and not told, or told to be unknown and lost."""
FAR_BELOW: dict[str, Any] = {"order_type": "limit", "price": Decimal("0.90000")}


@pytest.fixture
async def desk(terminal: TerminalProcess) -> Desk:
    desk = Desk(terminal)
    await desk.open()
    return desk


@pytest.fixture
async def netting_desk(netting_terminal: TerminalProcess) -> Desk:
    desk = Desk(netting_terminal)
    await desk.open()
    return desk


def lose(market: Market, fault: str | None) -> None:
    if fault is not None:
        market.fault(fault, nth=1)


def outs_of(market: Market) -> list[tuple[str, str]]:
    """Return entry and volume of every deal that did not open, by the market's own ledger."""
    return [(deal["entry"], deal["volume"]) for deal in market.ledger("deal") if deal["entry"] != "in"]


def bodies(desk: Desk, kind: type) -> list[Any]:
    return [report.body for report in desk.terminal.reports if isinstance(report.body, kind)]


@pytest.mark.parametrize("fault", [None, *LOST])
async def test_a_pending_order_is_cancelled_once_and_its_end_is_said_to_be_ours(
    desk: Desk, market: Market, fault: str | None
) -> None:
    order = await desk.submit("s-1", **FAR_BELOW)
    lose(market, fault)
    reply = await desk.ask("cancel", order_id=order.order_id)
    assert reply.outcome == "done", reply
    kinds = ["started", "returned", "accepted", "cancel_requested", "cancelled"]
    await eventually(lambda: desk.terminal.kinds(order.order_id) == kinds, "the end")
    assert [body.reason for body in bodies(desk, facts.BrokerCancelled)] == ["user"]
    assert await desk.orders() == ()
    assert (await desk.ask("cancel", order_id=order.order_id)).outcome == "done"
    assert (await desk.ask("cancel", "r-2", order_id=order.order_id)).outcome == "done"
    assert len(market.ledger()) == 1


@pytest.mark.parametrize("fault", [None, *LOST])
async def test_a_pending_order_gets_new_values_and_keeps_the_others(
    desk: Desk, market: Market, fault: str | None
) -> None:
    order = await desk.submit("s-1", **FAR_BELOW, stop_loss=Decimal("0.80000"), take_profit=Decimal("1.00000"))
    lose(market, fault)
    wanted: dict[str, Any] = {"price": Decimal("0.91"), "stop_loss": Decimal(0)}
    reply = await desk.ask("modify", order_id=order.order_id, **wanted)
    assert reply.outcome == "done", reply
    (working,) = await desk.orders()
    assert (working.price, working.stop_loss, working.take_profit) == (Decimal("0.91"), None, Decimal(1))
    assert working.order_id == order.order_id
    kinds = ["started", "returned", "accepted", "modify_requested", "modified"]
    await eventually(lambda: desk.terminal.kinds(order.order_id) == kinds, "modified")
    assert bodies(desk, facts.Modified)[0].changes == {"price": "0.91000", "stop_loss": None}
    assert (await desk.ask("modify", order_id=order.order_id, price=Decimal("0.92"))).outcome == "conflict"
    assert len(market.ledger()) == 1


@pytest.mark.parametrize("fault", [None, *LOST])
async def test_a_position_is_protected_and_a_level_that_is_not_named_is_kept(
    desk: Desk, market: Market, fault: str | None
) -> None:
    position = await desk.position("s-1", take_profit=Decimal("1.5"))
    lose(market, fault)
    reply = await desk.ask("protect", position_id=position.position_id, stop_loss=Decimal("0.9"))
    assert reply.outcome == "done", reply
    (shown,) = await desk.positions()
    assert (shown.stop_loss, shown.take_profit) == (Decimal("0.9"), Decimal("1.5"))
    reply = await desk.ask("protect", "r-2", position_id=position.position_id, take_profit=Decimal(0))
    assert reply.outcome == "done", reply
    (shown,) = await desk.positions()
    assert (shown.stop_loss, shown.take_profit) == (Decimal("0.9"), None)


@pytest.mark.parametrize("fault", [None, *LOST])
async def test_a_whole_position_is_closed_once(desk: Desk, market: Market, fault: str | None) -> None:
    position = await desk.position("s-1")
    other = await desk.position("s-2")
    lose(market, fault)
    reply = await desk.ask("close", position_id=position.position_id)
    assert reply.outcome == "done", reply
    assert [row.position_id for row in await desk.positions()] == [other.position_id]
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "done"
    assert (await desk.ask("close", "r-2", position_id=position.position_id)).outcome == "done"
    deals = market.ledger("deal")
    assert [(deal["entry"], deal["position_id"]) for deal in deals] == [
        ("in", position.position_id),
        ("in", other.position_id),
        ("out", position.position_id),
    ]


@pytest.mark.parametrize("fault", [None, "drop_after", "timeout_executed", "timeout_lost"])
async def test_a_part_of_a_position_is_closed_by_an_order_of_its_own(
    desk: Desk, market: Market, fault: str | None
) -> None:
    position = await desk.position("s-1", volume=Decimal("0.3"))
    lose(market, fault)
    close: dict[str, Any] = {"position_id": position.position_id, "volume": Decimal("0.1")}
    reply = await desk.ask("close", **close)
    order_id = order_id_for("streamapp", desk.terminal.account, "close:r-1")
    assert (reply.outcome, reply.row and reply.row.order_id) == ("recorded", order_id)

    async def over() -> str | None:
        row = (await desk.once("close", **close)).row
        return row.state if row is not None and row.state in {"result", "absent"} else None

    state = await eventually(over, "the row's end")
    executed = fault != "timeout_lost"
    assert state == ("result" if executed else "absent")
    assert outs_of(market) == ([("out", "0.1")] if executed else [])
    await eventually(lambda: desk.terminal.kinds(order_id)[:2] == ["created", "started"], "its first reports")
    if executed:
        await eventually(lambda: "deal" in desk.terminal.kinds(order_id), "its deal")


@pytest.mark.parametrize("fault", [None, "drop_after", "timeout_executed", "timeout_lost"])
async def test_a_netting_position_is_closed_by_one_order_and_never_turned_round(
    netting_desk: Desk, netting_market: Market, fault: str | None
) -> None:
    desk = netting_desk
    position = await desk.position("s-1", volume=Decimal("0.3"))
    lose(netting_market, fault)
    for _ in range(3):
        assert (await desk.ask("close", position_id=position.position_id)).outcome == "recorded"
    executed = fault != "timeout_lost"
    first = order_id_for("streamapp", desk.terminal.account, "close:r-1")
    await eventually(lambda: desk.terminal.kinds(first)[-1:] == ["deal" if executed else "absent"], "its end")
    second = await desk.ask("close", "r-2", position_id=position.position_id)
    assert second.outcome == ("done" if executed else "recorded"), second
    await eventually(lambda: outs_of(netting_market) == [("out", "0.3")], "the close")
    assert (await desk.ask("close", "r-3", position_id=position.position_id)).outcome == "done"


async def test_a_netting_position_is_not_closed_again_while_an_order_that_closes_it_is_on_its_way(
    netting_desk: Desk, netting_market: Market
) -> None:
    desk = netting_desk
    position = await desk.position("s-1", volume=Decimal("0.3"))
    netting_market.fault("placed_then_fill", nth=1, params={"ms": 2500})
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "recorded"
    second = await desk.ask("close", "r-2", position_id=position.position_id, valid_s=1.0)
    assert second.outcome == "refused"
    first = order_id_for("streamapp", desk.terminal.account, "close:r-1")
    assert f"order {first} may still change this position" in second.message
    await eventually(lambda: desk.terminal.kinds(first)[-1:] == ["deal"], "its deal")
    assert outs_of(netting_market) == [("out", "0.3")]


async def test_a_netting_position_that_is_still_shown_although_it_is_closed_is_not_turned_round(
    netting_desk: Desk, netting_market: Market
) -> None:
    desk = netting_desk
    position = await desk.position("s-1", volume=Decimal("0.3"))
    netting_market.fault("visibility_lag", params={"positions": 6000})
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "recorded"
    order_id = order_id_for("streamapp", desk.terminal.account, "close:r-1")
    await eventually(lambda: "deal" in desk.terminal.kinds(order_id), "its deal")
    assert len(await desk.positions()) == 1  # an older view
    assert (await desk.ask("close", "r-2", position_id=position.position_id)).outcome == "refused"
    assert outs_of(netting_market) == [("out", "0.3")]


@pytest.mark.parametrize("fault", [None, "drop_after", "timeout_executed", "timeout_lost", "drop_before"])
async def test_two_positions_are_closed_against_each_other_once(desk: Desk, market: Market, fault: str | None) -> None:
    one = await desk.position("s-1", volume=Decimal("0.3"))
    two = await desk.position("s-2", side="sell")
    lose(market, fault)
    reply = await desk.ask("close_by", position_id=one.position_id, by_position_id=two.position_id)
    executed = fault not in {"timeout_lost", "drop_before"}
    assert reply.outcome == ("done" if executed else "rejected"), reply
    by = [deal["volume"] for deal in market.ledger("deal") if deal["entry"] == "out_by"]
    assert by == (["0.1", "0.1"] if executed else [])
    left = {row.position_id: row.volume for row in await desk.positions()}
    assert left == (
        {one.position_id: Decimal("0.2")}
        if executed
        else {one.position_id: Decimal("0.3"), two.position_id: Decimal("0.1")}
    )


async def test_a_worker_that_dies_with_a_close_in_its_hands_closes_once(desk: Desk, market: Market) -> None:
    position = await desk.position("s-1")
    await desk.terminal.stop()
    desk.terminal.start(crash_at="terminal.in_order_send")
    await desk.terminal.ready()
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "done"
    assert [deal["entry"] for deal in market.ledger("deal")] == ["in", "out"]


@pytest.mark.parametrize("executed", [True, False])
async def test_a_terminal_that_is_killed_goes_on_by_comparing(desk: Desk, market: Market, *, executed: bool) -> None:
    position = await desk.position("s-1")
    market.fault("hang", nth=1)
    if not executed:
        market.fault("timeout_lost", nth=1)
    asking = asyncio.create_task(desk.once("close", position_id=position.position_id))
    await eventually(lambda: any(fault["hits"] for fault in json.loads(market._ask("/faults"))), "order_send")
    assert desk.terminal.process is not None
    desk.terminal.process.kill()
    desk.terminal.process.wait()
    asking.cancel()
    await desk.open()
    assert (await desk.ask("close", position_id=position.position_id)).outcome == "done"
    assert [deal["entry"] for deal in market.ledger("deal")] == ["in", "out"]


# -- limits of the account and of a symbol


@pytest.fixture
async def limited_desk(tmp_path: Path, nats_url: str, market: Market, client: Client) -> AsyncIterator[Desk]:
    """A trader at an account with limits of its own, and more for gold."""
    account = f"l{tmp_path.name.encode().hex()[-20:]}{os.getpid()}"
    own = (
        "guards.max_level_distance = 0.1\nguards.max_price_distance = 0.05\n"
        "guards.by_symbol.XAUUSD.max_level_distance = 0.01\n"
    )
    terminal = TerminalProcess(tmp_path, nats_url, market, client, account, own=own)
    await terminal.listen()
    market.pin("EURUSD", "1.08500", "1.08510")
    market.pin("XAUUSD", "2350.00", "2350.20")
    desk = Desk(terminal)
    await desk.open()
    yield desk
    terminal.end()


@pytest.mark.parametrize(
    ("symbol", "far", "near", "share"), [("EURUSD", "0.9", "1.0", "10 %"), ("XAUUSD", "2200", "2330", "1 %")]
)
async def test_a_position_is_protected_within_the_limits_of_its_account_and_its_symbol(
    limited_desk: Desk, symbol: str, far: str, near: str, share: str
) -> None:
    position = await limited_desk.position("s-1", symbol=symbol)
    reply = await limited_desk.ask("protect", position_id=position.position_id, stop_loss=Decimal(far))
    assert reply.outcome == "refused", reply
    assert f"max_level_distance: expected stop_loss within {share} of the market" in reply.message
    reply = await limited_desk.ask("protect", "r-2", position_id=position.position_id, stop_loss=Decimal(near))
    assert reply.outcome == "done", reply
    [shown] = await limited_desk.positions()
    assert shown.stop_loss == Decimal(near)


async def test_a_pending_order_is_moved_within_the_limits_of_its_account(limited_desk: Desk) -> None:
    order = await limited_desk.submit("s-1", order_type="limit", price=Decimal("1.06"))
    reply = await limited_desk.ask("modify", order_id=order.order_id, price=Decimal("1.02"))
    assert reply.outcome == "refused", reply
    assert reply.message.startswith("max_price_distance: expected a price within 5 % of the market at 1.0851")
    reply = await limited_desk.ask("modify", "r-2", order_id=order.order_id, price=Decimal("1.05"))
    assert reply.outcome == "done", reply
    assert [row.price for row in await limited_desk.orders()] == [Decimal("1.05")]
