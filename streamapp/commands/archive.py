"""``streamapp archive export``: the history of orders as Parquet files, for whoever has no ClickHouse."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streamapp.commands.days import day_option, require_order
from streamapp.commands.verify import Account, reading
from streamapp.domain.vocabulary import visible
from streamapp.settings import load_settings

if TYPE_CHECKING:
    from streamapp.export.archive import Export


def register(app: typer.Typer) -> None:
    """Add the command."""
    archive = typer.Typer(name="archive", help="What to do with the archive of orders.", no_args_is_help=True)
    archive.command()(export)
    app.add_typer(archive)


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the files go; made if it is not there.")],
    first: Annotated[datetime | None, day_option("--from", "First day (2026-11-20), UTC; all if left out.")] = None,
    last: Annotated[datetime | None, day_option("--to", "Last day, UTC, and in it; all if left out.")] = None,
    account: Account = None,
) -> None:
    """Write the archive and the broker log as Parquet, a file for each kind and UTC day: FOLDER/orders/day=2026-11-20/.

    The columns are those of the ClickHouse tables, and raw, the message's own JSON. Exit 0 if all that was read is in
    the files; 1 with each record that is not; 2 if nothing could be read or written.
    """
    if first is not None and last is not None:
        require_order(first.date(), last.date())
    from streamapp.export.archive import export as exported

    days = {"first": None if first is None else first.date(), "last": None if last is None else last.date()}
    done = asyncio.run(exported(load_settings(), folder, reading, account=account, **days))
    _show(folder, done)
    raise typer.Exit(1 if done.faults else 0)


def _show(folder: Path, done: Export) -> None:
    console, errors = Console(highlight=False), Console(stderr=True, highlight=False)
    for fault in done.faults:
        errors.print(visible(fault), soft_wrap=True, markup=False)
    if done.unnamed:
        errors.print(f"and {done.unnamed} more", soft_wrap=True)
    period = f" ({min(done.days)} to {max(done.days)})" if done.days else ""
    kinds = "".join(f", {count} {kind}" for kind, count in done.rows.items())
    missing = f"; {len(done.faults) + done.unnamed} faults, see above" if done.faults else ""
    console.print("✗ " if done.faults else "✓ ", style="red" if done.faults else "green", end="")
    days = f"{len(done.days)} day{'' if len(done.days) == 1 else 's'}"
    said = f"{done.rows.total()} rows of {days}{period} in {folder}{kinds}{missing}"
    console.print(said, soft_wrap=True, markup=False)
