"""``streamapp verify`` and ``streamapp audit verify`` on a stack at work, and after somebody has meddled with it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

from streamapp import topics
from streamapp.audit.archive import ArchiveFold
from streamapp.audit.evidence import OrderView
from streamapp.clickhouse.client import ClickHouse
from streamapp.kafka.producer import ClientProducer
from streamapp.kafka.reader import TopicReader, place_of
from streamapp.local.own import OwnStack
from streamapp.local.process import REPOSITORY
from streamapp.messages.commit import encode_commit
from streamapp.messages.fact import FactMessage
from streamapp.settings import Settings
from tests.e2e.road import travel
from tests.e2e.traffic import Traffic
from tests.kit.examples import START, created


async def run(stack: OwnStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamapp.cli", *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, cwd=REPOSITORY, env=stack.environment, capture_output=True, text=True, check=False
    )


async def verified(stack: OwnStack, *arguments: str) -> Any:
    """Return what ``verify --json`` says; its exit code must say the same."""
    done = await run(stack, "verify", "--json", *arguments)
    assert done.stdout, done.stderr
    verdict = json.loads(done.stdout)
    assert done.returncode == (0 if verdict["agrees"] else 1)
    return verdict


async def test_a_stack_agrees_also_while_orders_are_in_flight(stack: OwnStack) -> None:
    async def verify_meanwhile(_: Traffic) -> None:
        assert (await verified(stack))["agrees"]

    outcome = await travel(stack.settings, signals=160, rate=20, seed=3, meanwhile=verify_meanwhile)
    assert outcome.differences == []
    verdict = await verified(stack)
    assert verdict["agrees"]
    assert {"alpha", "epsilon", "gamma", "zeta"} <= verdict["commits"].keys()
    # Orders and positions are compared twice: with the tables and with ClickHouse.
    assert verdict["compared"]["order"] == 2 * len(outcome.evidence.archive.orders)
    assert verdict["compared"]["fill"] == len(outcome.evidence.archive.fills)
    nobody = await run(stack, "verify", "--account", "nobody-else")
    assert nobody.returncode == 2
    assert "expected commits of account nobody-else in the archive, got none" in nobody.stderr
    for place in ((), ("--clickhouse",)):
        done = await run(stack, "audit", "verify", *place)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("intact, ends in") == len(stack.settings.accounts)


async def folded(settings: Settings) -> ArchiveFold:
    """Return what the archive has of alpha now."""
    archive = ArchiveFold()
    async with TopicReader(settings, topics.ARCHIVE, account="alpha") as reader:
        async for record in reader.read():
            archive.take(record.value, place_of(record))
    return archive


async def test_what_somebody_meddled_with_is_named_with_account_order_and_commit(stack: OwnStack) -> None:
    settings = stack.settings
    archive = await folded(settings)
    [order, *_] = archive.entries("order")
    [position, *_] = archive.entries("position")
    [decision, *_] = archive.entries("decision")
    far = archive.commits()["alpha"] + 1000  # the account has news of its own, with the next numbers
    archive.close()
    clickhouse = ClickHouse.of(settings)
    order_id, position_id = str(order.key[0]), str(position.key[1])
    for table, row, changes in (
        ("orders", f"order_id = '{order_id}'", "rev + 1 AS rev, filled_volume + 1 AS filled_volume"),
        ("positions", f"position_id = {position_id}", "rev + 1 AS rev, 7 AS realized_profit"),
    ):
        changed = f"SELECT * REPLACE({changes}) FROM {table} FINAL WHERE account = 'alpha' AND {row}"
        await clickhouse.command(f"INSERT INTO {table} {changed}")
    _, signal_id, stream_seq = decision.key
    gone = f"signal_id = '{signal_id}' AND stream_seq = {stream_seq}"
    await clickhouse.command(f"ALTER TABLE signals DELETE WHERE {gone}", settings={"mutations_sync": 2})
    await clickhouse.close()
    invented = created("1").model_copy(
        update={"account": "alpha", "order_id": "o-invented", "fact_id": "o-invented:created"}
    )
    async with ClientProducer(settings.kafka_bootstrap, "test") as producer:
        for number, facts in ((1, ()), (far, (FactMessage.of(invented).encode(),))):
            await producer.send(topics.ARCHIVE, b"alpha", encode_commit("alpha", number, START, facts, ()), headers={})
    verdict = await verified(stack)
    found = {
        (each["place"], each["kind"], each["key"], each["commit"]): each["detail"] for each in verdict["differences"]
    }
    assert found.keys() == {
        ("ClickHouse", "order", order_id, order.commit),
        ("ClickHouse", "position", position_id, position.commit),
        ("ClickHouse", "decision", f"{signal_id} {stream_seq}", decision.commit),
        ("ClickHouse", "order", "o-invented", far),
        ("tables", "order", "o-invented", far),
    }
    assert {each["account"] for each in verdict["differences"]} == {"alpha"}
    missing, again = verdict["faults"]
    assert {again["account"], missing["account"]} == {"alpha"}
    assert again["commit"] == 1
    assert again["detail"].startswith("there with two contents")
    before = missing["commit"] - 1
    assert missing["detail"] == f"missing: expected commit {before + 1} to {far - 1}, got {far} after {before}"
    assert isinstance(order.view, OrderView)
    assert f"rev {order.view.rev} / {order.view.rev + 1}" in found["ClickHouse", "order", order_id, order.commit]
    assert " / 7" in found["ClickHouse", "position", position_id, position.commit]
    assert found["tables", "order", "o-invented", far] == "in the archive, not in tables"
    assert (await verified(stack, "--account", "gamma"))["agrees"]
    printed = (await run(stack, "verify", "--account", "alpha")).stdout
    assert "✗ 7 differences" in printed
    assert f"order o-invented of alpha, commit {far}: in the archive, not in tables" in printed
