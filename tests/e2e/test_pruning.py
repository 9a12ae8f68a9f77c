"""What is over is put away on the real stack, and answers as before, also when the whole log is read anew."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from streamapp.audit.verify import verify
from streamapp.errors import Transient
from streamapp.local.own import OwnStack
from tests.e2e.desk import Desk, desk_at
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

SETTINGS = """
[retention]
closed_days = 1e-5
[kafka]
session_timeout_s = 6
[execution]
signal_ttl_s = 240
[accounts.hedge]
login = 64000001
"""


@pytest.fixture(scope="module")
def tidy_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("pruning"), SETTINGS) as stack:
        yield stack


async def pruned(desk: Desk) -> int:
    """Return how many rows the worker that runs now has put away."""
    address = f"http://127.0.0.1:{desk.settings.ports.trading()}/metrics"
    async with aiohttp.ClientSession() as http, http.get(address) as answer:
        found = [line for line in (await answer.text()).splitlines() if line.startswith("streamapp_pruned_rows_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in found))


async def sent_again(desk: Desk, name: str, payload: dict[str, Any]) -> tuple[str, str, str]:
    sequence = await desk.publish("signals.approved.EURUSD", json.dumps(payload).encode())
    subject, said = await desk.answer(sequence)
    assert said["signal_id"] == desk.signal_id(name)
    return subject, said["order_id"], said.get("reason", "")


async def reads_the_whole_log_anew(stack: OwnStack) -> None:
    """Kill the worker where it stands, and let the next one do without its local copy."""
    for copy in stack.settings.local.data.glob("trading*/v*/tables*/*.db"):
        copy.with_suffix(".drop").touch()
    victim = stack.pid_of("trading")
    os.kill(victim, signal.SIGKILL)

    async def back() -> bool:
        try:
            return stack.pid_of("trading") != victim
        except Transient:
            return False

    await eventually(back, "another trading worker")
    await asyncio.to_thread(stack.wait_ready)


async def test_an_order_that_was_put_away_answers_its_signal_and_is_never_sent_again(tidy_stack: OwnStack) -> None:
    async with desk_at(tidy_stack.settings) as desk:
        await desk.send("first", "hedge", stop_loss="1.0", valid_until="2099-01-01T00:00:00Z")
        order = await desk.ended("first", "filled")
        await desk.intervene("hedge", action="close", position=order["position_id"])
        await eventually(lambda: pruned_three(desk), "order, signal and position put away")
        names = ("signal_id", "account", "symbol", "side", "stop_loss")
        payload = {name: order[name] for name in names} | {"status": "approved", "order_type": "market"}
        again = payload | {"volume": "0.10", "valid_until": "2099-01-01T00:00:00Z"}
        other = again | {"volume": "0.20"}
        for _ in range(2):
            assert await sent_again(desk, "first", again) == ("signals.accepted.EURUSD", order["order_id"], "")
            assert await sent_again(desk, "first", other) == ("signals.refused.EURUSD", order["order_id"], "conflict")
            shown = await desk.view(f"/orders/{order['order_id']}")
            assert {name: shown[name] for name in ("status", "rev", "filled_volume", "facts_digest")} == {
                name: order[name] for name in ("status", "rev", "filled_volume", "facts_digest")
            }
            await reads_the_whole_log_anew(tidy_stack)
        assert [row["kind"] for row in await desk.ledger("first")] == ["order", "deal"]
        verdict = await verify(tidy_stack.settings)
        assert verdict.agrees, verdict


async def pruned_three(desk: Desk) -> bool:
    return await pruned(desk) >= 3
