"""``streamapp notify test``: do the receivers of notifications take a message?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import typer
from rich.console import Console

from streamapp.clock import utc_now
from streamapp.domain.vocabulary import time_text
from streamapp.errors import ConfigurationError
from streamapp.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(name="notify", help="Who is notified of what (docs/notifications.md).", no_args_is_help=True)
    group.callback()(_group)
    group.command()(test)
    app.add_typer(group)


def _group() -> None:
    """Let the only command have a name."""


def test() -> None:
    """Send a test message to every URL, and say which of them took it. Exit 0 only if all did."""
    from streamapp.notifier.addresses import Address, read_addresses, require_receivers

    settings = load_settings()
    if settings.notify.urls_file is None:
        raise ConfigurationError(
            "expected notify.urls_file in the settings, got none: without it nobody is notified (docs/notifications.md)"
        )
    addresses = read_addresses(settings.notify.urls_file)
    require_receivers(settings.notify, addresses)
    body = f"Sent by `streamapp notify test` at {time_text(utc_now())}. Nothing happened."

    def send(address: Address) -> str:
        return address.send(f"test message of streamapp, deployment {settings.deployment}", body, "info")

    with ThreadPoolExecutor(len(addresses)) as pool:
        outcomes = list(pool.map(send, addresses))
    console = Console(highlight=False, soft_wrap=True)
    for address, trouble in zip(addresses, outcomes, strict=True):
        console.print(f"✗ {address.name}: {trouble}" if trouble else f"✓ {address.name}", markup=False)
    raise typer.Exit(1 if any(outcomes) else 0)
