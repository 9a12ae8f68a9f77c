"""``streamapp orders`` and ``streamapp order ID``: ask the trading workers."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.table import Table

from streamapp.commands.web import get_json
from streamapp.errors import StreamappError
from streamapp.settings import load_settings

_COLUMNS = ("updated_at", "order_id", "account", "symbol", "side", "volume", "filled_volume", "average_price", "status")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(orders)
    app.command()(order)


def orders(
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
) -> None:
    """List orders, newest first."""
    asked = {"status": status, "symbol": symbol, "account": account}
    query = urlencode({key: value for key, value in asked.items() if value})
    answer = _ask(f"/orders?{query}")
    console = Console()
    table = Table(*(*_COLUMNS, "detail"))
    for row in answer["orders"]:
        table.add_row(*(str(row.get(name) or "") for name in (*_COLUMNS, "detail")))
    console.print(table)
    if answer.get("incomplete"):
        console.print(f"[yellow]incomplete: no answer from {', '.join(answer.get('missing', []))}")


def order(order_id: Annotated[str, typer.Argument(help="The order's id.")]) -> None:
    """Show one order: what is known of it, and every fact."""
    answer = _ask(f"/orders/{quote(order_id, safe='')}")
    console = Console()
    for name, value in answer.items():
        if name != "facts":
            console.print(f"{name:<24} {value}", highlight=False)
    console.print("facts")
    for fact in answer.get("facts", []):
        console.print(f"  {fact['at']}  {fact['fact']:<16} {fact['body']}", highlight=False, soft_wrap=True)


def _ask(path: str) -> Any:
    status, answer = get_json(f"http://127.0.0.1:{load_settings().ports.trading()}{path}")
    if status != 200:
        raise StreamappError(f"{path}: {answer.get('error', answer)}")
    return answer
