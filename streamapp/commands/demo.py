"""``streamapp demo``: the whole road on a stack of its own, watched, and judged at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from streamapp.clock import utc_now
from streamapp.commands.command import told
from streamapp.commands.life import Life
from streamapp.commands.signals import HEARD
from streamapp.commands.stack import require_local_stack
from streamapp.settings import Settings, load_settings

if TYPE_CHECKING:
    from nats.aio.client import Client

    from streamapp.local.own import OwnStack
    from streamapp.messages.breaks import BreakMessage

_PORT_OFFSET = 500
_DRAIN_DEADLINE_S = 60.0
_PENDING = 0.35  # the share of limit, stop and stop-limit orders
# A doubt ends within the demonstration: the simulated market shows everything within a second.
_SETTINGS = "[terminal]\nsettle_window_s = 3.0\n"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    seconds: Annotated[float, typer.Option(help="How long signals are sent.")] = 60.0,
    rate: Annotated[float, typer.Option(help="Signals a second, on average.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of everything that chance decides.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack and its page up until Ctrl-C.")] = False,
) -> None:
    """Start a stack of its own, play approved signals through it and check that everyone tells the same story.

    In between a person halts an account and lets it open again, and the broker changes a position without a deal, which
    is found. Exit 0 only if the archive, the tables, NATS,
    ClickHouse and the simulated broker's own ledger agree, and the broker log's hash chains are intact.
    """
    require_local_stack()
    console = Console()
    stack, token = _own_stack(load_settings())
    stack.start()
    try:
        stack.wait_ready()
        page = f"{stack.settings.trading_url}/"
        console.print(f"the page: {page}", soft_wrap=True)
        found = asyncio.run(_play(stack.settings, console, seconds, rate, seed))
        if keep:
            console.print(f"the stack stays up until Ctrl-C: {page}", soft_wrap=True)
            console.print(f"to act on its page, log in with {token}", soft_wrap=True)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    finally:
        stack.stop()
    raise typer.Exit(1 if found else 0)


def _own_stack(base: Settings) -> tuple[OwnStack, str]:
    """Return the demonstration's stack, and a token for it: nothing but local, wiped first, beside a running ``up``."""
    from streamapp.demo.trouble import ACCOUNTS
    from streamapp.local.own import OwnStack
    from streamapp.local.state import StackFolder
    from streamapp.tokens import TokensFile

    data = (base.local.data / "demo").absolute()
    data.mkdir(parents=True, exist_ok=True)
    with StackFolder(data).owned():  # says so, with pid and addresses, where one runs
        shutil.rmtree(data)
    data.mkdir()
    tokens = TokensFile(data / "tokens")
    token = tokens.add("demo", "admin", utc_now())
    settings = f"{_SETTINGS}[web]\ntokens_file = {json.dumps(str(tokens.path))}\n{ACCOUNTS}"
    return OwnStack(data, base.local.port_offset + _PORT_OFFSET, settings), token


async def _play(settings: Settings, console: Console, seconds: float, rate: float, seed: int) -> list[str]:
    from streamapp.audit.sources import settled_evidence
    from streamapp.demo.breaking import Breaking
    from streamapp.demo.halting import ACCOUNT, Halting
    from streamapp.demo.player import Player
    from streamapp.demo.rows import RiskEngineRows
    from streamapp.demo.signals import SYMBOLS, Script
    from streamapp.demo.summary import show
    from streamapp.demo.sweep import sweeping
    from streamapp.demo.trouble import make_trouble
    from streamapp.nats.connection import connect

    nats = await connect(settings, "streamapp-demo")
    rows = RiskEngineRows(settings)
    try:
        newest: dict[str, dict[str, Any]] = {}
        await _listen(nats, Life(console), newest)
        run = f"demo-{secrets.token_hex(3)}"
        player = Player(settings, nats, Script(run, tuple(settings.accounts), seed, pending=_PENDING), rows)
        console.print(f"playing {seconds:g} s of signals, about {rate:g} a second: run {run}, seed {seed}")
        await make_trouble(settings)
        await player.play(seconds, rate)
        halting = Halting(
            settings, nats, rows, run, lambda result: console.print(told(result), soft_wrap=True, markup=False)
        )
        traded = await halting.play()
        await Breaking(settings, nats, newest, lambda told: _show_break(console, told)).play(traded, ACCOUNT)
        console.print("all sent; moving the market up and down, so that every price that is waited for comes")
        async with sweeping(settings, SYMBOLS):
            evidence = await settled_evidence(
                settings, nats, within_s=_DRAIN_DEADLINE_S, sent=[*player.sent, *halting.sent]
            )
        return show(console, evidence, list(newest.values())) + await _verified(settings, console)
    finally:
        await rows.close()
        await nats.close()


def _show_break(console: Console, told: BreakMessage) -> None:
    books = f"ours {told.ours or 'nothing'}, the broker's {told.theirs or 'nothing'}"
    said = f"a break: {books}" if told.disposition == "open" else "the broker undid it: the books agree again"
    console.print(f"position {told.position_id}, {told.account}: {said}", soft_wrap=True, markup=False)


async def _verified(settings: Settings, console: Console) -> list[str]:
    """Show what `streamapp verify` and `streamapp audit verify` say; return what is wrong."""
    from streamapp.audit.log_readers import in_kafka
    from streamapp.audit.verify import verify
    from streamapp.commands.verify import ARCHIVE_AND_COPIES, read_log, show_log, show_verdict

    verdict = await verify(settings)
    show_verdict(console, verdict, ARCHIVE_AND_COPIES)
    log = await read_log(in_kafka(settings, None, lambda *_: None))
    if log.is_intact:
        entries, chains = sum(chain.last_seq for chain in log.chains), len(log.chains)
        console.print(f"[green]✓[/] broker log intact: {entries} entries in the hash chains of {chains} journals")
    else:
        show_log(console, log)
    return [] if verdict.agrees and log.is_intact else ["verify"]


async def _listen(nats: Client, life: Life, newest: dict[str, dict[str, Any]]) -> None:
    async def heard(message: Any) -> None:
        content = json.loads(message.data)
        life.show(content)
        if content.get("schema") == "order/1":
            newest[content["order_id"]] = content

    for subject in HEARD:
        await nats.subscribe(subject, cb=heard)
