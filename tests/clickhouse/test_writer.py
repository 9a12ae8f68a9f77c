from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from streamapp import topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.reader import Reader, message_of
from streamapp.clickhouse.rows import MODELS, Record, columns, rows_of
from streamapp.clickhouse.writer import Writer, token_of
from streamapp.errors import Transient, Unusable
from streamapp.local import clickhouse as engine
from streamapp.local.ports import free_port
from streamapp.local.process import RunningProcess
from streamapp.messages.envelope import Message
from streamapp.messages.log import BrokerLogEntry, is_intact
from streamapp.settings import ClickHouseSettings, ExecutionSettings, Settings
from tests.clickhouse import samples

Buried = list[tuple[Record, str]]


def writer_of(clickhouse: Any, role: Any = "both") -> tuple[Writer, Buried]:
    buried: Buried = []

    async def bury(record: Record, reason: str, detail: str) -> None:
        assert detail
        buried.append((record, reason))

    return Writer(clickhouse, role, bury), buried


async def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


async def count(clickhouse: ClickHouse, table: str, final: str = " FINAL") -> int:
    return int((await clickhouse.query(f"SELECT count() AS n FROM {table}{final}"))[0]["n"])


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
        ("signals", samples.decision()),
        ("signals", samples.decision(decision="refused", reason="stale", order_id=None, strategy="x")),
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


async def test_a_log_entry_keeps_its_hash(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(samples.log_entry())])
    (row,) = await stored(clickhouse, "broker_log")
    assert is_intact(BrokerLogEntry.model_validate(row))


async def test_a_fact_of_nobodys_deal_is_stored_with_its_place_in_the_archive(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(samples.fact(order_id=None), 42, partition=3)])
    (row,) = await clickhouse.query("SELECT order_id, archive_partition, archive_offset FROM facts")
    assert row == {"order_id": "", "archive_partition": 3, "archive_offset": 42}


