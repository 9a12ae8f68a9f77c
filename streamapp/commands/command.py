"""``streamapp command``: give a command on NATS, and hear what becomes of it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console

from streamapp.clock import utc_now
from streamapp.commands import completion
from streamapp.commands.account.asking import Json, confirm, connected, who
from streamapp.commands.account.deciding import Yes
from streamapp.commands.signals import EXPIRATION_FORMATS
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Ambiguous
from streamapp.messages.command import (
    CommandName,
    CommandRequest,
    CommandResultMessage,
    CommandValues,
    read_command,
)
from streamapp.settings import Settings, load_settings

_DURATION = re.compile(r"([1-9][0-9]{0,6})(s|m|h)?")
_NAMES = tuple(name for name in CommandValues.model_fields if name not in {"symbol", "limits"})
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours"}
_MEANINGS: dict[str, str] = {
    "account.resume": "{account} then opens positions again; what was refused meanwhile stays refused.",
    "account.cancel_all": "Every order of {account} that works at the broker is then cancelled.",
    "account.flatten": "Every order of {account} is then cancelled, and every position closed at the market.",
    "account.limits": "{account} is then judged by these limits in place of the settings', until they are set anew.",
}
"""What is asked first, with what it means: the rest makes an account safer, or touches one thing that is named."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(command)


