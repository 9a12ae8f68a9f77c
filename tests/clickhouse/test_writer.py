from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp import topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.reader import Reader, message_of
from streamapp.clickhouse.rows import MODELS, Refusal, SourceRecord, columns, rows_of
from streamapp.clickhouse.writer import Writer
from streamapp.errors import Transient
from streamapp.local import clickhouse as engine
from streamapp.local.ports import free_port
from streamapp.local.process import RunningProcess
from streamapp.messages.envelope import Message
from streamapp.messages.fill import FillMessage
from streamapp.messages.log import BrokerLogEntry, is_intact
from streamapp.settings import ClickHouseSettings, ExecutionSettings, Settings
from tests.clickhouse import samples
from tests.kit.waiting import eventually

Buried = list[Refusal]


def writer_of(clickhouse: Any, role: Any = "both") -> tuple[Writer, Buried]:
    buried: Buried = []

    async def bury(refusal: Refusal) -> None:
        assert refusal.detail
        buried.append(refusal)

    return Writer(clickhouse, role, bury), buried


async def count(clickhouse: ClickHouse, table: str) -> int:
    return int((await clickhouse.query(f"SELECT count() AS n FROM {table} FINAL"))[0]["n"])


async def stored(clickhouse: ClickHouse, table: str) -> list[dict[str, Any]]:
    chosen = ", ".join(columns(table))
    rows = await clickhouse.query(f"SELECT {chosen} FROM {table} FINAL ORDER BY ALL")
    return [message_of(MODELS[table], row) for row in rows]


def rounded(message: Message) -> Message:
    """The message as 10 places can hold it."""
    values = {
        name: value.quantize(Decimal("1E-10"))
        for name, value in ((name, getattr(message, name)) for name in type(message).model_fields)
        if isinstance(value, Decimal)
    }
    return message.model_copy(update=values)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("orders", samples.order()),
        ("orders", samples.sparse_order()),
        ("order_events", samples.order()),
        ("executions", samples.fill()),
        ("executions", samples.fill(order_id=None, signal_id=None, slippage=None, expected_price=None, busted=True)),
        ("positions", samples.position()),
        ("positions", samples.position(side=None, volume=Decimal(0), average_price=None)),
        ("accounts", samples.account()),
        ("account_operations", samples.operation()),
        ("account_operations", samples.operation(type="balance", position_id=None, symbol=None, ticket=None)),
        ("signals", samples.decision()),
        ("signals", samples.decision(decision="refused", reason="stale", order_id=None, strategy="x")),
        ("commands", samples.command_result()),
        (
            "commands",
            samples.command_result(
                account=None, position_id=None, issued_at=None, valid_until=None, values={}, why=None
            ),
        ),
        ("facts", samples.fact()),
        ("broker_log", samples.log_entry()),
    ],
)
async def test_what_is_read_back_is_what_was_written(table: str, message: Message, clickhouse: ClickHouse) -> None:
    writer, buried = writer_of(clickhouse)
    await writer.write([samples.record(message)])
    assert buried == []
    (row,) = await stored(clickhouse, table)
    assert MODELS[table].model_validate(row) == rounded(message)


async def test_the_balance_is_the_sum_of_what_was_told(clickhouse: ClickHouse) -> None:
    told = [
        samples.operation(1, type="balance", amount=Decimal("1000.10")),
        samples.operation(2, type="credit", amount=Decimal(500)),
        samples.operation(3, type="charge", amount=Decimal(-5)),
        samples.operation(3, type="charge", amount=Decimal(-4), revision=1),
        samples.fill(4, commission=Decimal("-0.35")),
        samples.fill(5, profit=Decimal(7), swap=Decimal("-0.5"), fee=Decimal("-0.25")),
        samples.fill(5, profit=Decimal(7), swap=Decimal("-0.5"), fee=Decimal("-0.25"), revision=1, busted=True),
        samples.operation(6, type="balance", amount=Decimal(-7)),
    ]
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(*told), samples.record(*told[:3], offset=1)])
    page = (Path(__file__).parents[2] / "docs/cookbook.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"^SELECT account, sum\(amount\) AS balance$.*?(?=;)", page, re.DOTALL | re.MULTILINE)
    assert await clickhouse.query(query) == [{"account": "demo-hedging", "balance": Decimal("994.65")}]


async def test_a_log_entry_keeps_its_hash(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(samples.log_entry())])
    (row,) = await stored(clickhouse, "broker_log")
    assert is_intact(BrokerLogEntry.model_validate(row))


async def test_a_fact_of_nobodys_deal_is_stored_with_its_place_in_the_archive(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(samples.fact(4), samples.fact(order_id=None), offset=42, partition=3)])
    place = "archive_partition, archive_offset, commit_number, commit_place"
    (row,) = await clickhouse.query(f"SELECT order_id, {place} FROM facts WHERE order_id = ''")
    assert list(row.values()) == ["", 3, 42, 43, 1]


