"""compose.yaml can't be run by every developer; what it says must at least agree with the rest of the repository."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from streamapp.local.kafka import KAFKA
from streamapp.local.process import REPOSITORY
from streamapp.ports import Ports

COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("mirror", "trading", "warehouse", "terminals")


def published(service: str) -> set[str]:
    return {port.rsplit(":", 1)[0] for port in SERVICES[service]["ports"]}


@pytest.mark.parametrize("service", ["kafka", "nats", "clickhouse", "market", "mirror", "warehouse", "terminals"])
def test_a_service_is_published_on_loopback_at_the_port_of_the_local_stack(service: str) -> None:
    assert f"127.0.0.1:{getattr(Ports(), service)}" in published(service)


def test_nothing_is_published_beyond_loopback() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


def test_trading_is_published_at_its_port() -> None:
    assert published("trading") == {f"127.0.0.1:{Ports().trading()}"}


def test_every_process_of_the_procfile_is_a_service_with_the_same_program() -> None:
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    processes = {name: command.split() for name, _, command in (line.partition(":") for line in lines)}
    assert sorted(processes) == sorted(OURS)
    for name, words in processes.items():
        command = SERVICES[name]["command"]
        assert [word for word in words if word in command] == words
        assert SERVICES[name]["restart"] == "always"


def test_what_a_service_names_is_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        named = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert named <= set(COMPOSE["volumes"])
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])


def test_kafka_is_the_same_release_as_the_local_one() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA.rsplit(':', 1)[1]}"


def test_one_nats_node_syncs_always_as_locally() -> None:
    assert "sync_interval: always" in COMPOSE["configs"]["nats"]["content"]
