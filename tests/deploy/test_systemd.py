"""The units: systemd reads them itself where it is there, and they start what the Procfile starts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from streamapp.kafka.abort import CONFIGURATION
from streamapp.local.process import REPOSITORY
from tests.deploy.files import GRACE_S, UNITS, procfile, run

NAMES = {name: f"streamapp-{name}{'@' if name == 'trading' else ''}.service" for name in procfile()}
COMMON = (UNITS / "streamapp-.service.d" / "common.conf").read_text()


def test_there_is_a_unit_for_every_process_of_the_procfile() -> None:
    assert {file.name for file in UNITS.glob("*.service")} == set(NAMES.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_starts_what_the_procfile_starts(name: str) -> None:
    found = re.search(
        r"^ExecStart=/opt/streamapp/\.venv/bin/python (.*)$", (UNITS / NAMES[name]).read_text(), re.MULTILINE
    )
    assert found is not None
    wanted = [word for word in procfile()[name] if word != "python"]
    assert [word for word in found[1].split() if word in wanted] == wanted


def test_every_unit_is_started_again_but_for_a_person_and_given_time_to_stop() -> None:
    assert "\nRestart=always\n" in COMMON
    assert f"\nRestartPreventExitStatus={CONFIGURATION}\n" in COMMON
    assert f"\nTimeoutStopSec={GRACE_S + 5:.0f}\n" in COMMON
    assert "\nStartLimitIntervalSec=0\n" in COMMON


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    shutil.copytree(UNITS, tmp_path / "units")
    for file in (tmp_path / "units").rglob("*.*"):
        if file.is_file():
            file.write_text(file.read_text().replace("/opt/streamapp", str(REPOSITORY)))
    units = [str(tmp_path / "units" / name.replace("@", "@1")) for name in NAMES.values()]
    run("systemd-analyze", "verify", "--man=no", *units, str(tmp_path / "units" / "streamapp.target"))
