"""The local ClickHouse: ``python -m streamapp.local.clickhouse --port N --data FOLDER``, and how the stack runs it."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamapp.local.ports import LOOPBACK
from streamapp.local.process import ProcessSpec
from streamapp.local.readiness import http_answers

# Requests in flight when it is told to stop get so long to finish; what is not answered by then its client sends again.
_DRAIN_S = 2.0


def prepare(data: Path, port: int) -> ProcessSpec:
    """Return how to run the engine over ``data``."""
    data = data.resolve()
    data.mkdir(parents=True, exist_ok=True)
    return ProcessSpec(
        name="clickhouse",
        argv=(sys.executable, "-m", "streamapp.local.clickhouse", "--port", str(port), "--data", str(data)),
        ready=http_answers(port, "/ping"),
        environment={"TZ": "UTC"},  # the engine's time zone; a laptop's own would move every DateTime without one
        address=f"http://{LOOPBACK}:{port}",
        stop_within_s=8.0,
    )


async def serve(port: int, data: Path) -> None:
    """Serve until SIGTERM or SIGINT, then close the engine."""
    from aiohttp import web

    from streamapp.local.clickhouse_http import application
    from streamapp.local.engine import Engine

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    engine = Engine(data / "engine")
    # Bodies are unpacked by us: aiohttp does not know lz4, and refuses what it does not know.
    runner = web.AppRunner(application(engine), access_log=None, shutdown_timeout=_DRAIN_S, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
        await stopped.wait()
    finally:
        await runner.cleanup()
        engine.close()


def main(port: Annotated[int, typer.Option()], data: Annotated[Path, typer.Option()]) -> None:
    """Run the engine over a folder, on a port of the loopback interface."""
    asyncio.run(serve(port, data))


if __name__ == "__main__":
    typer.run(main)
