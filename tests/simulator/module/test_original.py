"""The fake against the original: the Windows wheel from the package index, read but not run."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import streamapp.simulator.metatrader5 as mt5
from streamapp.simulator.wire import FIELDS
from tests.simulator.module.test_metatrader5 import FUNCTIONS

WHEEL = "MetaTrader5==5.0.6231"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    folder = tmp_path_factory.mktemp("original")
    command = [sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--platform", "win_amd64", "--python-version", "3.11", "--dest", str(folder)]
    command += ["--retries", "0", "--timeout", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"no package index gives {WHEEL}: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder / "MetaTrader5"


def test_every_constant_has_the_originals_value(original: Path) -> None:
    text = (original / "__init__.py").read_text("utf-8")
    expected = {}
    for name, value in re.findall(r"^([A-Z][A-Z0-9_]+)\s*=\s*([-|x0-9A-Fa-f ]+)", text, re.MULTILINE):
        expected[name] = sum(int(part.strip(), 0) for part in value.split("|"))
    assert len(expected) > 200
    assert {name: getattr(mt5, name, None) for name in expected} == expected
    ours = {name for name in vars(mt5) if re.fullmatch(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+", name)}
    assert ours - set(expected) <= {"ADDRESS_VARIABLE", "DEFAULT_ADDRESS", "ERROR_TEXT", "NOT_UNNAMED"}


def test_functions_and_fields_are_those_of_the_binary(original: Path) -> None:
    binary = next(original.glob("_core*.pyd")).read_bytes()
    missing = [name for name in FUNCTIONS if name.encode() + b"\0" not in binary]
    missing += [
        f"{name}.{field}"
        for name, fields in FIELDS.items()
        for field, _ in fields
        if field.encode() + b"\0" not in binary
    ]
    missing += [name for name in FIELDS if name.encode() + b"\0" not in binary]
    assert missing == []


def test_the_python_helpers_are_there(original: Path) -> None:
    text = (original / "__init__.py").read_text("utf-8")
    helpers = re.findall(r"^def ([A-Z]\w+)\(", text, re.MULTILINE)
    assert sorted(helpers) == ["Buy", "Close", "Sell"]
    assert all(callable(getattr(mt5, name)) for name in helpers)
    assert mt5.__version__ in text
