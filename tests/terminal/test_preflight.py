"""Each mistake of a first installation is one sentence that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamapp.errors import ConfigurationError
from streamapp.local.ports import free_port
from streamapp.settings import AccountSettings, LocalSettings, Settings, load_settings, secret
from streamapp.terminal.preflight import greeting, problems
from tests.kit.waiting import PATIENCE_S
from tests.terminal.conftest import Market
from tests.terminal.scripted import ACCOUNT, LOGIN, SERVER


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "live 1" / "terminal64.exe"
    path.parent.mkdir()
    path.touch()
    return path


def live(program: Path | None, **changes: Any) -> Settings:
    account = AccountSettings(login=1, server="Broker-Live", module="MetaTrader5", terminal_path=program, **changes)
    return Settings(accounts={"live-1": account}, local=LocalSettings(data=Path(__file__).parent))


def found(settings: Settings, *, platform: str = "win32", missing: tuple[str, ...] = ()) -> list[str]:
    return problems(settings, list(settings.accounts), platform=platform, installed=lambda name: name not in missing)


def test_a_right_installation_has_no_problem(program: Path) -> None:
    assert found(live(program)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"platform": "linux"}, ("works on Windows only", "linux", 'module = "simulated"')),
        ({"missing": ("MetaTrader5",)}, ("MetaTrader5", ".whl[terminal]", "64-bit")),
        ({"missing": ("nats",)}, ("nats-py", ".whl[terminal]")),
    ],
)
def test_a_wrong_machine_is_named(program: Path, changes: dict[str, Any], words: tuple[str, ...]) -> None:
    (problem,) = found(live(program), **changes)
    assert all(word in problem for word in words)


def test_a_terminal_path_that_is_not_given_missing_or_a_folder_is_named(program: Path) -> None:
    assert "expected terminal_path, got none" in found(live(None))[0]
    assert "no such file" in found(live(program.with_name("terminal.exe")))[0]
    assert str(program) in found(live(program.parent))[0]


def test_two_accounts_over_one_terminal_program_are_refused(program: Path) -> None:
    first = live(program).accounts["live-1"]
    second = first.model_copy(update={"login": 2, "terminal_path": program.with_name("TERMINAL64.EXE")})
    settings = live(program).model_copy(update={"accounts": {"live-1": first, "live-2": second}})
    assert any("live-1 and live-2" in problem for problem in found(settings))


def test_a_journal_in_a_relative_folder_is_refused_for_a_real_account(program: Path) -> None:
    settings = live(program).model_copy(update={"local": LocalSettings()})
    assert "another journal" in found(settings)[0]


def test_a_password_file_that_is_not_there_is_named(program: Path, tmp_path: Path) -> None:
    assert "no-such" in found(live(program, password_file=tmp_path / "no-such"))[0]


def test_in_wine_it_says_what_it_could_not_check(program: Path) -> None:
    settings = live(program)
    assert not any("Wine" in line for line in greeting(settings, ["live-1"]))
    assert "Wine 10.0: not checked" in greeting(settings, ["live-1"], wine="10.0")[-1]


def test_a_name_that_windows_keeps_for_a_device_is_refused(program: Path) -> None:
    settings = live(program)
    named = settings.model_copy(update={"accounts": {"NUL": settings.accounts["live-1"]}})
    assert "device" in found(named)[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_password_is_read_however_windows_wrote_the_file(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "password.txt"
    path.write_text("pässword\r\n", encoding=encoding, newline="")
    assert secret(path) == "pässword"


def test_a_password_in_another_encoding_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    path = tmp_path / "password.txt"
    path.write_text("pässword", encoding="latin-1")
    with pytest.raises(ConfigurationError, match="expected UTF-8") as error:
        secret(path)
    assert "ssword" not in str(error.value).removeprefix(f"secret file {path}")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "streamapp.toml"
    monkeypatch.setenv("STREAMAPP_CONFIG", str(path))
    load_settings.cache_clear()
    yield path
    load_settings.cache_clear()


def test_a_windows_path_in_double_quotes_is_explained(config: Path) -> None:
    config.write_text('[accounts.a]\nlogin = 1\nterminal_path = "C:\\mt5\\terminal64.exe"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="'single quotes'"):
        load_settings()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_settings_in_the_encoding_of_a_windows_editor_are_one_sentence(config: Path, encoding: str) -> None:
    config.write_text("[accounts.a]\nlogin = 1\n", encoding=encoding)
    with pytest.raises(ConfigurationError, match="Save it as UTF-8"):
        load_settings()


def check(folder: Path, nats_url: str, market: str) -> subprocess.CompletedProcess[str]:
    password = folder / "password"
    password.write_text("s3cret\n", encoding="utf-8")
    (folder / "streamapp.toml").write_text(
        f'simulator_address = "{market}"\n[nats]\nurl = "{nats_url}"\n[terminal]\nequal_reads_s = 0.1\n'
        f'[accounts.{ACCOUNT}]\nlogin = {LOGIN}\nserver = "{SERVER}"\npassword_file = "password"\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "streamapp.terminal", "--check"]
    here = os.environ | {"STREAMAPP_CONFIG": "streamapp.toml"}
    return subprocess.run(
        command, cwd=folder, env=here, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )


def test_a_check_says_that_all_is_well_and_leaves_nothing(tmp_path: Path, nats_url: str, market: Market) -> None:
    done = check(tmp_path, nats_url, market.address)
    assert done.returncode == 0, done.stderr
    assert [line[:4] for line in done.stdout.splitlines()] == ["ok  ", "ok  "]
    assert f"ready: {LOGIN} on {SERVER}" in done.stdout
    assert list((tmp_path / ".local").rglob("*.sqlite3")) == []
    assert market.ledger("order") == []


@pytest.mark.stack
def test_a_check_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    done = check(tmp_path, f"nats://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert [line[:4] for line in done.stdout.splitlines()] == ["FAIL", "FAIL"]
    assert "nats.url" in done.stdout
    assert "see that the terminal program runs" in done.stdout
