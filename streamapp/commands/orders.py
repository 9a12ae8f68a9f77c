"""``streamapp orders`` and ``streamapp order ID``: ask the trading workers."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.text import Text

from streamapp.commands import completion
from streamapp.commands.life import COLOURS, asked
from streamapp.commands.web import Url, Web
from streamapp.domain.vocabulary import visible
from streamapp.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(orders)
    app.command()(order)


def orders(
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.", autocompletion=completion.symbols)] = None,
    account: Annotated[str | None, typer.Option(help="Only this account.", autocompletion=completion.accounts)] = None,
    url: Url = None,
) -> None:
    """List orders, newest first."""
    asked = {"status": status, "symbol": symbol, "account": account}
    query = urlencode({key: value for key, value in asked.items() if value})
    answer = Web(url, load_settings()).ask(f"/orders?{query}", has="orders")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for row in answer["orders"]:
        # Plain lines, not a table: in a narrow terminal a table cuts the id, which is what one copies.
        console.print(_line(row))
    console.print(f"{len(answer['orders'])} orders")
    if answer.get("incomplete"):
        console.print(f"incomplete: no answer from {', '.join(answer.get('missing', []))}", style="yellow")


def order(
    order_id: Annotated[str, typer.Argument(help="The order's id.", autocompletion=completion.orders)], url: Url = None
) -> None:
    """Show one order: what is known of it, and every fact."""
    answer = Web(url, load_settings()).ask(f"/orders/{quote(order_id, safe='')}", has="order_id")
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for name, value in answer.items():
        if name != "facts" and value is not None:
            console.print(f"{name:<24} {_words(value)}")
    console.print("facts")
    for fact in answer.get("facts", []):
        if "body" not in fact:
            console.print(f"  (not in ClickHouse yet)      {fact['fact_id']}")
            continue
        said = _words(fact["body"])
        console.print(f"  {fact['at']}  {fact['fact']:<16} {said}")


def _line(row: dict[str, Any]) -> Text:
    text = Text(f"{row['updated_at'][:19]}  {row['order_id']}  {row['account']:<14} ")
    text.append(f"{row['status']:<16}", style=COLOURS.get(row["status"], ""))
    average = f" at {row['average_price']}" if row.get("average_price") else ""
    text.append(f"  {visible(asked(row))}  filled {row['filled_volume']}{average}")
    return text.append(f"  {visible(row['detail'])}") if row.get("detail") else text


def _words(value: Any) -> str:
    """Return a value for people: of an object what is there, name by name."""
    if isinstance(value, dict):
        return "  ".join(
            f"{name}: ({_words(inner)})" if isinstance(inner, dict) else f"{name}: {_words(inner)}"
            for name, inner in value.items()
            if inner not in (None, "", {}, [])
        )
    return visible(str(value))
