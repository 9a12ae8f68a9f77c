"""Role connector alone: somebody else's execution service asks by NATS, and the real stack executes, once."""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from streamapp.audit.verify import verify
from streamapp.clickhouse.client import ClickHouse
from streamapp.domain.identifiers import magic_of
from streamapp.local.own import OwnStack
from tests.kit.waiting import eventually
from tests.roles.foreign import DEADLINE_S, ExecutionService

ORIGIN = "streamapp/connector"


class Desk:
    """The foreign execution service, and the broker's own ledger to judge by."""

    def __init__(self, stack: OwnStack, service: ExecutionService) -> None:
        self.stack, self.service = stack, service

    async def filled(self, order_id: str, volume: str = "0.10") -> None:
        await self.service.until(lambda: self.service.filled(order_id) == Decimal(volume))

    async def refused(self, order_id: str) -> dict[str, Any]:
        await self.service.until(lambda: self.service.on("broker.error.", order_id))
        return self.service.on("broker.error.", order_id)[-1].body

    async def pin(self, symbol: str, bid: str, ask: str) -> None:
        """Set the market's price."""
        await asyncio.to_thread(_pin, self.stack.settings.ports.market, symbol, bid, ask)

    async def placed(self, order_id: str) -> dict[str, Any]:
        """Return the broker's order as soon as it is there."""
        orders: list[dict[str, Any]] = await eventually(
            lambda: self.executed(order_id), f"{order_id} at the broker", DEADLINE_S
        )
        return orders[0]

    async def executed(self, order_id: str) -> list[dict[str, Any]]:
        """Return the broker's orders that carry this order's number."""
        lines = await asyncio.to_thread(_ledger, self.stack.settings.ports.market)
        return [line for line in lines if line["kind"] == "order" and line["magic"] == magic_of(order_id)]


def _ledger(port: int) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ledger", timeout=5) as response:
        return [json.loads(line) for line in response.read().splitlines()]


def _pin(port: int, symbol: str, bid: str, ask: str) -> None:
    body = json.dumps({"bid": bid, "ask": ask}).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/quotes/{symbol}", data=body, timeout=5) as response:
        response.read()


def new_id() -> str:
    return f"their-{secrets.token_hex(5)}"


@pytest.fixture
async def desk(connector_stack: OwnStack) -> AsyncIterator[Desk]:
    async with ExecutionService(connector_stack.settings.nats_url) as service:
        yield Desk(connector_stack, service)


async def test_what_is_asked_for_is_executed_once_and_nothing_but_fills_is_said(desk: Desk) -> None:
    order_ids = [new_id() for _ in range(20)]
    for number, order_id in enumerate(order_ids):
        await desk.service.ask(order_id, account=("demo-hedging", "demo-netting")[number % 2])
    for order_id in order_ids:
        await desk.filled(order_id)
        assert len(await desk.executed(order_id)) == 1
    ours = [heard for heard in desk.service.heard if heard.headers.get("Streamapp-Origin") == ORIGIN]
    assert {heard.subject.rpartition(".")[0] for heard in ours} == {"broker.fill"}
    assert {heard.body["executor"] for heard in ours if heard.body["order_id"] in order_ids} == {"streamapp"}


async def test_a_limit_order_works_at_the_broker_until_its_price_comes(desk: Desk) -> None:
    await desk.pin("USDCAD", "1.36000", "1.36010")
    order_id = new_id()
    await desk.service.ask(order_id, "USDCAD", order_type="limit", price="1.35900", time_in_force="day")
    placed = await desk.placed(order_id)
    assert (placed["type"], Decimal(placed["price"])) == (2, Decimal("1.35900"))
    assert desk.service.filled(order_id) == 0
    await desk.pin("USDCAD", "1.35880", "1.35890")
    await desk.filled(order_id)
    [fill] = desk.service.on("broker.fill.", order_id)
    assert Decimal(fill.body["price"]) == Decimal("1.35890")


