"""Everything in examples/ runs on a real stack, and does what examples/README.md says."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from streamapp.clickhouse.client import ClickHouse
from streamapp.local.own import OwnStack
from streamapp.local.process import REPOSITORY
from tests.kit.stacks import running_stack
from tests.kit.waiting import eventually

EXAMPLES = REPOSITORY / "examples"
PANELS = [block for block in (EXAMPLES / "dashboard.sql").read_text(encoding="utf-8").split(";") if "SELECT" in block]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnStack]:
    with running_stack(tmp_path_factory.mktemp("stack"), "") as stack:
        yield stack


async def started(stack: OwnStack, name: str, *arguments: str) -> asyncio.subprocess.Process:
    environment = stack.environment | {
        "STREAMAPP_SIMULATOR_ADDRESS": f"127.0.0.1:{stack.settings.ports.market}",
        "PYTHONPATH": str(REPOSITORY),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / name), *arguments, env=environment, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )


async def output(stack: OwnStack, name: str, *arguments: str) -> str:
    process = await started(stack, name, *arguments)
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


async def has_position(connection: Client) -> bool:
    """Whether the consumer has begun: what comes before that is not for it."""
    try:
        await connection.jetstream().consumer_info("EXECUTION_IN", "client-fills-lots")
    except NotFoundError:
        return False
    return True


async def test_a_strategy_opens_and_closes_a_consumer_counts_it_and_a_dashboard_shows_it(
    stack: OwnStack, tmp_path: Path
) -> None:
    address = stack.settings.nats_url
    consumer = await started(stack, "consumer.py", address, str(tmp_path / "fills.sqlite3"))
    async with await nats.connect(address) as connection:
        await eventually(partial(has_position, connection), "the consumer's position")
    said = await output(stack, "strategy.py", address)
    assert "refused" not in said
    assert re.search(r"'side': '(buy|sell)'.* -> accepted/1 \('", said)
    assert re.search(r"'intent': 'close'\} -> accepted/1 \('.*\n$", said)

    assert consumer.stdout is not None
    async with asyncio.timeout(60):
        while not re.match(r"mean +EURUSD +[+-]0\.00 lots", (await consumer.stdout.readline()).decode()):
            pass
    consumer.terminate()
    await consumer.wait()

    clickhouse = ClickHouse.of(stack.settings)
    assert len(PANELS) == 4
    for panel in PANELS[:3]:
        await eventually(partial(clickhouse.query, panel), f"rows of {panel}")
    await clickhouse.query(PANELS[3])
    await clickhouse.close()


async def test_a_bot_for_the_package_runs_on_the_simulated_one(stack: OwnStack) -> None:
    assert re.search(r"10009 .*\nopen: \d+ 0\.1 .*\n10009 ", await output(stack, "bot.py"))
