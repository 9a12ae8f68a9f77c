"""What is believed at the real market is what is true there: stale caches, history in pieces, busy accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from streamapp.clock import utc_now
from streamapp.mt5.enums import TRADES
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.synchronisation import FUTURE, OVERLAP
from streamapp.terminal.account.worker_client import ORDER, WorkerClient
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.pipe.calls import ListPositions, Look, ReadDeals, Send
from streamapp.terminal.pipe.structs import TradeRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import Market
from tests.terminal.scripted import ACCOUNT, LOGIN, SERVER

BUY = {"action": 1, "symbol": "EURUSD", "volume": 0.1, "type": 0, "type_filling": 1}
STALE_MS = 400
"""How long a cache stays old in these tests: shorter than ``equal_reads_s``, as the setting's description asks for."""


@asynccontextmanager
async def attached(folder: Path, market: Market, name: str) -> AsyncIterator[BrokerConnection]:
    """A connection by a worker of its own."""
    journal = Journal(folder / f"{name}.sqlite3", ACCOUNT)
    link = WorkerClient(
        "simulated", folder / f"{name}.worker", environment={"STREAMAPP_SIMULATOR_ADDRESS": market.address}
    )
    settings = TerminalSettings(poll_interval_s=0.05, equal_reads_s=1.0)
    owner = AccountSettings(login=LOGIN, server=SERVER)
    connection = BrokerConnection(link, journal, owner, settings, clock=utc_now, password="s3cret")
    tasks = [asyncio.create_task(part.run()) for part in (journal, link, connection)]
    yield connection
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)
    await link.stop()
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)
    journal.close()


Attach = Callable[[str], Awaitable[BrokerConnection]]


@pytest.fixture
async def attach(tmp_path: Path, market: Market) -> AsyncIterator[Attach]:
    async with AsyncExitStack() as stack:
        yield lambda name: stack.enter_async_context(attached(tmp_path, market, name))


async def buy(connection: BrokerConnection, **changes: Any) -> int:
    """Open a position; return its identifier."""
    request = cast(TradeRequest, BUY | changes)
    sent = (await connection.ask(Send(request, utc_now().timestamp() + 60), urgency=ORDER)).value
    assert sent.retcode == 10009
    return sent.order


async def positions(connection: BrokerConnection) -> list[int]:
    page = ListPositions(symbol=None, group=None, after=None, limit=100)
    return [row.identifier for row in (await connection.read(page)).value.rows or ()]


async def deals(connection: BrokerConnection) -> list[int]:
    time, now = connection.time, utc_now()
    since, until = time.server_s(now - OVERLAP), time.server_s(now + FUTURE)
    asked = ReadDeals(since, since, settled_until=until, until=until, wide=True, anew=True)
    await connection.readable()
    seen = (await connection.ride(Look(deals=asked))).deals
    assert seen is not None
    return [row.ticket for row in seen.value.deals if row.type in TRADES]


async def test_an_empty_account_is_believed(attach: Attach) -> None:
    connection = await attach("first")
    await connection.ready()
    assert await positions(connection) == []


async def test_a_cache_that_is_stale_after_a_reconnect_is_not_believed(
    attach: Attach, tmp_path: Path, market: Market
) -> None:
    async with attached(tmp_path, market, "first") as first:
        await first.ready()
        position = await buy(first)
    market.fault("stale_after_reconnect", params={"ms": STALE_MS})
    market.fault("foreign_activity", account=ACCOUNT, params={"action": "close", "position": position})
    second = await attach("second")
    await second.ready()
    assert await positions(second) == []
    assert len(await deals(second)) == 2


async def test_a_history_that_comes_in_pieces_is_not_believed(attach: Attach, market: Market) -> None:
    first = await attach("first")
    await first.ready()
    for _ in range(4):
        await buy(first)
    market.fault("history_partial", params={"share": 0.5})
    await first.renew()
    await eventually(lambda: "shows" in first.health.detail or "show the deals" in first.health.detail)
    assert first.health.connection == "connecting"
    market.end_faults()
    await first.ready()
    assert sorted(await deals(first)) == sorted(row["ticket"] for row in market.ledger("deal"))


async def test_what_happened_while_the_terminal_was_away_is_there_when_it_is_believed_again(
    attach: Attach, market: Market
) -> None:
    connection = await attach("first")
    await connection.ready()
    position, generation = await buy(connection), connection.generation
    assert await positions(connection) == [position]
    market.fault("stale_after_reconnect", params={"ms": STALE_MS})
    market.fault("disconnect", params={"ms": STALE_MS})
    await eventually(lambda: connection.health.connection == "disconnected")
    market.fault("foreign_activity", account=ACCOUNT, params={"action": "close", "position": position})
    assert await positions(connection) == []
    assert connection.generation > generation


async def test_an_account_on_which_others_trade_all_the_time_is_believed(attach: Attach) -> None:
    busy, quiet = await attach("busy"), await attach("quiet")
    await busy.ready()
    await eventually(lambda: quiet.health.connection == "ready")
    stop = asyncio.Event()

    async def trade() -> None:
        while not stop.is_set():
            position = await buy(busy)
            await buy(busy, type=1, position=position)

    trading = asyncio.create_task(trade())
    await quiet.renew()
    await quiet.ready()
    assert not trading.done()
    stop.set()
    await trading