async def test_what_expires_at_the_broker_is_said_to_be_over(desk: Desk) -> None:
    order_id = new_id()
    expiration = (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
    lifetime = {"time_in_force": "until", "expiration": expiration}
    await desk.service.ask(order_id, "NZDUSD", order_type="stop", price="0.90000", **lifetime)
    await desk.placed(order_id)
    error = await desk.refused(order_id)
    assert (error["kind"], error["final"]) == ("expired", True)
    assert desk.service.filled(order_id) == 0


async def test_an_order_that_is_asked_for_again_is_not_executed_again(desk: Desk) -> None:
    order_id = new_id()
    said = await desk.service.ask(order_id)
    await desk.service.say("orders.submitted.EURUSD", said)
    await desk.filled(order_id)
    await desk.service.say("orders.submitted.EURUSD", said)
    await desk.service.ask(order_id, volume="0.50")  # the same id, another order
    conflict = await desk.refused(order_id)
    assert (conflict["final"], conflict["kind"]) == (False, "duplicate")
    assert len(await desk.executed(order_id)) == 1
    assert desk.service.filled(order_id) == Decimal("0.10")


@pytest.mark.parametrize(
    "changes",
    [
        {"volume": "-1"},
        {"side": "sideways"},
        {"account": "nobody"},
        {"symbol": None},
        {"not_after": (datetime.now(UTC) - timedelta(hours=1)).isoformat()},
    ],
)
async def test_what_can_t_be_executed_is_answered_with_a_final_error(desk: Desk, changes: dict[str, Any]) -> None:
    order_id = new_id()
    await desk.service.ask(order_id, **changes)
    error = await desk.refused(order_id)
    assert error["final"] is True
    assert await desk.executed(order_id) == []


async def test_an_unknown_symbol_is_refused_by_the_terminal_and_ends_the_order(desk: Desk) -> None:
    order_id = new_id()
    await desk.service.ask(order_id, "NO.SUCH THING")
    assert (await desk.refused(order_id))["final"] is True


async def test_what_names_another_executor_is_left_to_it(desk: Desk) -> None:
    theirs, ours = new_id(), new_id()
    await desk.service.ask(theirs, executor="somebody-else")
    await desk.service.ask(ours, executor="foreign")
    await desk.filled(ours)
    assert await desk.executed(theirs) == []


async def test_an_order_id_alone_is_completed_from_the_execution_service_s_table(desk: Desk) -> None:
    order_id = new_id()
    now = datetime.now(UTC)
    row = {
        "order_id": order_id,
        "signal_id": order_id,
        "account": "demo-netting",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "market",
        "volume": Decimal("0.20"),
        "time_in_force": "gtc",
        "fill_policy": "any",
        "status": "submitted",
        "executor": "foreign",
        "signal_at": now,
        "created_at": now,
        "updated_at": now,
        "not_after": now + timedelta(seconds=60),
    }
    clickhouse = ClickHouse.of(desk.stack.settings)
    try:
        await clickhouse.insert("orders", tuple(row), [tuple(row.values())])
    finally:
        await clickhouse.close()
    await desk.service.say("orders.submitted.EURUSD", {"order_id": order_id})
    await desk.filled(order_id, "0.20")


async def test_a_signal_is_not_this_role_s_to_execute(desk: Desk) -> None:
    signal = {"signal_id": new_id(), "status": "approved", "account": "demo-hedging", "symbol": "EURUSD", "side": "buy"}
    await desk.service.say("signals.approved.EURUSD", signal | {"order_type": "market", "volume": "0.10"})
    probe = new_id()
    await desk.service.ask(probe)
    await desk.filled(probe)
    orders = [heard for heard in desk.service.on("orders.") if heard.headers.get("Streamapp-Origin") == ORIGIN]
    assert not orders
    clickhouse = ClickHouse.of(desk.stack.settings)
    try:
        where = f"order_id = '{probe}'"
        stored = partial(clickhouse.query, f"SELECT 1 FROM executions WHERE {where}")
        await eventually(stored, "its execution in ClickHouse", DEADLINE_S)
        assert not await clickhouse.query(f"SELECT 1 FROM orders WHERE {where}"), "the table of orders is not ours"
    finally:
        await clickhouse.close()


async def test_what_we_executed_is_the_same_in_archive_tables_and_clickhouse(desk: Desk) -> None:
    order_id = new_id()
    await desk.service.ask(order_id)
    await desk.filled(order_id)
    verdict = await verify(desk.stack.settings)
    assert verdict.agrees
    assert verdict.compared.keys() == {"fill", "order", "position"}
