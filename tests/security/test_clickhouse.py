"""ClickHouse over TLS with a login: the real engine behind a front of the tests' own that asks for both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streamapp.clickhouse.client import ClickHouse
from streamapp.errors import StreamappError, Transient
from streamapp.settings import ClickHouseSettings, Settings
from tests.kit.certificates import Authority
from tests.kit.clickhouse_front import Front, secured_clickhouse

Make = Callable[[Front, Path], dict[str, Any]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def front(authority: Authority, clickhouse_url: str) -> Iterator[Front]:
    with secured_clickhouse(authority, clickhouse_url, "click-secret") as front:
        yield front


def written(folder: Path, password: str) -> Path:
    (folder / "password").write_text(password + "\n")
    return folder / "password"


@asynccontextmanager
async def client(front: Front, folder: Path, **changes: Any) -> AsyncIterator[ClickHouse]:
    options = {"url": front.url, "user": "streamapp", "database": "default", "ca_file": front.authority.certificate}
    options |= {"password_file": written(folder, "click-secret")} | changes
    clickhouse = ClickHouse.of(Settings(clickhouse=ClickHouseSettings.model_validate(options)))
    try:
        yield clickhouse
    finally:
        await clickhouse.close()


async def test_it_is_asked_over_tls_with_the_password_of_the_file(front: Front, tmp_path: Path) -> None:
    async with client(front, tmp_path) as clickhouse:
        assert await clickhouse.query("SELECT 1 AS one") == [{"one": 1}]
        assert set(front.asked) == {""}


async def test_a_server_that_asks_for_a_certificate_is_shown_ours_and_told_the_password_too(
    authority: Authority, clickhouse_url: str, tmp_path: Path
) -> None:
    pair = authority.issue("warehouse")
    files = {"certificate_file": pair.certificate, "key_file": pair.key}
    with secured_clickhouse(authority, clickhouse_url, "click-secret", mutual=True) as front:
        async with client(front, tmp_path, **files) as clickhouse:
            assert await clickhouse.query("SELECT 1 AS one") == [{"one": 1}]
            assert set(front.asked) == {"warehouse"}


async def test_a_password_that_is_replaced_is_used_by_the_next_call(front: Front, tmp_path: Path) -> None:
    async with client(front, tmp_path) as clickhouse:
        await clickhouse.query("SELECT 1")
        front.password = "new-secret"
        with pytest.raises(Transient, match=r"check clickhouse\.user and clickhouse\.password_file"):
            await clickhouse.query("SELECT 1")
        (tmp_path / "password").unlink()
        with pytest.raises(Transient, match=r"secret file .*No such file"):
            await clickhouse.query("SELECT 1")
        written(tmp_path, "new-secret")
        assert await clickhouse.query("SELECT 1 AS one") == [{"one": 1}]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda _, __: {"password_file": None, "password": "wrong-secret"},
            "check clickhouse.user and clickhouse.password_file",
        ),
        (
            lambda _, folder: {"ca_file": Authority(folder / "other").certificate},
            "no CA of clickhouse.ca_file stands behind the server's certificate",
        ),
        (lambda _, folder: {"ca_file": folder / "missing.pem"}, "clickhouse.ca_file"),
        (
            lambda front, _: {"url": front.behind.replace("http:", "https:")},
            "what answers there does not speak TLS: check the address and port",
        ),
    ],
)
async def test_what_keeps_us_out_is_said_in_a_sentence_that_names_the_setting(
    front: Front, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, said: str
) -> None:
    async with client(front, tmp_path, **make(front, tmp_path)) as clickhouse:
        with pytest.raises(StreamappError) as raised:
            await clickhouse.query("SELECT 1")
    assert said in str(raised.value)
    assert "-secret" not in str(raised.value) + caplog.text
