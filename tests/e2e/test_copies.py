"""One signal to three accounts of which one refuses, at brokers with names of their own: on the real stack."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from streamapp.audit.agreement import disagreements, unsettled
from streamapp.audit.sources import settled_evidence
from streamapp.domain.identifiers import order_id_for
from streamapp.local.own import OwnStack
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

SETTINGS = """
[execution.routing]
"spread/EURUSD" = { plain = "1", suffixed = "0.25", careful = "0.5" }
[guards]
max_tick_age_s = 3600
[terminal]
settle_window_s = 3.0

[accounts.plain]
login = 62000001

[accounts.suffixed]
login = 62000002
margin_mode = "netting"
profile = "suffix_broker"
symbol_suffix = ".r"
volume_factor = "3"
volume_step = "0.01"

[accounts.careful]
login = 62000003
volume_min = "0.10"
"""
SETTLE_WITHIN_S = 90.0
MANY = 12


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("copies"), SETTINGS) as stack:
        yield stack


@pytest.fixture
async def desk(stack: OwnStack) -> AsyncIterator[Desk]:
    async with desk_at(stack.settings) as desk:
        yield desk


async def filled(desk: Desk, order_id: str) -> dict[str, Any]:
    async def ended() -> dict[str, Any] | None:
        order = await desk.view(f"/orders/{order_id}")
        return order if order.get("status") == "filled" else None

    order: dict[str, Any] = await eventually(ended, f"order {order_id} filled")
    return order


def of_two(desk: Desk, name: str) -> list[str]:
    """Return the ids that the orders of a signal's copies have, whoever is asked."""
    deployment, signal_id = desk.settings.deployment, desk.signal_id(name)
    return [order_id_for(deployment, account, signal_id) for account in ("plain", "suffixed")]


async def test_each_account_trades_its_copy_and_one_answer_says_what_became_of_all(desk: Desk) -> None:
    await desk.pin("EURUSD", "1.10000", "1.10010")
    await desk.send("three", None, strategy="spread")
    copies = await desk.answered("three")
    assert [(copy["account"], copy["decision"], copy["reason"], copy["volume"]) for copy in copies] == [
        ("plain", "accepted", None, "0.10"),
        ("suffixed", "accepted", None, "0.07"),
        ("careful", "refused", "guard", None),
    ]
    assert copies[2]["detail"].startswith("volume: expected at least 0.1 lots, got 0.05")
    assert [copy["order_id"] for copy in copies] == [*of_two(desk, "three"), None]
    for copy in copies[:2]:
        order = await filled(desk, copy["order_id"])
        assert (order["symbol"], order["account"]) == ("EURUSD", copy["account"])
        assert Decimal(order["filled_volume"]) == Decimal(copy["volume"])
        fills = await eventually(lambda: [one for one in desk.fills if one["order_id"] == copy["order_id"]])  # noqa: B023
        assert {one["symbol"] for one in fills} == {"EURUSD"}
    refused = await eventually(lambda: desk.refusals.get(desk.signal_id("three")), "the refusal")
    assert (refused["account"], refused["reason"]) == ("careful", "guard")


async def test_the_command_line_follows_a_signal_to_its_end_at_every_account(stack: OwnStack, desk: Desk) -> None:
    await desk.pin("EURUSD", "1.10000", "1.10010")
    command = [sys.executable, "-m", "streamapp.cli", "signal", "EURUSD", "sell", "0.10", "--strategy", "spread"]
    process = await asyncio.create_subprocess_exec(*command, env=stack.environment, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    lines = output.decode().splitlines()
    assert process.returncode == 1, "one of the three refuses"
    assert sum("answered" in line for line in lines) == 1, lines
    assert {account for line in lines for account in ("plain", "suffixed") if "filled" in line and account in line} == {
        "plain",
        "suffixed",
    }


async def test_a_broker_with_names_of_its_own_is_sent_them_and_what_a_person_does_there_has_ours(desk: Desk) -> None:
    await desk.pin("EURUSD", "1.10000", "1.10010")
    await desk.send("own-names", "suffixed")
    order = await desk.ended("own-names", "filled")
    assert (await desk.sent("own-names"))["symbol"] == "EURUSD.r"
    assert {row["symbol"] for row in await desk.ledger("own-names")} == {"EURUSD.r"}
    assert Decimal(order["volume"]) == Decimal("0.30")
    await desk.intervene("suffixed", action="close", position=order["position_id"])
    closing = await desk.closed(order["position_id"], "mobile")
    assert (closing["symbol"], closing["order_id"]) == ("EURUSD", None)


async def test_a_worker_that_is_killed_among_copies_sends_none_twice_and_answers_for_all(
    stack: OwnStack, desk: Desk
) -> None:
    await desk.pin("EURUSD", "1.10000", "1.10010")
    names = [f"killed-{number}" for number in range(MANY)]
    for name in names:
        await desk.send(name, None, strategy="spread")
    await eventually(lambda: any(desk.statuses(name) for name in names), "an order on its way")
    os.kill(stack.pid_of("trading"), signal.SIGKILL)
    for name in names:
        copies = (await eventually(lambda: desk.split.get(desk.signal_id(name)), name))[0]["copies"]  # noqa: B023
        assert [copy["decision"] for copy in copies] == ["accepted", "accepted", "refused"], copies
        for order_id in of_two(desk, name):
            await filled(desk, order_id)
        answers = {json.dumps(answer) for answer in desk.split[desk.signal_id(name)]}
        assert len(answers) == 1, "a repeated answer says the same"


async def test_every_witness_tells_the_same_story_of_all_of_them(desk: Desk) -> None:
    evidence = await settled_evidence(desk.settings, desk.nats, within_s=SETTLE_WITHIN_S)
    assert disagreements(evidence) == []
    assert unsettled(evidence) == []
    assert (await desk.health())["invariants"]["one_order_per_intent"]
