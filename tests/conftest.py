"""What all tests begin with, and the servers that they share: started when first asked for, on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest

from streamapp.local import clickhouse, kafka, nats
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec, RunningProcess


def pytest_configure() -> None:
    # Before anything is collected: whoever has a stack of their own in their environment must not have the tests at it,
    # and neither must the processes that tests start.
    for name in [name for name in os.environ if name.startswith("STREAMAPP_")]:
        del os.environ[name]
    # How long an example takes says how busy the machine is.
    hypothesis.settings.register_profile("streamapp", deadline=None)
    hypothesis.settings.load_profile("streamapp")


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
