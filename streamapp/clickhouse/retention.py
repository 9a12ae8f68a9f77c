"""How long the tables keep what happened: a TTL on those that are history alone, by setting; none by default."""

from __future__ import annotations

import re

from streamapp.clickhouse.client import ClickHouse
from streamapp.settings import HistoryTable, Settings

TIMES: dict[HistoryTable, str] = {
    "order_events": "updated_at",
    "facts": "at",
    "account_history": "at",
    "position_history": "at",
}
"""The tables that nothing is compared with, and when a row of each happened."""


async def retention(settings: Settings, *, changes: bool) -> list[str]:
    """Return which tables keep their rows for another time than the settings say; with ``changes`` that is mended.

    A TTL that is not of our making is left as it is, unless the settings name its table.

    Raises:
        Transient: ClickHouse is away.
        ConfigurationError: It refuses us.
    """
    client, told = ClickHouse.of(settings), list[str]()
    try:
        rows = await client.query("SELECT name, engine_full FROM system.tables WHERE database = currentDatabase()")
        engines = {row["name"]: row["engine_full"] for row in rows}
        for table, column in TIMES.items():
            if table not in engines:
                continue  # a dry run before the first migration
            days, wanted = _days_of(engines[table], column), settings.clickhouse.retention_days.get(table)
            if days == wanted:
                continue
            told.append(f"{table}: rows are kept {'for ever' if wanted is None else f'for {wanted} days'}")
            if changes:
                ttl = "REMOVE TTL" if wanted is None else f"MODIFY TTL toDateTime({column}) + toIntervalDay({wanted})"
                await client.command(f"ALTER TABLE {table} {ttl}")
    finally:
        await client.close()
    return told


def _days_of(engine: str, column: str) -> int | None:
    """Return the days of a TTL of our form, None for none and for any other."""
    found = re.search(rf" TTL toDateTime\({column}\) \+ toIntervalDay\((\d+)\)(?: SETTINGS |$)", engine)
    return None if found is None else int(found[1])
