from __future__ import annotations

from typing import Any, get_args

import pytest

from streamapp.clickhouse import migrations as module
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.cluster import refuse_unknown, rendered
from streamapp.clickhouse.migrations import Migration, migrate, migrations, pending
from streamapp.clickhouse.rows import MODELS, columns
from streamapp.errors import ConfigurationError
from streamapp.messages.signal import NAMES
from streamapp.settings import ExecutionSettings, Settings

_OURS = [
    "0001_tables",
    "0002_trading_signals",
    "0003_commits",
    "0004_wrong_password",
    "0005_intents",
    "0006_account_operations",
    "0007_attribution",
    "0008_commands",
    "0009_trading_days",
    "0010_breaks",
]


async def _columns(client: ClickHouse, table: str) -> set[str]:
    return {row["name"] for row in await client.query(f"DESCRIBE TABLE {table}")}


async def test_a_second_migration_finds_nothing_to_do(settings: Settings) -> None:
    assert await pending(settings) == _OURS
    assert await migrate(settings) == _OURS
    assert await pending(settings) == []
    assert await migrate(settings) == []


async def test_looking_at_what_is_pending_changes_nothing(settings: Settings) -> None:
    assert await pending(settings) == _OURS
    assert await pending(settings) == _OURS


async def test_an_interrupted_migration_is_applied_again(settings: Settings, clickhouse: ClickHouse) -> None:
    await clickhouse.command("TRUNCATE TABLE schema_migrations")
    await clickhouse.command("DROP TABLE executions")
    assert await migrate(settings) == _OURS
    assert "fill_id" in await _columns(clickhouse, "executions")


