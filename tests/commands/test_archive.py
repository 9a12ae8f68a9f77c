"""``streamapp archive export`` from a real Kafka: the files have what ClickHouse has, and nothing is rounded."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from streamapp import topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.rows import MODELS, Refusal, SourceRecord, columns
from streamapp.clickhouse.writer import Writer
from streamapp.docs.__main__ import FOLDER
from streamapp.export.history import KINDS
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer
from streamapp.local.ports import free_port
from streamapp.settings import Settings
from streamapp.topics import TopicSpec
from tests.clickhouse import samples
from tests.clickhouse.samples import AT
from tests.commands.running import Done, run

LATER = AT + timedelta(days=1)
EXACT = Decimal("1.085140000000000000000001")
OTHER = "demo-netting"
DAY, NEXT = AT.date().isoformat(), LATER.date().isoformat()
RECORDS = [
    samples.record(samples.decision(), samples.fact(1), samples.fact(2), samples.order(rev=1), samples.position(1)),
    samples.record(samples.order(rev=2, status="filled", updated_at=LATER), samples.fill(price=EXACT), offset=1),
    samples.record(samples.fill(12, fill_id="12", at=LATER), samples.position(2, at=LATER), samples.operation()),
    samples.record(samples.account(), samples.account(at=LATER), samples.command_result(1), samples.command_result(2)),
    samples.record(samples.log_entry(1), samples.log_entry(2)),
    samples.record(samples.log_entry(2), samples.log_entry(3)),
    samples.record(samples.order("o-9", account=OTHER), samples.fill(13, fill_id="13", account=OTHER)),
]


class Installation:
    """Topics in which every record comes twice, and a ClickHouse with the same."""

    def __init__(self, bootstrap: str, clickhouse_url: str) -> None:
        database = f"test_{uuid.uuid4().hex[:12]}"
        kafka = {"bootstrap": bootstrap, "partitions": "2", "topic_prefix": f"{database}."}
        self.environment = {f"STREAMAPP_KAFKA__{name.upper()}": value for name, value in kafka.items()}
        clickhouse = {"url": clickhouse_url, "database": database, "timeout_s": 60}
        self.settings = Settings.model_validate({"kafka": kafka, "clickhouse": clickhouse})

    def export(self, folder: Path, *arguments: str, **environment: str) -> Done:
        return run("archive", "export", str(folder), *arguments, **(self.environment | environment))

    async def begin(self) -> None:
        specs = [TopicSpec(self.settings.kafka.prefixed(name)) for name in (topics.ARCHIVE, topics.BROKER_LOG)]
        await create_topics(self.settings.kafka_bootstrap, specs, partitions=2, replication_factor=1)

    async def fill(self) -> None:
        await self.store(*RECORDS, *RECORDS)
        await migrate(self.settings)
        clickhouse = ClickHouse.of(self.settings)
        await Writer(clickhouse, "both", _bury).write(RECORDS)
        await clickhouse.close()

    async def store(self, *records: SourceRecord) -> None:
        async with ClientProducer(self.settings.kafka_bootstrap, "test") as producer:
            for record in records:
                account = OTHER if OTHER.encode() in record.value else "demo-hedging"
                await producer.send(
                    self.settings.kafka.prefixed(record.topic), account.encode(), record.value, headers={}
                )

    async def query(self, text: str) -> list[dict[str, Any]]:
        clickhouse = ClickHouse.of(self.settings)
        try:
            return list(await clickhouse.query(text))
        finally:
            await clickhouse.close()


async def _bury(refusal: Refusal) -> None:
    raise AssertionError(refusal)


@pytest.fixture(scope="module")
def installation(kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(kafka_bootstrap, clickhouse_url)
    folder = tmp_path_factory.mktemp("nothing")
    missing = made.export(folder)
    assert (missing.code, missing.said.count("\n")) == (2, 0)
    assert f"expected topic {made.settings.kafka.prefixed(topics.ARCHIVE)} in Kafka" in missing.said
    asyncio.run(made.begin())
    assert (
        "expected records in order_execution_archive and broker_communication_log, got none" in made.export(folder).said
    )
    asyncio.run(made.fill())
    return made


@pytest.fixture(scope="module")
def folder(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    done = installation.export(folder)
    assert (done.code, done.said) == (0, "")
    assert done.out.startswith(f"✓ 18 rows of 2 days ({DAY} to {NEXT}) in {folder}, 1 account_operations, 1 accounts, ")
    return folder


def read(folder: Path, kind: str, *names: str) -> list[tuple[Any, ...]]:
    found = ds.dataset(folder / kind, partitioning="hive").to_table(columns=list(names))
    return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


@pytest.mark.parametrize("kind", MODELS)
async def test_a_kinds_files_are_its_table(kind: str, folder: Path, installation: Installation) -> None:
    """As it is made, and as it is filled."""
    [table] = await installation.query(
        "SELECT sorting_key, extract(engine_full, 'MergeTree\\\\((\\\\w*)\\\\)') AS version FROM system.tables"
        f" WHERE database = currentDatabase() AND name = '{kind}'"
    )
    assert (table["sorting_key"].strip("()"), table["version"] or None) == (
        ", ".join(KINDS[kind].key),
        KINDS[kind].version,
    )
    if not (folder / kind).exists():
        assert await installation.query(f"SELECT 1 FROM {kind}") == []
        return
    chosen = ", ".join(name for name in columns(kind) if not name.startswith(("archive_", "commit_")))
    parquet = f"file('{folder}/{kind}/*/*.parquet', Parquet)"
    rows = f"SELECT {chosen} FROM %s ORDER BY {', '.join(KINDS[kind].key)}"
    assert await installation.query(rows % parquet) == await installation.query(rows % f"{kind} FINAL")


def test_each_thing_stands_once_on_its_day_with_its_exact_text(folder: Path) -> None:
    assert read(folder, "orders", "order_id", "status", "day") == [("o-1", "filled", DAY), ("o-9", "submitted", DAY)]
    assert read(folder, "order_events", "order_id", "rev", "day")[:2] == [("o-1", 1, DAY), ("o-1", 2, NEXT)]
    assert read(folder, "broker_log", "seq") == [(1,), (2,), (3,)]
    [(price, raw)] = [row for row in read(folder, "executions", "price", "raw") if str(EXACT) in row[1]]
    assert price == Decimal("1.0851400000")
    assert json.loads(raw)["price"] == str(EXACT)


async def test_the_manuals_query_of_clickhouse_has_an_answer(folder: Path, installation: Installation) -> None:
    page = (FOLDER / "parquet.md").read_text(encoding="utf-8")
    [query] = re.findall(r"```sql\n(SELECT [^`]*FROM file\([^`]*);\n```", page)
    rows = await installation.query(query.replace("'history/", f"'{folder}/"))
    assert [(row["day"].isoformat(), row["fills"]) for row in rows] == [(DAY, 2), (NEXT, 1)]
    assert rows[1]["last_price"] == "1.08514"


def test_a_second_export_is_the_same_bytes_and_the_days_in_between_stay(
    folder: Path, installation: Installation
) -> None:
    before = files(folder)
    assert installation.export(folder).code == 0
    done = installation.export(folder, "--from", NEXT, "--to", NEXT)
    assert (done.code, done.out.partition(" in ")[0]) == (0, f"✓ 2 rows of 1 day ({NEXT} to {NEXT})")
    assert files(folder) == before


def test_days_and_an_account_are_chosen(installation: Installation, tmp_path: Path) -> None:
    assert installation.export(tmp_path / "one", "--to", DAY, "--account", OTHER).code == 0
    assert read(tmp_path / "one", "executions", "account", "day") == [(OTHER, DAY)]
    assert installation.export(tmp_path / "next", "--from", NEXT).code == 0
    assert {name.partition("/")[0] for name in files(tmp_path / "next")} == {"executions", "order_events"}
    none = installation.export(tmp_path / "none", "--from", "2030-01-01")
    assert (none.code, none.out.partition(" in ")[0]) == (0, "✓ 0 rows of 0 days")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", NEXT, "--to", DAY), f"expected a first day that is not after the last, got {NEXT} and {DAY}"),
        (("--account", "nobody"), "expected records of account nobody (settings have demo-hedging, demo-netting)"),
        (("--from", "yesterday"), "'yesterday' does not match the formats '%Y-%m-%d'"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_written(
    installation: Installation, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = installation.export(tmp_path / "export", *arguments)
    assert (done.code, files(tmp_path)) == (2, {})
    assert said in " ".join(done.said.replace("│", " ").split())


def test_a_kafka_that_is_away_is_one_sentence(installation: Installation, tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = installation.export(tmp_path, STREAMAPP_KAFKA__BOOTSTRAP=address)
    assert (done.code, done.said.count("\n"), address in done.said) == (2, 0, True)


def test_what_is_unreadable_or_gone_is_named_and_the_exit_code_says_so(
    installation: Installation, tmp_path: Path
) -> None:
    """Last: the topic keeps it."""
    assert installation.export(tmp_path).code == 0
    bad = samples.commit(samples.fill(14, fill_id="14")).replace(b'"buy"', b'"long"')
    asyncio.run(installation.store(*(SourceRecord(topics.ARCHIVE, 0, 0, None, value) for value in (b"{", bad))))
    gone = tmp_path / "facts" / "day=2026-11-01" / "facts.parquet"
    gone.parent.mkdir()
    gone.write_bytes(b"")
    fuller = tmp_path / "orders" / f"day={DAY}" / "orders.parquet"
    orders = pq.read_table(fuller, partitioning=None)
    pq.write_table(pa.concat_tables([orders, orders]), fuller)
    done = installation.export(tmp_path)
    assert done.code == 1
    assert done.out.startswith("✗ 16 rows of 2 days")
    assert done.out.endswith("; 4 faults, see above\n")
    unreadable, fill, fewer, kept = done.said.splitlines()
    assert unreadable.startswith("order_execution_archive, partition ")
    assert "not_json" in unreadable
    assert "invalid: messages.0 side: expected one of buy, sell, got 'long'" in fill
    assert fewer == f"{fuller}: expected its 4 rows in Kafka, got 2: the file is kept"
    assert pq.read_metadata(fuller).num_rows == 4
    assert kept == f"{gone}: expected its rows in Kafka, got none: the file is kept"
