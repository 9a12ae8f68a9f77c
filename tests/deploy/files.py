"""What Dockerfile, compose.yaml, the manifests and the units say, read once for all tests of this folder."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamapp.local.process import REPOSITORY
from streamapp.ports import Ports
from streamapp.settings import Settings

DEPLOY = REPOSITORY / "docs" / "deploy"
KUBERNETES, UNITS, OBSERVE = DEPLOY / "kubernetes", DEPLOY / "systemd", REPOSITORY / "docs" / "observe"
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

GRACE_S: float = Settings.model_fields["stop_grace_s"].default
PORTS = {
    "trading": Ports().trading(),
    "warehouse": Ports().warehouse,
    "mirror": Ports().mirror,
    "notifier": Ports().notifier,
    "terminals": Ports().terminals,
    "market": Ports().market,
}
"""Each part of ours that is started in containers, and where it listens."""


def procfile() -> dict[str, list[str]]:
    """Return the words of each process of the Procfile."""
    lines = (REPOSITORY / "Procfile").read_text().splitlines()
    return {name: command.split() for name, _, command in (line.partition(":") for line in lines)}


def stages() -> dict[str, str]:
    """Return what each stage of the Dockerfile says, by its name."""
    parts = re.split(r"^FROM (?:\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def command_of(image: str) -> list[str]:
    """Return the words with which an image starts."""
    found = re.search(r"^CMD (\[.*\])$", stages()[image], re.MULTILINE)
    assert found is not None, f"{image} has no command"
    return list(json.loads(found[1]))


def manifests() -> list[dict[str, Any]]:
    """Return every object that the base of the manifests holds."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    return [each for name in names for each in yaml.safe_load_all((KUBERNETES / name).read_text())]


def pods() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return the specification and the one container of each pod, by the name of what runs it."""
    found = {}
    for each in manifests():
        if "template" in each.get("spec", {}):
            pod = each["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            found[each["metadata"]["name"]] = pod, container
    return found


def checked_by(package: str, *arguments: str) -> None:
    """Let a validator of the package index check files; skip where it is not installed."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    run(sys.executable, "-m", package, *arguments)


def run(*command: str, folder: Path = REPOSITORY) -> str:
    """Return what a command that must succeed prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
