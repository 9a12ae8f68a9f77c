"""Servers and whole stacks of a test's own, each on free ports and in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamapp.local import kafka, nats
from streamapp.local.own import OwnStack, free_port_offset
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess


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
