"""Who may ask and command: judged before any view, by the connection's own address and the token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streamapp.clickhouse.reader import Reader
from streamapp.kafka.application import build_app
from streamapp.messages.command import COMMANDS
from streamapp.nats.commands import NatsCommands
from streamapp.nats.feed import NatsFeed
from streamapp.settings import NatsSettings, Settings
from streamapp.tokens import ROLES, TokenRole, TokensFile
from streamapp.web import register
from streamapp.web.access import MOST_NAMES, ROLE_OF, TRIES, TRY_EVERY_S, Buckets, is_loopback
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from tables.memory import MemoryStore
from tests.web.group import POLICY, Group, NoLetters, ids, order_row, running_group

AT = datetime(2026, 11, 27, 3, tzinfo=UTC)
ACCOUNTS = [f"account-{number}" for number in range(8)]
ELSEWHERE = "203.0.113.7"
READS = (
    "/events",
    "/orders",
    "/orders/x",
    "/positions",
    "/accounts",
    "/accounts/x",
    "/health",
    "/metrics",
    "/nothing-here",
)


class House:
    """Two workers with a tokens file, a clock that stands, and a secret of each role."""

    def __init__(self, group: Group, file: TokensFile) -> None:
        self.group, self.file = group, file
        self.worker = group.workers[0]
        self.secrets: dict[TokenRole, str] = {role: file.add(f"the-{role}", role, AT) for role in ROLES}

    async def command(self, name: str, token: str | None = None, **options: Any) -> tuple[int, Any, Mapping[str, str]]:
        return await self.group.ask("POST", self.worker, f"/commands/{name}", token, json={}, **options)

    async def read(self, path: str, token: str | None = None) -> int:
        return (await self.group.ask("GET", self.worker, path, token))[0]


@pytest.fixture
async def now() -> list[float]:
    return [1000.0]


@pytest.fixture
async def house(tmp_path: Path, now: list[float]) -> AsyncIterator[House]:
    file = TokensFile(tmp_path / "tokens")
    async with running_group(tokens_file=file.path, clock=lambda: now[0]) as group:
        yield House(group, file)


def test_every_command_has_a_role_and_only_reopening_an_account_is_an_admins() -> None:
    assert set(ROLE_OF) == set(COMMANDS)
    assert [name for name, role in ROLE_OF.items() if role != "trade"] == ["account.resume", "account.limits"]
    assert ROLE_OF["account.resume"] == ROLE_OF["account.limits"] == "admin"


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_this_machine_is_known_by_the_address_of_the_connection(address: str | None, is_here: bool) -> None:
    assert is_loopback(address) is is_here


async def test_from_this_machine_one_reads_without_a_token_and_with_any(house: House) -> None:
    for path in ("/orders", "/positions", "/accounts", "/health"):
        assert await house.read(path) == 200
        for secret in house.secrets.values():
            assert await house.read(path, secret) == 200


async def test_what_runs_a_worker_probes_it_from_anywhere_without_a_token(house: House) -> None:
    house.worker.asked_from = ELSEWHERE
    assert [await house.read(path) for path in ("/livez", "/readyz")] == [200, 200]
    house.worker.well = False
    assert [await house.read(path) for path in ("/livez", "/readyz")] == [200, 503]


async def test_from_elsewhere_one_reads_nothing_without_a_token(house: House) -> None:
    house.worker.asked_from = ELSEWHERE
    for path in READS:
        status, body, headers = await house.group.ask("GET", house.worker, path)
        assert (status, body["reason"]) == (401, "no_token")
        assert headers["WWW-Authenticate"] == 'Bearer realm="streamapp"'
    for secret in house.secrets.values():
        assert await house.read("/orders", secret) == 200


async def test_no_header_of_the_caller_says_where_it_is(house: House) -> None:
    house.worker.asked_from = ELSEWHERE
    headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Host": "localhost"}
    status, _, _ = await house.group.ask("GET", house.worker, "/orders", headers=headers)
    assert status == 401


async def test_no_command_without_a_token_not_even_from_this_machine(house: House) -> None:
    for name in (*COMMANDS, "order.nothing"):
        status, body, headers = await house.command(name)
        assert (status, body["reason"]) == (401, "no_token")
        assert headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_header_of_any_bytes_is_a_wrong_token(house: House) -> None:
    assert house.worker.url.host is not None
    reader, writer = await asyncio.open_connection(house.worker.url.host, house.worker.url.port)
    writer.write(
        b"POST /commands/%FF HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nContent-Length: 0\r\n\r\n"
    )
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()
    await writer.wait_closed()


async def test_a_path_of_any_bytes_is_no_command(house: House) -> None:
    for name in ("%FF", "%00", "%F0%9F%92%A5", "order%2Ecancel%0A"):
        status, body, _ = await house.command(name, house.secrets["admin"])
        assert (status, body["reason"]) == (400, "unknown_command")


@pytest.mark.parametrize("authorization", ["Basic YTpi", "Bearer", "Bearer ", "token", ""])
async def test_what_is_no_bearer_token_is_none(house: House, authorization: str) -> None:
    status, body, _ = await house.command("account.halt", headers={"Authorization": authorization})
    assert (status, body["reason"]) == (401, "no_token")


async def test_a_wrong_token_is_401_also_where_none_is_needed(house: House) -> None:
    status, body, headers = await house.command("account.halt", "streamapp_wrong")
    assert (status, body["reason"]) == (401, "wrong_token")
    assert 'error="invalid_token"' in headers["WWW-Authenticate"]
    assert await house.read("/orders", "streamapp_wrong") == 401


async def test_a_token_of_too_low_a_role_is_403_and_says_which_is_needed(house: House) -> None:
    for name in COMMANDS:
        for role in ROLES:
            status, body, _ = await house.command(name, house.secrets[role])
            allowed = ROLES.index(role) >= ROLES.index(ROLE_OF[name])
            assert status == (400 if allowed else 403)  # 400: the body asks nothing
            if not allowed:
                assert body["error"] == f"expected a token of role {ROLE_OF[name]}, got the-{role}'s of role {role}"


async def test_a_token_that_is_revoked_while_the_worker_runs_is_none_at_once(house: House) -> None:
    secret = house.secrets["trade"]
    assert (await house.command("account.halt", secret))[0] == 400
    house.file.revoke("the-trade")
    assert (await house.command("account.halt", secret))[:2][0] == 401
    again = house.file.add("the-trade", "trade", AT)
    assert (await house.command("account.halt", again))[0] == 400


async def test_a_broken_file_is_nobodys_token_and_reading_here_goes_on(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    whole = house.file.path.read_text()
    house.file.path.write_text(f"{whole}nonsense\n")
    [trouble] = house.worker.access.troubles
    assert "line 5: expected NAME ROLE" in trouble
    for role, secret in house.secrets.items():
        status, body, _ = await house.command("account.halt", secret)
        assert (status, body["reason"]) == (503, "tokens_unusable"), role
        assert str(house.file.path) not in body["error"]
        assert await house.read("/orders", secret) == 200
    house.worker.asked_from = ELSEWHERE
    assert await house.read("/orders", house.secrets["admin"]) == 503
    assert await house.read("/orders") == 401
    said = [record.message for record in caplog.records if record.name == "streamapp.tokens"]
    assert len(said) == 1  # however often it was asked
    assert "line 5: expected NAME ROLE" in said[0]
    house.file.path.write_text(whole)
    assert house.worker.access.troubles == []
    assert await house.read("/orders", house.secrets["admin"]) == 200


async def test_a_file_that_is_gone_is_a_broken_one(house: House) -> None:
    house.file.path.unlink()
    assert (await house.command("account.halt", house.secrets["admin"]))[0] == 503
    assert "No such file" in house.worker.access.troubles[0]


async def test_without_a_tokens_file_everybody_reads_and_nobody_commands() -> None:
    async with running_group() as group:
        worker = group.workers[0]
        for asked_from in (None, ELSEWHERE):
            worker.asked_from = asked_from
            assert (await group.get(worker, "/orders", "whatever"))[0] == 200
            status, body, _ = await group.ask("POST", worker, "/commands/account.halt", "whatever", json={})
            assert (status, body["reason"]) == (403, "no_tokens_file")
            assert "streamapp command" in body["error"]
        assert worker.access.troubles == []


async def test_too_many_wrong_tokens_are_429_until_time_has_passed(house: House, now: list[float]) -> None:
    for _ in range(TRIES):
        assert (await house.command("account.halt", "wrong"))[0] == 401
    status, body, headers = await house.command("account.halt", "wrong")
    assert (status, body["reason"], headers["Retry-After"]) == (429, "too_many_tries", str(int(TRY_EVERY_S)))
    assert await house.read("/orders", "wrong") == 429
    now[0] += TRY_EVERY_S
    assert (await house.command("account.halt", "wrong"))[0] == 401
    assert (await house.command("account.halt", "wrong"))[0] == 429


async def test_wrong_tokens_keep_nobody_away_who_has_a_right_one(house: House) -> None:
    for _ in range(2 * TRIES):
        await house.command("account.halt", "wrong")
    assert (await house.command("account.halt", "wrong"))[0] == 429
    assert (await house.command("account.halt", house.secrets["trade"]))[0] == 400
    assert await house.read("/orders") == 200


async def test_no_token_is_no_failed_try(house: House) -> None:
    for _ in range(2 * TRIES):
        assert (await house.command("account.halt"))[0] == 401
    assert (await house.command("account.halt", "wrong"))[0] == 401


async def test_a_secret_comes_into_no_log_and_no_answer(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "streamapp_a-secret-of-another-house"
    for secret in (wrong, *house.secrets.values()):
        _, body, _ = await house.command("account.resume", secret)
        assert secret not in str(body)
        assert secret not in caplog.text
    assert "a token that is none, or is revoked, from 127.0.0.1" in caplog.text
    assert all(token.digest not in caplog.text for token in house.file.read())


def test_each_address_has_tries_of_its_own_and_few_are_remembered() -> None:
    now = [0.0]
    tries = Buckets(lambda: now[0], TRIES, TRY_EVERY_S)
    for _ in range(TRIES):
        assert tries.take("first") == 0
    assert tries.take("first") == TRY_EVERY_S
    assert tries.take("second") == 0
    now[0] += TRY_EVERY_S * 1000
    for _ in range(TRIES):
        assert tries.take("first") == 0
    assert tries.take("first") > 0
    for number in range(2 * MOST_NAMES):
        tries.take(f"address-{number}")
    assert len(tries) == MOST_NAMES


async def test_addresses_of_one_ipv6_network_share_their_tries(house: House) -> None:
    for number in range(TRIES):
        house.worker.asked_from = f"2001:db8::{number}"
        assert (await house.command("account.halt", "wrong"))[0] == 401
    house.worker.asked_from = "2001:db8::ffff"
    assert (await house.command("account.halt", "wrong"))[0] == 429
    for other in ("2001:db8:0:1::1", "::ffff:10.0.0.1", "10.0.0.2"):
        house.worker.asked_from = other
        assert (await house.command("account.halt", "wrong"))[0] == 401


async def test_a_question_is_passed_on_with_the_callers_token(house: House) -> None:
    group, (here, other) = house.group, house.group.workers
    (order_id, account), *_ = [pair for pair in ids(ACCOUNTS, 60) if group.owner_of(pair[1]) is other]
    await group.put_order(order_row(order_id, account))
    for worker in group.workers:
        worker.asked_from = ELSEWHERE
    secret = house.secrets["read"]
    assert (await group.get(here, f"/orders/{order_id}", secret))[0] == 200
    assert (await group.get(here, "/positions", secret))[1]["missing"] == []
    here.asked_from = None  # without a token there is nothing to be passed on, and the other worker is elsewhere
    status, body, _ = await group.get(here, f"/orders/{order_id}")
    assert (status, body["missing"]) == (503, [str(other.url)])


async def test_no_path_of_the_whole_app_changes_anything_but_commands_signals_letters_and_logins(
    tmp_path: Path,
) -> None:
    app = build_app(
        "paths", bootstrap="127.0.0.1:1", data_dir=tmp_path, partitions=1, replication_factor=1, web_port=6066
    )
    known: Any = None
    async with running_group() as group:
        register(
            app,
            store=MemoryStore(partitions=1),
            policy=POLICY,
            clock_skew=lambda _: None,
            desk=known,
            positions=OpenPositions(),
            facts=RecentFacts(),
            breaks=StandingBreaks(),
            alarms=StandingAlarms(),
            letters=NoLetters(),
            reader=Reader.of(Settings()),
            health=lambda: (200, {}),
            ready=lambda: (200, {}),
            metrics=lambda: "",
            commands=NatsCommands(lambda: None, NatsSettings(publish_timeout_s=1)),
            feed=NatsFeed(lambda: None, NatsSettings()),
            access=group.workers[0].access,
            signals=group.workers[0].signals,
        )
    app.web.init_server()  # Faust's own pages
    routes = {(route.method, route.resource.canonical) for route in app.web.web_app.router.routes()}
    assert {path for _, path in routes} >= {"/orders", "/router/", "/performance/"}
    changing = {route for route in routes if route[0] not in {"GET", "HEAD", "OPTIONS"}}
    paths = ("/commands/{name}", "/signals/{source}", "/dead-letters/{letter_id}/{deed}", "/login", "/logout")
    assert changing == {("POST", path) for path in paths}
