"""``streamapp token`` as people run it: a secret alone on standard output, once."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from streamapp.tokens import Tokens
from tests.commands.running import Done, run

Token = Callable[..., Done]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "tokens"


@pytest.fixture
def token(path: Path) -> Token:
    return partial(run, "token", STREAMAPP_WEB__TOKENS_FILE=str(path))


def test_a_secret_is_printed_alone_and_once(token: Token, path: Path) -> None:
    added = token("add", "anna", "--role", "trade")
    assert added.code == 0
    assert re.fullmatch(r"streamapp_[A-Za-z0-9_-]{43}\n", added.out)
    secret, listed = added.out.strip(), token("list")
    assert secret not in f"{added.said}{path.read_text()}{listed.out}{listed.said}"
    found = Tokens(path).find(secret)
    assert found is not None
    assert (found.name, found.role) == ("anna", "trade")


def test_tokens_are_listed_without_their_hashes_and_revoked_by_name(token: Token, path: Path) -> None:
    for name, role in (("anna", "trade"), ("grafana", "read")):
        token("add", name, "--role", role)
    listed = token("list").out
    assert re.search(r"^anna +trade +20\d\d-\d\d-\d\d", listed)
    assert "2 tokens" in listed
    assert re.search("[0-9a-f]{32}", listed) is None
    assert token("revoke", "anna").out == "the token of anna is revoked\n"
    assert "1 token\n" in token("list").out
    assert "anna" not in path.read_text()
    again = token("revoke", "anna")
    assert (again.code, again.said) == (2, "expected the name of a token (grafana), got 'anna'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["anna"], "--role"),
        (["anna", "--role", "root"], "expected a role of read, trade, admin or signals:SOURCE, got 'root'"),
        (["--role", "read"], "NAME"),
    ],
)
def test_a_token_has_a_name_and_a_role(token: Token, path: Path, arguments: list[str], words: str) -> None:
    refused = token("add", *arguments)
    assert refused.code == 2
    assert words in refused.said
    assert not path.exists()


@pytest.mark.parametrize("arguments", [["add", "anna", "--role", "read"], ["list"], ["revoke", "anna"]])
def test_without_a_file_in_the_settings_it_says_which_setting(arguments: list[str]) -> None:
    refused = run("token", *arguments)
    assert refused.code == 2
    assert "expected web.tokens_file" in refused.said


def test_a_broken_file_is_named_and_left_as_it_is(token: Token, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("anna trade\n")
    for arguments in (["add", "boris", "--role", "read"], ["list"], ["revoke", "anna"]):
        refused = token(*arguments)
        assert refused.code == 2
        assert f"tokens file {path}, line 1: expected NAME ROLE" in refused.said
    assert path.read_text() == "anna trade\n"
