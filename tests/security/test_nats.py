"""A real NATS server that asks for certificates, users and permissions, and what is said when it says no."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from streamapp import subjects
from streamapp.errors import ConfigurationError, StreamappError
from streamapp.nats.connection import ConnectionState, connect
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Settings
from tests.kit.certificates import Authority
from tests.kit.secured import SecuredNats, documented, secured_nats
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.security.credentials import credentials, nkey, operator
from tests.terminal.conftest import TerminalProcess, running_market

TLS = "tls {cert_file: $SERVER_CERTIFICATE, key_file: $SERVER_KEY, ca_file: $CLIENTS_CA, verify: true}\n"
Make = Callable[[SecuredNats, Path], NatsSettings]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredNats]:
    """The server as the page has it."""
    folder = tmp_path_factory.mktemp("nats")
    server = secured_nats(folder, "\n".join(documented("tls {")))
    with running(server.spec, folder):
        yield server


@asynccontextmanager
async def connected(settings: NatsSettings, states: list[ConnectionState] | None = None) -> AsyncIterator[Client]:
    client = await connect(
        Settings(nats=settings), "test", wait_s=5, on_state=None if states is None else states.append
    )
    try:
        yield client
    finally:
        await client.close()


async def test_each_user_does_its_work_with_the_permissions_that_the_page_lists_and_nothing_else(
    server: SecuredNats, tmp_path: Path
) -> None:
    async with connected(server.user("streamapp")) as ours:
        steps = await ensure(ours.jetstream(), Settings(), create=True)
        assert all(step.is_fine for step in steps)
        async with connected(server.user("riskengine")) as engine:
            stored = await engine.jetstream().publish(subjects.signal_approved("EURUSD"), b"{}")
            assert stored.stream == "EXECUTION_IN"
            heard = await engine.subscribe("orders.*.>")
            await engine.flush()
            await ours.jetstream().publish(subjects.order_status("filled", "EURUSD"), b"{}")
            assert (await heard.next_msg(5)).subject == "orders.filled.EURUSD"
        async with connected(server.user("reader")) as reader:
            messages = await reader.jetstream().pull_subscribe(">", "mine", stream="EXECUTION_OUT")
            (message,) = await messages.fetch(1, timeout=5)
            await message.ack_sync()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("riskengine", "mt5.demo.submit"),
        ("riskengine", "orders.filled.EURUSD"),
        ("terminals", "signals.approved.EURUSD"),
        ("terminals", "mt5.demo.submit"),
        ("streamapp", "mt5.report.demo"),
        ("streamapp", "signals.approved.EURUSD"),
        ("reader", "commands.order.cancel.EURUSD"),
    ],
)
async def test_who_says_what_is_not_theirs_to_say_is_forbidden_it(server: SecuredNats, user: str, subject: str) -> None:
    states = list[ConnectionState]()
    async with connected(server.user(user), states) as client:
        await client.publish(subject, b"{}")
        await eventually(lambda: states[-1].denied is not None)
        assert subject.lower() in states[-1].reasons[0]  # nats-py has it in lower case


async def test_a_real_terminal_works_as_the_user_that_the_page_has_for_terminals(
    server: SecuredNats, tmp_path: Path
) -> None:
    settings = server.user("terminals")
    with running_market(tmp_path) as market:
        async with connected(server.user("streamapp")) as asking:
            terminal = TerminalProcess(tmp_path, str(settings.url), market, asking, "demo")
            terminal.environment |= {
                f"STREAMAPP_NATS__{name.upper()}": str(value)
                for name, value in settings.model_dump(exclude_unset=True).items()
                if name not in {"url", "password"}
            }
            terminal.environment["STREAMAPP_NATS__PASSWORD"] = settings.password_text() or ""
            terminal.start()
            try:
                assert (await terminal.ready()).connection == "ready"
            finally:
                terminal.end()
            assert "forbids" not in terminal.log.read_text()
            assert "-secret" not in terminal.log.read_text()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda server, _: server.user("streamapp", password="wrong-secret"), "Check nats.user, nats.password_file"),
        (
            lambda server, folder: server.user("streamapp", ca_file=Authority(folder / "other").certificate),
            "no CA of nats.ca_file stands behind the server's certificate",
        ),
        (
            lambda server, _: server.user("streamapp", certificate_file=None, key_file=None),
            "set nats.certificate_file and nats.key_file",
        ),
        (
            lambda server, folder: server.user("streamapp", **files(Authority(folder / "other"))),
            "check nats.certificate_file",
        ),
        (lambda server, _: server.user("streamapp", **files(server.authority, expired=True)), "nats.certificate_file"),
        (lambda server, folder: server.settings(user="x", password_file=folder / "missing"), "missing: No such file"),
        (
            lambda server, folder: server.settings(credentials_file=written(folder, "x")),
            "expected a user's nkey seed",
        ),
        (
            lambda server, folder: server.settings(nkey_file=written(folder, "SUwrong-secret")),
            "expected the seed",
        ),
    ],
)
async def test_a_server_that_turns_us_away_is_a_configuration_error_that_names_the_setting(
    server: SecuredNats, tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Make, said: str
) -> None:
    settings = make(server, tmp_path)
    if settings.nkey_file is not None:
        pytest.importorskip("nkeys")
    with pytest.raises(ConfigurationError) as raised:
        await connect(Settings(nats=settings), "test", wait_s=2)
    assert said in str(raised.value)
    assert "-secret" not in str(raised.value) + caplog.text


def files(authority: Authority, *, expired: bool = False) -> dict[str, Any]:
    pair = authority.issue("late" if expired else "stranger", expired=expired)
    return {"certificate_file": pair.certificate, "key_file": pair.key}


def written(folder: Path, text: str) -> Path:
    (folder / "secret").write_text(text)
    return folder / "secret"


async def test_nothing_is_said_to_a_server_that_asks_for_no_tls_where_tls_was_meant() -> None:
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version": "2.15.0", "max_payload": 1000, "auth_required": true}\r\n')
        heard.extend(await reader.read())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as impostor:
        address = f"tls://127.0.0.1:{impostor.sockets[0].getsockname()[1]}"
        settings = NatsSettings.model_validate({"url": address, "user": "streamapp", "password": "secret"})
        with pytest.raises(ConfigurationError, match=r"expected a server that asks for TLS.*Check nats\.url"):
            await connect(Settings(nats=settings), "test", wait_s=1)
        assert not heard


async def test_a_server_that_is_too_old_is_refused_with_what_it_lacks() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version": "2.10.29", "max_payload": 1000, "headers": true}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as old:
        settings = NatsSettings(url=f"nats://127.0.0.1:{old.sockets[0].getsockname()[1]}")
        said = "expected nats-server 2.14 or newer, got 2.10: .*resetting its consumer.*Upgrade"
        with pytest.raises(ConfigurationError, match=said):
            await connect(Settings(nats=settings), "test", wait_s=5)


async def test_a_server_that_begins_with_tls_is_met_with_tls(tmp_path: Path) -> None:
    server = secured_nats(tmp_path, TLS.replace("verify: true", "verify: true, handshake_first: true"))
    with running(server.spec, tmp_path):
        async with connected(server.settings(tls_first=True)) as client:
            assert client.is_connected


async def test_a_certificate_and_a_password_that_are_replaced_are_used_by_the_next_connection(
    server: SecuredNats, tmp_path: Path
) -> None:
    password = written(tmp_path, "reader-secret")
    settings, states = server.settings(user="reader", password_file=password), list[ConnectionState]()
    async with connected(settings, states) as client:

        async def comes_back(expected: bool) -> None:
            # Now and then the server's refusal is lost, and the client is told of nothing but a reset.
            before = states[-1].reconnects
            await client.force_reconnect()
            await eventually(lambda: not states[-1].connected)
            if expected:
                await eventually(lambda: states[-1].connected and states[-1].reconnects > before)

        server.authority.issue("client")
        await comes_back(expected=True)
        server.authority.issue("client", expired=True)
        await comes_back(expected=False)
        password.write_text("wrong-secret")
        server.authority.issue("client")
        await eventually(lambda: "uthorization" in (states[-1].error or ""))
        assert not states[-1].connected
        password.write_text("reader-secret")
        await eventually(lambda: states[-1].connected)


async def test_an_nkey_is_who_we_are(tmp_path: Path) -> None:
    pytest.importorskip("nkeys")
    public, seed = nkey("user")
    server = secured_nats(tmp_path, f"{TLS}authorization {{ users: [{{nkey: {public}}}] }}\n")
    settings = server.settings(nkey_file=written(tmp_path, seed + "\n"))
    with running(server.spec, tmp_path):
        async with connected(settings) as client:
            assert client.is_connected
        written(tmp_path, nkey("user")[1])
        with pytest.raises(ConfigurationError, match=r"nats\.nkey_file"):
            await connect(Settings(nats=settings), "test", wait_s=2)


async def test_a_creds_file_is_who_we_are(tmp_path: Path) -> None:
    pytest.importorskip("nkeys")
    house = operator()
    server = secured_nats(tmp_path, f"{TLS}{house.conf}")
    settings = server.settings(credentials_file=written(tmp_path, credentials(house)))
    conf = Path(server.spec.argv[-1])
    conf.write_text(without_jetstream(conf.read_text()))
    with running(server.spec, tmp_path):
        async with connected(settings) as client:
            assert client.is_connected
        written(tmp_path, credentials(operator()))
        with pytest.raises(ConfigurationError, match=r"nats\.credentials_file"):
            await connect(Settings(nats=settings), "test", wait_s=2)
        written(tmp_path, credentials(house, lives_s=-60))
        with pytest.raises(ConfigurationError, match=r"refuses us.*nats\.credentials_file"):
            await connect(Settings(nats=settings), "test", wait_s=2)

        # A token that ends while it is used: what takes its place in the file is shown next.
        written(tmp_path, credentials(house, lives_s=2))
        states = list[ConnectionState]()
        async with connected(settings, states) as client:
            written(tmp_path, credentials(house))
            await eventually(lambda: states[-1].reconnects > 0)
            assert client.is_connected
            assert "xpired" in (states[-1].error or "")


def without_jetstream(conf: str) -> str:
    """JetStream wants a system account in operator mode; the connection is what is tried here."""
    return conf[: conf.index("jetstream {")] + conf[conf.index("}\n", conf.index("jetstream {")) + 2 :]


async def test_a_package_that_signs_and_is_not_there_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    settings = NatsSettings(url="nats://127.0.0.1:1", nkey_file=written(tmp_path, "SU"))
    with pytest.raises(StreamappError, match=r"expected the nkeys package.*pip install .*\[nkeys\]"):
        await connect(Settings(nats=settings), "test", wait_s=1)
