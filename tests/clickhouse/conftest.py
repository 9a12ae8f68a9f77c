from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.migrations import migrate
from streamapp.settings import ClickHouseSettings, Settings


@pytest.fixture
def settings(clickhouse_url: str) -> Settings:
    """Settings with a database of this test's own."""
    database = f"test_{uuid.uuid4().hex[:12]}"
    return Settings(clickhouse=ClickHouseSettings(url=clickhouse_url, database=database, timeout_s=60))


@pytest.fixture
async def clickhouse(settings: Settings) -> AsyncIterator[ClickHouse]:
    """A client of a database with our schema."""
    await migrate(settings)
    client = ClickHouse.of(settings)
    yield client
    await client.close()
