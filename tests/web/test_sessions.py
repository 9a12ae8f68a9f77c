"""Logging in to the page with a token: a cookie that no script reads, and commands that no other site can give."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from streamapp.tokens import ROLES, TokensFile
from streamapp.web.access import COOKIE, CSRF, ROLE_OF, ROLE_OF_DEED, TRIES
from streamapp.web.page import STATIC
from tests.web.group import Group, running_group
from tests.web.test_access import ELSEWHERE, House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    file = TokensFile(tmp_path / "tokens")
    async with running_group(tokens_file=file.path, clock=lambda: 1000.0) as group:
        yield House(group, file)


@pytest.fixture
async def browser(house: House) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield Browser(house.group, session)


class Browser:
    """What keeps cookies, and sends them along."""

    def __init__(self, group: Group, session: aiohttp.ClientSession) -> None:
        self._group, self._session = group, session
        self.cookie = ""
        self.jar = session.cookie_jar

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self._session.request(method, self._group.workers[0].url.join(URL(path)), **options) as answer:
            self.cookie = answer.headers.get("Set-Cookie", "")
            return answer.status, await answer.json()

    async def login(self, secret: str, **options: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/login", json={"token": secret}, **options)


async def test_who_logs_in_gets_a_cookie_that_no_script_reads_and_no_other_site_sends(
    house: House, browser: Browser
) -> None:
    status, body = await browser.login(f" {house.secrets['trade']}\n")
    assert (status, body["name"], body["role"]) == (200, "the-trade", "trade")
    assert {part.strip() for part in browser.cookie.split(";")[1:]} == {"HttpOnly", "SameSite=Strict"}
    assert house.secrets["trade"] not in str(body)
    await browser.login(house.secrets["trade"], headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in browser.cookie


async def test_from_elsewhere_one_sees_the_page_and_nothing_on_it_until_one_logs_in(
    house: House, browser: Browser
) -> None:
    house.worker.asked_from = ELSEWHERE
    assert await house.read("/") == 200
    assert await house.read("/static/index.html") == 200
    assert (await browser.ask("GET", "/session"))[1]["reads"] is False
    assert (await browser.ask("GET", "/orders"))[0] == 401
    await browser.login(house.secrets["read"])
    assert (await browser.ask("GET", "/orders"))[0] == 200
    assert (await browser.ask("GET", "/session"))[1]["reads"] is True


@pytest.mark.parametrize("path", ["/static/../page.py", "/static/%2e%2e/page.py", "/static//etc/passwd", "/static/"])
async def test_of_the_files_none_but_the_pages_own_are_shown(house: House, path: str) -> None:
    url = URL(str(house.worker.url)[:-1] + path, encoded=True)
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status in {403, 404}


async def test_the_session_says_what_its_role_may(house: House, browser: Browser) -> None:
    assert (await browser.ask("GET", "/session"))[1]["may"] == []
    for role in ROLES:
        await browser.login(house.secrets[role])
        _, body = await browser.ask("GET", "/session")
        deeds = [(f"dead_letter.{deed}", needed) for deed, needed in ROLE_OF_DEED.items()]
        allowed = [name for name, needed in [*ROLE_OF.items(), *deeds] if ROLES.index(role) >= ROLES.index(needed)]
        assert (body["role"], body["may"]) == (role, allowed)


async def test_a_command_by_cookie_needs_what_only_our_page_can_read(house: House, browser: Browser) -> None:
    _, session = await browser.login(house.secrets["trade"])
    for said in ({}, {CSRF: "guessed"}, {CSRF: "ä"}, {CSRF: ""}):
        status, body = await browser.ask("POST", "/commands/account.halt", json={}, headers=said)
        assert (status, body["reason"]) == (403, "csrf")
    status, body = await browser.ask("POST", "/commands/account.halt", json={}, headers={CSRF: session["csrf"]})
    assert (status, body["reason"]) == (400, "no_account")  # it was let in, and asked nothing
    status, body = await browser.ask("POST", "/commands/account.resume", json={}, headers={CSRF: session["csrf"]})
    assert (status, body["reason"]) == (403, "role")
    _, other = await browser.login(house.secrets["admin"])
    assert other["csrf"] != session["csrf"]


async def test_a_header_counts_before_a_cookie_and_needs_no_more(house: House, browser: Browser) -> None:
    await browser.login(house.secrets["read"])
    headers = {"Authorization": f"Bearer {house.secrets['trade']}"}
    assert (await browser.ask("POST", "/commands/account.halt", json={}, headers=headers))[0] == 400


async def test_who_logs_out_has_no_cookie_any_more(house: House, browser: Browser) -> None:
    _, session = await browser.login(house.secrets["trade"])
    assert (await browser.ask("POST", "/logout"))[0] == 403
    assert (await browser.ask("POST", "/logout", headers={CSRF: session["csrf"]}))[0] == 200
    assert (await browser.ask("GET", "/session"))[1]["name"] is None
    assert COOKIE not in [cookie.key for cookie in browser.jar]


async def test_a_revoked_token_is_logged_out(house: House, browser: Browser) -> None:
    await browser.login(house.secrets["trade"])
    house.file.revoke("the-trade")
    assert (await browser.ask("GET", "/orders"))[0] == 401
    status, body = await browser.ask("GET", "/session")
    assert (status, body["name"], body["reads"]) == (200, None, True)
    assert COOKIE in browser.cookie
    assert "Max-Age=0" in browser.cookie
    assert (await browser.ask("GET", "/orders"))[0] == 200


async def test_a_tokens_file_that_is_broken_logs_nobody_out(house: House, browser: Browser) -> None:
    await browser.login(house.secrets["trade"])
    whole = house.file.path.read_text()
    house.file.path.write_text("nonsense\n")
    house.worker.asked_from = ELSEWHERE
    assert (await browser.ask("GET", "/session"))[0] == 503
    house.file.path.write_text(whole)
    assert (await browser.ask("GET", "/session"))[1]["name"] == "the-trade"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"json": {}}, "invalid"),
        ({"json": {"token": 1}}, "invalid"),
        ({"json": {"token": " "}}, "invalid"),
        ({"json": {"token": "x", "name": "y"}}, "invalid"),
        ({"data": b"[]", "headers": {"Content-Type": "application/json"}}, "not_an_object"),
        ({"data": {"token": "x"}}, "content_type"),
        ({"json": {"token": "x" * 2000}}, "too_long"),
    ],
)
async def test_what_is_no_login_is_refused_in_words(
    house: House, browser: Browser, options: dict[str, Any], reason: str
) -> None:
    status, body = await browser.ask("POST", "/login", **options)
    assert status in {400, 413}
    assert (body["reason"], browser.cookie) == (reason, "")


async def test_wrong_tokens_are_counted_whatever_they_are_made_of(house: House, browser: Browser) -> None:
    for number in range(TRIES):
        status, body = await browser.login("a;b c" if number % 2 else "streamapp_wrong")
        assert (status, body["reason"]) == (401, "wrong_token")
    assert (await browser.login("streamapp_wrong"))[0] == 429
    assert (await browser.login(house.secrets["read"]))[0] == 200


async def test_without_a_tokens_file_everybody_sees_and_nobody_logs_in() -> None:
    async with running_group() as group:
        worker = group.workers[0]
        _, body, _ = await group.ask("GET", worker, "/session")
        assert (body["reads"], body["login"], body["may"]) == (True, False, [])
        status, body, _ = await group.ask("POST", worker, "/login", json={"token": "x"})
        assert (status, body["reason"]) == (403, "no_tokens_file")


async def test_every_answer_tells_the_browser_what_to_refuse(house: House) -> None:
    for path in ("/", "/static/index.html", "/orders", "/nothing", "/session"):
        _, _, headers = await house.group.ask("GET", house.worker, path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
        assert headers["Cache-Control"] == ("no-cache" if path in {"/", "/static/index.html"} else "no-store")


def test_the_pages_files_fetch_nothing_from_elsewhere_and_write_no_markup() -> None:
    for file in (each for each in STATIC.rglob("*") if each.is_file()):
        text = file.read_text()
        assert "innerHTML" not in text, file
        if "vendor" in file.parts:  # its comments have addresses
            assert not re.search(
                r"\b(fetch|XMLHttpRequest|import|eval|insertAdjacentHTML)\b\s*\(|^import ", text, re.MULTILINE
            ), file
            continue
        assert "://" not in text.replace("http://www.w3.org/2000/svg", ""), file
        assert 'href="/' not in text, file
        assert 'src="/' not in text, file
        if file.suffix == ".html":
            assert " style=" not in text
            assert " onclick=" not in text