def test_numbers_are_rounded_and_not_cut() -> None:
    third = samples.order(average_price=Decimal("1.00000000005"), filled_volume=Decimal("1.00000000015"))
    (row, _) = rows_of(samples.record(third), "both")
    named = dict(zip(columns("orders"), row.values, strict=True))
    assert named["average_price"] == Decimal("1.0000000000")
    assert named["filled_volume"] == Decimal("1.0000000002")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record(topics.UPDATES, 0, 0, None, b"{"), "not_json"),
        (Record(topics.UPDATES, 0, 0, None, b"[]"), "not_an_object"),
        (Record(topics.UPDATES, 0, 0, None, b'{"schema": "order/2"}'), "unknown_schema"),
        (Record(topics.UPDATES, 0, 0, None, b'{"schema": ["order/1"]}'), "unknown_schema"),
        (Record(topics.UPDATES, 0, 0, None, b'{"schema": "order/1"}'), "invalid"),
        (samples.record(samples.order(average_price=Decimal("1e28"))), "out_of_range"),
        (samples.record(samples.fill(at=datetime(1899, 12, 31, tzinfo=UTC))), "out_of_range"),
        (samples.record(samples.fact(), topic=topics.UPDATES), "wrong_topic"),
    ],
)
def test_a_record_that_fits_no_table_says_why(record: Record, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        rows_of(record, "both")
    assert caught.value.reason == reason


async def test_never_is_kept_as_the_last_moment_there_is(clickhouse: ClickHouse) -> None:
    writer, buried = writer_of(clickhouse)
    never = samples.order(time_in_force="until", expiration=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    await writer.write([samples.record(never)])
    (row,) = await stored(clickhouse, "orders")
    assert (buried, row["expiration"]) == ([], "2299-12-31T23:59:59.999999Z")


def test_what_is_told_elsewhere_has_no_table() -> None:
    told = Record(topics.UPDATES, 0, 0, None, b'{"schema": "refused/1"}')
    assert rows_of(told, "both") == ()


@pytest.mark.parametrize("message", [samples.order(), samples.position(), samples.account(), samples.decision()])
def test_a_connector_leaves_what_is_the_execution_services(message: Message) -> None:
    assert rows_of(samples.record(message), "connector") == ()


def test_a_connector_writes_executions_and_its_broker_log() -> None:
    tables = [
        row.table
        for message in (samples.fill(), samples.log_entry())
        for row in rows_of(samples.record(message), "connector")
    ]
    assert tables == ["executions", "broker_log"]


def a_day_of_orders() -> list[Record]:
    messages: list[Message] = []
    for number in range(40):
        messages += [
            samples.order(f"o-{number}", rev, signal_at=samples.AT + timedelta(days=number)) for rev in (1, 2, 3)
        ]
        messages += [samples.fill(number), samples.fill(number, revision=1, at=samples.AT + timedelta(days=40))]
        messages += [samples.position(number), samples.decision(number)]
    return [samples.record(message, offset) for offset, message in enumerate(messages)]


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
        await writer.write([samples.record(samples.order(rev=rev), rev)])
    assert [row["rev"] for row in await stored(clickhouse, "orders")] == [4]


async def test_the_same_insert_sent_again_adds_no_part(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    for _ in range(3):
        await writer.write([samples.record(samples.fill())])
    assert await count(clickhouse, "executions", final="") == 1


async def test_a_topic_that_was_made_anew_is_not_taken_for_a_repetition(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    await writer.write([samples.record(samples.fill(1), 0)])
    await writer.write([samples.record(samples.fill(2), 0)])
    assert await count(clickhouse, "executions") == 2


async def test_a_bad_row_is_a_dead_letter_alone(clickhouse: ClickHouse) -> None:
    records = [samples.record(samples.fill(deal), deal) for deal in range(50)]
    records[17] = samples.record(samples.fill(2**70), 17)
    records[18] = Record(topics.UPDATES, 0, 18, None, b"not json")
    records[33] = samples.record(samples.fill(-1), 33)
    writer, buried = writer_of(clickhouse)
    await writer.write(records)
    assert sorted((record.offset, reason) for record, reason in buried) == [
        (17, "does_not_fit"),
        (18, "not_json"),
        (33, "does_not_fit"),
    ]
    assert await count(clickhouse, "executions") == 47


async def test_a_row_that_the_server_refuses_is_a_dead_letter_alone(clickhouse: ClickHouse) -> None:
    await clickhouse.command("ALTER TABLE orders ADD CONSTRAINT bad CHECK symbol != 'BAD'")
    await clickhouse.command("ALTER TABLE order_events ADD CONSTRAINT bad CHECK symbol != 'BAD'")
    records = [samples.record(samples.order(f"o-{number}"), number) for number in range(20)]
    records[5] = samples.record(samples.order("o-5", symbol="BAD"), 5)
    writer, buried = writer_of(clickhouse)
    await writer.write(records)
    assert [(record.offset, reason) for record, reason in buried] == [(5, "violated_constraint")]
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
        self.asked: list[tuple[str, str, Sequence[Sequence[object]]]] = []

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, token: str) -> None:
        self.asked.append((table, token, rows))
        if len(self.asked) <= self.failures:
            raise Transient("away")


async def test_a_retry_sends_the_same_rows_under_the_same_token() -> None:
    flaky = Flaky(failures=2)
    writer, _ = writer_of(flaky)
    records = [samples.record(samples.fill(deal), deal) for deal in (3, 4)]
    await writer.write(records)
    assert len(flaky.asked) == 3
    assert flaky.asked[0] == flaky.asked[1] == flaky.asked[2]
    rows = [row for record in records for row in rows_of(record, "both")]
    assert flaky.asked[0][1] == token_of(rows)
    assert token_of(rows).startswith(f"{topics.UPDATES}:0:3-4:")
    assert writer.troubles == ()


async def test_orders_are_read_by_id_and_by_filter(clickhouse: ClickHouse) -> None:
    writer, _ = writer_of(clickhouse)
    messages = [
        samples.order("o-1", 1),
        samples.order("o-1", 2, status="filled", symbol="EURUSD"),
        samples.sparse_order("o-2"),
    ]
    await writer.write([samples.record(message, offset) for offset, message in enumerate(messages)])
    await writer.write([samples.record(samples.fact(ticket), ticket) for ticket in (9, 5)])
    reader = Reader(clickhouse, ExecutionSettings())
    assert (await reader.order("o-1") or {})["rev"] == 2
    assert await reader.order("nobody") is None
    assert [row["order_id"] for row in await reader.orders()] == ["o-1", "o-2"]
    assert [row["order_id"] for row in await reader.orders(status="pending", account="demo-hedging")] == ["o-2"]
    assert await reader.orders(symbol="' OR 1 = 1 --") == []
    assert [row["body"]["ticket"] for row in await reader.facts("o-1")] == [5, 9]


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
                writing = asyncio.create_task(writer.write([samples.record(samples.fill(number), number)]))
                await eventually(lambda: bool(writer.troubles))
                process = RunningProcess(spec, tmp_path / "logs")
                await writing
            else:
                await writer.write([samples.record(samples.fill(number), number)])
        assert buried == []
        assert (await count(client, "executions", final=""), await count(client, "executions")) == (60, 60)
        await client.close()
    finally:
        process.stop()
