"""Connecting: clear words when it fails, and coming back by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.errors import AuthorizationError, OutboundBufferLimitError

from streamapp.errors import ConfigurationError, Transient
from streamapp.local.ports import free_port
from streamapp.local.process import ProcessSpec
from streamapp.nats.connection import ConnectionState, connect
from streamapp.settings import NatsSettings, Settings
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats

_PERMISSIONS = """
authorization {
  users = [{
    user: trader, password: "secret word", permissions: {publish: ["allowed.>", "$JS.API.>"], subscribe: [">"]}
  }]
}
"""


def guarded(folder: Path) -> tuple[ProcessSpec, Path]:
    spec = own_nats(folder)
    settings = Path(spec.argv[-1])
    settings.write_text(settings.read_text() + _PERMISSIONS)
    password = folder / "password"
    password.write_text("secret word\n")
    return spec, password


async def test_a_server_that_is_not_there_gives_one_clear_sentence() -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(Transient, match=r"expected a connection to NATS at 127\.0\.0\.1:\d+ within 0\.3 s"):
        await connect(Settings(nats=NatsSettings(url=url)), "test", wait_s=0.3)


async def test_it_comes_back_after_the_server_was_killed_and_buffers_nothing_meanwhile(tmp_path: Path) -> None:
    spec, states = own_nats(tmp_path), list[ConnectionState]()
    with running(spec, tmp_path) as server:
        client = await connect(Settings(nats=NatsSettings(url=spec.address)), "test", on_state=states.append)
        assert states[-1].reasons == []
        server.kill()
        await eventually(lambda: not states[-1].connected)
        assert "not connected" in states[-1].reasons[0]
        with pytest.raises(OutboundBufferLimitError):
            await client.publish("x", b"")
        server.stop()
        with running(spec, tmp_path):
            await eventually(lambda: states[-1].connected)
            assert states[-1].reconnects == 1
            await client.close()


async def test_a_wrong_password_is_a_configuration_error_without_the_password(tmp_path: Path) -> None:
    spec, password = guarded(tmp_path)
    password.write_text("wrong word")
    with running(spec, tmp_path), pytest.raises(ConfigurationError, match="refuses us") as raised:
        await connect(
            Settings(nats=NatsSettings(url=spec.address, user="trader", password_file=password)), "test", wait_s=1
        )
    assert "wrong word" not in str(raised.value)


async def test_a_refusal_is_remembered_when_later_tries_end_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tried(_: Client, **options: Any) -> None:  # a real server's word is lost now and then, at no set time
        await options["error_cb"](AuthorizationError())
        await options["error_cb"](ConnectionResetError(104, "Connection reset by peer"))
        await asyncio.Event().wait()

    async def closed(_: Client) -> None: ...

    monkeypatch.setattr(Client, "connect", tried)
    monkeypatch.setattr(Client, "close", closed)
    with pytest.raises(ConfigurationError, match="refuses us"):
        await connect(Settings(), "test", wait_s=0.01)


async def test_what_the_server_forbids_is_remembered_though_the_connection_stays_up(tmp_path: Path) -> None:
    spec, password = guarded(tmp_path)
    states = list[ConnectionState]()
    settings = Settings(nats=NatsSettings(url=spec.address, user="trader", password_file=password))
    with running(spec, tmp_path):
        client = await connect(settings, "test", on_state=states.append)
        await client.publish("forbidden.subject", b"")
        await eventually(lambda: states[-1].denied is not None)
        await client.publish("allowed.subject", b"")
        await client.flush()
        assert states[-1].connected
        assert "forbidden.subject" in states[-1].reasons[0]
        await client.close()