def command(  # noqa: PLR0917 -- the arguments of a command line
    name: Annotated[CommandName, typer.Argument(metavar="NAME", help="What is to be done.")],
    account: Annotated[
        str | None, typer.Option(help="Account; an order of ours leads to its own.", autocompletion=completion.accounts)
    ] = None,
    order_id: Annotated[
        str | None, typer.Option(help="Of order.…: the order, as `orders` lists it.", autocompletion=completion.orders)
    ] = None,
    position_id: Annotated[int | None, typer.Option(min=1, help="Of position.…: the broker's number of it.")] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help=f"Once for each of {', '.join(_NAMES)}; of account.limits: each limit (docs/guards.md) and symbol.",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads it later.")] = "",
    request_id: Annotated[str | None, typer.Option(help="Idempotency key; made up if left out.")] = None,
    valid_for: Annotated[
        str | None, typer.Option(metavar="TIME", help="Nothing is begun after that: 30s, 5m, 1h.")
    ] = None,
    valid_until: Annotated[
        datetime | None, typer.Option(help="The same as a moment, UTC.", formats=EXPIRATION_FORMATS)
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who gives it; your user name otherwise.")] = None,
    wait_s: Annotated[float, typer.Option(min=0.1, help="How long to wait for its end.")] = 30.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only see that it is stored.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give a command and hear its answer, and what came of it.

    Exit 0 if it was accepted or done (with --no-wait: stored), 1 if it was refused or failed, 2 if nobody answered.
    """
    end = _end(valid_for, valid_until)
    payload = {
        "account": account,
        "order_id": order_id,
        "position_id": position_id,
        "values": _limits(given or []) if name == "account.limits" else _values(given or []),
        "reason": reason,
        "request_id": request_id or f"cli-{secrets.token_hex(8)}",
        "valid_until": end,
        "issued_by": who(by),
        "issued_at": time_text(utc_now()),
    }
    asked = read_command(name, payload)
    if (meaning := _MEANINGS.get(name)) is not None and not yes:
        confirm(meaning.format(account=asked.account))
    again = f"--request-id {asked.request_id}" + (f" --valid-until {end.removesuffix('.000000Z')}Z" if end else "")
    typer.echo(f"to ask again for the same thing, repeat the command with {again}", err=True)
    if no_wait:
        asyncio.run(_publish(load_settings(), name, asked, as_json=as_json))
        return
    result = asyncio.run(_follow(load_settings(), name, asked, wait_s, again, as_json=as_json))
    if as_json:
        typer.echo(result.encode().decode())
    raise typer.Exit(0 if result.state in {"accepted", "done"} else 1)


async def _publish(settings: Settings, name: str, asked: CommandRequest, *, as_json: bool) -> None:
    from streamapp.nats.commands import NatsCommands

    async with connected(settings, "streamapp-command") as client:
        stored = await NatsCommands(lambda: client, settings.nats).publish(name, asked)
    if as_json:
        typer.echo(json.dumps({"request_id": asked.request_id, **asdict(stored)}))
    else:
        typer.echo(f"{asked.request_id} is stored (stream sequence {stored.stream_seq})")


async def _follow(
    settings: Settings, name: str, asked: CommandRequest, wait_s: float, again: str, *, as_json: bool
) -> CommandResultMessage:
    """Return the last result that came within ``wait_s``, and show each.

    Raises:
        Ambiguous: None came.
    """
    from streamapp.nats.commands import NatsCommands

    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    last: CommandResultMessage | None = None
    async with (
        connected(settings, "streamapp-command") as client,
        NatsCommands(lambda: client, settings.nats).asked(name, asked) as sent,
    ):
        try:
            async with asyncio.timeout(wait_s):
                async for last in sent.results:
                    console.print(told(last), markup=False)
        except TimeoutError:
            pass
    if last is None:
        raise Ambiguous(
            f"expected an answer within {wait_s:g} s, got none. It is stored (stream sequence "
            f"{sent.stored.stream_seq}) and may still be carried out: is a trading worker running? To hear what became "
            f"of it, repeat the command with {again}"
        )
    if last.state == "accepted":
        typer.echo(f"not over after {wait_s:g} s: to hear how it ends, repeat the command with {again}", err=True)
    return last


def told(result: CommandResultMessage) -> str:
    """Return a result as a person reads it."""
    position = f"position {result.position_id}" if result.position_id is not None else None
    order = f"order {result.order_id}" if result.order_id is not None else None
    of = ", ".join(part for part in (order, position, result.account) if part)
    state = {"accepted": "accepted, it is being carried out", "refused": "refused, nothing was done"}.get(
        result.state, result.state
    )
    detail = ": ".join(part for part in (result.why, result.detail) if part)
    orders = f" (orders {', '.join(result.order_ids)})" if result.order_ids else ""
    return f"{result.command} of {of}: {state}{': ' + detail if detail else ''}{orders}"


def _values(given: list[str]) -> dict[str, str]:
    """Return what is to be set; whether a name is one, and goes with the command, is for the message to say."""
    values: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name not in _NAMES or not value:
            known = ", ".join(_NAMES)
            raise typer.BadParameter(f"expected --set NAME=VALUE with one of {known}, got {text!r:.80}")
        if name in values:
            raise typer.BadParameter(f"expected --set {name}=… once, got it twice")
        values[name] = value
    return values


def _limits(given: list[str]) -> dict[str, Any]:
    """Return limits as they are set: several windows or symbols stand between ``;``, nothing takes a limit back."""
    limits: dict[str, str | list[str] | None] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or name in limits:
            raise typer.BadParameter(f"expected --set NAME=VALUE, each name once, got {text!r:.80}")
        limits[name] = (value.split(";") if name in {"symbols", "no_trade"} else value) if value else None
    symbol = limits.pop("symbol", None)
    return {"limits": limits} | ({} if symbol is None else {"symbol": symbol})


def _end(valid_for: str | None, valid_until: datetime | None) -> str | None:
    """Return when nothing is begun any more, to the second, so that it can be typed again."""
    if valid_for is not None and valid_until is not None:
        raise typer.BadParameter("expected --valid-for or --valid-until, got both")
    if valid_until is not None:
        return time_text(valid_until.replace(tzinfo=UTC))
    if valid_for is None:
        return None
    if (found := _DURATION.fullmatch(valid_for)) is None:
        raise typer.BadParameter(f"--valid-for: expected a time such as 30s, 5m or 1h, got {valid_for!r:.80}")
    after: Any = {_UNITS[found[2] or "s"]: int(found[1])}
    return time_text((utc_now() + timedelta(**after)).replace(microsecond=0))
