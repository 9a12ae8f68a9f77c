"""What all tests begin with, and the servers that they share: started when first asked for, on free ports."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from streamapp.local import clickhouse, nats
from streamapp.local.ports import free_port
from tests.kit.stacks import running, running_kafka


def pytest_configure() -> None:
    # Before anything is collected: whoever has a stack of their own in their environment must not have the tests at it,
    # and neither must the processes that tests start.
    for name in [name for name in os.environ if name.startswith("STREAMAPP_")]:
        del os.environ[name]
    os.environ["STREAMAPP_CONFIG"] = ""  # nor the streamapp.toml and .env of the folder that they are run in
    # A broker of a test lives for a minute: Java's second compiler costs more than it saves in that time.
    os.environ["JAVA_TOOL_OPTIONS"] = "-XX:TieredStopAtLevel=1"
    # How long an example takes says how busy the machine is.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("streamapp", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("streamapp")


@pytest.fixture(scope="session")
def server_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def kafka_bootstrap(server_folder: Path) -> Iterator[str]:
    """host:port of a real Kafka of this test run; create topics of your own."""
    with running_kafka(server_folder) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="module")
def kafka_of_this_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Kafka of one module, whose topics have names that others may use in the shared one."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as bootstrap:
        yield bootstrap


@pytest.fixture(scope="session")
def nats_url(server_folder: Path) -> Iterator[str]:
    """nats://host:port of a JetStream server of this test run; streams are shared: use subjects of your own."""
    spec = nats.prepare(server_folder / "nats", free_port(), free_port())
    with running(spec, server_folder):
        yield spec.address


@pytest.fixture(scope="module")
def nats_of_this_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nats://host:port of a JetStream server of one module, whose streams have names that others may use."""
    folder = tmp_path_factory.mktemp("nats")
    spec = nats.prepare(folder / "nats", free_port(), free_port())
    with running(spec, folder):
        yield spec.address


@pytest.fixture(scope="session")
def clickhouse_url(server_folder: Path) -> Iterator[str]:
    """http://host:port of a ClickHouse engine of this test run; create a database of your own."""
    spec = clickhouse.prepare(server_folder / "clickhouse", free_port())
    with running(spec, server_folder):
        yield spec.address


# A test needs a Kafka, NATS, ClickHouse or MetaTrader 5 if it uses one of these fixtures, is a contract's test of one
# of these implementations, or stands in a module that imports one of these names.
_SERVERS = frozenset(
    {
        *("kafka_bootstrap", "nats_url", "clickhouse_url", "kafka_of_this_module", "nats_of_this_module"),
        *("servers", "market", "start_market"),
    }
)
_REAL = frozenset({"kafka", "nats", "clickhouse"})
_STARTERS = (
    *("OwnStack", "RunningProcess", "running_kafka", "own_nats", "start_market", "running_market", "desks"),
    *("secured_kafka", "secured_nats"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server, so that ``make quick`` leaves it out, whoever wrote it."""
    for item in items:
        if isinstance(item, pytest.Function) and _needs_server(item):
            item.add_marker("stack")


def _needs_server(item: pytest.Function) -> bool:
    chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return (
        not _SERVERS.isdisjoint(item.fixturenames)
        or any(isinstance(each, str) and each in _REAL for each in chosen)
        or any(hasattr(item.module, name) for name in _STARTERS)
    )
