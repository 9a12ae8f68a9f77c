"""Servers and whole stacks of a test's own, each on free ports and in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from streamapp.local import kafka, nats
from streamapp.local.own import OwnStack, free_port_offset
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.local.readiness import http_answers

WORKER_WITHIN_S = 90.0


@contextmanager
def running(spec: ProcessSpec, folder: Path) -> Iterator[RunningProcess]:
    """Run a server for as long as the block; its log is in ``folder``/logs."""
    process = RunningProcess(spec, folder / "logs")
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


@contextmanager
def running_kafka(folder: Path) -> Iterator[str]:
    """Run a Kafka for as long as the block, and yield its host:port."""
    spec = kafka.prepare(folder / "kafka", free_port(), free_port())
    with running(spec, folder):
        yield spec.address


@contextmanager
def running_kafka_and_nats(folder: Path) -> Iterator[tuple[str, str]]:
    """Run a Kafka and a NATS for as long as the block, and yield their addresses."""
    spec = nats.prepare(folder / "nats", free_port(), free_port())
    with running_kafka(folder) as bootstrap, running(spec, folder):
        yield bootstrap, spec.address


@contextmanager
def running_stack(folder: Path, settings: str) -> Iterator[OwnStack]:
    """Run a whole stack for as long as the block; its clean exit is part of what is tested.

    Args:
        folder: Of this stack alone.
        settings: What its ``streamapp.toml`` says.
    """
    stack = OwnStack(folder, free_port_offset(), settings)
    with (folder / "up.out").open("wb") as output:
        stack.start(output)
        try:
            stack.wait_ready()
            yield stack
        finally:
            code = stack.stop()
    assert code == 0, (folder / "up.out").read_text()[-3000:]


@contextmanager
def second_worker_at(stack: OwnStack, folder: Path) -> Iterator[RunningProcess]:
    """Run a further trading worker of a stack for as long as the block, with a port and a folder of its own."""
    port = stack.settings.ports.trading(2)
    program = str(Path(sys.executable).with_name("faust"))
    application = ("--datadir", str(folder / "trading-2"), "--loop", "uvloop", "-A", "streamapp.trading")
    web = ("--web-host", "127.0.0.1", "--web-port", str(port))
    spec = ProcessSpec(
        "trading-2",
        (program, *application, "worker", "-l", "info", *web),
        http_answers(port, "/health"),
        environment=stack.environment | {"STREAMAPP_WORKER": "2"},
        ready_within_s=WORKER_WITHIN_S,
    )
    with running(spec, stack.data) as worker:
        yield worker


async def accounts_of(port: int) -> set[str]:
    """Return the accounts that a trading worker owns, by its own word; none while partitions are being assigned."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/accounts?local=1") as answer:
        return {row["account"] for row in (await answer.json()).get("accounts", ())}
