"""``streamapp account show|positions|orders|symbols|quote``: what the terminal shows now."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, TypeVar

import typer

from streamapp.commands.account import tables
from streamapp.commands.account.asking import AskedTerminal, Json, Name, asking, made
from streamapp.errors import Definite
from streamapp.messages.reading import (
    AccountReply,
    ListRequest,
    OrdersReply,
    PositionsReply,
    QuoteReply,
    QuoteRequest,
    ReadReply,
    SymbolsReply,
)
from streamapp.messages.terminal import HelloReply
from streamapp.settings import load_settings

P = TypeVar("P", PositionsReply, OrdersReply, SymbolsReply)
OneSymbol = Annotated[str | None, typer.Option(help="Only this symbol.")]
Group = Annotated[str | None, typer.Option(help="Only symbols of these names, e.g. '*USD*,!EUR*'.")]


def register(group: typer.Typer) -> None:
    """Add the commands."""
    group.command()(show)
    group.command()(positions)
    group.command()(orders)
    group.command()(symbols)
    group.command()(quote)


def show(name: Name, as_json: Json = False) -> None:
    """Show the account: money, margin, what it may do, whether it is halted, and how its terminal is."""
    hello, reply = asyncio.run(_shown(name))
    if as_json:
        _print_json({**_content(reply), "terminal": hello.model_dump(mode="json")})
    else:
        tables.screen().print(tables.account(hello, reply.content))
    _require(reply)


def positions(name: Name, symbol: OneSymbol = None, group: Group = None, as_json: Json = False) -> None:
    """List the open positions."""
    _list(name, "positions", PositionsReply, made(ListRequest, symbol=symbol, group=group), as_json=as_json)


def orders(name: Name, symbol: OneSymbol = None, group: Group = None, as_json: Json = False) -> None:
    """List the orders that work at the broker. What became of earlier ones: `streamapp orders --account NAME`."""
    _list(name, "orders", OrdersReply, made(ListRequest, symbol=symbol, group=group), as_json=as_json)


def symbols(name: Name, symbol: OneSymbol = None, group: Group = None, as_json: Json = False) -> None:
    """List what the broker trades, and under which rules; --json shows all of them."""
    _list(name, "symbols", SymbolsReply, made(ListRequest, symbol=symbol, group=group), as_json=as_json)


def quote(
    name: Name,
    symbol: Annotated[str, typer.Argument(help="As the broker spells it, e.g. EURUSD.")],
    as_json: Json = False,
) -> None:
    """Show the last tick of a symbol, and when the broker's server made it."""

    async def ask() -> QuoteReply:
        async with asking(load_settings(), name) as terminal:
            return await terminal.ask("quote", QuoteReply, made(QuoteRequest, symbol=symbol))

    reply = asyncio.run(ask())
    _require(reply)
    if as_json:
        _print_json(_content(reply))
    elif reply.content is not None:
        tables.screen().print(tables.quote(reply.content))


async def _shown(name: str) -> tuple[HelloReply, AccountReply]:
    async with asking(load_settings(), name) as terminal:
        return await terminal.hello(), await terminal.ask("account", AccountReply)


def _list(name: str, operation: str, kind: type[P], request: ListRequest, *, as_json: bool) -> None:
    async def ask() -> P:
        async with asking(load_settings(), name) as terminal:
            return await whole(terminal, operation, kind, request)

    reply = asyncio.run(ask())
    if as_json:
        _print_json(_content(reply))
        return
    screen = tables.screen()
    if reply.content:
        screen.print(tables.rows(reply))
    count = len(reply.content or ())
    what = operation if count != 1 else operation.removesuffix("s")
    screen.print(f"{count} {what} of {name}, {tables.clock(reply.at)}", markup=False)


async def whole(terminal: AskedTerminal, operation: str, kind: type[P], request: ListRequest) -> P:
    """Return a list with all of its pages.

    Raises:
        Definite: a page can't be shown; then nothing is.
        StreamappError: as :meth:`AskedTerminal.ask`.
    """
    rows: list[Any] = []
    while True:
        reply = await terminal.ask(operation, kind, request)
        _require(reply)
        rows += reply.content or ()
        if reply.next is None:
            return reply.model_copy(update={"content": tuple(rows)})
        request = request.model_copy(update={"after": reply.next})


def _require(reply: ReadReply) -> None:
    """Raise what the terminal says in place of a content: what it can't see is never shown as empty."""
    if reply.error is not None or getattr(reply, "content", None) is None:
        raise Definite(f"the terminal of {reply.account} can't show it: {reply.error or 'it gives no reason'}")


def _content(reply: ReadReply) -> dict[str, Any]:
    return {field: value for field, value in reply.model_dump(mode="json").items() if field != "next"}


def _print_json(content: Any) -> None:
    print(json.dumps(content))
