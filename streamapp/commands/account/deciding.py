"""``streamapp account resume`` and ``settle``: what only a person can decide, said before it is done."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from streamapp.commands.account.asking import AskedTerminal, IssuedBy, Json, Name, asking, confirm, made, who
from streamapp.errors import ConfigurationError
from streamapp.messages.envelope import Message
from streamapp.messages.operation import ResumeReply, ResumeRequest, SettleReply, SettleRequest
from streamapp.messages.reading import AccountReply
from streamapp.settings import load_settings

_ALONE = (
    "What the trading worker holds is not lifted by this: streamapp command account.resume --account {} lifts both."
)
Yes = Annotated[bool, typer.Option("--yes", help="I know what it means: don't ask me.")]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(resume)
    group.command()(settle)


def resume(name: Name, yes: Yes = False, issued_by: IssuedBy = None, as_json: Json = False) -> None:
    """Lift the terminal's own halt, and no other. It says why it was halted, and asks first.

    What the trading worker holds (a person's halt, an order that was executed twice, a rule that broke) stays:
    `streamapp command account.resume` lifts that and the terminal's halt, and is the way unless no trading worker runs.
    """
    request = made(ResumeRequest, account=name, issued_by=who(issued_by))
    reply = asyncio.run(_resumed(request, yes=yes))
    done = f"the terminal lets {name} open again; it had been halted: {reply.was}"
    done = f"{done if reply.was else f'{name} was not halted by its terminal'}\n{_ALONE.format(name)}"
    raise typer.Exit(_told(reply, reply.error, done, as_json=as_json))


def settle(  # noqa: PLR0917  # the command line passes them by name
    name: Name,
    order_id: Annotated[str, typer.Argument(metavar="ORDER_ID", help="An order of ours, in doubt or absent.")],
    ticket: Annotated[int | None, typer.Option(min=1, help="The broker's order that it is.")] = None,
    absent: Annotated[bool, typer.Option("--absent", help="The broker has no such order, and never had.")] = False,
    yes: Yes = False,
    issued_by: IssuedBy = None,
    as_json: Json = False,
) -> None:
    """Say what became of an order that waits for a person, after looking at the broker. It asks first."""
    if (ticket is None) != absent:
        raise ConfigurationError(
            "expected either --ticket N, the broker's order that it is, or --absent: it never reached the broker"
        )
    request = made(SettleRequest, account=name, order_id=order_id, ticket=ticket, issued_by=who(issued_by))
    reply = asyncio.run(_settled(request, yes=yes))
    now = "" if reply.row is None else f": {reply.row.state}/{reply.row.reason}"
    raise typer.Exit(_told(reply, reply.error, f"order {order_id} is settled{now}", as_json=as_json))


async def _resumed(request: ResumeRequest, *, yes: bool) -> ResumeReply:
    async with asking(load_settings(), request.account) as terminal:
        if not yes:
            confirm(
                f"{await _halt(terminal)}\nFrom then on its terminal opens what it is told to; what was refused "
                "meanwhile stays refused. Do it after comparing with the broker and ending what caused the halt.\n"
                f"{_ALONE.format(request.account)}"
            )
        return await terminal.ask("resume", ResumeReply, request)


async def _halt(terminal: AskedTerminal) -> str:
    reply = await terminal.ask("account", AccountReply)
    if reply.content is None:
        return f"Whether {terminal.account} is halted can't be shown now: {reply.error}."
    return (
        f"{terminal.account} is halted by its terminal: {reply.content.halted}."
        if reply.content.halted
        else f"{terminal.account} is not halted by its terminal."
    )


async def _settled(request: SettleRequest, *, yes: bool) -> SettleReply:
    async with asking(load_settings(), request.account) as terminal:
        if not yes:
            await terminal.hello()  # nobody should confirm what nobody will hear
            confirm(_meaning(request))
        return await terminal.ask("settle", SettleReply, request)


def _meaning(request: SettleRequest) -> str:
    order = f"order {request.order_id} of {request.account}"
    if request.ticket is not None:
        return (
            f"You say that {order} is the broker's ticket {request.ticket}. What was executed under that ticket is "
            "then booked as this order's fills, and it can't be taken back."
        )
    return (
        f"You say that {order} never reached the broker. It then ends as failed/absent, and whoever sent it may send "
        "another in its place: if it is at the broker after all, the position is there twice."
    )


def _told(reply: Message, error: str | None, done: str, *, as_json: bool) -> int:
    if as_json:
        print(reply.encode().decode())
    else:
        console = Console(stderr=error is not None, highlight=False, soft_wrap=True)
        console.print(f"nothing was done: {error}" if error else done, markup=False)
    return 1 if error else 0
