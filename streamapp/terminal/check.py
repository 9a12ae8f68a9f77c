"""``python -m streamapp.terminal --check``: connects as a terminal would, says what it found, and sends nothing."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from streamapp.clock import utc_now
from streamapp.domain.symbol_names import SymbolNames
from streamapp.errors import ConfigurationError, StreamappError
from streamapp.processes.locks import FileLock, LockHeldError
from streamapp.settings import Settings, secret
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.house_names import named
from streamapp.terminal.account.worker_client import WorkerClient
from streamapp.terminal.journal.database import Journal, journal_path
from streamapp.terminal.pipe.calls import ListSymbols

NATS_WAIT_S = 5.0
WAIT_S = 60.0
"""How long an account may take: a terminal program that is not running is started, which takes half a minute."""
AWAY_S = 5.0
"""How long ``disconnected`` is not believed: a terminal program that has just started is so for a moment."""
POLL_S = 0.1


async def check(settings: Settings, accounts: Sequence[str]) -> int:
    """Print a line for NATS and for each account; return 0 if all is well, else 1."""
    well = await _nats(settings)
    for name in accounts:
        well = await _account(settings, name) and well
    return 0 if well else 1


async def _nats(settings: Settings) -> bool:
    from streamapp.nats.connection import connect

    try:
        client = await connect(settings, "terminal-check", wait_s=NATS_WAIT_S)
    except StreamappError as error:
        return _say(False, f"NATS: {error}")
    version = client.connected_server_version
    await client.close()
    return _say(True, f"NATS {version.major}.{version.minor} at {settings.nats_url}")


async def _account(settings: Settings, name: str) -> bool:
    try:
        lock = FileLock(_beside(journal_path(settings.terminal_data, name), ".lock"))
    except LockHeldError as held:
        return _say(True, f"{name}: its terminal runs (process {held.pid}); see /health")
    try:
        with tempfile.TemporaryDirectory(prefix="streamapp-check-", ignore_cleanup_errors=True) as folder:
            return await _connected(settings, name, Path(folder))
    except ConfigurationError as error:
        return _say(False, f"{name}: {error}")
    finally:
        lock.release()


async def _connected(settings: Settings, name: str, folder: Path) -> bool:
    """Connect with a journal that is thrown away: a check leaves no trace."""
    own = settings.accounts[name]
    journal = Journal(folder / "journal.sqlite3", name)
    environment = {"STREAMAPP_SIMULATOR_ADDRESS": settings.market_address} if own.module == "simulated" else {}
    link = WorkerClient(own.module, folder / "worker", environment=environment)
    connection = BrokerConnection(
        named(link, own.symbol_names),
        journal,
        own,
        settings.terminal,
        clock=utc_now,
        password=secret(own.password_file),
        symbols=settings.symbols_of(name),
    )
    tasks = [asyncio.create_task(part.run()) for part in (journal, link, connection)]
    try:
        await _settled(connection)
        if connection.health.connection != "ready":
            return _say(False, f"{name}: {_described(connection)}")
        _say(True, f"{name}: {_described(connection)}")
        return all([await _symbol(connection, name, own.symbol_names, house) for house in own.symbols])
    finally:
        for task in tasks[1:]:
            task.cancel()
        await link.stop()
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        journal.close()


async def _settled(connection: BrokerConnection) -> None:
    now = asyncio.get_running_loop().time
    until, away_since = now() + WAIT_S, now()
    while now() < until:
        match connection.health.connection:
            case "ready" | "no_algo_trading" | "wrong_account" | "wrong_password":
                return
            case "disconnected" if now() - away_since > AWAY_S:
                return
            case "connecting" | "hung":
                away_since = now()
        await asyncio.sleep(POLL_S)


async def _symbol(connection: BrokerConnection, account: str, names: SymbolNames, house: str) -> bool:
    """Say if the broker lacks a symbol that the settings name."""
    try:
        rows = (await connection.read_now(ListSymbols(house, group=None, after=None, limit=1))).value.rows
    except StreamappError as error:
        return _say(False, f"{account}: symbol {names.shown(house)}: {error}")
    return bool(rows) or _say(False, f"{account}: expected a symbol of this broker, got {names.shown(house)}")


def _described(connection: BrokerConnection) -> str:
    health, account = connection.health, connection.account_info
    if health.connection != "ready" or account is None:
        return f"{health.connection}: {health.detail}"
    mode = "hedging" if connection.hedging else "netting"
    return f"ready: {account.login} on {account.server}, {account.currency}, {mode}"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _say(well: bool, text: str) -> bool:
    # Plain letters: a Windows console that is redirected knows no check marks.
    sys.stdout.write(f"{'ok  ' if well else 'FAIL'}  {text}\n")
    sys.stdout.flush()
    return well
