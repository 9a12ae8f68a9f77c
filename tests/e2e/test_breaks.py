"""A position is changed at the broker without a deal: our books and its differ, and a person hears of it in seconds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from streamapp.clickhouse.client import ClickHouse
from streamapp.local.own import OwnStack
from streamapp.subjects import command, reconciliation_break
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

OTHER = """
import sys
import streamapp.simulator.metatrader5 as mt5
assert mt5.initialize(login=int(sys.argv[1])), mt5.last_error()
request = {"action": mt5.TRADE_ACTION_DEAL, "symbol": "EURUSD", "volume": 0.2, "type": mt5.ORDER_TYPE_BUY,
           "type_filling": mt5.ORDER_FILLING_IOC, "magic": 4711}
assert mt5.order_send(request).retcode == mt5.TRADE_RETCODE_DONE
"""
FOUND_WITHIN_S = 5.0
ACCOUNT = "hedge"
SETTINGS = """
[terminal]
settle_window_s = 3.0

[accounts.hedge]
login = 63000001
"""


@pytest.fixture(scope="module")
def breaks_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("breaks"), SETTINGS) as stack:
        yield stack


@pytest.fixture
async def desk(breaks_stack: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(breaks_stack.settings) as desk:
        yield desk


async def test_a_position_that_changes_without_a_deal_is_a_break_within_seconds_until_the_books_agree(
    desk: Desk,
) -> None:
    told: list[dict[str, Any]] = []

    async def hear(message: Any) -> None:
        told.append(json.loads(message.data))

    await desk.nats.subscribe(reconciliation_break(ACCOUNT), cb=hear)
    await desk.send("open", ACCOUNT)
    position_id = (await desk.ended("open", "filled"))["position_id"]
    before = await shown(desk, position_id, lambda broker: broker["volume"] == "0.1")
    assert (before["foreign"], before["broker"]["order_id"]) == (False, desk.order_id("open"))

    began_s = time.monotonic()
    await desk.intervene(ACCOUNT, action="split", position=position_id, ratio=4)
    found = await eventually(lambda: told and told[0], "the break")
    assert time.monotonic() - began_s < FOUND_WITHIN_S
    assert (found["kind"], found["position_id"], found["lots"]) == ("volume", position_id, "0.3")
    assert (found["ours"], found["theirs"]) == ("buy 0.1 EURUSD", "buy 0.4 EURUSD")
    (listed,) = (await desk.view(f"/breaks?account={ACCOUNT}"))["breaks"]
    assert (listed["break_id"], listed["disposition"]) == (found["break_id"], "open")
    await shown(desk, position_id, lambda broker: Decimal(broker["volume"]) == Decimal("0.4"))

    await desk.intervene(ACCOUNT, action="split", position=position_id, ratio="0.25")
    gone = await eventually(lambda: told[-1]["disposition"] == "resolved" and told[-1], lambda: f"its end, got {told}")
    assert (gone["break_id"], gone["cause"], gone["revision"]) == (found["break_id"], "broker", 2)
    assert (await desk.view(f"/breaks?account={ACCOUNT}"))["breaks"] == []

    client = ClickHouse.of(desk.settings)
    try:

        async def stored() -> list[dict[str, Any]]:
            return await client.query("SELECT disposition, cause, revision FROM breaks FINAL WHERE revision = 2")

        assert await eventually(stored, "the break in ClickHouse") == [
            {"disposition": "resolved", "cause": "broker", "revision": 2}
        ]
        history = "SELECT DISTINCT volume FROM position_history FINAL WHERE account = 'hedge' ORDER BY volume"
        volumes = [row["volume"] for row in await client.query(history)]
        assert volumes == [Decimal("0.1"), Decimal("0.4")]
        money = await client.query("SELECT count() AS rows FROM account_history FINAL WHERE equity > 0")
        assert money[0]["rows"] >= 2
    finally:
        await client.close()


async def test_a_person_settles_a_break_with_a_reason(desk: Desk) -> None:
    told: list[dict[str, Any]] = []

    async def hear(message: Any) -> None:
        told.append(json.loads(message.data))

    await desk.nats.subscribe(reconciliation_break(ACCOUNT), cb=hear)
    await desk.send("settled", ACCOUNT, "USDJPY")
    position_id = (await desk.ended("settled", "filled"))["position_id"]
    await shown(desk, position_id, lambda broker: broker["volume"] == "0.1")
    await desk.intervene(ACCOUNT, action="split", position=position_id, ratio=4)
    found = await eventually(lambda: told and told[0], "the break")
    said = {"request_id": "settle-1", "account": ACCOUNT, "reason": "a split of the symbol", "issued_by": "ann"}
    settled = said | {"values": {"break_id": found["break_id"]}}
    await desk.publish(command("break.settle", ACCOUNT), json.dumps(settled).encode())
    last = await eventually(lambda: told[-1]["disposition"] == "settled" and told[-1], lambda: f"settled, got {told}")
    assert (last["break_id"], last["reason"], last["settled_by"]) == (found["break_id"], "a split of the symbol", "ann")
    (listed,) = (await desk.view(f"/breaks?account={ACCOUNT}"))["breaks"]
    assert (listed["break_id"], listed["disposition"]) == (found["break_id"], "settled")
    await desk.intervene(ACCOUNT, action="split", position=position_id, ratio="0.25")

    async def forgotten() -> bool:
        return bool((await desk.view(f"/breaks?account={ACCOUNT}"))["breaks"] == [])

    await eventually(forgotten, "a settled break that has ended")


async def test_what_another_program_opens_is_shown_as_foreign_and_is_no_break(desk: Desk) -> None:
    login = str(desk.settings.accounts[ACCOUNT].login)
    environment = os.environ | {"STREAMAPP_SIMULATOR_ADDRESS": desk.settings.market_address}
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", OTHER, login, env=environment)
    assert await other.wait() == 0

    async def both() -> list[dict[str, Any]]:
        rows = (await desk.view(f"/positions?account={ACCOUNT}&symbol=EURUSD")).get("positions", [])
        return [row for row in rows if row["foreign"] and row["broker"] is not None]

    (position,) = await eventually(both, "the other program's position with us and at the broker")
    assert (position["foreign"], position["opening_order_id"], position["volume"]) == (True, None, "0.2")
    (snapshot,) = (await desk.view(f"/snapshots?account={ACCOUNT}"))["snapshots"]
    assert {each["position_id"] for each in snapshot["positions"] if each["foreign"]} == {position["position_id"]}
    assert (await desk.view("/breaks"))["breaks"] == []


async def test_a_position_that_is_closed_by_hand_has_a_deal_and_is_no_break(desk: Desk) -> None:
    await desk.send("mine", ACCOUNT, "GBPUSD")
    position_id = (await desk.ended("mine", "filled"))["position_id"]
    await desk.intervene(ACCOUNT, action="close", position=position_id)

    async def flat() -> bool:
        return await desk.position(ACCOUNT, position_id) == 0

    await eventually(flat, "the position closed with us as well")
    assert (await desk.view("/breaks"))["breaks"] == []


async def test_a_position_that_was_split_and_closed_is_flat_with_us_and_the_break_ends(desk: Desk) -> None:
    await desk.send("split", ACCOUNT, "AUDUSD")
    position_id = (await desk.ended("split", "filled"))["position_id"]
    await shown(desk, position_id, lambda broker: broker["volume"] == "0.1")
    await desk.intervene(ACCOUNT, action="split", position=position_id, ratio=4)

    async def breaks() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (await desk.view(f"/breaks?account={ACCOUNT}"))["breaks"]
        return [row for row in rows if row["position_id"] == position_id]

    await eventually(breaks, "the break")
    await desk.intervene(ACCOUNT, action="close", position=position_id)

    async def over() -> bool:
        return await desk.position(ACCOUNT, position_id) == 0 and await breaks() == []

    await eventually(over, "a flat position without a break")


async def shown(desk: Desk, position_id: int, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return our position as the workers show it once the broker's side is as wanted."""

    async def seen() -> dict[str, Any] | None:
        rows = (await desk.view(f"/positions?account={ACCOUNT}")).get("positions", ())
        row = next((row for row in rows if row["position_id"] == position_id), None)
        return row if row is not None and row["broker"] is not None and is_wanted(row["broker"]) else None

    found: dict[str, Any] = await eventually(seen, "the broker's side of the position")
    return found
