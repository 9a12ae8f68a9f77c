"""``streamapp dead-letters``: what nobody could use, and what a person does about it."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console

from streamapp.clock import utc_now
from streamapp.commands.account.asking import Json, confirm, who
from streamapp.commands.account.deciding import Yes
from streamapp.commands.web import Url, Web
from streamapp.domain.vocabulary import time_text, visible
from streamapp.errors import ConfigurationError, Unusable
from streamapp.settings import Settings, load_settings

if TYPE_CHECKING:
    from streamapp.letters.letter import KeptLetter

MOST_LETTERS = 1000
_OPEN = frozenset({"open", "unfinished"})
_AGO = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MOMENTS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ")
_REDRIVE = (
    "Letter {}: {}.\nIts sender was told that it is refused, and may have sent another in its place: make sure that it "
    "has not. What the desk then decides is said as for any signal."
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The letter, as `dead-letters list` shows it.")]
Why = Annotated[str, typer.Option(help="Why, for whoever reads it later.")]
By = Annotated[str | None, typer.Option(help="Who decides; your user name otherwise.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(name="dead-letters", help="What nobody could use: read it, and deal with it.")
    group.command("list")(listing)
    group.command()(redrive)
    group.command()(acknowledge)
    app.add_typer(group)


def listing(
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only later ones: 30m, 24h, 7d ago, or a moment, UTC.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MOST_LETTERS, help="How many, the newest first.")] = 50,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that nobody has dealt with.")] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """List the dead letters, the newest first: what each is, what to do, and what was decided about it."""
    settings, begin = load_settings(), _moment(since)
    found, is_cut = asyncio.run(_newest(settings)) if url is None else _listed(Web(url, settings))
    wanted = [
        letter
        for letter in found
        if (begin is None or letter["at"] >= time_text(begin)) and (letter["disposition"] in _OPEN or not only_open)
    ]
    shown = wanted[:limit]
    if as_json:
        print(json.dumps({"dead_letters": shown, "more": is_cut or len(wanted) > limit}, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for letter in shown:
        console.print("\n".join(_lines(letter)), markup=False)
    more = len(wanted) - len(shown)
    console.print(
        f"{len(shown)} dead letter{'' if len(shown) == 1 else 's'}" + (f", and {more} more (--limit)" if more else "")
    )
    if is_cut:
        console.print("older ones are in the topic dead_letters", markup=False)


def redrive(letter_id: Id, reason: Why, by: By = None, yes: Yes = False, as_json: Json = False) -> None:
    """Send a letter again, to where it came in. It asks first; who did it, when and why is recorded before.

    Exit 0 if it was sent; 1 with the reason if it must not be, or would be of no use; 2 if nobody knows: repeat it.
    """
    _decided("redrive", letter_id, reason=reason, by=by, yes=yes, as_json=as_json)


def acknowledge(letter_id: Id, reason: Why, by: By = None, as_json: Json = False) -> None:
    """Record that you have dealt with a letter. Exit 1 if somebody had."""
    _decided("acknowledge", letter_id, reason=reason, by=by, yes=True, as_json=as_json)


def _decided(deed: str, letter_id: str, *, reason: str, by: str | None, yes: bool, as_json: bool) -> None:
    settings, person = load_settings(), who(by)
    try:
        if not yes:
            letter = asyncio.run(_found(settings, letter_id))
            confirm(_REDRIVE.format(letter.id, letter.meaning))
        letter = asyncio.run(_decide(settings, deed, letter_id, by=person, reason=reason))
    except Unusable as error:
        if as_json:
            print(json.dumps({"id": letter_id, "reason": error.reason, "error": error.detail}, ensure_ascii=False))
        else:
            typer.echo(error.detail, err=True)
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps(letter.shown(settings.execution), ensure_ascii=False))
    elif deed == "redrive":
        typer.echo(f"{letter.id} was sent again; its answer is said as that of any signal")
    else:
        typer.echo(f"{letter.id} is acknowledged")


async def _newest(settings: Settings) -> tuple[list[dict[str, Any]], bool]:
    """Return the letters of Kafka's topic as they are shown, and whether there are older ones."""
    from streamapp.letters.ledger import ledger

    async with ledger(settings, utc_now, writes=False) as letters:
        return [letters.shown(letter) for letter in await letters.newest()], letters.is_cut


def _listed(web: Web) -> tuple[list[dict[str, Any]], bool]:
    """Return those that an installation's web lists, page by page, and whether there are older ones."""
    found: list[dict[str, Any]] = []
    query = {"limit": str(MOST_LETTERS)}
    while True:
        page = web.ask(f"/dead-letters?{urlencode(query)}", has="dead_letters")
        found += page["dead_letters"]
        if page["next"] is None:
            return found, page["more"]
        query["before"] = page["next"]


async def _found(settings: Settings, letter_id: str) -> KeptLetter:
    from streamapp.letters.ledger import ledger

    async with ledger(settings, utc_now, writes=False) as letters:
        return await letters.find(letter_id)


async def _decide(settings: Settings, deed: str, letter_id: str, *, by: str, reason: str) -> KeptLetter:
    from streamapp.letters.ledger import ledger

    async with ledger(settings, utc_now, writes=True) as letters:
        decide = letters.redrive if deed == "redrive" else letters.acknowledge
        return await decide(letter_id, by=by, reason=reason)


def _lines(letter: dict[str, Any]) -> list[str]:
    """Return a letter, as JSON has it, in lines."""
    words = {"account": letter["account"], "symbol": letter["symbol"], "id": letter["message_id"]}
    known = "  ".join(f"{word} {value}" for word, value in words.items() if value)
    came = f"from {letter['subject'] or letter['source']} (message {letter['sequence']})"
    decided = (
        f"    {made['decision']} by {made['by']}, {made['at'][:19]}: {made['reason']}" for made in letter["decisions"]
    )
    lines = [
        f"{letter['id']}  {letter['at'][:19]}  {letter['disposition']}  {came}",
        f"    {letter['meaning']} ({letter['reason']}): {letter['detail']}",
        f"    {known}" if known else "",
        f"    {letter['payload'][:200]}",
        *decided,
        f"    {letter['todo']}" if letter["disposition"] in _OPEN else "",
    ]
    return [visible(line) for line in lines if line]


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    if found := _AGO.fullmatch(text):
        return utc_now() - timedelta(**{_UNITS[found[2]]: int(found[1])})
    for form in _MOMENTS:
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise ConfigurationError(f"--since: expected 30m, 24h, 7d or a moment as 2026-11-27T14:30:00Z, got {text!r:.80}")
