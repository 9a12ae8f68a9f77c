"""One account at a desk, and its broker."""

from __future__ import annotations

import pytest

from tests.kit.desk import DeskWorld
from tests.kit.market import Market


@pytest.fixture
async def world() -> DeskWorld:
    return await DeskWorld().start()


@pytest.fixture
def market(world: DeskWorld) -> Market:
    return Market(world)
