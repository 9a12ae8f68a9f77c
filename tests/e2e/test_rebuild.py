"""A changelog is lost on the real stack: rebuilt from the archive, traded on, and the broker's ledger is the judge."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from streamapp import topics
from streamapp.kafka.admin import existing_topics, live_members
from streamapp.kafka.producer import ClientProducer
from streamapp.local.own import OwnStack
from streamapp.local.process import REPOSITORY
from streamapp.messages.commit import encode_commit
from streamapp.messages.fact import FactMessage
from streamapp.settings import Settings
from streamapp.subjects import terminal
from tests.e2e.desk import Desk, desk_at
from tests.kit.examples import START, created
from tests.kit.stacks import running_kafka_and_nats, running_stack
from tests.kit.waiting import eventually

ACCOUNT = "hedge"
EXIT: dict[str, Any] = {"side": None, "order_type": None, "volume": None, "intent": "close"}
STACK = """
[kafka]
bootstrap = "{bootstrap}"
session_timeout_s = 6
{store}

[nats]
url = "{nats}"

[terminal]
settle_window_s = 3.0

[accounts.hedge]
login = 63000001

[accounts.net]
login = 63000002
margin_mode = "netting"
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A Kafka and a NATS that outlive the stack."""
    with running_kafka_and_nats(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


async def rebuild(stack: OwnStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamapp.cli", "rebuild", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, check=False
    )


async def changelog_lost(settings: Settings) -> None:
    """Wait until the workers that were stopped are gone, and delete the store's topic."""
    bootstrap, name = settings.kafka_bootstrap, topics.changelog(settings.deployment, "desk")

    async def nobody() -> bool:
        return await live_members(bootstrap, topics.app_id(settings.deployment, "trading")) == 0

    await eventually(nobody, "no trading worker", 60)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([name])
    finally:
        await admin.close()

    async def gone() -> bool:
        return name not in await existing_topics(bootstrap)

    await eventually(gone, "the changelog's end")


async def nothing_waits(desk: Desk) -> None:
    """Wait until the terminal keeps no report that it was not told to forget: its numbers go on where they were."""

    async def all_released() -> bool:
        hello = json.loads((await desk.nats.request(terminal(ACCOUNT, "hello"), b"", timeout=30)).data)
        return bool(hello["released_seq"] == hello["last_seq"] > 0)

    await eventually(all_released, "every report is durable", 90)


async def our_positions(desk: Desk) -> list[dict[str, Any]]:
    """Return the positions as our books have them: the broker's side moves with every price."""
    shown = (await desk.view("/positions"))["positions"]
    return [{name: value for name, value in row.items() if not name.startswith("broker")} for row in shown]


async def invent_order(settings: Settings) -> None:
    """Put an order into the archive that no worker has."""
    names = {"account": "invented", "order_id": "o-invented", "fact_id": "o-invented:created"}
    fact = FactMessage.of(created("1").model_copy(update=names)).encode()
    async with ClientProducer(settings.kafka_bootstrap, "test") as producer:
        record = encode_commit("invented", 1, START, (fact,), ())
        await producer.send(topics.ARCHIVE, b"invented", record, headers={})


async def send_again(desk: Desk, name: str, **fields: Any) -> dict[str, Any]:
    """Send a signal once more, and return how it is answered."""
    signal = {"signal_id": desk.signal_id(name), "status": "approved", "account": ACCOUNT, "symbol": "EURUSD"}
    signal |= {"side": "buy", "order_type": "market", "volume": "0.10", **fields}
    _, said = await desk.answer(await desk.publish("signals.approved.EURUSD", json.dumps(signal).encode()))
    return said


async def test_a_store_is_rebuilt_after_its_changelog_was_lost(servers: tuple[str, str], tmp_path: Path) -> None:
    def settings(store: str) -> str:
        return STACK.format(bootstrap=servers[0], nats=servers[1], store=store)

    with running_stack(tmp_path / "stack", settings("")) as stack:
        async with desk_at(stack.settings) as desk:
            for name in ("one", "two"):
                await desk.send(name, ACCOUNT)
            await desk.send("waits", ACCOUNT, order_type="limit", price="0.9")
            await desk.send("net", "net", volume="0.30")
            filled = [await desk.ended(name, "filled") for name in ("one", "two", "net")]
            await desk.works("waits")
            done = await rebuild(stack, "--compare-only", "--json")
            assert (done.returncode, json.loads(done.stdout)["differences"]) == (0, []), done.stderr
            done = await rebuild(stack, "--into", "2")
            assert done.returncode == 2
            assert "live members: stop every trading worker first" in done.stderr
            orders = {
                name: await desk.view(f"/orders/{desk.order_id(name)}") for name in ("one", "two", "waits", "net")
            }
            positions = await our_positions(desk)
            assert len(positions) == 3
            known = desk
    await changelog_lost(stack.settings)
    done = await rebuild(stack, "--into", "2", "--may-open", ACCOUNT)
    assert done.returncode == 0, done.stderr
    assert "✓ store 2 in streamapp-trading-2-desk-changelog, read back and the same: " in done.stdout
    assert "net: up to commit " in done.stdout
    assert 'kafka.store = "2" (STREAMAPP_KAFKA__STORE=2)' in done.stdout

    with running_stack(tmp_path / "stack", settings('store = "2"')) as stack:
        async with desk_at(stack.settings) as desk:
            desk.continues(known)
            for name, order in orders.items():
                assert await desk.view(f"/orders/{desk.order_id(name)}") == order
            assert await our_positions(desk) == positions
            again = await send_again(desk, "one")
            assert again["order_id"] == filled[0]["order_id"]
            assert again["detail"].startswith("accepted at ")
            await desk.send("three", ACCOUNT)
            await desk.ended("three", "filled")
            await desk.send("four", "net")
            refused = await eventually(lambda: desk.refusals.get(desk.signal_id("four")), "a refusal")
            assert (refused["reason"], "rebuilt from the archive" in refused["detail"]) == ("halted", True)
            await desk.send("out", ACCOUNT, **EXIT)

            async def all_closed() -> bool:
                shown = (await desk.view(f"/positions?account={ACCOUNT}"))["positions"]
                return not shown

            await eventually(all_closed, "what was opened in both lives is closed", 60)
            for name in ("one", "two", "three", "waits", "net"):
                lines = await desk.ledger(name)
                assert len([line for line in lines if line["kind"] == "order"]) <= 1, lines
            assert await desk.ledger("four") == []
            await nothing_waits(desk)
            done = await rebuild(stack, "--compare-only")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "✓ what the archive makes and the tables agree" in done.stdout
            await invent_order(stack.settings)
            done = await rebuild(stack, "--compare-only")
            assert done.returncode == 1
            assert "order o-invented of invented, commit 1: in the archive, not in tables" in done.stdout
