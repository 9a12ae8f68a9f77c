"""``streamapp account``: what a person asks the terminal of one account, which is always named."""

from __future__ import annotations

import typer

from streamapp.commands.account import changing, deciding, reading


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="account",
        help=(
            "Ask the terminal of one account: what is there, change it, and decide what only a person can. "
            "Exit codes: 0 done, 1 refused, rejected or not known, 2 it can't be asked."
        ),
        no_args_is_help=True,
        rich_markup_mode="rich",
    )
    for commands in (reading, changing, deciding):
        commands.register(group)
    app.add_typer(group)
