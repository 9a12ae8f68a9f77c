"""Markets and terminals of the field's cases: each test has its own, since each needs another broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.terminal.desk import Desk, desks

Start = Callable[..., Awaitable[Desk]]


@pytest.fixture
async def start(tmp_path: Path, nats_url: str) -> AsyncIterator[Start]:
    """Start a market and a terminal, as :func:`tests.terminal.desk.desks`; return a desk that is not open yet."""
    async with AsyncExitStack() as stack:

        async def started(
            *options: str,
            mode: str = "hedging",
            profile: str = "default",
            settings: Mapping[str, str] | None = None,
            own: str = "",
        ) -> Desk:
            terminal = await stack.enter_async_context(
                desks(tmp_path, nats_url, *options, mode=mode, profile=profile, settings=settings, own=own)
            )
            return Desk(terminal, terminal.market, count())

        yield started


@pytest.fixture
async def desk(start: Start) -> Desk:
    """A desk at a broker like any other."""
    desk = await start()
    await desk.open()
    return desk


@pytest.fixture
async def netting_desk(start: Start) -> Desk:
    """A desk where a symbol has one position."""
    desk = await start(mode="netting")
    await desk.open()
    return desk
