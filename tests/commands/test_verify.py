"""``streamapp audit verify`` on a real Kafka and ClickHouse with a log that is known, and what can't be verified."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from streamapp import topics
from streamapp.cli import app
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.rows import Refusal, SourceRecord
from streamapp.clickhouse.writer import Writer
from streamapp.errors import StreamappError
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer
from streamapp.local.ports import free_port
from streamapp.messages.log import BrokerLogEntry, BrokerLogPlace, chained, encode_entries
from streamapp.settings import Settings, load_settings
from tests.audit.test_chain import log_of

PARTITIONS = 2
Batch = Sequence[BrokerLogEntry]


class Log:
    """The same broker log on a topic and in a table of one test module."""

    def __init__(self, bootstrap: str, clickhouse_url: str) -> None:
        database = f"test_{uuid.uuid4().hex[:12]}"
        self.environment = {
            "STREAMAPP_KAFKA__BOOTSTRAP": bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_CLICKHOUSE__URL": clickhouse_url,
            "STREAMAPP_CLICKHOUSE__DATABASE": database,
            "STREAMAPP_LOCAL__PORT_OFFSET": str(free_port() - 6066),
        }
        clickhouse = {"url": clickhouse_url, "database": database, "timeout_s": 60}
        self.settings = Settings.model_validate({"kafka": {"bootstrap": bootstrap}, "clickhouse": clickhouse})

    async def begin(self) -> None:
        bootstrap = self.settings.kafka_bootstrap
        await create_topics(bootstrap, topics.TOPICS, partitions=PARTITIONS, replication_factor=1)
        await migrate(self.settings)

    def store(self, *batches: Batch) -> None:
        asyncio.run(self._store([(batch[0].account, _encoded(batch)) for batch in batches]))

    def store_bytes(self, account: str, payload: bytes) -> None:
        asyncio.run(self._store([(account, payload)], is_readable=False))

    async def _store(self, records: Sequence[tuple[str, bytes]], *, is_readable: bool = True) -> None:
        async with ClientProducer(self.settings.kafka_bootstrap, "test") as producer:
            for account, payload in records:
                await producer.send(topics.BROKER_LOG, account.encode(), payload, headers={})
        if is_readable:
            clickhouse = ClickHouse.of(self.settings)
            rows = [SourceRecord(topics.BROKER_LOG, 0, 0, account.encode(), payload) for account, payload in records]
            await Writer(clickhouse, "both", _bury).write(rows)
            await clickhouse.close()


async def _bury(refusal: Refusal) -> None:
    raise AssertionError(refusal)


def _encoded(batch: Batch) -> bytes:
    place = BrokerLogPlace(account=batch[0].account, epoch=batch[0].epoch, first_seq=batch[0].seq)
    return encode_entries(place, [entry.encode() for entry in batch])


CONTENTS: list[Any] = [{"bid": 1.08512, "volume": 1e-05}, None, "Größe", [1, 2.5, {"a": None}], 2**60, -0.1]


@pytest.fixture(scope="module")
def log(kafka_of_this_module: str, clickhouse_url: str) -> Log:
    """Two accounts, the first with two journals; batches that overlap, come again, and come late."""
    log = Log(kafka_of_this_module, clickhouse_url)
    asyncio.run(log.begin())
    with pytest.raises(StreamappError, match="expected entries in the broker log, got none"):
        raise command(log).exception or AssertionError
    first, second = log_of(CONTENTS, "demo"), log_of(CONTENTS, "demo", "e2")
    other = log_of([{"n": number} for number in range(40)], "other")
    log.store(first[:2], first[4:], first[1:5], first[:2], second, *(other[at : at + 3] for at in range(0, 40, 3)))
    return log


def command(log: Log, *arguments: str, command: Sequence[str] = ("audit", "verify"), **environment: str) -> Result:
    load_settings.cache_clear()
    try:
        return CliRunner().invoke(app, [*command, *arguments], env=log.environment | environment)
    finally:
        load_settings.cache_clear()


def chains(log: Log, *arguments: str) -> dict[tuple[str, str], Any]:
    """Return each chain that --json shows, by account and epoch."""
    done = command(log, "--json", *arguments)
    shown = json.loads(done.stdout)
    assert done.exit_code == (0 if shown["intact"] else 1)
    return {(chain["account"], chain["epoch"]): chain for chain in shown["chains"]}


@pytest.mark.parametrize("place", [(), ("--clickhouse",)])
def test_a_log_that_is_intact_is_shown_with_the_end_of_each_journal(log: Log, place: tuple[str, ...]) -> None:
    found = chains(log, "--account", "other", *place)
    assert found.keys() == {("other", "e1")}
    done = command(log, "--account", "other", *place)
    last = found["other", "e1"]["last_hash"]
    assert (done.exit_code, done.stdout) == (0, f"✓ other, epoch e1: 1 to 40 intact, ends in {last}\n")
    intact = chains(log, "--account", "demo", *place)
    assert [(chain["entries"], chain["last_seq"], chain["broken"]) for chain in intact.values()] == [(6, 6, None)] * 2
    assert intact.keys() == {("demo", "e1"), ("demo", "e2")}


@pytest.mark.parametrize("place", [(), ("--clickhouse",)])
def test_each_chain_is_told_with_the_first_place_where_it_breaks(log: Log, place: tuple[str, ...]) -> None:
    account = f"broken{len(place)}"
    missing, altered, twice = (log_of(CONTENTS, account, epoch) for epoch in ("missing", "altered", "twice"))
    altered[3] = altered[3].model_copy(update={"response": {"retcode": 10009}})
    fields = twice[1].model_dump(exclude={"schema_", "previous_hash", "hash"}) | {"response": "something else"}
    log.store([*missing[:2], *missing[4:]], altered, twice, [chained(twice[1].previous_hash, **fields)])
    found = {epoch: chain["broken"] for (_, epoch), chain in chains(log, "--account", account, *place).items()}
    assert {epoch: broken["seq"] for epoch, broken in found.items()} == {
        "missing": 3,
        "altered": 4,
        # The table keeps the row that was written last: the entry after it says that it is another.
        "twice": 3 if place else 2,
    }
    assert found["missing"]["found"].startswith("none: the next one is 5")
    assert found["altered"]["found"].startswith(altered[3].hash)
    assert found["twice"]["found"].startswith(twice[1].hash if place else "2 that differ")
    printed = command(log, "--account", account, *place)
    assert printed.exit_code == 1
    assert f"✗ {account}, epoch missing: breaks at 3: expected an entry, got none: the next one is 5" in printed.stdout


def test_a_record_that_is_no_batch_is_told_with_its_place_and_leaves_the_chains_intact(log: Log) -> None:
    log.store(log_of(CONTENTS, "spoiled"))
    log.store_bytes("spoiled", b"{}")
    done = command(log, "--account", "spoiled")
    assert done.exit_code == 1
    assert "✓ spoiled, epoch e1: 1 to 6 intact" in done.stdout
    assert re.search(r"✗ partition \d, offset \d+: expected log/2, got what is invalid", done.stdout)


AWAY = f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("--account", "nobody"), {}, r"expected entries of account nobody in the broker log, got none"),
        ((), {"STREAMAPP_KAFKA__BOOTSTRAP": AWAY}, r"Kafka at 127.0.0.1:\d+ does not answer.*Is it running"),
        (("--clickhouse",), {"STREAMAPP_CLICKHOUSE__DATABASE": "nobody"}, r"ClickHouse query"),
    ],
)
def test_a_log_that_cannot_be_read_is_a_sentence_and_no_verdict(
    log: Log, arguments: tuple[str, ...], environment: dict[str, str], expected: str
) -> None:
    with pytest.raises(StreamappError, match=expected):
        raise command(log, *arguments, **environment).exception or AssertionError


def test_an_archive_is_not_judged_while_the_workers_do_not_answer(log: Log) -> None:
    with pytest.raises(StreamappError, match=r"trading at http://127.0.0.1:\d+ does not answer.*is it up\?"):
        raise command(log, command=["verify"]).exception or AssertionError
