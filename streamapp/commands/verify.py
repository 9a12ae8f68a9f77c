"""``streamapp verify`` and ``streamapp audit verify``: whether what is kept in several places is still the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from streamapp.commands import completion
from streamapp.errors import StreamappError
from streamapp.settings import load_settings

if TYPE_CHECKING:
    from streamapp.audit.chain import Chain, ChainLink
    from streamapp.audit.log_readers import Unreadable
    from streamapp.audit.verify import Verification
    from streamapp.kafka.reader import Progress as Told

Account = Annotated[str | None, typer.Option(help="Only this account.", autocompletion=completion.accounts)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for machines.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(verify)
    audit = typer.Typer(name="audit", help="Prove that what is kept was not changed.", no_args_is_help=True)
    audit.command("verify")(verify_log)
    app.add_typer(audit)


def verify(account: Account = None, as_json: Json = False) -> None:
    """Fold the archive from its beginning and compare with the tables of all workers and with ClickHouse.

    Exit 0 only if all agree; 1 with each difference by account, order and commit; 2 if one of them can't be asked.
    """
    from streamapp.audit.verify import verify as verdict_on

    with reading("archive") as told:
        verdict = asyncio.run(verdict_on(load_settings(), account=account, progress=told))
    if verdict.agrees and not verdict.records:
        raise StreamappError(f"expected commits{_of(account)} in the archive, got none")
    if as_json:
        print(json.dumps({"agrees": verdict.agrees} | asdict(verdict)))
    else:
        show_verdict(Console(highlight=False), verdict, ARCHIVE_AND_COPIES)
    raise typer.Exit(0 if verdict.agrees else 1)


def verify_log(
    account: Account = None,
    clickhouse: Annotated[
        bool, typer.Option("--clickhouse", help="Verify ClickHouse's table broker_log, and not the topic.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify the hash chains of the broker log: nothing altered, missing, moved, or written twice with two contents.

    Exit 0 only if all are intact; 1 with the first place where each one breaks; 2 if the log can't be read.
    """
    from streamapp.audit.log_readers import in_clickhouse, in_kafka

    settings = load_settings()
    with reading("broker log") as told:
        links = in_clickhouse(settings, account) if clickhouse else in_kafka(settings, account, told)
        log = asyncio.run(read_log(links))
    if not log.chains and not log.unreadable:
        raise StreamappError(f"expected entries{_of(account)} in the broker log, got none")
    if as_json:
        print(json.dumps({"intact": log.is_intact} | asdict(log)))
    else:
        show_log(Console(highlight=False), log)
    raise typer.Exit(0 if log.is_intact else 1)


def _of(account: str | None) -> str:
    return "" if account is None else f" of account {account}"


@dataclass(frozen=True)
class BrokerLog:
    """The hash chains of a broker log, and what of it is no entry."""

    chains: list[Chain]
    unreadable: list[Unreadable]

    @property
    def is_intact(self) -> bool:
        """Whether nothing was altered, is missing or unreadable."""
        return not self.unreadable and all(chain.broken is None for chain in self.chains)


async def read_log(found: AsyncIterator[ChainLink | Unreadable]) -> BrokerLog:
    """Return the hash chains of a broker log."""
    from streamapp.audit.chain import ChainLink, Links, chains

    links, unreadable = Links(), []
    try:
        async for each in found:
            if isinstance(each, ChainLink):
                links.add(each)
            else:
                unreadable.append(each)
        return BrokerLog(list(chains(links)), unreadable)
    finally:
        links.close()


ARCHIVE_AND_COPIES = "archive, tables and ClickHouse"


def show_verdict(console: Console, verdict: Verification, places: str) -> None:
    """Print whether these places agree, in a line, and below it where not."""
    commits = f"{sum(verdict.commits.values())} commits of {len(verdict.commits)} accounts"
    compared = ", ".join(f"{count} {kind}s" for kind, count in verdict.compared.items())
    read = f"{verdict.records} records, {commits}; compared: {compared or 'nothing'}"
    if verdict.agrees:
        console.print(f"[green]✓[/] {places} agree: {read}", soft_wrap=True)
        return
    console.print(f"[red]✗[/] {verdict.count} differences: {read}", soft_wrap=True)
    for each in (*verdict.faults, *verdict.differences):
        console.print(f"  {each}", soft_wrap=True, markup=False)
    if verdict.unnamed:
        console.print(f"  and {verdict.unnamed} more", soft_wrap=True)


def show_log(console: Console, log: BrokerLog) -> None:
    """Print a line for each chain: that it is intact, or where it breaks first."""
    for chain in log.chains:
        line = f"{chain.account}, epoch {chain.epoch}: "
        if chain.broken is None:
            console.print("✓ ", style="green", end="")
            line += f"1 to {chain.last_seq} intact, ends in {chain.last_hash}"
        else:
            console.print("✗ ", style="red", end="")
            line += f"breaks at {chain.broken.seq}: expected {chain.broken.expected}, got {chain.broken.found}"
        console.print(line, soft_wrap=True, markup=False)
    for each in log.unreadable:
        console.print(f"✗ {each.place}: {each.detail}", soft_wrap=True, markup=False)


@contextmanager
def reading(what: str) -> Iterator[Told]:
    """Show how far reading is, where a person looks on; on standard error, so that what is found can go elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
