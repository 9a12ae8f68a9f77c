"""The fake against the original: the Windows wheel from the package index. Its binary is read, its Python run."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import streamapp.simulator.metatrader5 as mt5
from streamapp.simulator.module import trades
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


HELPERS = ("_RawOrder", "Buy", "Sell", "Close")


def originals_helpers(original: Path, **called: Any) -> dict[str, Any]:
    """The package's four functions in Python, over the functions of the module that ``called`` gives."""
    tree = ast.parse((original / "__init__.py").read_text("utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names: dict[str, Any] = {**vars(mt5), **called}
    exec(compile(tree, "MetaTrader5", "exec"), names)
    return names


def test_the_helpers_in_python_are_all_there_and_are_called_in_the_same_ways(original: Path) -> None:
    text = (original / "__init__.py").read_text("utf-8")
    assert sorted(re.findall(r"^def (\w+)\(", text, re.MULTILINE)) == sorted(HELPERS)
    theirs = originals_helpers(original)
    for name in HELPERS:
        expected = [(p.name, p.kind, p.default) for p in inspect.signature(theirs[name]).parameters.values()]
        ours = inspect.signature(getattr(mt5, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in ours] == expected
    assert mt5.__version__ in text


class Script:
    """Answers the helpers' calls from a list of retcodes (None: the call failed), and keeps what was called."""

    def __init__(self, positions: Any, ticks: list[Any], retcodes: list[Any]) -> None:
        self.calls: list[Any] = []
        self._positions, self._ticks, self._retcodes = positions, iter(ticks), iter(retcodes)

    def positions_get(self, **named: Any) -> Any:
        self.calls.append(("positions_get", named))
        return self._positions

    def symbol_info_tick(self, symbol: str) -> Any:
        self.calls.append(("symbol_info_tick", symbol))
        return next(self._ticks, SimpleNamespace(bid=1.1, ask=1.2))

    def order_send(self, request: dict[str, Any]) -> Any:
        self.calls.append(("order_send", request))
        retcode = next(self._retcodes, mt5.TRADE_RETCODE_DONE)
        return None if retcode is None else SimpleNamespace(retcode=retcode)

    def run(self, function: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            told = function(*args, **named)
        except (AttributeError, TypeError) as error:
            told = type(error)
        return vars(told) if isinstance(told, SimpleNamespace) else told, self.calls


LONG = SimpleNamespace(ticket=7, type=0, volume=0.3)
SHORT = SimpleNamespace(ticket=8, type=1, volume=0.1)
REQUOTE, OFF = mt5.TRADE_RETCODE_REQUOTE, mt5.TRADE_RETCODE_PRICE_OFF


@pytest.mark.parametrize(
    ("name", "args", "named", "positions", "ticks", "retcodes"),
    [
        ("_RawOrder", (0, "EURUSD", 0.1, 1.2, "tag", 7), {}, (), [], []),
        ("Buy", ("EURUSD", 0.1), {}, (), [], [REQUOTE, OFF]),
        ("Buy", ("EURUSD", 0.1, 1.15), {"comment": "", "ticket": 0}, (), [], [REQUOTE]),
        ("Sell", ("EURUSD", 0.1), {"comment": "tag"}, (), [], [REQUOTE] * 12),
        ("Sell", ("EURUSD", 0.1), {}, (), [], [None]),
        ("Buy", ("EURUSD", 0.1), {}, (), [None], []),
        ("Close", ("EURUSD",), {}, (), [], []),
        ("Close", ("EURUSD",), {}, None, [], []),
        ("Close", ("EURUSD",), {"comment": "out"}, (LONG, SHORT), [], [REQUOTE]),
        ("Close", ("GBPUSD",), {"ticket": 7}, (LONG,), [], []),
        ("Close", ("EURUSD",), {}, (LONG, SHORT), [], [mt5.TRADE_RETCODE_REJECT]),
        ("Close", ("EURUSD",), {}, (LONG, SHORT), [], [REQUOTE] * 10 + [mt5.TRADE_RETCODE_REJECT]),
        ("Close", ("EURUSD",), {}, (LONG, SHORT), [None], []),
        ("Close", ("EURUSD",), {}, (LONG, SHORT), [], [mt5.TRADE_RETCODE_DONE, None]),
    ],
)
def test_the_helpers_call_and_give_what_the_originals_do(  # noqa: PLR0917  # its parameters are a table's columns
    original: Path, monkeypatch: pytest.MonkeyPatch, name: str, args: Any, named: Any, positions: Any, ticks: Any,
    retcodes: Any,
) -> None:  # fmt: skip
    told = []
    for is_ours in (False, True):
        script = Script(positions, ticks, retcodes)
        called = {method: getattr(script, method) for method in ("positions_get", "symbol_info_tick", "order_send")}
        for method, function in called.items():
            monkeypatch.setattr(trades, method, function)
        function = getattr(mt5, name) if is_ours else originals_helpers(original, **called)[name]
        told.append(script.run(function, args, named))
    assert told[1] == told[0]
