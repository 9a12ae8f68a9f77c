"""What TLS files may be, and contexts that read them anew for each connection, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from streamapp.errors import ConfigurationError
from streamapp.settings import SecuredSection
from streamapp.tls import RenewedContext, fault
from tests.kit.certificates import Authority, Pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def ours(authority: Authority, pair: Pair) -> SecuredSection:
    return SecuredSection(ca_file=authority.certificate, certificate_file=pair.certificate, key_file=pair.key)


@asynccontextmanager
async def tls_server(authority: Authority, pair: Pair) -> AsyncIterator[tuple[int, list[str]]]:
    """Listen on a port; what it yields with it are the serial numbers of the clients' certificates."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    seen: list[str] = []

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peercert")["serialNumber"])
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], seen


async def connect(port: int, context: ssl.SSLContext, host: str = "127.0.0.1") -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    try:
        await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_certificate_that_is_replaced_is_shown_by_the_next_connection_and_half_a_pair_by_none(
    authority: Authority, caplog: pytest.LogCaptureFixture, loop: Any
) -> None:
    async def rotate() -> None:
        pair = authority.issue("client")
        context = RenewedContext(ours(authority, pair), "kafka")
        async with tls_server(authority, authority.issue("server")) as (port, seen):
            await connect(port, context)
            authority.issue("client")
            await connect(port, context)
            pair.key.write_bytes(authority.issue("other").key.read_bytes())
            await connect(port, context)
            assert len(seen) == 3
            assert len(set(seen[:2])) == 2
            assert seen[1] == seen[2]
            assert "expected a key that belongs to the certificate" in caplog.text

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(rotate())


@pytest.mark.parametrize(
    ("issued", "host", "said"),
    [
        ({"expired": True}, "127.0.0.1", "the server's certificate has expired"),
        ({}, "kafka.example", "the server's certificate is for another name"),
        ({"names": "DNS:kafka.example"}, "127.0.0.1", "the server's certificate is for another address"),
    ],
)
async def test_a_server_that_is_not_who_it_should_be_is_said_in_words(
    authority: Authority, issued: dict[str, Any], host: str, said: str
) -> None:
    context = RenewedContext(ours(authority, authority.issue("client")), "nats")
    async with tls_server(authority, authority.issue("server", **issued)) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await connect(port, context, host)
    assert said in (fault(raised.value, "nats") or "")


async def test_what_is_no_fault_of_tls_is_not_called_one() -> None:
    assert fault(ConnectionRefusedError(), "nats") is None
    assert fault(ssl.SSLEOFError(8, "EOF"), "nats") is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"ca_file": "missing.pem"},
            "clickhouse.ca_file missing.pem: expected the CA's certificate in PEM, got: No",
        ),
        ({"ca_file": "client.key"}, "expected the CA's certificate in PEM, got: NO_CERTIFICATE_OR_CRL_FOUND"),
        ({"certificate_file": "missing.pem"}, "missing.pem and key_file"),
        ({"certificate_file": "client.key"}, "expected a certificate and its key in PEM"),
        ({"key_file": "other.key"}, "expected a key that belongs to the certificate"),
        ({"key_file": "locked.key"}, "the key's password in clickhouse.key_password_file"),
        ({"key_password_file": "missing"}, "secret file missing: No such file"),
    ],
)
def test_a_file_that_can_not_be_used_is_named_with_its_setting_and_what_it_should_hold(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, broken: dict[str, str], said: str
) -> None:
    files = ours(authority, authority.issue("client"))
    authority.issue("other")
    authority.lock("client", "locked.key", "key secret")
    monkeypatch.chdir(authority.certificate.parent)
    with pytest.raises(ConfigurationError) as raised:
        RenewedContext(files.model_copy(update={name: Path(value) for name, value in broken.items()}), "clickhouse")
    assert said in str(raised.value)


def test_a_key_with_a_password_is_opened_with_it(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("client")
    authority.lock("client", "locked.key", "key secret")
    (tmp_path / "password").write_text("key secret\n")
    locked = {"key_file": authority.certificate.parent / "locked.key", "key_password_file": tmp_path / "password"}
    RenewedContext(ours(authority, pair).model_copy(update=locked), "nats")


@pytest.mark.skipif(os.name != "posix", reason="Windows says who may read a file in another way")
def test_a_key_that_everybody_can_read_is_warned_of(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    pair = authority.issue("client")
    pair.key.chmod(0o644)
    RenewedContext(ours(authority, pair), "nats")
    assert f"nats: {pair.key} can be read by every user of this machine: chmod 600" in caplog.text
