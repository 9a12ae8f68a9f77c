"""What every test of a secured server ends with: connections that are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.kit.waiting import eventually


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Wait for the end of TLS connections: they say goodbye first, and no client awaits that of all of its own."""
    yield
    loop: Any = asyncio.get_running_loop()
    await eventually(lambda: len(loop._selector.get_map()) == 1, "connections to be closed", within_s=20)