async def test_never_is_kept_as_the_last_moment_there_is(clickhouse: ClickHouse) -> None:
    writer, buried = writer_of(clickhouse)
    never = samples.order(time_in_force="until", expiration=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    await writer.write([samples.record(never)])
    (row,) = await stored(clickhouse, "orders")
    assert (buried, row["expiration"]) == ([], "2299-12-31T23:59:59.999999Z")


def a_day_of_orders() -> list[SourceRecord]:
    messages: list[Message] = []
    for number in range(40):
        messages += [
            samples.order(f"o-{number}", rev, signal_at=samples.AT + timedelta(days=number)) for rev in (1, 2, 3)
        ]
        messages += [samples.fill(number), samples.fill(number, revision=1, at=samples.AT + timedelta(days=40))]
        messages += [samples.position(number), samples.decision(number)]
    return [samples.record(message, offset=offset) for offset, message in enumerate(messages)]


async def test_a_replay_in_other_batches_leaves_the_same_rows(clickhouse: ClickHouse) -> None:
    records = a_day_of_orders()
    writer, buried = writer_of(clickhouse)
    await writer.write(records)
    tables = ("orders", "order_events", "executions", "positions", "signals")
    before = {table: await stored(clickhouse, table) for table in tables}
    chance = random.Random(7)
    for _ in range(3):
        first = 0
        while first < len(records):
            size = chance.randint(1, 90)
            await writer.write(records[first : first + size])
            first += size
    assert {table: await stored(clickhouse, table) for table in tables} == before
    assert [len(before[table]) for table in tables] == [40, 120, 40, 1, 40]
    assert {row["rev"] for row in before["orders"]} == {3}
    assert {row["revision"] for row in before["executions"]} == {1}
    assert buried == []


async def test_revisions_that_come_in_any_order_leave_the_newest(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    for rev in (4, 1, 2):
        await writer.write([samples.record(samples.order(rev=rev), offset=rev)])
    assert [row["rev"] for row in await stored(clickhouse, "orders")] == [4]


async def test_a_command_is_as_it_was_said_last_and_a_repeat_beside_it(clickhouse: ClickHouse) -> None:
    writer, buried = writer_of(clickhouse)
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    said = [
        samples.command_result(2),
        samples.command_result(1, state="accepted", why=None),
        samples.command_result(2, stream_seq=9, valid_until=never),
    ]
    await writer.write([samples.record(message, offset=offset) for offset, message in enumerate(said)])
    rows = await stored(clickhouse, "commands")
    assert {(row["request_id"], row["stream_seq"], row["state"]) for row in rows} == {
        ("c-1", 7, "failed"),
        ("c-1", 9, "failed"),
    }
    assert buried == []


async def test_rows_that_were_deleted_come_back_from_the_archive(clickhouse: ClickHouse) -> None:
    """The same inserts, sent again: an engine that remembered them would drop them, and the rows be gone for good."""
    writer, _ = writer_of(clickhouse)
    records = [samples.record(samples.fill(deal), offset=deal) for deal in range(5)]
    await writer.write(records)
    await clickhouse.command("DELETE FROM executions WHERE deal < 3")
    assert await count(clickhouse, "executions") == 2
    await writer.write(records)
    assert await count(clickhouse, "executions") == 5


async def test_what_does_not_fit_is_a_dead_letter_alone(clickhouse: ClickHouse) -> None:
    """Neither the other records suffer for it, nor the other facts and messages of its own commit."""
    records = [samples.record(samples.fact(deal + 1), samples.fill(deal), offset=deal) for deal in range(50)]
    records[17] = samples.record(samples.fact(18), samples.fill(2**70), samples.position(), offset=17)
    records[18] = SourceRecord(topics.ARCHIVE, 0, 18, None, b"not json")
    records[33] = samples.record(samples.fact(34), samples.fill(-1), offset=33)
    writer, buried = writer_of(clickhouse)
    await writer.write(records)
    assert sorted((each.entry.record.offset, each.entry.path, each.reason) for each in buried) == [
        (17, "messages.0", "does_not_fit"),
        (18, "", "not_json"),
        (33, "messages.0", "does_not_fit"),
    ]
    assert FillMessage.decode(buried[-1].entry.payload) in (samples.fill(-1), samples.fill(2**70))
    counts = [await count(clickhouse, table) for table in ("executions", "facts", "positions")]
    assert counts == [47, 49, 1]


async def test_a_row_that_the_server_refuses_is_a_dead_letter_alone(clickhouse: ClickHouse) -> None:
    await clickhouse.command("ALTER TABLE orders ADD CONSTRAINT bad CHECK symbol != 'BAD'")
    await clickhouse.command("ALTER TABLE order_events ADD CONSTRAINT bad CHECK symbol != 'BAD'")
    records = [samples.record(samples.order(f"o-{number}"), offset=number) for number in range(20)]
    records[5] = samples.record(samples.order("o-5", symbol="BAD"), offset=5)
    writer, buried = writer_of(clickhouse)
    await writer.write(records)
    assert [(each.entry.record.offset, each.reason) for each in buried] == [(5, "violated_constraint")]
    assert (await count(clickhouse, "orders"), await count(clickhouse, "order_events")) == (19, 19)


async def test_a_missing_table_stops_the_stream_and_buries_nothing(clickhouse: ClickHouse) -> None:
    await clickhouse.command("DROP TABLE executions SYNC")
    writer, buried = writer_of(clickhouse)
    writing = asyncio.create_task(writer.write([samples.record(samples.fill())]))
    await eventually(lambda: bool(writer.troubles))
    assert "executions" in writer.troubles[0]
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert (buried, writer.troubles) == ([], ())


class Flaky:
    """Fails as often as told, and remembers what it was asked to insert."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.asked: list[tuple[str, Sequence[Sequence[object]]]] = []

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.asked.append((table, rows))
        if len(self.asked) <= self.failures:
            raise Transient("away")


async def test_a_retry_sends_the_same_rows() -> None:
    flaky = Flaky(failures=2)
    writer, _ = writer_of(flaky)
    records = [samples.record(samples.fill(deal), offset=deal) for deal in (3, 4)]
    await writer.write(records)
    assert len(flaky.asked) == 3
    assert flaky.asked[0] == flaky.asked[1] == flaky.asked[2]
    rows = [row for record in records for row in rows_of(record, "both")[0]]
    assert flaky.asked[0] == ("executions", [row.values for row in rows])
    assert writer.troubles == ()


async def test_orders_are_read_by_id_and_by_filter(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    messages = [
        samples.order("o-1", 1),
        samples.order("o-1", 2, status="filled", symbol="EURUSD"),
        samples.sparse_order("o-2"),
    ]
    await writer.write([samples.record(message, offset=offset) for offset, message in enumerate(messages)])
    first, second = samples.commit(samples.fact(9), samples.fact(7)), samples.commit(samples.fact(5), number=2)
    # The first commit was archived once more, behind the second.
    for offset, value in enumerate((first, second, first)):
        await writer.write([SourceRecord(topics.ARCHIVE, 0, offset, None, value)])
    reader = Reader(clickhouse, ExecutionSettings())
    assert (await reader.order("o-1") or {})["rev"] == 2
    assert await reader.order("nobody") is None
    assert [row["order_id"] for row in await reader.orders()] == ["o-1", "o-2"]
    assert [row["order_id"] for row in await reader.orders(status="pending", account="demo-hedging")] == ["o-2"]
    assert await reader.orders(symbol="' OR 1 = 1 --") == []
    assert [row["body"]["ticket"] for row in await reader.facts("o-1")] == [9, 7, 5]


async def test_closed_orders_of_a_day_are_read_page_by_page(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    ids = [f"o-{number}" for number in range(5)]
    messages = [samples.order(order_id, 1, status="filled") for order_id in ids]
    await writer.write([samples.record(message, offset=offset) for offset, message in enumerate(messages)])
    reader = Reader(clickhouse, ExecutionSettings())
    day = messages[0].updated_at.date()
    found: list[str] = []
    before = None
    for _ in range(3):
        rows = await reader.closed_orders(day=day, before=before, limit=2)
        found += [row["order_id"] for row in rows]
        before = (datetime.fromisoformat(rows[-1]["updated_at"]), rows[-1]["order_id"])
    assert found == ids  # all of one moment
    assert await reader.closed_orders(day=day, before=before, limit=2) == []
    assert await reader.closed_orders(day=day - timedelta(days=1)) == []
    assert [row["order_id"] for row in await reader.closed_orders(signal_id="s-o-3")] == ["o-3"]
    assert await reader.closed_orders(day=day, strategy="nobody's") == []


async def test_an_engine_killed_between_inserts_loses_and_doubles_nothing(tmp_path: Path) -> None:
    spec = engine.prepare(tmp_path / "clickhouse", free_port())
    settings = Settings(clickhouse=ClickHouseSettings(url=spec.address, timeout_s=5))
    process = RunningProcess(spec, tmp_path / "logs")
    process.wait_ready()
    try:
        await migrate(settings)
        client = ClickHouse.of(settings)
        writer, buried = writer_of(client)
        for number in range(60):
            if number % 20 == 10:
                process.kill()
                writing = asyncio.create_task(writer.write([samples.record(samples.fill(number), offset=number)]))
                await eventually(lambda: bool(writer.troubles))
                process = RunningProcess(spec, tmp_path / "logs")
                await writing
            else:
                await writer.write([samples.record(samples.fill(number), offset=number)])
        assert buried == []
        assert await count(client, "executions") == 60
        await client.close()
    finally:
        process.stop()
