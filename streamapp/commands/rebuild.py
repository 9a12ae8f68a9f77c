"""``streamapp rebuild``: the trading workers' store from the archive alone, or compared with the living one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from streamapp.commands.verify import reading, show_verdict
from streamapp.settings import load_settings

if TYPE_CHECKING:
    from streamapp.audit.rebuild import Rebuilt

NOW = "now"
NOT_IN_THE_ARCHIVE = (
    (
        "what the lost store had committed and not yet put into the archive, some moments at most: its reports come "
        "again from Kafka; an order that was sent then has no beginning here until its signal comes again"
    ),
    "exits under way: they are over; one that had no order yet is refused (rebuilt) when it comes again",
    "why an account was halted: each begins halted",
    "how far reports without a fact are durable: terminals are asked again, what is known adds nothing",
)
"""What a store that was rebuilt lacks (docs/operations.md has the whole list)."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rebuild)


def rebuild(
    into: Annotated[
        str | None,
        typer.Option(help="Make a store of this name: letters, digits and _. Start workers on it with kafka.store."),
    ] = None,
    *,
    until: Annotated[
        str, typer.Option(help="Leave out what was said after this time (ISO 8601 with an offset), or now.")
    ] = NOW,
    compare_only: Annotated[
        bool, typer.Option("--compare-only", help="Write nothing: compare with the tables of the workers that run.")
    ] = False,
    may_open: Annotated[
        list[str] | None,
        typer.Option(help="This account may open orders at once: you compared it with the broker. May be repeated."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on although commits are missing in the archive.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for machines.")] = False,
) -> None:
    """Make the trading workers' store from the archive alone, or compare what it makes with the living one.

    With --into no trading worker may run. Exit 0 if the store was made, or if all agrees; 1 with each difference; 2 if
    nothing could be said or made.
    """
    if compare_only == (into is not None):
        raise typer.BadParameter("expected either --into NAME or --compare-only")
    if compare_only:
        if until != NOW or may_open or allow_missing:
            raise typer.BadParameter("--compare-only compares all there is now: expected no other option but --json")
        _compare(as_json=as_json)
    assert into is not None
    _make(into, _moment(until), frozenset(may_open or ()), allow_missing=allow_missing, as_json=as_json)


def _compare(*, as_json: bool) -> None:
    from streamapp.audit.rebuild import compare

    with reading("archive") as told:
        verdict = asyncio.run(compare(load_settings(), progress=told))
    if as_json:
        print(json.dumps({"agrees": verdict.agrees} | asdict(verdict)))
    else:
        show_verdict(Console(highlight=False), verdict, "what the archive makes and the tables")
    raise typer.Exit(0 if verdict.agrees else 1)


def _make(into: str, until: datetime | None, opening: frozenset[str], *, allow_missing: bool, as_json: bool) -> None:
    from streamapp.audit.rebuild import rebuild as rebuilt_store

    settings, console = load_settings(), Console(stderr=True, highlight=False)
    with reading("archive, signals") as told:
        rebuilt = asyncio.run(
            rebuilt_store(
                settings,
                into,
                until=until,
                opening=opening,
                allow_missing=allow_missing,
                progress=told,
                tell=lambda said: console.print(said, soft_wrap=True, markup=False),
            )
        )
    if as_json:
        print(json.dumps(asdict(rebuilt)))
    else:
        _show(rebuilt)


def _show(rebuilt: Rebuilt) -> None:
    console = Console(highlight=False)

    def line(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False)

    console.print("✓ ", style="green", end="")
    rows = ", ".join(f"{count} {kind}" for kind, count in rebuilt.rows.items())
    line(f"store {rebuilt.store} in {rebuilt.changelog}, read back and the same: {rows}")
    for account, number in rebuilt.numbers.items():
        opens = "opens nothing until a person has looked" if account in rebuilt.halted else "may open orders"
        said = f"up to commit {number}" if number else "not in the archive"
        line(f"  {account}: {said}; {opens}")
    for fault in rebuilt.faults:
        line(f"  {fault}")
    if rebuilt.left_out:
        line(f"  made later and left out: {rebuilt.left_out} commits")
    for standing, count in rebuilt.standings.items():
        line(f"  {standing} orders: {count}; their terminals are asked")
    for account, signal_id in rebuilt.undecided:
        line(f"  signal {signal_id} of {account} was under way: its orders stand, no more are made for it")
    line("Not in any archive:")
    for lack in NOT_IN_THE_ARCHIVE:
        line(f"  {lack}")
    line(f'Start every trading worker with kafka.store = "{rebuilt.store}" (STREAMAPP_KAFKA__STORE={rebuilt.store}).')


def _moment(text: str) -> datetime | None:
    if text == NOW:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter(f"--until: expected now, or a time such as 2026-11-20T12:00:00+00:00, got {text!r}")
    return moment.astimezone(UTC)
