"""One market and one terminal for all tests of a module; each test begins without faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import pytest
import pytest_asyncio

from tests.terminal.conftest import TerminalProcess
from tests.terminal.desk import Desk, desks


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory, nats_url: str) -> AsyncIterator[TerminalProcess]:
    async with desks(tmp_path_factory.mktemp("desk"), nats_url) as terminal:
        yield terminal


@pytest_asyncio.fixture(loop_scope="module")
async def desk(shared: TerminalProcess) -> Desk:
    desk = Desk(shared, shared.market, count())
    await desk.open()
    return desk
