"""``streamapp mt5-conformance``: whether a module is MetaTrader5, by calls and by orders of the smallest lot."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from streamapp.conformance.compare import compare
from streamapp.conformance.market import LOGIN, market_at, own_market
from streamapp.conformance.report import SECTIONS, Check, SuiteReport, load
from streamapp.conformance.suite import Target, examine
from streamapp.errors import StreamappError

SIMULATED = "simulated"
MODULES = {SIMULATED: "streamapp.simulator.metatrader5"}
_MARKS = {"failed": "[red]FAILED[/red]", "deviation": "[yellow]differs[/yellow]"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("mt5-conformance")(conformance)


def conformance(  # noqa: PLR0917  # the command line passes them by name
    module: Annotated[
        str, typer.Option(help="MetaTrader5, simulated, or another module to import that stands in for them.")
    ] = SIMULATED,
    login: Annotated[int | None, typer.Option(help="Number of the demo account.")] = None,
    server: Annotated[str | None, typer.Option(help="Name of the broker's server.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="File with the password and nothing else.")] = None,
    path: Annotated[str | None, typer.Option(help="The terminal64.exe to use. Always give it on Windows.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Symbol to trade; EURUSD by any suffix otherwise.")] = None,
    demo_account_ok: Annotated[
        bool, typer.Option("--demo-account-ok", help="I know that this trades the smallest lots on this demo account.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="host:port of a simulated market; otherwise one of its own is started.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Broker profile of a market of its own.")] = "default",
    margin_mode: Annotated[
        str | None, typer.Option(help="hedging, netting or exchange, for a market of its own.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Stretches every deadline.")] = 1.0,
    report: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("mt5-conformance.json"),
    comparison: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A B", help="Compare two reports instead.")
    ] = None,
) -> None:
    """Check that a module behaves like MetaTrader5: fields, constants, errors of bad calls, orders of the smallest lot.

    It trades on demo accounts only, closes what it opened, and can be repeated. Exit codes: 0 conformant, 1 there are
    differences, 2 it can't run.
    """
    console = Console(soft_wrap=True, highlight=False)
    if comparison:
        raise typer.Exit(_compare(console, *comparison))
    if module != SIMULATED and not demo_account_ok:
        _refuse(console, "expected --demo-account-ok: the suite trades the smallest lots on a demo account")
    with ExitStack() as stack:
        try:
            credentials = _credentials(login, server, password_file, path)
            if module == SIMULATED and address is None:
                address = stack.enter_context(own_market(profile, margin_mode))
                credentials = {"login": LOGIN}
            if address is not None:
                stack.enter_context(market_at(address))
            target = Target(MODULES.get(module, module), credentials, symbol, patience)
            found = examine(target, _Progress(console))
        except StreamappError as error:
            _refuse(console, str(error))
    found.save(report)
    raise typer.Exit(_tell(console, found, report))


class _Progress:
    """Prints the section that the suite is in, and every check that is not as claimed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sections: set[str] = set()

    def __call__(self, check: Check) -> None:
        """Tells of a check."""
        if check.section not in self._sections:
            self._sections.add(check.section)
            self._console.print(f"{SECTIONS[check.section]} ...")
        if check.outcome in _MARKS:
            told = f"{check.name}: expected {check.expected}, got {check.observed} {check.note}"
            self._console.print(f"  {_MARKS[check.outcome]} ", end="")
            self._console.print(told.rstrip(), markup=False)


def _credentials(login: int | None, server: str | None, password_file: Path | None, path: str | None) -> dict[str, Any]:
    given: dict[str, Any] = {"login": login, "server": server, "path": path}
    if password_file is not None:
        try:
            given["password"] = password_file.read_text("utf-8").strip()
        except OSError as error:
            raise typer.BadParameter(f"expected a file with the password, got {error}") from error
    return {name: value for name, value in given.items() if value is not None}


def _refuse(console: Console, sentence: str) -> None:
    console.print(f"mt5-conformance can't run: {sentence}", style="red", markup=False)
    raise typer.Exit(2)


def _tell(console: Console, found: SuiteReport, report: Path) -> int:
    console.print()
    console.print(found.summary(), markup=False)
    verdict = "conformant" if found.conformant else "NOT conformant"
    console.print(f"{verdict}; the report is in {report}", style="bold", markup=False)
    return 0 if found.conformant else 1


def _compare(console: Console, first: Path, second: Path) -> int:
    try:
        differences = compare(load(first), load(second))
    except StreamappError as error:
        _refuse(console, str(error))
    for difference in differences:
        console.print(difference.text(), style="red" if difference.matters else None, markup=False)
    count = sum(difference.matters for difference in differences)
    console.print(f"{count} differences, {len(differences) - count} deviations of broker and market", style="bold")
    return 1 if count else 0
