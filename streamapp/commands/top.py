"""``streamapp top``: live orders, positions, accounts and health on one screen, from the same views as ``status``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamapp.commands.life import COLOURS, asked
from streamapp.commands.web import Url, Web
from streamapp.domain.vocabulary import visible
from streamapp.errors import ConfigurationError, StreamappError
from streamapp.settings import load_settings

_WORKING = ("pending", "submitted", "partially_filled")
"""The statuses of an order that is not over."""
_KEYS_S = 0.1
"""How long a key may wait."""
_OLD_S = 5.0
"""From when on an answer's age is shown."""
_NOT_A_TERMINAL = 100
"""Columns where nobody says how wide it is."""


@dataclass(frozen=True)
class LastAnswer:
    """What a view last answered.

    Attributes:
        rows: Of the last answer; empty before the first.
        at: When it came, by a clock that never goes back; None before the first.
        trouble: Why the newest question has no whole answer; None where it has.
    """

    rows: tuple[dict[str, Any], ...] = ()
    at: float | None = None
    trouble: str | None = None


Screen = dict[str, LastAnswer]
"""What is shown of orders, positions, accounts and health, by these names."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(top)


def top(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds from one look to the next.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print it once; so it is also where nobody looks on.")] = False,
    url: Url = None,
) -> None:
    """Show live orders, positions, accounts and health, each second anew; q or Ctrl-C ends it.

    Exit 2 if nothing at all could be asked the first time.
    """
    web = Web(url, load_settings())
    console = Console(highlight=False)
    with contextlib.suppress(KeyboardInterrupt):
        screen: Screen = {}
        for name in _VIEWS:
            screen[name] = _look(web, name, LastAnswer())
        if all(part.at is None for part in screen.values()):
            raise ConfigurationError(next(part.trouble for part in screen.values() if part.trouble))
        if once or not console.is_terminal:
            width = console.width if console.is_terminal else max(console.width, _NOT_A_TERMINAL)
            Console(highlight=False, width=width).print(_frame(web.base, screen, None))
        else:
            _watch(console, web, screen, interval)


def _watch(console: Console, web: Web, screen: Screen, interval: float) -> None:
    """Draw until q. The screen and the keyboard are the shell's again however this ends."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(interval):
            for name in _VIEWS:
                screen[name] = _look(web, name, screen[name])

    # A daemon: whoever presses q does not wait for a worker that does not answer.
    looking = threading.Thread(target=look, daemon=True)
    # No KeyboardInterrupt: one that is raised while a finalizer runs is lost, and the person presses Ctrl-C in vain.
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        with (
            _keys() as pressed,
            Live(_frame(web.base, screen, console.height), console=console, screen=True, auto_refresh=False) as live,
        ):
            looking.start()
            while not stop.is_set() and pressed(_KEYS_S) != "q":
                live.update(_frame(web.base, screen, console.height), refresh=True)
    finally:
        stop.set()
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a function that waits so long for a key and returns it, or nothing."""
    if sys.platform == "win32":
        import msvcrt

        def pressed(seconds: float) -> str:
            time.sleep(seconds)
            return msvcrt.getwch() if msvcrt.kbhit() else ""

        yield pressed
    else:
        import select
        import termios
        import tty

        keyboard = [sys.stdin.fileno()] if sys.stdin.isatty() else []  # if it is none, only Ctrl-C ends it

        def pressed(seconds: float) -> str:
            ready = select.select(keyboard, [], [], seconds)[0]
            return os.read(ready[0], 1).decode("latin-1") if ready else ""

        before = [(each, termios.tcgetattr(each)) for each in keyboard]
        try:
            for each in keyboard:
                tty.setcbreak(each)
            yield pressed
        finally:
            for each, attributes in before:
                termios.tcsetattr(each, termios.TCSADRAIN, attributes)


# --- what is asked


def _orders(web: Web) -> LastAnswer:
    parts = [_rows(web.ask(f"/orders?{urlencode({'status': each})}", has="orders"), "orders") for each in _WORKING]
    rows = sorted((row for part in parts for row in part.rows), key=lambda row: str(row["updated_at"]), reverse=True)
    return LastAnswer(tuple(rows), parts[0].at, next((part.trouble for part in parts if part.trouble), None))


def _health(web: Web) -> LastAnswer:
    return LastAnswer(tuple({"reason": reason} for reason in web.health()), time.monotonic())


_VIEWS: dict[str, Callable[[Web], LastAnswer]] = {
    "health": _health,
    "accounts": lambda web: _rows(web.ask("/accounts", has="accounts"), "accounts"),
    "positions": lambda web: _rows(web.ask("/positions", has="positions"), "positions"),
    "orders": _orders,
}


def _rows(answer: dict[str, Any], name: str) -> LastAnswer:
    missing = [f"no answer from {', '.join(map(str, answer.get('missing', [])))}"] if answer.get("incomplete") else []
    more = ["there are more"] if answer.get("more") else []
    return LastAnswer(tuple(answer[name]), time.monotonic(), ", ".join(missing + more) or None)


def _look(web: Web, name: str, before: LastAnswer) -> LastAnswer:
    try:
        return _VIEWS[name](web)
    except StreamappError as error:
        return LastAnswer(before.rows, before.at, str(error))


# --- what is shown


def _frame(base: str, screen: Screen, height: int | None) -> RenderableType:
    """Return the screen; of the longest part what has room in ``height`` lines, None: all of it."""
    health = screen["health"]
    reasons = visible("; ".join(row["reason"] for row in health.rows))
    known = (
        Text("not known", "yellow") if health.at is None else Text(reasons or "healthy", "red" if reasons else "green")
    )
    head = Text.assemble(f"streamapp {base}  ", known, *_age(health))
    accounts = _table(screen["accounts"], "accounts", _ACCOUNT, None)
    positions, orders = screen["positions"], screen["orders"]
    # The head and each table's title and header; what is left is shared by the tables that grow.
    room = None if height is None else max(2, height - 10 - len(screen["accounts"].rows))
    most = None if room is None else min(len(positions.rows), max(room // 2, room - len(orders.rows)))
    rest = None if room is None or most is None else room - most
    shown = (_table(positions, "positions", _POSITION, most), _table(orders, "live orders", _ORDER, rest))
    return Group(head, accounts, *shown)


def _age(part: LastAnswer) -> Iterable[tuple[str, str]]:
    """Yield why a part is not all there, and how old it is where that is not the last look's age."""
    age_s = 0.0 if part.at is None else time.monotonic() - part.at
    said = [*([part.trouble] if part.trouble else []), *([f"{age_s:.0f} s old"] if age_s >= _OLD_S else [])]
    if said:
        yield f"  ({visible(', '.join(said))})", "yellow"


