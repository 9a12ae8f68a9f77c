"""The command ``streamapp``: an assembly of the commands, and one sentence for every error we know."""

from __future__ import annotations

import io
import sys

import typer

from streamapp.commands import (
    account,
    archive,
    command,
    conformance,
    demo,
    init,
    letters,
    notify,
    orders,
    rebuild,
    report,
    signals,
    stack,
    status,
    terminals,
    token,
    top,
    verify,
)
from streamapp.errors import StreamappError
from streamapp.parts import missing_part

app = typer.Typer(
    name="streamapp",
    help="Approved signals in; orders, fills and positions out; no order twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_TRADING = (signals, orders, command, letters, account, token)
_PARTS = (init, stack, demo, *_TRADING, notify, report, archive, verify, rebuild, status, top, terminals, conformance)
for commands in _PARTS:
    commands.register(app)


def main() -> None:
    """Run the command line; exit 2 with one sentence where the user or a server has to do something."""
    for stream in (sys.stdout, sys.stderr):  # a pipe's encoding on Windows knows no check mark
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        _run()
    except StreamappError as error:
        print(f"streamapp: {error}", file=sys.stderr)  # noqa: T201  (the command line prints)
        sys.exit(2)


def _run() -> None:
    try:
        app(prog_name="streamapp")
    except ModuleNotFoundError as error:
        raise missing_part(error) from None


if __name__ == "__main__":
    main()
