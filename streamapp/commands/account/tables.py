"""What the reads show, as tables that cut nothing: what is too long for its column goes on below. All times are UTC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamapp.domain.vocabulary import decimal_text
from streamapp.messages.reading import (
    Account,
    OpenPosition,
    OrdersReply,
    PositionsReply,
    Quote,
    Symbol,
    SymbolsReply,
    WorkingOrder,
)
from streamapp.messages.terminal import HelloReply

WIDE = 220
"""Columns where no terminal limits them: a pipe, a file."""

Columns = tuple[tuple[str, Callable[[Any], object]], ...]
POSITIONS: Columns = (
    ("position", lambda row: row.position_id),
    ("symbol", lambda row: row.symbol),
    ("side", lambda row: row.side),
    ("volume", lambda row: row.volume),
    ("opened at", lambda row: row.open_price),
    ("now", lambda row: row.price),
    ("stop loss", lambda row: row.stop_loss),
    ("take profit", lambda row: row.take_profit),
    ("profit", lambda row: row.profit),
    ("swap", lambda row: row.swap),
    ("since (UTC)", lambda row: row.opened_at),
    ("order", lambda row: row.order_id or _whose(row)),
)
ORDERS: Columns = (
    ("ticket", lambda row: row.ticket),
    ("symbol", lambda row: row.symbol),
    ("side", lambda row: row.side),
    ("type", lambda row: row.order_type),
    ("state", lambda row: row.state),
    ("volume", lambda row: row.volume),
    ("left", lambda row: row.remaining_volume),
    ("price", lambda row: row.price),
    ("limit", lambda row: row.stop_limit_price),
    ("stop loss", lambda row: row.stop_loss),
    ("take profit", lambda row: row.take_profit),
    ("lives", lambda row: row.expiration or row.time_in_force),
    ("placed (UTC)", lambda row: row.placed_at),
    ("order", lambda row: row.order_id or _whose(row)),
)
SYMBOLS: Columns = (
    ("symbol", lambda row: row.name),
    ("description", lambda row: row.description),
    ("trade", lambda row: row.trade_mode),
    ("bid", lambda row: row.bid),
    ("ask", lambda row: row.ask),
    ("tick", lambda row: row.tick_size),
    ("lots", lambda row: f"{_text(row.volume_min)} to {_text(row.volume_max)} by {_text(row.volume_step)}"),
    ("contract", lambda row: row.contract_size),
    ("stops level", lambda row: row.stops_level),
    ("filling", lambda row: " ".join(row.fill_policies)),
    ("watched", lambda row: "yes" if row.selected else "no"),
)
_RIGHT = (int, Decimal)


def screen() -> Console:
    """Return where tables go: as wide as the terminal, or wide enough for every column."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def rows(reply: PositionsReply | OrdersReply | SymbolsReply) -> Table:
    """Return the table of a list."""
    columns = {PositionsReply: POSITIONS, OrdersReply: ORDERS, SymbolsReply: SYMBOLS}[type(reply)]
    content: Iterable[OpenPosition | WorkingOrder | Symbol] = reply.content or ()
    cells = [[value(row) for _, value in columns] for row in content]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, (title, _) in enumerate(columns):
        right = any(isinstance(line[index], _RIGHT) for line in cells)
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for line in cells:
        table.add_row(*(Text(_text(value)) for value in line))
    return table


def account(hello: HelloReply, shown: Account | None) -> Table:
    """Return what is known of an account; ``shown`` is None where its terminal can't see it."""
    table = _pairs()

    def say(name: str, value: str) -> None:
        table.add_row(name, Text(value))

    say("terminal", f"{hello.connection}{': ' + hello.detail if hello.detail else ''}")
    say("epoch", hello.epoch)
    if shown is None:
        return table
    say("login", f"{shown.login} at {shown.server} ({shown.kind}, {shown.company}), {shown.name}")
    say("mode", f"{shown.margin_mode}, leverage 1:{shown.leverage}")
    for name in ("balance", "credit", "profit", "equity", "margin", "margin_free"):
        say(name.replace("_", " "), f"{_text(getattr(shown, name))} {shown.currency}")
    calls = f"margin call {_text(shown.margin_call_level)}, stop out {_text(shown.stop_out_level)}"
    say("margin level", f"{_text(shown.margin_level)} % ({calls})" if shown.margin else f"no margin ({calls})")
    say("may trade", _permission(shown))
    say("halted", shown.halted or "no")
    return table


def quote(shown: Quote) -> Table:
    """Return a tick."""
    table = _pairs()
    table.add_row("bid", _text(shown.bid))
    table.add_row("ask", _text(shown.ask))
    table.add_row("spread", f"{_text(shown.spread_points)} points")
    if shown.last:
        table.add_row("last", f"{_text(shown.last)}, {_text(shown.volume)} lots")
    table.add_row("time", clock(shown.time))
    return table


def clock(value: datetime) -> str:
    """Return a time as a person reads it."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


def _permission(shown: Account) -> str:
    lacking = [
        *(() if shown.trade_allowed else ("the broker lets this login not trade",)),
        *(() if shown.experts_allowed else ("the broker lets no programs trade",)),
        *(() if shown.terminal_allows else ("switch on Algo Trading and the Python API in the terminal",)),
    ]
    return f"no: {'; '.join(lacking)}" if lacking else "yes"


def _whose(row: OpenPosition | WorkingOrder) -> str:
    return f"none known ({row.comment or row.reason})"


def _pairs() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return decimal_text(value) if isinstance(value, Decimal) else str(value)
