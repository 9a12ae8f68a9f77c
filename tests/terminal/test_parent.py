"""The parent: children restarted, health of all of them, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamapp.local.ports import free_port
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.conftest import Market
from tests.terminal.scripted import ACCOUNT, LOGIN, SERVER


class Parent:
    def __init__(self, folder: Path, nats_url: str, market: Market) -> None:
        password = folder / "password"
        password.write_text("s3cret\n")
        config = folder / "streamapp.toml"
        config.write_text(
            f'[nats]\nurl = "{nats_url}"\n[local]\ndata = "{folder}"\n'
            f'[accounts.{ACCOUNT}]\nlogin = {LOGIN}\nserver = "{SERVER}"\npassword_file = "{password}"\n'
        )
        self.port = free_port()
        self.folder = folder
        environment = {**os.environ, "STREAMAPP_CONFIG": str(config), "STREAMAPP_SIMULATOR_ADDRESS": market.address}
        with (folder / "parent.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamapp.terminal", "--port", str(self.port)], env=environment, stderr=log
            )

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_well(self) -> bool:
        return self.get("/health")[0] == 200

    def pids(self) -> list[int]:
        """The child and its worker, as their locks name them."""
        return [
            int((self.folder / "terminal" / f"{ACCOUNT}.sqlite3.{kind}").read_text()) for kind in ("lock", "worker")
        ]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path("/proc", str(pid), "stat").read_text().split()[2] != "Z" if sys.platform == "linux" else True


@pytest.fixture
def parent(tmp_path: Path, nats_url: str, market: Market, client: Any) -> Iterator[Parent]:
    parent = Parent(tmp_path, nats_url, market)
    yield parent
    if parent.process.poll() is None:
        parent.process.kill()
    parent.process.wait()


async def test_a_stop_is_clean_and_leaves_nothing(parent: Parent) -> None:
    await eventually(parent.is_well)
    status, metrics = parent.get("/metrics")
    assert status == 200
    assert f'streamapp_terminal_ready{{account="{ACCOUNT}"}} 1' in metrics
    pids = parent.pids()
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(PATIENCE_S) == 0
    assert not any(is_running(pid) for pid in pids)


async def test_with_json_every_line_of_parent_and_children_is_an_object_that_names_its_account(
    tmp_path: Path, nats_url: str, market: Market, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMAPP_LOG__FORMAT", "json")
    parent = Parent(tmp_path, nats_url, market)
    await eventually(parent.is_well)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(PATIENCE_S) == 0
    lines = [json.loads(line) for line in (tmp_path / "parent.log").read_text().splitlines()]
    assert {line.get("account") for line in lines} == {None, ACCOUNT}
    assert any(line["message"].startswith("connection: ready") and line["account"] == ACCOUNT for line in lines)
    assert "s3cret" not in json.dumps(lines)


async def test_a_child_that_is_killed_is_started_again(parent: Parent) -> None:
    await eventually(parent.is_well)
    child = parent.pids()[0]
    os.kill(child, signal.SIGKILL)
    await eventually(lambda: not parent.is_well())
    await eventually(lambda: parent.is_well() and parent.pids()[0] != child)
    assert json.loads(parent.get("/health")[1])["accounts"][ACCOUNT]["restarts"] == 1


async def test_children_and_workers_die_with_a_parent_that_is_killed(parent: Parent) -> None:
    await eventually(parent.is_well)
    pids = parent.pids()
    assert all(is_running(pid) for pid in pids)
    parent.process.kill()
    await eventually(lambda: not any(is_running(pid) for pid in pids))


async def test_health_says_which_account_is_not_well_and_what_to_do(parent: Parent, market: Market) -> None:
    await eventually(parent.is_well)
    market.fault("autotrading_off")
    await eventually(lambda: not parent.is_well())
    body = json.loads(parent.get("/health")[1])
    assert body["accounts"][ACCOUNT]["connection"] == "no_algo_trading"
    assert "press Algo Trading" in body["reasons"][0]


def test_an_account_that_is_not_configured_is_a_clear_sentence() -> None:
    command = [sys.executable, "-m", "streamapp.terminal", "--account", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected one of" in done.stderr
    assert "Traceback" not in done.stderr
