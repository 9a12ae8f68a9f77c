"""``streamapp token`` as people run it: a secret alone on standard output, once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from streamapp.cli import app
from streamapp.errors import ConfigurationError, Definite
from streamapp.settings import load_settings
from streamapp.tokens import Tokens

Run = Callable[..., Result]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "tokens"


@pytest.fixture
def run(path: Path) -> Iterator[Run]:
    def run(*arguments: str, file: Path | None = path) -> Result:
        load_settings.cache_clear()
        environment = {"TERM": "dumb", "COLUMNS": "200", "STREAMAPP_CONFIG": None}
        environment |= {} if file is None else {"STREAMAPP_WEB__TOKENS_FILE": str(file)}
        return CliRunner().invoke(app, ["token", *arguments], env=environment)

    yield run
    load_settings.cache_clear()


def test_a_secret_is_printed_alone_and_once(run: Run, path: Path) -> None:
    added = run("add", "anna", "--role", "trade")
    assert added.exit_code == 0
    assert re.fullmatch(r"streamapp_[A-Za-z0-9_-]{43}\n", added.stdout)
    secret = added.stdout.strip()
    assert secret not in added.stderr
    assert secret not in path.read_text()
    assert secret not in run("list").output
    token = Tokens(path).find(secret)
    assert token is not None
    assert (token.name, token.role) == ("anna", "trade")


def test_tokens_are_listed_without_their_hashes_and_revoked_by_name(run: Run, path: Path) -> None:
    for name, role in (("anna", "trade"), ("grafana", "read")):
        run("add", name, "--role", role)
    listed = run("list").stdout
    assert re.search(r"^anna +trade +20\d\d-\d\d-\d\d", listed)
    assert "2 tokens" in listed
    assert re.search("[0-9a-f]{32}", listed) is None
    assert run("revoke", "anna").stdout == "the token of anna is revoked\n"
    assert "1 token\n" in run("list").stdout
    assert "anna" not in path.read_text()
    assert isinstance(run("revoke", "anna").exception, Definite)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["anna"], "--role"), (["anna", "--role", "root"], "'read', 'trade', 'admin'"), (["--role", "read"], "NAME")],
)
def test_a_token_has_a_name_and_a_role(run: Run, path: Path, arguments: list[str], words: str) -> None:
    refused = run("add", *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not path.exists()


@pytest.mark.parametrize("arguments", [["add", "anna", "--role", "read"], ["list"], ["revoke", "anna"]])
def test_without_a_file_in_the_settings_it_says_which_setting(run: Run, arguments: list[str]) -> None:
    error = run(*arguments, file=None).exception
    assert isinstance(error, ConfigurationError)
    assert "expected web.tokens_file" in str(error)


def test_a_broken_file_is_named_and_left_as_it_is(run: Run, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("anna trade\n")
    for arguments in (["add", "boris", "--role", "read"], ["list"], ["revoke", "anna"]):
        error = run(*arguments).exception
        assert isinstance(error, ConfigurationError)
        assert "line 1" in str(error)
    assert path.read_text() == "anna trade\n"
