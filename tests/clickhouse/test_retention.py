"""How long tables keep their rows: set, changed and removed by settings; a TTL of somebody else's is left alone."""

from __future__ import annotations

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.retention import TIMES, retention
from streamapp.settings import Settings

ENGINE = "SELECT engine_full FROM system.tables WHERE name = 'facts' AND database = currentDatabase()"


def keeping(settings: Settings, **days: int) -> Settings:
    changed = settings.clickhouse.model_copy(update={"retention_days": days})
    return settings.model_copy(update={"clickhouse": changed})


async def test_what_the_settings_say_is_set_changed_and_removed(settings: Settings, clickhouse: ClickHouse) -> None:
    assert await retention(settings, changes=True) == [], "for ever by default"
    every = keeping(settings, **dict.fromkeys(TIMES, 700))
    wanted = [f"{table}: rows are kept for 700 days" for table in TIMES]
    assert await retention(every, changes=False) == wanted
    assert await retention(every, changes=True) == wanted
    assert await retention(every, changes=True) == []
    fewer = keeping(settings, facts=90)
    told = await retention(fewer, changes=True)
    assert (len(told), "facts: rows are kept for 90 days" in told) == (4, True)
    assert "order_events: rows are kept for ever" in told
    assert await retention(fewer, changes=False) == []
    (facts,) = await clickhouse.query(ENGINE)
    assert "TTL toDateTime(at) + toIntervalDay(90)" in facts["engine_full"]


async def test_a_ttl_of_somebody_elses_is_left_alone(settings: Settings, clickhouse: ClickHouse) -> None:
    await clickhouse.command("ALTER TABLE facts MODIFY TTL toDateTime(ingested_at) + toIntervalYear(3)")
    assert await retention(settings, changes=True) == []
    (facts,) = await clickhouse.query(ENGINE)
    assert "toIntervalYear(3)" in facts["engine_full"]
