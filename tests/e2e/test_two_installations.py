"""Two installations on one Kafka, one account of one NATS and one ClickHouse: each has its own road, and no other."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from streamapp.kafka.admin import consumer_groups, existing_topics
from streamapp.local import clickhouse
from streamapp.local.own import OwnStack
from streamapp.local.ports import free_port
from streamapp.nats.connection import connect
from tests.e2e.conftest import LONG_LIVES, SHORT_WINDOW
from tests.e2e.road import travel
from tests.kit.stacks import running, running_kafka_and_nats, running_stack

NAMES = ("east", "west")
pytestmark = pytest.mark.timeout(600)  # two stacks start before the first test


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[OwnStack]]:
    folder = tmp_path_factory.mktemp("shared")
    engine = clickhouse.prepare(folder / "clickhouse", free_port())
    with running_kafka_and_nats(folder) as (bootstrap, nats), running(engine, folder), ExitStack() as running_ones:

        def run(name: str) -> OwnStack:
            stack = running_stack(folder / name, _settings(name, bootstrap, nats, engine.address))
            return running_ones.enter_context(stack)

        with ThreadPoolExecutor() as both:
            yield list(both.map(run, NAMES))


def _settings(name: str, bootstrap: str, nats: str, clickhouse_url: str) -> str:
    return f"""
[kafka]
bootstrap = "{bootstrap}"
topic_prefix = "{name}."
[nats]
url = "{nats}"
stream_prefix = "{name.upper()}_"
subject_prefix = "desks.{name}"
[clickhouse]
url = "{clickhouse_url}"
database = "{name}"
{SHORT_WINDOW}
{LONG_LIVES}
"""


async def test_both_run_the_road_at_once_and_neither_sees_the_other(stacks: list[OwnStack]) -> None:
    # The accounts, strategies and symbols of both are the same.
    outcomes = await asyncio.gather(
        *(travel(stack.settings, signals=40, rate=10, seed=seed) for seed, stack in enumerate(stacks))
    )
    for outcome in outcomes:
        assert outcome.differences == []
        assert outcome.orders == outcome.due
        # Every order of every witness is of this run: nothing of the other's has come here.
        archive, warehouse = outcome.evidence.archive, outcome.evidence.warehouse
        assert {order.signal_id[: len(outcome.run)] for order in archive.orders.values()} == {outcome.run}
        assert archive.orders.keys() == warehouse.orders.keys()


def test_the_commands_look_at_their_own_installation(stacks: list[OwnStack]) -> None:
    east, _ = stacks
    for words in (["verify"], ["audit", "verify"], ["rebuild", "--compare-only"]):
        assert _command(east, *words).returncode == 0, words
    refused = _command(east, "rebuild", "--into", "again")
    assert "the consumer group east.streamapp-trading has 1 live members" in " ".join(refused.stderr.split())


def _command(stack: OwnStack, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "streamapp.cli", *words]
    return subprocess.run(command, env=stack.environment, check=False, capture_output=True, text=True, timeout=120)


async def test_nothing_of_theirs_is_called_by_a_name_without_its_prefix(stacks: list[OwnStack]) -> None:
    settings = stacks[0].settings
    for names in (await existing_topics(settings.kafka_bootstrap), await consumer_groups(settings.kafka_bootstrap)):
        ours = {name for name in names if not name.startswith("__")}
        assert {name.partition(".")[0] for name in ours} == set(NAMES)
        assert len({name.partition(".")[2] for name in ours}) == len(ours) / 2
    nats = await connect(settings, "test")
    try:
        streams = {str(info.config.name): info.config for info in await nats.jetstream().streams_info()}
    finally:
        await nats.close()
    assert {name.removeprefix("KV_").partition("_")[0] for name in streams} == {name.upper() for name in NAMES}
    subjects = {subject for config in streams.values() for subject in config.subjects or ()}
    assert {subject.partition(".")[0] for subject in subjects} == {"desks", "$KV"}
