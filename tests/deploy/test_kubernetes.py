"""The manifests: a validator reads them, and they name commands, ports, probes and settings that there are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from streamapp import health
from streamapp.settings import Settings, settings_from
from tests.deploy.files import (
    DEPLOY,
    GRACE_S,
    KUBERNETES,
    PORTS,
    SERVICES,
    UNITS,
    checked_by,
    manifests,
    pods,
    run,
    stages,
)


def test_the_schemas_of_kubernetes_hold() -> None:
    files = sorted(str(file) for file in KUBERNETES.glob("*.yaml") if file.name != "kustomization.yaml")
    checked_by("kubernetes_validate", "--strict", "--quiet", *files)


def test_the_schema_of_the_operator_holds_for_the_pod_monitor() -> None:
    schema = json.loads(Path(__file__).with_name("podmonitor.schema.json").read_text())
    jsonschema.validate(yaml.safe_load((KUBERNETES / "monitoring" / "podmonitor.yaml").read_text()), schema)


def test_kustomize_builds_the_base_and_the_monitoring_beside_it(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    shutil.copytree(KUBERNETES, tmp_path / "base")
    overlay = {"resources": ["base"], "components": ["base/monitoring"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = list(yaml.safe_load_all(run("kubectl", "kustomize", str(tmp_path))))
    assert {each["kind"] for each in built} >= {"StatefulSet", "Deployment", "Job", "PodMonitor", "NetworkPolicy"}
    assert {each["metadata"].get("namespace", "streamapp") for each in built} == {"streamapp"}


@pytest.mark.parametrize("name", [*PORTS, "init"])
def test_a_pod_has_no_rights_and_time_to_stop(name: str) -> None:
    pod, container = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in stages()["runtime"]
    assert not pod["automountServiceAccountToken"]
    assert pod["shareProcessNamespace"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {"requests", "limits"} <= container["resources"].keys()
    assert container["image"] == ("streamapp-worker" if name == "init" else SERVICES[name]["image"])
    assert set(container) & {"command", "args"} == ({"command"} if name == "init" else set())
    mounted = {each["name"] for each in container["volumeMounts"]}
    claimed = {each["name"] for each in pod["volumes"]}
    assert mounted - claimed <= {"data"}
    if name != "init":
        assert pod["terminationGracePeriodSeconds"] == GRACE_S + 5


@pytest.mark.parametrize("name", PORTS)
def test_a_process_is_asked_at_its_port_and_its_probes(name: str) -> None:
    _, container = pods()[name]
    assert container["ports"] == [{"name": "http", "containerPort": PORTS[name]}]
    paths = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
    live, ready = ("/health", "/health") if name == "market" else (health.LIVE, health.READY)
    assert paths == {"startup": live, "liveness": live, "readiness": ready}
    assert all(container[f"{probe}Probe"]["httpGet"]["port"] == "http" for probe in paths)


def test_services_and_budgets_select_pods_that_there_are() -> None:
    labels = set(pods())
    for each in manifests():
        spec = each.get("spec", {})
        if each["kind"] == "Service":
            name = spec["selector"]["app.kubernetes.io/name"]
            assert spec["ports"] == [{"name": "http", "port": PORTS[name], "targetPort": "http"}]
        elif each["kind"] in {"PodDisruptionBudget", "StatefulSet", "Deployment"}:
            name = spec["selector"]["matchLabels"]["app.kubernetes.io/name"]
        elif each["kind"] == "NetworkPolicy":
            open_to_all = {port["port"] for rule in spec["ingress"] for port in rule.get("ports", [])}
            assert open_to_all == {port for part, port in PORTS.items() if part != "market"}
            continue
        else:
            continue
        assert name in labels
    monitor = yaml.safe_load((KUBERNETES / "monitoring" / "podmonitor.yaml").read_text())
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    assert {*expression["values"], "market", "init"} == labels


def test_there_is_one_process_of_what_must_not_be_two() -> None:
    replicas = {each["metadata"]["name"]: each["spec"]["replicas"] for each in manifests() if "replicas" in str(each)}
    assert replicas["terminals"] == replicas["market"] == 1
    assert replicas["mirror"] == 2


def test_the_settings_of_the_manifests_are_settings_with_and_without_what_is_commented_out(tmp_path: Path) -> None:
    text = (KUBERNETES / "streamapp.toml").read_text()
    secured = tmp_path / "streamapp.toml"
    secured.write_text(re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE))
    for file in (KUBERNETES / "streamapp.toml", secured):
        settings = settings_from(file)
        assert settings.web.bind == "0.0.0.0"
        assert settings.simulator_address == f"market:{PORTS['market']}"
    assert str(settings.kafka.password_file).startswith("/etc/streamapp-secrets/")


def test_every_variable_in_the_files_is_a_setting() -> None:
    files = [DEPLOY.parent.parent / "Dockerfile", DEPLOY.parent.parent / "compose.yaml", *KUBERNETES.glob("*.yaml")]
    files += [each for each in UNITS.rglob("*") if each.is_file()]
    named = {name for file in files for name in re.findall(r"STREAMAPP_[A-Z_]+", file.read_text())}
    assert {"STREAMAPP_CONFIG", "STREAMAPP_KAFKA__BOOTSTRAP", "STREAMAPP_WORKER"} <= named
    for name in named - {"STREAMAPP_CONFIG"}:
        fields: Any = Settings.model_fields
        for word in name.removeprefix("STREAMAPP_").lower().split("__"):
            assert word in fields, name
            fields = getattr(fields[word].annotation, "model_fields", {})
