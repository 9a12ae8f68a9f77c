"""compose.yaml can't be run by every developer: a validator reads it, and it agrees with the rest of the repository."""

from __future__ import annotations

import shutil

import pytest
import yaml

from streamapp.local.kafka import KAFKA
from streamapp.local.process import REPOSITORY
from streamapp.ports import Ports
from tests.deploy.files import COMPOSE, GRACE_S, OBSERVE, PORTS, SERVICES, checked_by, procfile, run, stages


def published(service: str) -> set[str]:
    return {port.rsplit(":", 1)[0] for port in SERVICES[service]["ports"]}


@pytest.mark.parametrize(
    "service", ["kafka", "nats", "clickhouse", "market", "mirror", "warehouse", "notifier", "terminals"]
)
def test_a_service_is_published_on_loopback_at_the_port_of_the_local_stack(service: str) -> None:
    assert f"127.0.0.1:{getattr(Ports(), service)}" in published(service)


def test_nothing_is_published_beyond_loopback() -> None:
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


def test_trading_is_published_at_its_port() -> None:
    assert published("trading") == {f"127.0.0.1:{Ports().trading()}"}


def test_every_process_of_the_procfile_is_a_service_that_is_started_again_and_given_time_to_stop() -> None:
    for name in procfile():
        assert SERVICES[name]["restart"] == "always"
        assert SERVICES[name]["stop_grace_period"] == f"{GRACE_S + 5:.0f}s"
        assert SERVICES[name]["depends_on"]["init"] == {"condition": "service_completed_successfully"}


def test_what_is_ours_is_built_from_a_stage_that_is_there_and_runs_without_rights() -> None:
    ours = {name: service for name, service in SERVICES.items() if "build" in service}
    assert ours.keys() == {*PORTS, "init"}
    for service in ours.values():
        assert service["build"]["target"] in stages()
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_the_schema_of_compose_files_holds() -> None:
    checked_by("check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_docker_compose_reads_it_itself() -> None:
    command = ("docker-compose",) if shutil.which("docker-compose") else ("docker", "compose")
    if shutil.which(command[0]) is None or (command[0] == "docker" and not _has_compose_plugin()):
        pytest.skip("docker compose is not installed")
    run(*command, "--profile", "observe", "--profile", "notify", "config", "--quiet")


def _has_compose_plugin() -> bool:
    try:
        return "Docker Compose" in run("docker", "compose", "version")
    except AssertionError:
        return False


def test_prometheus_asks_every_process_where_it_listens() -> None:
    said = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    (job,) = said["scrape_configs"]
    targets = {group["labels"]["part"]: group["targets"] for group in job["static_configs"]}
    assert targets == {name: [f"{name}:{port}"] for name, port in PORTS.items() if name not in {"market", "notifier"}}
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["notifier"], PORTS["notifier"])
    mounted = {volume.split(":")[1] for volume in SERVICES["prometheus"]["volumes"]}
    assert set(said["rule_files"]) <= mounted


def test_what_a_service_names_is_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        sources = {volume.split(":")[0] for volume in service.get("volumes", [])}
        files = {source for source in sources if source.startswith("./")}
        assert sources - files <= set(COMPOSE["volumes"])
        for file in files:
            assert (REPOSITORY / file).is_file()
        assert {config["source"] for config in service.get("configs", [])} <= set(COMPOSE["configs"])


def test_kafka_is_the_same_release_as_the_local_one() -> None:
    assert SERVICES["kafka"]["image"].startswith(f"apache/kafka:{KAFKA.rsplit(':', 1)[1]}@")


def test_one_nats_node_syncs_always_as_locally() -> None:
    assert "sync_interval: always" in COMPOSE["configs"]["nats"]["content"]
