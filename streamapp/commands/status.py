"""``streamapp status`` and ``streamapp check``: is everything there, and what to do where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import typer
from rich.console import Console
from rich.markup import escape

from streamapp.commands.web import Url, Web, get_json
from streamapp.errors import ConfigurationError, StreamappError
from streamapp.messages.source import load_sources
from streamapp.parts import missing_part
from streamapp.settings import Settings, load_settings

_CHECK_DEADLINE_S = 10.0
_NATS_WAIT_S = 5.0  # it tries again until then, and only then says why it was turned away


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(status)
    app.command()(check)


def status(url: Url = None) -> None:
    """Show each process: healthy or not, and why; with --url the worker that answers there. Exit 0 only if all are."""
    settings = load_settings()
    console = Console()
    healthy = True
    if url is not None:
        web = Web(url, settings)
        reasons = web.health()
        console.print(_line("trading", web.base, reasons), soft_wrap=True)
        raise typer.Exit(1 if reasons else 0)
    for name, port in _processes(settings):
        line, ok = _health(name, port, settings)
        healthy = healthy and ok
        console.print(line, soft_wrap=True)
    raise typer.Exit(0 if healthy else 1)


def _processes(settings: Settings) -> list[tuple[str, int]]:
    ports = settings.ports
    named = [("mirror", ports.mirror), ("trading", ports.trading()), ("warehouse", ports.warehouse)]
    if settings.notify.urls_file is not None:
        named.append(("notifier", ports.notifier))
    return [*named, ("terminals", ports.terminals)] if settings.is_executor else named


def _health(name: str, port: int, settings: Settings) -> tuple[str, bool]:
    try:
        web = Web(None, settings, port=port)
        reasons = web.health()
    except StreamappError as error:
        return _line(name, "", [str(error)]), False
    return _line(name, web.base, reasons), not reasons


def _line(name: str, address: str, reasons: list[str]) -> str:
    return f"[red]✗[/] {name:<10} {escape('; '.join(reasons))}" if reasons else f"[green]✓[/] {name:<10} {address}"


def check() -> None:
    """Check the settings and that every server can be reached; say what to do where not. Exit 0 only if all is well."""
    settings = load_settings()
    load_sources(settings.web.sources, settings.execution)
    console = Console()
    console.print("[green]✓[/] settings")
    well = asyncio.run(_check_servers(settings, console))
    raise typer.Exit(0 if well else 1)


async def _check_servers(settings: Settings, console: Console) -> bool:
    checks: list[tuple[str, str, Callable[[Settings], Awaitable[str]]]] = [
        ("Kafka", settings.kafka_bootstrap, _kafka),
        ("NATS", settings.nats_url, _nats),
        ("ClickHouse", settings.clickhouse_url, _clickhouse),
    ]
    if any(account.module == "simulated" for account in settings.accounts.values()):
        checks.append(("market", settings.market_address, _market))
    results = [await _result(name, address, test, settings) for name, address, test in checks]
    for line, _ in results:
        console.print(line, soft_wrap=True)
    return all(ok for _, ok in results)


async def _result(
    name: str, address: str, test: Callable[[Settings], Awaitable[str]], settings: Settings
) -> tuple[str, bool]:
    try:
        async with asyncio.timeout(_CHECK_DEADLINE_S):
            return f"[green]✓[/] {name} at {address}: {await test(settings)}", True
    except ModuleNotFoundError as error:
        return f"[red]✗[/] {name} at {address}: {escape(str(missing_part(error)))}", False
    except ConfigurationError as error:  # says itself what to do
        return f"[red]✗[/] {name} at {address}: {escape(str(error))}", False
    except Exception as error:  # noqa: BLE001 -- whatever a client library raises is this server's answer
        hint = "start it with `make up`, or name another address in streamapp.toml"
        return f"[red]✗[/] {name} at {address}: {type(error).__name__} {escape(str(error))}: {hint}", False


async def _kafka(settings: Settings) -> str:
    from aiokafka.errors import KafkaError

    from streamapp.kafka.admin import existing_topics
    from streamapp.kafka.security import Cluster

    cluster = Cluster.of(settings)
    try:
        return f"{len(await existing_topics(cluster))} topics"
    except (KafkaError, OSError) as error:
        raise await cluster.explained(error) from error


async def _nats(settings: Settings) -> str:
    from streamapp.nats.connection import connect

    client = await connect(settings, "streamapp-check", wait_s=_NATS_WAIT_S)
    try:
        return f"{(await client.jetstream().account_info()).streams} streams"
    finally:
        await client.close()


async def _clickhouse(settings: Settings) -> str:
    from streamapp.clickhouse.client import ClickHouse

    client = ClickHouse(settings.clickhouse, settings.clickhouse_url, database=None)
    try:
        (row,) = await client.query("SELECT version() AS version")
        return f"version {row['version']}"
    finally:
        await client.close()


async def _market(settings: Settings) -> str:
    code, answer = await asyncio.to_thread(get_json, f"http://{settings.market_address}/health")
    if code != 200:
        raise StreamappError(f"it answers {code}: {answer}")
    return "simulated MT5"
