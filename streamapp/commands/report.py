"""``streamapp report``: what trading has made and what it has cost, from ClickHouse."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from streamapp.commands import completion
from streamapp.commands.days import day_option, require_order
from streamapp.domain.vocabulary import visible
from streamapp.errors import StreamappError, Transient
from streamapp.settings import Settings, load_settings

if TYPE_CHECKING:
    from streamapp.report.records import Records
    from streamapp.report.tables import Table

_ORDERS = 20
_PIPE_WIDTH = 200  # a pipe has no width, and 80 columns would cut every table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)


def report(  # noqa: PLR0917 -- the arguments of a command line
    first: Annotated[datetime | None, day_option("--from", "First day (2026-11-20), UTC; today if left out.")] = None,
    last: Annotated[datetime | None, day_option("--to", "Last day, UTC, and in it; today if left out.")] = None,
    account: Annotated[str | None, typer.Option(help="Only this account.", autocompletion=completion.accounts)] = None,
    strategy: Annotated[str | None, typer.Option(help="Only this strategy.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one HTML file with plots, print nothing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show profit and loss by strategy, slippage, implementation shortfall, fill ratios and latency of some days."""
    from streamapp.report.figures import report_of
    from streamapp.report.page import page_of
    from streamapp.report.tables import tables_of, title_of

    today = datetime.now(UTC).date()
    days = (today if first is None else first.date(), today if last is None else last.date())
    figures = report_of(asyncio.run(_read(load_settings(), days, account, strategy)))
    if as_json:
        print(figures.model_dump_json(indent=2))
    if html is not None:
        _write(html, page_of(figures))
    if as_json or html is not None:
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(Text(visible(title_of(figures)), style="bold"))
    for table in tables_of(figures, orders=_ORDERS):
        _show(console, table)


async def _read(settings: Settings, days: tuple[date, date], account: str | None, strategy: str | None) -> Records:
    from streamapp.clickhouse.client import ClickHouse
    from streamapp.report.queries import PeriodReader

    first, last = days
    require_order(first, last)
    clickhouse = ClickHouse.of(settings)
    try:
        reader = PeriodReader(clickhouse, first, last, account=account, strategy=strategy)
        records = await reader.records(deals_only=settings.role == "connector")
    except Transient as error:
        raise StreamappError(
            f"{error}. Expected ClickHouse with our tables at {settings.clickhouse_url}: start it (`make up`, or "
            "clickhouse.url in streamapp.toml names another), and `streamapp init` creates what is missing."
        ) from None
    finally:
        await clickhouse.close()
    if records.is_empty:
        chosen = "".join(
            f", {name} {value}" for name, value in (("account", account), ("strategy", strategy)) if value is not None
        )
        raise StreamappError(
            f"expected orders, fills or refused signals from {first} to {last} (UTC){chosen}; "
            f"got none in database {settings.clickhouse.database}. Name other days with --from and --to."
        )
    return records


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise StreamappError(f"--html: expected a file that can be written, got {path}: {error.strerror}") from None
    print(f"wrote {path}", file=sys.stderr)


def _show(console: Console, table: Table) -> None:

    shown = RichTable(title=Text(f"\n{table.title}"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.texts:
        shown.add_column(Text(name), overflow="fold")
    for name in table.numbers:
        shown.add_column(Text(name), justify="right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    console.print(shown)
    if table.note:
        console.print(Text(table.note, style="dim"))
