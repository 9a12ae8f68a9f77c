"""``--url``: the commands that read ask another installation's web, with a token, over TLS and under a path."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamapp.local.ports import free_port
from streamapp.tokens import TokensFile
from tests.commands.running import run_here
from tests.kit.certificates import Authority
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


@pytest.mark.parametrize("command", [["orders"], ["order", "x"], ["status"]])
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
