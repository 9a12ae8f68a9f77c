"""The servers that tests share: started when first asked for, on free ports, in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamapp.local import clickhouse, kafka, nats
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess


@contextmanager
def running(spec: ProcessSpec, logs: Path) -> Iterator[RunningProcess]:
    process = RunningProcess(spec, logs)
    try:
        process.wait_ready()
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def kafka_bootstrap(server_folder: Path) -> Iterator[str]:
    """host:port of a real Kafka of this test run; create topics of your own."""
    spec = kafka.prepare(server_folder / "kafka", free_port(), free_port())
    with running(spec, server_folder / "logs"):
        yield spec.address


@pytest.fixture(scope="session")
def nats_url(server_folder: Path) -> Iterator[str]:
    """nats://host:port of a JetStream server of this test run; streams are shared: use subjects of your own."""
    spec = nats.prepare(server_folder / "nats", free_port(), free_port())
    with running(spec, server_folder / "logs"):
        yield spec.address


@pytest.fixture(scope="session")
def clickhouse_url(server_folder: Path) -> Iterator[str]:
    """http://host:port of a ClickHouse engine of this test run; create a database of your own."""
    spec = clickhouse.prepare(server_folder / "clickhouse", free_port())
    with running(spec, server_folder / "logs"):
        yield spec.address