Column = tuple[str, Callable[[dict[str, Any]], str], bool]
"""Its name, what stands in it, and whether that is a number."""


def _of(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "-" if row.get(name) is None else str(row[name])


_ACCOUNT: tuple[Column, ...] = (
    ("account", _of("account"), False),
    ("connection", _of("connection"), False),
    ("trading", _of("trading"), False),
    ("equity", _of("equity"), True),
    ("free margin", _of("margin_free"), True),
)
_POSITION: tuple[Column, ...] = (
    ("account", _of("account"), False),
    ("position", _of("position_id"), False),
    ("symbol", _of("symbol"), False),
    ("side", _of("side"), False),
    ("lots", _of("volume"), True),
    ("price", _of("average_price"), True),
    ("profit", lambda row: _of("profit")(row.get("broker") or {}), True),
)
_ORDER: tuple[Column, ...] = (
    ("at (UTC)", lambda row: str(row["updated_at"])[11:19], False),
    ("order", lambda row: str(row["order_id"])[:8], False),
    ("account", _of("account"), False),
    ("status", _of("status"), False),
    ("asked", asked, False),
    ("filled", _of("filled_volume"), True),
)


def _table(part: LastAnswer, name: str, columns: tuple[Column, ...], most: int | None) -> Table:
    rows = part.rows if most is None else part.rows[:most]
    more = f", {len(rows)} shown" if len(rows) < len(part.rows) else ""
    title = Text.assemble((f"{len(part.rows)} {name}{more}", "bold"), *_age(part))
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, expand=True)
    for column, _, is_number in columns:
        ratio = 1 if column == "asked" else None  # the one that gives way where the terminal is narrow
        justify: JustifyMethod = "right" if is_number else "left"
        shown.add_column(column, justify=justify, ratio=ratio, no_wrap=True, overflow="ellipsis")
    for row in rows:
        shown.add_row(*(Text(visible(cell(row)), COLOURS.get(cell(row), "")) for _, cell, _ in columns))
    return shown
