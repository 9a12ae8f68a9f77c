"""``streamapp token``: who may read and command over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from streamapp.clock import utc_now
from streamapp.errors import ConfigurationError
from streamapp.settings import load_settings
from streamapp.tokens import TokensFile

Owner = Annotated[str, typer.Argument(metavar="NAME", help="Whose it is; every command is said to be issued by it.")]
Role = Annotated[
    str,
    typer.Option(
        help="read: the views; trade: commands as well, but account.resume and .limits; admin: all of it. "
        "signals:SOURCE: signals of this source, and nothing else (docs/webhook.md)."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="token",
        help="Who may read and command over HTTP (docs/control.md). Running workers see a change at once.",
        no_args_is_help=True,
    )
    group.command()(add)
    group.command("list")(list_)
    group.command()(revoke)
    app.add_typer(group)


def add(name: Owner, role: Role) -> None:
    """Make a token. Its secret is printed this once, alone on standard output, and kept nowhere."""
    file = _file()
    secret = file.add(name, role, utc_now())
    typer.echo(secret)
    typer.echo(f"the secret of {name} ({role}): keep it, nobody can show it again. {file.path} has its hash", err=True)


def list_() -> None:
    """List the tokens: whose, the role, and since when (UTC)."""
    tokens = _file().read()
    console = Console(highlight=False, soft_wrap=True)
    for token in tokens:
        console.print(f"{token.name:<24} {token.role:<20} {token.made_at:%Y-%m-%d %H:%M:%S}", markup=False)
    console.print(f"{len(tokens)} token{'' if len(tokens) == 1 else 's'}")


def revoke(name: Owner) -> None:
    """Take a token away. From then on no worker takes it."""
    _file().revoke(name)
    typer.echo(f"the token of {name} is revoked")


def _file() -> TokensFile:
    path = load_settings().web.tokens_file
    if path is None:
        raise ConfigurationError(
            "expected web.tokens_file in the settings, such as tokens_file = 'secrets/tokens' in [web] of "
            "streamapp.toml, the same for the trading worker (docs/control.md)"
        )
    return TokensFile(path)