async def test_a_changed_migration_is_an_error_that_names_it(
    settings: Settings, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tuple(Migration(found.number, found.name, found.text + "-- more\n") for found in migrations())
    monkeypatch.setattr(module, "migrations", lambda: changed)
    with pytest.raises(ConfigurationError, match="0001_tables: expected the text that was applied"):
        await migrate(settings)


async def test_a_database_of_a_newer_version_is_left_alone(
    settings: Settings, clickhouse: ClickHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "migrations", lambda: migrations()[:1])
    with pytest.raises(ConfigurationError, match="Start the newer streamapp"):
        await pending(settings)


@pytest.mark.parametrize("table", MODELS)
async def test_every_field_of_a_message_has_its_column(table: str, clickhouse: ClickHouse) -> None:
    assert set(columns(table)) | {"ingested_at"} == await _columns(clickhouse, table)


async def test_no_table_remembers_inserts(clickhouse: ClickHouse) -> None:
    """What is remembered longer than its rows keeps them out when they come again."""
    remembers = "match(engine_full, 'deduplication_window = [1-9]')"
    assert (
        await clickhouse.query(f"SELECT name FROM system.tables WHERE {remembers} AND database = currentDatabase()")
        == []
    )


@pytest.mark.parametrize("table", MODELS)
def test_the_checked_words_are_the_words_of_the_messages(table: str) -> None:
    statements = [statement for found in migrations() for statement in found.statements({})]
    of_table = (f"CREATE TABLE IF NOT EXISTS {table}\n", f"ALTER TABLE {table} ")
    text = "".join(statement for statement in statements if statement.startswith(of_table))
    for name, field in MODELS[table].model_fields.items():
        words = _words(field.annotation)
        if words and name != "schema_":
            assert f"IN ({', '.join(repr(word) for word in words)})" in text, name


def _words(annotation: Any) -> tuple[str, ...]:
    parts = get_args(annotation)
    if parts and all(isinstance(part, str) for part in parts):
        return parts
    return next((found for part in parts if (found := _words(part))), ())


async def test_the_risk_engines_table_carries_its_own_names(settings: Settings) -> None:
    names = {"volume": "size", "side": "direction`s"}
    other = settings.model_copy(update={"execution": ExecutionSettings(field_names=names)})
    await migrate(other)
    client = ClickHouse.of(other)
    # A table that is there is never changed, so what came later is a risk engine's to add (docs/clickhouse.md).
    later = {"intent", "position_id", "scope"}
    expected = {names.get(name, name) for name in set(NAMES) - later} | {"written_at"}
    assert await _columns(client, "trading_signals") == expected
    assert await pending(settings) == []
    await client.close()


async def test_the_risk_engines_table_is_left_as_it_is_where_it_exists(settings: Settings) -> None:
    server = ClickHouse(settings.clickhouse, settings.clickhouse_url, database=None)
    database = settings.clickhouse.database
    await server.command(f"CREATE DATABASE {database} ENGINE = Atomic")
    await server.command(f"CREATE TABLE {database}.trading_signals (signal_id String) ENGINE = Memory")
    await migrate(settings)
    client = ClickHouse.of(settings)
    assert await _columns(client, "trading_signals") == {"signal_id"}
    await client.close()
    await server.close()


# --- on a cluster


def _on_cluster(settings: Settings, cluster: str) -> Settings:
    return settings.model_copy(
        update={"clickhouse": settings.clickhouse.model_copy(update={"cluster": cluster, "database": "trading"})}
    )


async def test_every_statement_is_made_for_a_cluster_and_the_engine_can_parse_it(settings: Settings) -> None:
    wanted = _on_cluster(settings, "main.1").clickhouse
    statements = [made for found in migrations() for made in found.statements({"side": "direction`s"})]
    engine = ClickHouse(settings.clickhouse, settings.clickhouse_url, database=None)
    for statement in ("CREATE DATABASE IF NOT EXISTS `trading` ENGINE = Atomic", module._APPLIED, *statements):
        said = rendered(statement, wanted)
        assert " ON CLUSTER `main.1`" in said.partition("\n")[0]
        if "ENGINE = Replacing" in statement:
            name = statement.split()[5]
            assert f"ReplicatedReplacingMergeTree('/clickhouse/tables/main.1/trading/{name}', '{{replica}}'" in said
            assert said.count("SETTINGS replicated_deduplication_window = 0") == 1
        assert rendered(statement, settings.clickhouse) == statement
        parsed = await engine.query("SELECT formatQuery({statement:String}) AS text", {"statement": said})
        assert "ON CLUSTER" in parsed[0]["text"]
    await engine.close()


def test_arguments_and_settings_of_an_engine_are_kept(settings: Settings) -> None:
    statement = "CREATE TABLE IF NOT EXISTS t\n(a UInt8, b UInt8)\nENGINE = ReplacingMergeTree(b)\nORDER BY a"
    wanted = _on_cluster(settings, "main").clickhouse
    made = (
        "CREATE TABLE IF NOT EXISTS t ON CLUSTER `main`\n(a UInt8, b UInt8)\n"
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/main/trading/t', '{replica}', b)\nORDER BY a"
    )
    assert rendered(statement, wanted) == f"{made}\nSETTINGS replicated_deduplication_window = 0"
    with_settings = rendered(f"{statement} SETTINGS ttl_only_drop_parts = 1", wanted)
    assert with_settings == f"{made} SETTINGS replicated_deduplication_window = 0, ttl_only_drop_parts = 1"


async def test_a_cluster_that_can_not_be_meant_is_refused_before_anything_is_made(settings: Settings) -> None:
    for ask in (pending, migrate):
        with pytest.raises(ConfigurationError, match=r"clickhouse\.cluster: expected a cluster that the server knows"):
            await ask(_on_cluster(settings, "nowhere"))
    with pytest.raises(ConfigurationError, match=r"knows \(east, west\), got main.*remote_servers"):
        refuse_unknown("main", {"west": 1, "east": 1})
    with pytest.raises(ConfigurationError, match=r"expected a cluster of one shard.*main has 2"):
        refuse_unknown("main", {"main": 2})
    refuse_unknown("main", {"main": 1})


async def test_tables_of_one_server_do_not_become_those_of_a_cluster_unsaid(settings: Settings) -> None:
    await migrate(settings)
    clustered = settings.clickhouse.model_copy(update={"cluster": "main"})
    with pytest.raises(ConfigurationError, match=r"was made without a cluster.*Name another database"):
        await migrate(settings.model_copy(update={"clickhouse": clustered}))
