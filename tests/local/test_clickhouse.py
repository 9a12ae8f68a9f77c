from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

TABLE = """
CREATE TABLE local_test.fills (
    deal Int64,
    at DateTime64(6, 'UTC'),
    volume Decimal(18, 8),
    notional Nullable(Decimal(38, 8)),
    side LowCardinality(String),
    comment String,
    CONSTRAINT side CHECK side IN ('buy', 'sell')
) ENGINE = ReplacingMergeTree ORDER BY deal
SETTINGS non_replicated_deduplication_window = 100
"""
COLUMNS = ["deal", "at", "volume", "notional", "side", "comment"]
AT = datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def client(clickhouse_url: str) -> Iterator[Client]:
    with clickhouse_connect.get_client(dsn=clickhouse_url, autogenerate_session_id=False, tz_mode="aware") as client:
        client.command("DROP DATABASE IF EXISTS local_test")
        client.command("CREATE DATABASE local_test ENGINE = Atomic")
        client.command(TABLE)
        yield client


def row(deal: int, *, side: str = "buy", notional: Decimal | None = None, comment: str = "") -> list[object]:
    return [deal, AT, Decimal("0.10000000"), notional, side, comment]


@pytest.mark.parametrize("compression", [True, False, "lz4", "zstd", "gzip"])
def test_a_row_comes_back_as_it_was_inserted(clickhouse_url: str, client: Client, compression: bool | str) -> None:
    rows = [row(1, notional=Decimal("12345678901234567890.12345678"), comment="é'\\\t\n"), row(2, side="sell")]
    with clickhouse_connect.get_client(dsn=clickhouse_url, compress=compression, tz_mode="aware") as other:
        other.insert("local_test.fills", rows, column_names=COLUMNS)
        got = other.query("SELECT * FROM local_test.fills ORDER BY deal").result_rows
    assert [list(each) for each in got] == rows


async def test_the_async_client_inserts_and_reads(clickhouse_url: str, client: Client) -> None:
    async with await clickhouse_connect.get_async_client(dsn=clickhouse_url, autogenerate_session_id=False) as other:
        await other.insert("local_test.fills", [row(7)], column_names=COLUMNS)
        got = await other.query("SELECT deal FROM local_test.fills")
    assert got.result_rows == [(7,)]


@pytest.mark.parametrize("text", ["plain", "it's", "back\\slash", "tab\tline\nend", "{x:String} é"])
def test_a_bound_value_is_a_value_and_never_sql(client: Client, text: str) -> None:
    client.insert("local_test.fills", [row(1, comment=text), row(2, comment="other")], column_names=COLUMNS)
    got = client.query("SELECT deal FROM local_test.fills WHERE comment = {c:String}", parameters={"c": text})
    assert got.result_rows == [(1,)]


def test_bound_values_have_types(client: Client) -> None:
    client.insert("local_test.fills", [row(1), row(2)], column_names=COLUMNS)
    sql = "SELECT deal FROM local_test.fills WHERE deal IN {ids:Array(Int64)} AND at = {at:DateTime64(6, 'UTC')}"
    assert client.query(sql, parameters={"ids": [2, 3], "at": AT}).result_rows == [(2,)]


def test_a_long_query_goes_as_a_form(clickhouse_url: str, client: Client) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_url, form_encode_query_params=True) as other:
        assert other.query("SELECT {x:String}", parameters={"x": "a'b"}).result_rows == [("a'b",)]


def test_an_unknown_table_is_code_60(client: Client) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM local_test.nothing")
    assert caught.value.code == 60


def test_a_failed_check_is_code_469_and_stores_nothing(client: Client) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.insert("local_test.fills", [row(1), row(2, side="hold")], column_names=COLUMNS)
    assert caught.value.code == 469
    assert client.query("SELECT count() FROM local_test.fills").result_rows == [(0,)]


def test_a_setting_holds_for_its_own_request_only(client: Client) -> None:
    sql = "SELECT toUInt32(getSetting('max_threads'))"
    before = client.query(sql).result_rows
    assert client.query(sql, settings={"max_threads": 3}).result_rows == [(3,)]
    assert client.query(sql).result_rows == before


def test_the_same_token_inserts_once(client: Client) -> None:
    for _ in range(3):
        token = {"insert_deduplication_token": "updates:3:10-11"}
        client.insert("local_test.fills", [row(1), row(2)], column_names=COLUMNS, settings=token)
    assert client.query("SELECT count() FROM local_test.fills").result_rows == [(2,)]


def test_a_database_of_the_client_is_the_place_of_plain_names(clickhouse_url: str, client: Client) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_url, database="local_test") as other:
        other.insert("fills", [row(9)], column_names=COLUMNS)
        assert other.query("SELECT deal FROM fills").result_rows == [(9,)]
        assert other.command("SELECT count() FROM fills") == 1


def test_statements_with_their_values_inside_work(client: Client) -> None:
    client.command("INSERT INTO local_test.fills (deal, side) VALUES (1, 'buy'), (2, 'sell')")
    client.command("INSERT INTO local_test.fills (deal, side) SELECT number + 10, 'buy' FROM numbers(3)")
    summary = client.raw_insert("local_test.fills", ["deal", "side"], b'{"deal":20,"side":"buy"}\n', fmt="JSONEachRow")
    assert summary.written_rows == 1
    assert client.query("SELECT count() FROM local_test.fills").result_rows == [(6,)]


def test_a_name_of_a_setting_is_no_way_in_for_sql(clickhouse_url: str) -> None:
    query = urllib.parse.urlencode({"query": "SELECT 1", "max_threads=1; DROP DATABASE x; --": "1"})
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(f"{clickhouse_url}/?{query}"):
        pass
    assert caught.value.headers["X-ClickHouse-Exception-Code"] == "115"
    caught.value.close()
