"""``--url``: the commands that read ask another installation's web, with a token, over TLS and under a path."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamapp.local.ports import free_port
from streamapp.ports import Ports
from streamapp.tokens import TokensFile
from tests.commands.running import run_here
from tests.kit.certificates import Authority
from tests.kit.command_answers import streams_at
from tests.kit.letters import HOSTILE, THEIRS, letter_house
from tests.kit.waiting import eventually
from tests.messages.golden import golden
from tests.web.group import Group, ids, order_row, running_group
from tests.web.test_access import AT, ELSEWHERE

WRONG = "streamapp_wrong"


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    """A group whose callers come from elsewhere, so that they need a token."""
    async with running_group(tokens_file=tmp_path / "tokens") as group:
        group.workers[0].asked_from = ELSEWHERE
        yield group


async def test_another_installation_is_asked_with_the_token_of_the_settings(group: Group, tmp_path: Path) -> None:
    secret = TokensFile(tmp_path / "tokens").add("anna", "read", AT)
    order_id, account = ids(["a"], 1)[0]
    await group.put_order(order_row(order_id, account))
    url = str(group.workers[0].url)
    (tmp_path / "token").write_text(f"{secret}\n")
    for token in ({"STREAMAPP_WEB__TOKEN": secret}, {"STREAMAPP_WEB__TOKEN_FILE": str(tmp_path / "token")}):
        for command in (["orders"], ["order", order_id]):
            shown = await run_here(*command, "--url", url, **token)
            assert (shown.code, order_id in shown.out) == (0, True), shown
        assert (await run_here("status", "--url", url, **token)).code == 0
    group.workers[0].well = False
    ill = await run_here("status", "--url", url, STREAMAPP_WEB__TOKEN=secret)
    assert (ill.code, "<cold>" in ill.out) == (1, True)


async def test_texts_of_others_do_nothing_to_a_terminal(group: Group, tmp_path: Path) -> None:
    order_id, account = ids(["a"], 1)[0]
    secret = TokensFile(tmp_path / "tokens").add("anna", "read", AT)
    await group.put_order(order_row(order_id, account, symbol="[/red]\x1b[2J"))
    url = str(group.workers[0].url)
    for command in (("order", order_id), ("orders",)):
        ran = await run_here(*command, "--url", url, STREAMAPP_WEB__TOKEN=secret)
        assert (ran.code, "[/red]\\x1b[2J" in ran.out) == (0, True)


async def test_dead_letters_are_those_of_the_installation_that_is_asked(kafka_bootstrap: str, tmp_path: Path) -> None:
    secret = TokensFile(tmp_path / "tokens").add("anna", "read", AT)
    async with (
        letter_house(kafka_bootstrap) as house,
        running_group(tokens_file=tmp_path / "tokens", letters=house.ledger()) as group,
    ):
        first, second = await house.bury(HOSTILE, "not_json", sequence=1), await house.bury(THEIRS, sequence=2)
        for options in ((), ("--json",), ("--open", "--limit", "1")):
            command = ("dead-letters", "list", *options)
            theirs = await run_here(*command, "--url", str(group.workers[0].url), STREAMAPP_WEB__TOKEN=secret)
            ours = await run_here(*command, **house.environment)
            assert theirs == ours
            assert second in ours.out
            assert (first in ours.out) == ("--limit" not in options)


class Watching:
    """``streamapp watch --url``, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = self.said = ""

    @classmethod
    async def of(cls, url: str, secret: str, *options: str) -> Watching:
        made = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamapp.cli", "watch", "--url", url, *options),
            env=os.environ | {"STREAMAPP_WEB__TOKEN": secret, "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        return cls(made)

    async def read(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(self._read(self.process.stdout, "out"), self._read(self.process.stderr, "said"))

    async def _read(self, stream: asyncio.StreamReader, name: str) -> None:
        async for line in stream:
            setattr(self, name, getattr(self, name) + line.decode())


async def test_watch_goes_on_where_it_was_cut_off_and_ends_by_ctrl_c(nats_of_this_module: str, tmp_path: Path) -> None:
    tokens = TokensFile(tmp_path / "tokens")
    secret = tokens.add("anna", "read", AT)
    said = golden("order-1")[0]

    async with streams_at(nats_of_this_module) as client, running_group(tokens_file=tokens.path) as group:
        group.nats, worker = client, group.workers[0]

        async def say(account: str, detail: str) -> None:
            message = said | {"account": account, "detail": detail}
            await client.jetstream().publish("orders.filled.EURUSD", json.dumps(message).encode())

        watching = await Watching.of(str(worker.url), secret, "--account", "a")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(watching.read())
            try:
                await eventually(lambda: not worker.hub.is_idle)
                await say("b", "of-another")
                await say("a", "the-first")
                await eventually(lambda: "the-first" in watching.out, lambda: watching.said)
                await worker.hub.close()
                await say("a", "said-meanwhile")
                await eventually(lambda: "said-meanwhile" in watching.out, lambda: watching.said)
                await say("a", "the-last")
                await eventually(lambda: "the-last" in watching.out, lambda: watching.said)
                watching.process.send_signal(signal.SIGINT)
                assert await watching.process.wait() == 0
            finally:
                if watching.process.returncode is None:
                    watching.process.kill()
        assert "of-another" not in watching.out
        assert watching.out.count("the-first") == watching.out.count("said-meanwhile") == 1
        assert watching.said == f"{str(worker.url).rstrip('/')}/events ended. Trying again\n"


async def test_who_may_no_longer_hear_it_is_told_so(nats_of_this_module: str, tmp_path: Path) -> None:
    tokens = TokensFile(tmp_path / "tokens")
    secret = tokens.add("anna", "read", AT)
    async with streams_at(nats_of_this_module) as client, running_group(tokens_file=tokens.path) as group:
        group.nats, worker = client, group.workers[0]
        worker.asked_from = ELSEWHERE
        ends = asyncio.create_task(run_here("watch", "--url", str(worker.url), STREAMAPP_WEB__TOKEN=secret))
        await eventually(lambda: not worker.hub.is_idle)
        tokens.revoke("anna")
        await worker.hub.close()
        done = await ends
    assert (done.code, "got one that it does not know: set web.token_file" in done.said) == (2, True)


@pytest.mark.parametrize("command", [["orders"], ["order", "x"], ["status"], ["watch"], ["dead-letters", "list"]])
async def test_what_is_wrong_is_one_sentence_that_says_what_to_do(
    group: Group, tmp_path: Path, command: list[str]
) -> None:
    TokensFile(tmp_path / "tokens").add("anna", "read", AT)
    url = str(group.workers[0].url)
    none = await run_here(*command, "--url", url)
    assert (none.code, "got none: set web.token_file, or STREAMAPP_WEB__TOKEN" in none.said) == (2, True)
    wrong = await run_here(*command, "--url", url, STREAMAPP_WEB__TOKEN=WRONG)
    assert "got one that it does not know: set web.token_file" in wrong.said
    assert WRONG not in wrong.said
    away = await run_here(*command, "--url", f"http://127.0.0.1:{free_port()}")
    assert "got no answer" in away.said
    assert "check --url" in away.said
    for no_url in ("ftp://host", "https://", "https://anna:secret@host", "host:6066"):
        refused = await run_here(*command, "--url", no_url)
        assert refused.said.startswith("--url: expected http:// or https://")
        assert "secret" not in refused.said


async def test_an_installation_under_a_path_and_with_tls_is_known_by_the_ca_of_the_settings(tmp_path: Path) -> None:
    async def orders(_: web.Request) -> web.Response:
        return web.json_response({"orders": []})

    async def other(_: web.Request) -> web.Response:
        return web.json_response({"state": "UP"})

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/desk/orders")

    async def forbidden(_: web.Request) -> web.Response:
        return web.json_response({"error": "expected a token of role read"}, status=403)

    app = web.Application()
    app.add_routes([web.get("/desk/orders", orders), web.get("/moved/orders", elsewhere)])
    app.add_routes([web.get("/desk/health", other)])
    app.add_routes([web.get("/closed/orders", forbidden), web.get("/", elsewhere)])
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    server = TestServer(app, scheme="https", host="localhost")
    try:
        await server.start_server(ssl=context)
        url = f"https://localhost:{server.port}"
        unknown = await run_here("orders", "--url", f"{url}/desk/")
        assert "no CA of web.ca_file stands behind the server's certificate" in unknown.said
        known = {"STREAMAPP_WEB__CA_FILE": str(authority.certificate)}
        assert (await run_here("orders", "--url", f"{url}/desk/", **known)).out == "0 orders\n"
        strange = await run_here("status", "--url", f"{url}/desk", **known)
        assert (strange.code, "got another's answer (status 200)" in strange.said) == (2, True)
        for path, said in (
            ("/moved", "got another's answer (status 302): check --url, with the path"),
            ("/nothing", "got another's answer (status 404)"),
            ("/closed", "expected a token of role read"),
        ):
            assert said in (await run_here("orders", "--url", url + path, **known)).said
    finally:
        await server.close()


async def test_status_asks_each_process_where_it_listens(tmp_path: Path) -> None:
    """As on a host whose processes listen on an address of its own, not on loopback's first."""
    asked: list[str] = []

    async def health(request: web.Request) -> web.Response:
        asked.append(f"{request.host} {request.headers.get('Authorization')}")
        return web.json_response({"status": "UP"})

    app = web.Application()
    app.add_routes([web.get("/health", health)])
    port = free_port()
    server = TestServer(app, host="127.0.0.2", port=port)
    (tmp_path / "token").write_text("the-token\n")
    bound = {"STREAMAPP_WEB__BIND": "127.0.0.2", "STREAMAPP_WEB__TOKEN_FILE": str(tmp_path / "token")}
    await server.start_server()
    try:
        shown = await run_here("status", **bound, STREAMAPP_LOCAL__PORT_OFFSET=str(port - Ports().trading()))
    finally:
        await server.close()
    assert f"✓ trading    http://127.0.0.2:{port}" in shown.out
    assert "✗ mirror     nobody answers at http://127.0.0.2:" in shown.out
    assert (shown.code, asked) == (1, [f"127.0.0.2:{port} Bearer the-token"])
