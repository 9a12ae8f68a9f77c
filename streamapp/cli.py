"""The command ``streamapp``: an assembly of the commands, and one sentence for every error we know."""

from __future__ import annotations

import sys

import typer

from streamapp.commands import demo, init, orders, signals, stack, status
from streamapp.errors import StreamappError

app = typer.Typer(
    name="streamapp",
    help="Approved signals in; orders, fills and positions out; no order twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for commands in (init, stack, demo, signals, orders, status):
    commands.register(app)


def main() -> None:
    """Run the command line; exit 2 with one sentence where the user or a server has to do something."""
    try:
        app()
    except StreamappError as error:
        print(f"streamapp: {error}", file=sys.stderr)  # noqa: T201  (the command line prints)
        sys.exit(2)


if __name__ == "__main__":
    main()
