"""``streamapp terminals``: what ``python -m streamapp.terminal`` is, under the command's own roof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamapp.commands import completion


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(terminals)


def terminals(
    account: Annotated[
        str | None,
        typer.Option(help="Just this one; default: every configured account.", autocompletion=completion.accounts),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of /health and /metrics.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Log here, turned over; default: standard error.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say whether everything can be reached.")] = False,
) -> None:
    """Run the MT5 terminals of the configured accounts: on Windows beside MetaTrader 5, or over the simulated one."""
    from streamapp.terminal.__main__ import main

    named = {"--account": account, "--port": port, "--log-file": log_file}
    arguments = [text for name, value in named.items() if value is not None for text in (name, str(value))]
    raise typer.Exit(main([*arguments, *(["--check"] if check else [])]))
