from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streamapp.cli import app
from streamapp.local.ports import free_port
from streamapp.local.process import REPOSITORY


def streamapp(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamapp.cli", *arguments],
        cwd=REPOSITORY,
        env={"PATH": "", "STREAMAPP_CONFIG": "", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_every_command_says_what_it_does() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    sending = ("signal", "watch", "orders", "order", "command", "report", "dead-letters")
    checking = ("top", "verify", "rebuild", "audit", "archive", "account", "token", "notify", "check")
    for command in ("up", "down", "demo", "status", *sending, *checking):
        assert f"│ {command} " in shown


def test_a_wrong_setting_is_one_sentence_and_exit_2() -> None:
    done = streamapp("down", STREAMAPP_CONFIG="/no/such/file.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("streamapp: STREAMAPP_CONFIG: expected a file, got /no/such/file.toml")
    assert len(done.stderr.splitlines()) == 1


def test_down_where_nothing_runs_is_no_error(tmp_path: Path) -> None:
    done = streamapp("down", STREAMAPP_LOCAL__DATA=str(tmp_path))
    assert (done.returncode, done.stdout.strip()) == (0, "nothing runs here")


@pytest.mark.parametrize("offset", ["-1", "seven"])
def test_a_wrong_port_offset_names_the_setting(offset: str) -> None:
    done = streamapp("down", STREAMAPP_LOCAL__PORT_OFFSET=offset)
    assert done.returncode == 2
    assert "local.port_offset" in done.stderr


def test_up_without_its_tokens_file_ends_at_once_with_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    done = streamapp("up", STREAMAPP_LOCAL__DATA=str(tmp_path), STREAMAPP_WEB__TOKENS_FILE=str(file))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"streamapp: tokens file {file}: No such file or directory. "
        "Make it with `streamapp token add NAME --role ROLE`\n"
    )


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("streamapp orders --account live", {"live-1", "live-2"}),
        ("streamapp account positions live-2", {"live-2"}),
        ("streamapp signal E", {"EURUSD"}),
        ("streamapp order ", set()),
        ("streamapp sta", {"status"}),
    ],
)
def test_a_shell_is_offered_what_is_known_at_once(tmp_path: Path, typed: str, offered: set[str]) -> None:
    accounts = '[accounts.live-1]\nlogin = 1\nsymbols = { EURUSD = "EURUSD.m" }\n[accounts.live-2]\nlogin = 2\n'
    done = completed(tmp_path, accounts + f"[local]\nport_offset = {free_port() - 6066}\n", typed)
    assert (set(done.stdout.split()), done.stderr) == (offered, "")


def test_a_shell_is_offered_nothing_and_told_nothing_where_the_settings_are_wrong(tmp_path: Path) -> None:
    done = completed(tmp_path, "no settings", "streamapp orders --account ")
    assert (done.stdout.strip(), done.stderr) == ("", "")


def completed(folder: Path, settings: str, typed: str) -> subprocess.CompletedProcess[str]:
    """Ask as the script asks that `streamapp --show-completion bash` prints."""
    (folder / "streamapp.toml").write_text(settings)
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    config = str(folder / "streamapp.toml")
    return streamapp(_STREAMAPP_COMPLETE="complete_bash", STREAMAPP_CONFIG=config, **words)
