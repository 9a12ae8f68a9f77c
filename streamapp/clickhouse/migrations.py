"""Migrations: numbered SQL files, each applied once, in order; what was applied is never edited."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.cluster import refuse_unfit, rendered
from streamapp.errors import ConfigurationError
from streamapp.settings import Settings

_FILE = re.compile(r"(\d{4})_(\w+)\.sql")
_FIELD = re.compile(r"\{field:(\w+)\}")
_APPLIED = """CREATE TABLE IF NOT EXISTS schema_migrations
(number UInt32, name String, checksum String, applied_at DateTime64(6, 'UTC') DEFAULT now64(6))
ENGINE = ReplacingMergeTree
ORDER BY number"""


@dataclass(frozen=True)
class Migration:
    """One file: its number, its name, and its text with the placeholders still in it."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, which other settings don't change."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, field_names: dict[str, str]) -> list[str]:
        """Return the statements, our field names replaced by the risk engine's where the file asks for it."""
        text = _FIELD.sub(lambda match: _quoted(field_names.get(match[1], match[1])), self.text)
        code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        return [part for statement in code.split(";\n") if (part := statement.strip().removesuffix(";"))]


def migrations() -> tuple[Migration, ...]:
    """Return all migrations that ship with this version, in order."""
    folder = resources.files("streamapp.clickhouse") / "migrations"
    named = ((match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name)))
    found = (Migration(int(match[1]), match[2], file.read_text(encoding="utf-8")) for match, file in named)
    return tuple(sorted(found, key=lambda migration: migration.number))


async def pending(settings: Settings) -> list[str]:
    """Return the names of the migrations that :func:`migrate` would apply, without changing anything.

    Raises:
        ConfigurationError: a migration that was applied has another text by now; or as of
            :func:`streamapp.clickhouse.cluster.refuse_unfit`.
        Transient: ClickHouse is away.
    """
    async with _client(settings) as client:
        await refuse_unfit(client, settings.clickhouse)
        return [_label(migration) for migration in _open(await _applied(client, settings), migrations())]


async def migrate(settings: Settings) -> list[str]:
    """Bring the database to this version's schema and return the names of what was applied; a second time nothing.

    Every statement may be repeated, so a migration that was interrupted is simply applied again.

    Raises:
        ConfigurationError, Transient: as :func:`pending`.
    """
    database = _quoted(settings.clickhouse.database)
    async with _client(settings) as server:
        await refuse_unfit(server, settings.clickhouse)
        # Atomic: the only engine that lets a refreshable view replace its table, and chdb's own default is another.
        made = f"CREATE DATABASE IF NOT EXISTS {database} ENGINE = Atomic"
        await server.command(rendered(made, settings.clickhouse))
        open_ones = _open(await _applied(server, settings), migrations())
    client = ClickHouse.of(settings)
    try:
        await client.command(rendered(_APPLIED, settings.clickhouse))
        for migration in open_ones:
            for statement in migration.statements(settings.execution.field_names):
                await client.command(rendered(statement, settings.clickhouse))
            row = (migration.number, migration.name, migration.checksum)
            await client.insert("schema_migrations", ("number", "name", "checksum"), [row])
    finally:
        await client.close()
    return [_label(migration) for migration in open_ones]


@asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[ClickHouse]:
    # Of no database: ours may not be there yet.
    client = ClickHouse(settings.clickhouse, settings.clickhouse_url, database=None)
    try:
        yield client
    finally:
        await client.close()


async def _applied(client: ClickHouse, settings: Settings) -> dict[int, str]:
    database = settings.clickhouse.database
    there = await client.query(
        "SELECT name FROM system.tables WHERE database = {database:String} AND name = 'schema_migrations'",
        {"database": database},
    )
    if not there:
        return {}
    rows = await client.query(f"SELECT number, checksum FROM {_quoted(database)}.schema_migrations FINAL")
    return {row["number"]: row["checksum"] for row in rows}


def _open(applied: dict[int, str], known: tuple[Migration, ...]) -> list[Migration]:
    for migration in known:
        was = applied.get(migration.number, migration.checksum)
        if was != migration.checksum:
            raise ConfigurationError(
                f"migration {_label(migration)}: expected the text that was applied (SHA-256 {was:.12}), got another "
                f"({migration.checksum:.12}). Put the file back and write the change as a new migration."
            )
    if newer := applied.keys() - {migration.number for migration in known}:
        raise ConfigurationError(
            f"database schema: expected no migration newer than ours, got {max(newer):04}. Start the newer streamapp."
        )
    return [migration for migration in known if migration.number not in applied]


def _label(migration: Migration) -> str:
    return f"{migration.number:04}_{migration.name}"


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
