"""``/dead-letters`` and ``/alarms``, on a real Kafka: listed in pages, and decided by whoever may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from streamapp import topics
from streamapp.clock import utc_now
from streamapp.desk.alarms import ALARMS
from streamapp.domain.anomalies import Anomaly
from streamapp.domain.day import STEPS
from streamapp.kafka.security import Cluster
from streamapp.local.ports import free_port
from streamapp.settings import KafkaSettings
from streamapp.tokens import TokensFile
from streamapp.web.access import COOKIE, CSRF, csrf_of
from tables.accounts import StandingAlarm
from tests.kit.letters import HOSTILE, THEIRS, LetterHouse, letter_house
from tests.web.group import ACCOUNTS, AT, Group, running_group

MADE_AT = datetime(2026, 11, 27, 3, tzinfo=UTC)


@dataclass
class Desk:
    """A house with letters, two workers that show them, and a token of each role."""

    letters: LetterHouse
    group: Group
    tokens: dict[str, str]

    async def get(self, query: str = "", worker: int = 0) -> Any:
        status, body, _ = await self.group.get(self.group.workers[worker], f"/dead-letters{query}")
        assert status == 200, body
        return body

    async def post(self, path: str, token: str | None = "admin", body: Any = None, **options: Any) -> tuple[int, Any]:
        secret = None if token is None else self.tokens[token]
        said = options or {"json": {"reason": "field_names set"} if body is None else body}
        status, answer, _ = await self.group.ask("POST", self.group.workers[0], f"/dead-letters/{path}", secret, **said)
        return status, answer


@pytest.fixture
async def desk(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Desk]:
    file = TokensFile(tmp_path / "tokens")
    tokens = {role: file.add(f"the-{role}", role, MADE_AT) for role in ("read", "trade", "admin")}
    async with (
        letter_house(kafka_bootstrap) as house,
        running_group(tokens_file=file.path, letters=house.ledger(house.mended)) as group,
    ):
        yield Desk(house, group, tokens)


async def test_letters_are_shown_in_pages_as_text_with_what_to_do_by_any_worker(desk: Desk) -> None:
    now = utc_now()
    payloads = [HOSTILE, b"\xff\xfe", json.dumps(THEIRS).encode()]
    ids = [
        await desk.letters.bury(payload, "not_json", sequence=number, at=now - timedelta(seconds=9 - number))
        for number, payload in enumerate(payloads)
    ]
    first = await desk.get("?limit=2", worker=1)
    assert [row["id"] for row in first["dead_letters"]] == ids[:0:-1]
    second = await desk.get(f"?limit=2&before={first['next'].replace('+', '%2B')}")
    assert ([row["id"] for row in second["dead_letters"]], second["next"], second["more"]) == (ids[:1], None, False)
    [hostile] = second["dead_letters"]
    assert hostile["payload"] == HOSTILE.decode()
    assert hostile["not_redrivable"].startswith("it would be a dead letter again, not_json")
    theirs, strange = first["dead_letters"]
    assert (strange["payload"], theirs["not_redrivable"], theirs["message_id"]) == ("\\xff\\xfe", None, "s-1")
    for query in ("?limit=0", "?open=yes", "?before=x", "?account=a"):
        status, body, _ = await desk.group.get(desk.group.workers[0], f"/dead-letters{query}")
        assert (status, body["reason"]) == (400, "bad_query")


async def test_a_letter_is_re_driven_once_by_whoever_may_and_says_who_it_was(desk: Desk) -> None:
    letter = await desk.letters.bury(THEIRS)
    for deed, token, expected in (
        ("redrive", None, (401, "no_token")),
        ("redrive", "read", (403, "role")),
        ("redrive", "trade", (403, "role")),
        ("acknowledge", None, (401, "no_token")),
        ("acknowledge", "read", (403, "role")),
    ):
        status, body = await desk.post(f"{letter}/{deed}", token)
        assert (status, body["reason"]) == expected
    assert await desk.letters.read(topics.SIGNALS_APPROVED) == []
    status, body = await desk.post(f"{letter}/redrive")
    assert (status, body["disposition"], body["decisions"][-1]["by"]) == (200, "redriven", "the-admin")
    status, body = await desk.post(f"{letter}/redrive")
    assert (status, body["reason"], "was re-driven already, by the-admin" in body["error"]) == (409, "settled", True)
    assert len(await desk.letters.read(topics.SIGNALS_APPROVED)) == 1
    assert (await desk.get("?open=1"))["dead_letters"] == []


async def test_what_can_not_be_decided_is_refused_in_words_and_changes_nothing(desk: Desk) -> None:
    letter = await desk.letters.bury(HOSTILE, "not_json")
    report = await desk.letters.bury(b"{}", "no_account", subject="mt5.report.a")
    refusals: list[tuple[str, dict[str, Any], int, str]] = [
        (f"{letter}/redrive", {}, 409, "still_unusable"),
        (f"{report}/redrive", {}, 409, "not_redrivable"),
        ("9-9/acknowledge", {}, 400, "bad_id"),
        ("1-999/redrive", {}, 404, "unknown_letter"),
        (f"{letter}/burn", {}, 404, "unknown_deed"),
        (f"{letter}/acknowledge", {"body": {}}, 400, "invalid"),
        (f"{letter}/acknowledge", {"body": {"reason": " "}}, 400, "invalid"),
        (f"{letter}/acknowledge", {"body": {"reason": "x", "by": "boris"}}, 400, "invalid"),
        (f"{letter}/acknowledge", {"body": {"reason": "x" * 501}}, 400, "invalid"),
        (f"{letter}/acknowledge", {"data": b"reason=x"}, 415, "content_type"),
        (f"{letter}/acknowledge", {"json": {"reason": "x" * 20_000}}, 413, "too_long"),
    ]
    for path, options, code, reason in refusals:
        status, body = await desk.post(path, **options)
        assert (status, body["reason"]) == (code, reason), path
    assert {row["disposition"] for row in (await desk.get())["dead_letters"]} == {"open"}


async def test_a_cookie_alone_decides_nothing(desk: Desk) -> None:
    letter = await desk.letters.bury(HOSTILE, "not_json")
    secret = desk.tokens["trade"]
    cookie, said = {"Cookie": f"{COOKIE}={secret}"}, {"reason": "mended"}
    status, body = await desk.post(f"{letter}/acknowledge", None, json=said, headers=cookie)
    assert (status, body["reason"]) == (403, "csrf")
    status, body = await desk.post(f"{letter}/acknowledge", None, json=said, headers=cookie | {CSRF: csrf_of(secret)})
    assert (status, body["disposition"]) == (200, "acknowledged")


async def test_while_kafka_is_away_the_answer_is_503_and_never_an_empty_list(desk: Desk) -> None:
    away = KafkaSettings(bootstrap=f"127.0.0.1:{free_port()}")
    settings = desk.letters.settings.model_copy(update={"kafka": away})
    assert Cluster.of(settings).bootstrap == away.bootstrap
    async with running_group(letters=desk.letters.ledger(settings)) as group:
        status, body, _ = await group.get(group.workers[0], "/dead-letters")
    assert (status, body["missing"]) == (503, ["kafka"])


def test_every_alarm_of_the_desk_says_what_it_means_and_what_to_do() -> None:
    rung = {*get_args(Anomaly), *(f"day_{step}" for step in STEPS), "unexpected_change", "internal", "break"}
    assert ALARMS.keys() == rung


async def test_alarms_that_stand_are_shown_by_any_worker_with_what_they_mean(desk: Desk) -> None:
    text = HOSTILE.decode()
    revived = StandingAlarm(
        name="revived", text=text, order_id="o-1", count=3, first_at=AT, at=AT + timedelta(seconds=3)
    )
    await desk.group.put_alarms(ACCOUNTS[0], revived)
    await desk.group.put_alarms(ACCOUNTS[1], StandingAlarm(name="overfilled", text="order o-2", first_at=AT, at=AT))
    assert desk.group.owner_of(ACCOUNTS[0]) is not desk.group.owner_of(ACCOUNTS[1])
    status, body, _ = await desk.group.get(desk.group.workers[0], "/alarms")
    first, second = body["alarms"]
    assert (status, first["alarm"], first["account"], first["count"]) == (200, "revived", ACCOUNTS[0], 3)
    assert (first["text"], first["alarm_id"]) == (text, "revived:2026-11-20T12:00:03.000000Z")
    assert second["meaning"].startswith("more was executed than asked for")
    await desk.group.put_alarms(ACCOUNTS[0])
    _, body, _ = await desk.group.get(desk.group.workers[1], "/alarms")
    assert [row["alarm"] for row in body["alarms"]] == ["overfilled"]
