"""The file of tokens: secrets are said once and kept nowhere, and a file that can't be trusted is nobody's token."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamapp.errors import ConfigurationError, Definite
from streamapp.processes.locks import FileLock, LockHeldError
from streamapp.tokens import ROLES, Tokens, TokensFile, includes

AT = datetime(2026, 11, 27, 3, 0, 7, tzinfo=UTC)
GOOD = f"anna trade 2026-11-27T03:00:07Z sha256:{'a' * 32}:{'b' * 64}"


@pytest.fixture
def file(tmp_path: Path) -> TokensFile:
    return TokensFile(tmp_path / "secrets" / "tokens")


def test_each_role_may_what_those_before_it_may() -> None:
    may = {(role, needed) for role in ROLES for needed in ROLES if includes(role, needed)}
    assert may == {
        ("read", "read"),
        *(("trade", needed) for needed in ("read", "trade")),
        *(("admin", needed) for needed in ROLES),
    }


def test_a_secret_is_of_its_token_alone_and_not_in_the_file(file: TokensFile) -> None:
    first, second = file.add("anna", "trade", AT), file.add("risk-engine@desk", "read", AT)
    tokens = Tokens(file.path)
    assert [(token.name, token.role, token.made_at) for token in file.read()] == [
        ("anna", "trade", AT),
        ("risk-engine@desk", "read", AT),
    ]
    for secret, name in ((first, "anna"), (second, "risk-engine@desk")):
        assert (found := tokens.find(secret)) is not None
        assert found.name == name
        assert secret not in file.path.read_text()
    for wrong in ("", first[:-1], f"{first} ", first.swapcase(), "ü", "\udcff"):  # as aiohttp reads a header's bytes
        assert tokens.find(wrong) is None


def test_what_a_token_is_shown_as_has_no_hash(file: TokensFile) -> None:
    file.add("anna", "trade", AT)
    [token] = file.read()
    assert token.salt not in repr(token)
    assert token.digest not in repr(token)


def test_two_tokens_have_nothing_in_common(file: TokensFile) -> None:
    secrets = {file.add(f"t-{number}", "read", AT) for number in range(5)}
    assert len(secrets) == 5
    assert len({token.salt for token in file.read()}) == 5


def test_the_file_is_readable_for_its_owner_alone_after_every_change(file: TokensFile) -> None:
    file.add("anna", "trade", AT)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o644)
    file.add("boris", "admin", AT)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert {found.name for found in file.path.parent.iterdir()} == {"tokens", "tokens.lock"}


def test_a_change_keeps_what_a_person_has_written_beside_it(file: TokensFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text(f"\ufeff# of the desk in Graz\n\n{GOOD}")
    file.add("boris", "admin", AT)
    assert file.path.read_text().startswith(f"# of the desk in Graz\n\n{GOOD}\nboris admin ")
    file.revoke("anna")
    assert [token.name for token in file.read()] == ["boris"]
    assert file.path.read_text().startswith("# of the desk in Graz\n\nboris ")


def test_a_name_is_given_once_until_it_is_revoked(file: TokensFile) -> None:
    old = file.add("anna", "trade", AT)
    with pytest.raises(Definite, match="anna has a token already: revoke it first"):
        file.add("anna", "admin", AT)
    with pytest.raises(Definite, match=r"expected the name of a token \(anna\), got 'hanna'"):
        file.revoke("hanna")
    file.revoke("anna")
    assert file.add("anna", "trade", AT) != old


@pytest.mark.parametrize("name", ["", "two words", "-x", "a\nb", "ü", "#x", "x" * 65])
def test_a_name_that_is_none_is_refused(file: TokensFile, name: str) -> None:
    with pytest.raises(Definite, match="expected a name of letters, digits"):
        file.add(name, "read", AT)
    assert not file.path.exists()


def test_a_change_is_seen_by_whoever_asks_next(file: TokensFile) -> None:
    tokens = Tokens(file.path)
    assert "streamapp token add" in str(tokens.fault)
    secret = file.add("anna", "trade", AT)
    assert tokens.fault is None
    assert tokens.find(secret) is not None
    file.add("boris", "read", AT)
    assert tokens.find(secret) is not None
    file.revoke("anna")
    assert tokens.find(secret) is None
    file.path.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        tokens.find(secret)


@pytest.mark.parametrize(
    "line",
    [
        GOOD.replace("trade", "root"),
        GOOD.replace("sha256:", ""),
        GOOD[:-1],
        GOOD.replace("03:00:07", "25:00:07"),
        GOOD.replace("anna ", ""),
        f"{GOOD} more",
        "{json: here}",
    ],
)
def test_one_line_that_is_none_and_nobody_has_a_token(file: TokensFile, line: str) -> None:
    secret = file.add("boris", "admin", AT)
    whole = file.path.read_text()
    file.path.write_text(f"{whole}{line}\n")
    tokens = Tokens(file.path)
    with pytest.raises(ConfigurationError, match="line 3: expected NAME ROLE") as broken:
        tokens.find(secret)
    assert "bbbb" not in str(broken.value)
    assert tokens.fault == str(broken.value)
    with pytest.raises(ConfigurationError, match="line 3"):
        file.add("carla", "read", AT)
    file.path.write_text(whole)
    assert tokens.find(secret) is not None


def test_a_name_that_stands_there_twice_is_nobodys(file: TokensFile) -> None:
    file.path.parent.mkdir()
    file.path.write_text(f"{GOOD}\n{GOOD.replace('trade', 'admin')}\n")
    assert "expected each name once, got anna twice" in str(Tokens(file.path).fault)


def test_a_file_that_is_no_text_is_said_to_be(file: TokensFile) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(b"\xff\xfe\x00\xd8")
    assert "expected UTF-8" in str(Tokens(file.path).fault)


def test_a_file_that_could_not_be_read_once_is_read_again(file: TokensFile, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, tokens = file.add("anna", "trade", AT), Tokens(file.path)

    def unwell(*_: object, **__: object) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_text", unwell)
        with pytest.raises(ConfigurationError, match=r"Input/output error\. It must belong to the user"):
            tokens.find(secret)
    assert tokens.find(secret) is not None


def test_a_file_that_others_may_write_is_not_believed(file: TokensFile) -> None:
    secret = file.add("anna", "trade", AT)
    tokens = Tokens(file.path)
    assert tokens.find(secret) is not None
    file.path.chmod(0o620)
    with pytest.raises(ConfigurationError, match="only its owner may write"):
        tokens.find(secret)
    file.path.chmod(0o640)
    assert tokens.find(secret) is not None


def test_a_place_that_can_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="tokens file"):
        TokensFile(tmp_path / "file" / "tokens").add("anna", "read", AT)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        TokensFile(folder).add("anna", "read", AT)


def test_two_changes_at_once_lose_nothing(file: TokensFile) -> None:
    lock = FileLock(file.path.with_name("tokens.lock"))
    with pytest.raises(LockHeldError, match="is locked by process"):
        file.add("anna", "read", AT)
    lock.release()
    file.add("anna", "read", AT)
