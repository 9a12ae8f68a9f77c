from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.clickhouse.reader import Reader
from streamapp.errors import Transient
from streamapp.local.ports import free_port
from streamapp.messages.dialect import read_signal
from streamapp.messages.order import OrderMessage
from streamapp.settings import ClickHouseSettings, ExecutionSettings, Settings

_ROW = {
    "signal_id": "s-1",
    "status": "approved",
    "account": "demo-hedging",
    "symbol": "EURUSD",
    "side": "buy",
    "volume": "0.10",
    "approved_at": "2026-11-20 12:00:00.123456",
    "metadata": '{"a": 1}',
}


async def put(clickhouse: ClickHouse, table: str, **values: Any) -> None:
    names = ", ".join(f"`{name}`" for name in values)
    texts = ", ".join(
        value if isinstance(value, str) and value.startswith("(") else f"'{value}'" for value in values.values()
    )
    await clickhouse.command(f"INSERT INTO {table} ({names}) VALUES ({texts})")


async def test_a_signals_row_reads_as_its_payload_would(clickhouse: ClickHouse) -> None:
    await put(clickhouse, "trading_signals", **_ROW)
    row = await Reader(clickhouse, ExecutionSettings()).signal("s-1")
    assert row == {
        "signal_id": "s-1",
        "status": "approved",
        "account": "demo-hedging",
        "symbol": "EURUSD",
        "side": "buy",
        "order_type": "market",
        "volume": "0.1",
        "time_in_force": "gtc",
        "fill_policy": "any",
        "approved_at": "2026-11-20T12:00:00.123456Z",
        "metadata": {"a": 1},
    }
    assert read_signal(row).parameters.volume == Decimal("0.1")


async def test_the_newest_row_of_a_signal_counts(clickhouse: ClickHouse) -> None:
    await put(clickhouse, "trading_signals", **_ROW)
    await put(clickhouse, "trading_signals", **(_ROW | {"status": "revoked"}))
    row = await Reader(clickhouse, ExecutionSettings()).signal("s-1")
    assert (row or {})["status"] == "revoked"


async def test_a_signal_of_two_accounts_is_found_only_by_account(clickhouse: ClickHouse) -> None:
    await put(clickhouse, "trading_signals", **_ROW)
    await put(clickhouse, "trading_signals", **(_ROW | {"account": "demo-netting"}))
    reader = Reader(clickhouse, ExecutionSettings())
    assert await reader.signal("s-1") is None
    assert (await reader.signal("s-1", "demo-netting") or {})["account"] == "demo-netting"
    assert await reader.signal("s-1", "nobody") is None
    assert await reader.signal("s-2") is None


async def test_a_row_without_an_account_is_good_for_every_account(clickhouse: ClickHouse) -> None:
    await put(clickhouse, "trading_signals", **(_ROW | {"account": ""}))
    row = await Reader(clickhouse, ExecutionSettings()).signal("s-1", "demo-netting")
    assert row is not None
    assert "account" not in row


async def test_the_risk_engines_names_and_words_become_ours(settings: Settings) -> None:
    execution = ExecutionSettings(field_names={"volume": "size", "side": "direction"}, value_names={"LONG": "buy"})
    await migrate(settings.model_copy(update={"execution": execution}))
    clickhouse = ClickHouse.of(settings)
    theirs = {{"volume": "size", "side": "direction"}.get(name, name): value for name, value in _ROW.items()}
    await put(clickhouse, "trading_signals", **(theirs | {"direction": "LONG"}))
    row = await Reader(clickhouse, execution).signal("s-1") or {}
    assert (row["volume"], row["side"]) == ("0.1", "buy")
    await clickhouse.close()


async def test_a_table_of_the_risk_engines_own_making_is_read_as_far_as_it_goes(settings: Settings) -> None:
    await migrate(settings)
    clickhouse = ClickHouse.of(settings)
    await clickhouse.command("DROP TABLE trading_signals SYNC")
    await clickhouse.command(
        "CREATE TABLE trading_signals (signal_id String, status Enum8('approved' = 1, 'rejected' = 2), volume Float64) "
        "ENGINE = MergeTree ORDER BY signal_id"
    )
    await put(clickhouse, "trading_signals", signal_id="s-1", status="approved", volume="(0.1)")
    reader = Reader(clickhouse, ExecutionSettings())
    assert await reader.signal("s-1") == {"signal_id": "s-1", "status": "approved", "volume": "0.1"}
    await put(clickhouse, "trading_signals", signal_id="s-1", status="rejected", volume="(0.1)")
    assert await reader.signal("s-1") is None
    await clickhouse.close()


@pytest.mark.parametrize("kind", ["UUID", "FixedString(36)", "LowCardinality(String)"])
async def test_a_signal_is_found_by_an_id_of_any_type(kind: str, settings: Settings) -> None:
    await migrate(settings)
    clickhouse = ClickHouse.of(settings)
    await clickhouse.command("DROP TABLE trading_signals SYNC")
    await clickhouse.command(f"CREATE TABLE trading_signals (signal_id {kind}) ENGINE = MergeTree ORDER BY signal_id")
    signal_id = "6a2f5d1e-0000-8000-8000-000000000001"
    await put(clickhouse, "trading_signals", signal_id=signal_id)
    reader = Reader(clickhouse, ExecutionSettings())
    assert await reader.signal(signal_id) == {"signal_id": signal_id}
    assert await reader.signal("no-uuid") is None
    await clickhouse.close()


async def test_an_order_that_another_service_keeps_is_read_as_far_as_it_goes(settings: Settings) -> None:
    await migrate(settings)
    clickhouse = ClickHouse.of(settings)
    await clickhouse.command("DROP TABLE orders SYNC")
    await clickhouse.command(
        "CREATE TABLE orders (order_id String, size Decimal(18, 8)) ENGINE = MergeTree ORDER BY order_id"
    )
    await put(clickhouse, "orders", order_id="x-1", size="(0.25)")
    reader = Reader(clickhouse, ExecutionSettings(field_names={"volume": "size"}))
    found = await reader.order("x-1") or {}
    assert (found["order_id"], found["volume"]) == ("x-1", "0.25")
    assert set(found) <= set(OrderMessage.model_fields) | {"schema"}
    await clickhouse.close()


async def test_clickhouse_that_is_away_is_transient() -> None:
    away = ClickHouseSettings(url=f"http://127.0.0.1:{free_port()}", timeout_s=2)
    reader = Reader.of(Settings(clickhouse=away))
    with pytest.raises(Transient, match="ClickHouse"):
        await reader.order("o-1")
    await reader.close()


async def test_a_missing_database_is_transient(settings: Settings) -> None:
    reader = Reader.of(settings)
    with pytest.raises(Transient, match="UNKNOWN_DATABASE"):
        await reader.signal("s-1")
    await reader.close()
