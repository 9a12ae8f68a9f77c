"""``streamapp up`` and ``streamapp down``: the whole stack on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from streamapp.errors import Ambiguous, ConfigurationError, Transient
from streamapp.settings import Settings, load_settings
from streamapp.tokens import TokensFile

if TYPE_CHECKING:
    from streamapp.local.process import ProcessSpec
    from streamapp.local.stack import Stack
    from streamapp.local.state import StackFolder
    from streamapp.local.supervisor import Supervisor

_INIT_TRIES = 5


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(down)


def up() -> None:
    """Start everything that has no address in the settings, keep it running, and stop it all on Ctrl-C or SIGTERM.

    State stays in local.data (default .local): the next `up` continues with it.
    """
    settings = load_settings()
    require_local_stack()
    from streamapp.local.process import REPOSITORY
    from streamapp.local.stack import Stack
    from streamapp.local.state import StackFolder

    if settings.web.tokens_file is not None:
        # As the trading worker, which runs there, will find it: it is never ready without.
        TokensFile(REPOSITORY / settings.web.tokens_file).read()

    folder, stack = StackFolder(settings.local.data), Stack(settings)
    signal.signal(signal.SIGTERM, _interrupt)
    # Ctrl-C while nothing runs yet (a download of a minute): as clean an end as later.
    with contextlib.suppress(KeyboardInterrupt), folder.owned():
        stack.require_free_ports()
        if settings.kafka.bootstrap is None:
            _say("preparing Kafka (the first time: 45 MB to download, and half a minute)")
        asyncio.run(_run(settings, stack, folder, stack.servers()))


def down() -> None:
    """Stop the stack that `up` runs over local.data, wherever it was started."""
    settings = load_settings()
    require_local_stack()
    from streamapp.local.state import StackFolder

    state = StackFolder(settings.local.data).stop()
    _say("nothing runs here" if state is None else f"stopped pid {state.pid}")


async def _run(settings: Settings, stack: Stack, folder: StackFolder, servers: list[ProcessSpec]) -> None:
    from streamapp.local.state import StackState, born
    from streamapp.local.supervisor import Supervisor

    def write_state() -> None:
        processes = {name: (process.pid, born(process.pid)) for name, process in supervisor.processes.items()}
        folder.write(StackState(os.getpid(), stack.addresses(), processes))

    started = time.monotonic()
    supervisor = Supervisor(stack.logs, _say, write_state)
    told_to_stop = _stop_signal()
    try:
        starting = asyncio.create_task(_start(settings, stack, supervisor, servers))
        await asyncio.wait({starting, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            _say(_welcome(stack, time.monotonic() - started))
            await told_to_stop
        starting.cancel()
    finally:
        _say("stopping")
        await supervisor.stop()
        _say("stopped")


async def _start(settings: Settings, stack: Stack, supervisor: Supervisor, servers: list[ProcessSpec]) -> None:
    from streamapp.commands.init import initialise

    await supervisor.start(servers)
    began = time.monotonic()
    await _patiently(initialise, settings)
    _say(f"topics, streams and tables are there ({time.monotonic() - began:.1f} s)")
    await supervisor.start(stack.workers())
    await supervisor.start(stack.trading())


async def _patiently(initialise: Callable[[Settings], object], settings: Settings) -> None:
    """Create what is missing; a server that has just started on a busy machine may miss its first deadlines."""
    for _ in range(_INIT_TRIES - 1):
        try:
            await asyncio.to_thread(initialise, settings)
        except (Transient, Ambiguous) as error:  # it only creates what is not there: doing it again is always safe
            _say(f"init: {error}; trying again")
        else:
            return
    await asyncio.to_thread(initialise, settings)


def _stop_signal() -> asyncio.Future[None]:
    """Return what is done when SIGINT, SIGTERM or SIGHUP has come; a second one hurries nothing."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, tell)
    return told


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def require_local_stack() -> None:
    """Return in the repository on Linux or macOS.

    Raises:
        ConfigurationError: this is Windows, or an installed wheel, where the local stack does not run.
    """
    if os.name != "posix":
        raise ConfigurationError(
            "expected Linux or macOS for the local stack, got Windows: here run `streamapp terminals` and the simulator"
        )
    from streamapp.local.process import REPOSITORY

    if not (REPOSITORY / "pyproject.toml").is_file():
        raise ConfigurationError(
            "expected streamapp's repository for the local stack, got an installed wheel, which does not hold the "
            "workers: run `make up` or `make demo` in the repository"
        )


def _welcome(stack: Stack, seconds: float) -> str:
    addresses = "\n".join(f"  {name:<12} {address}" for name, address in stack.addresses().items())
    return (
        f"\nall ready in {seconds:.0f} s\n{addresses}\n  {'logs':<12} {stack.logs}\n\n"
        "Send a signal:  streamapp signal EURUSD buy 0.10 --account demo-hedging\n"
        "Stop:           Ctrl-C here, or `streamapp down` anywhere\n"
    )


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
