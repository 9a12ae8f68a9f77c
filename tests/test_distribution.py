"""The distribution's own name: what is built is called so, and no text sends anybody to a stranger's package."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp import __version__
from streamapp.local.process import REPOSITORY
from streamapp.parts import DISTRIBUTION, PART_OF, WHEEL, pip_install

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = ("streamapp", "tables", "agents", "tests", "docs", "examples", ".ci")
NAME = r"streamapp(?:[-_]mt5)?"
INSTALL = re.compile(
    rf"""(?:\bpip3?\sinstall|\bpipx\sinstall|\buv\sadd|\buv\stool\sinstall)\s(?:[^\n&|;`]*[\s"'])?["']?{NAME}(?![\w./\\-])"""
    rf"""|(?<![\w./\\-]){NAME}\[[a-z]"""  # a requirement with its extras, in a sentence or a list of requirements
    rf"""|(?<![\w./\\-]){NAME}\s?[=>~]=\s?\d"""
)
"""A name where pip takes it from an index; a path to a wheel, a folder or ``.`` is none."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield every text of the repository with its path, without this test's own examples."""
    files = [path for path in REPOSITORY.iterdir() if path.is_file() and not path.name.startswith(".")]
    files += [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    for path in files:
        if path != Path(__file__) and "__pycache__" not in path.parts:
            yield str(path.relative_to(REPOSITORY)), path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize(
    "text",
    [
        "pip install streamapp",
        'venv\\Scripts\\pip install --upgrade "streamapp[terminal]"',
        "RUN pip install --no-cache-dir streamapp-mt5",
        "uv add streamapp",
        "`streamapp[trading,local]`",
        "streamapp==0.1.0",
    ],
)
def test_a_text_that_sends_people_to_an_index_is_found(text: str) -> None:
    assert INSTALL.search(text)


@pytest.mark.parametrize(
    "text",
    [
        *map(pip_install, sorted(set(PART_OF.values()))),
        "'Z:\\streamapp[terminal]'",
        "pip install . && streamapp up",
        "streamapp signal EURUSD buy",
        "from streamapp import settings",
    ],
)
def test_a_text_that_installs_from_a_path_is_left_alone(text: str) -> None:
    assert not INSTALL.search(text)


def test_no_text_tells_people_to_install_streamapp_from_an_index() -> None:
    found = [f"{name}: {match.group()}" for name, text in texts() for match in INSTALL.finditer(text)]
    assert found == [], f"{DISTRIBUTION} is on no index yet, and streamapp there is a stranger's: name the wheel"


def test_every_wheel_that_a_text_names_is_the_one_that_is_built() -> None:
    named = {match for _, text in texts() for match in re.findall(r"\b\w+-\d[\w.]*-py3-none-any\.whl", text)}
    assert named == {WHEEL}


def test_the_project_has_the_name_that_the_errors_have() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert set(",".join(PART_OF.values()).split(",")) <= PROJECT["optional-dependencies"].keys()


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == __version__
