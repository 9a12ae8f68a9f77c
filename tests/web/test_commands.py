"""``POST /commands/{name}`` on a real NATS: answered when the stream has it, or in words why not."""

from __future__ import annotations

import json
import logging
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from streamapp.clock import utc_now
from streamapp.messages.command import CommandRequest, CommandResultMessage
from streamapp.tokens import TokensFile
from streamapp.web.commands import MOST_BODY_BYTES
from tests.kit.command_answers import AnsweringDesk, streams_at
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats
from tests.web.group import Group, running_group

AT = datetime(2026, 11, 27, 3, tzinfo=UTC)
CLOSE = {"account": "acc-1", "position_id": 7}


class House:
    """A worker, its NATS, and a person whose token may trade."""

    def __init__(self, group: Group, file: TokensFile) -> None:
        self.group = group
        self.token = file.add("anna", "trade", AT)
        self.admin = file.add("boris", "admin", AT)

    async def post(
        self, name: str, body: Any = None, *, token: str | None = None, query: str = "", **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        sent = options or {"json": body}
        path = f"/commands/{name}{query}"
        return await self.group.ask("POST", self.group.workers[0], path, token or self.token, **sent)

    async def stored(self, stream_seq: int) -> CommandRequest:
        message = await self.group.nats.jetstream().get_msg("EXECUTION_IN", stream_seq)
        return CommandRequest.decode(message.data)


@pytest.fixture
async def house(nats_of_this_module: str, tmp_path: Path) -> AsyncIterator[House]:
    file = TokensFile(tmp_path / "tokens")
    async with streams_at(nats_of_this_module) as client, running_group(tokens_file=file.path) as group:
        group.nats = client
        yield House(group, file)


def request_id() -> str:
    return secrets.token_hex(8)


async def test_a_command_is_stored_before_it_is_answered_and_says_who_asked_and_when(house: House) -> None:
    body = {**CLOSE, "request_id": request_id(), "values": {"volume": "0.10"}, "reason": "too\nlarge"}
    status, answer, _ = await house.post("position.close", body)
    assert (status, answer["request_id"], answer["subject"]) == (
        202,
        body["request_id"],
        "commands.position.close.acc-1",
    )
    command = await house.stored(answer["stream_seq"])
    assert (command.account, command.position_id, str(command.values.volume)) == ("acc-1", 7, "0.10")
    assert (command.issued_by, command.reason, command.valid_until) == ("anna", "too large", None)
    assert command.issued_at is not None
    assert abs(utc_now() - command.issued_at) < timedelta(minutes=1)


async def test_nobody_commands_in_anothers_name_or_at_another_time(house: House) -> None:
    for said in ({"issued_by": "boris", "issued_at": "2020-01-01T00:00:00Z"}, {"issued_by": 7, "issued_at": "x"}):
        status, answer, _ = await house.post("account.halt", {"account": "acc-1", **said})
        assert status == 202
        command = await house.stored(answer["stream_seq"])
        assert command.issued_by == "anna"
        assert command.issued_at is not None
        assert command.issued_at.year > 2020


@pytest.mark.parametrize("given", [{}, {"request_id": None}])
async def test_a_command_without_a_request_id_gets_one_and_is_told_it(house: House, given: dict[str, None]) -> None:
    _, first, _ = await house.post("account.halt", {"account": "acc-1", **given})
    _, second, _ = await house.post("account.halt", {"account": "acc-1", **given})
    assert uuid.UUID(first["request_id"]).version == 4
    assert first["request_id"] != second["request_id"]
    assert (await house.stored(first["stream_seq"])).request_id == first["request_id"]


async def test_a_repeat_is_202_again_and_stored_once(house: House) -> None:
    body = {**CLOSE, "request_id": request_id()}
    answers = [(await house.post("position.close", body))[:2] for _ in range(3)]
    assert answers[0][0] == 202
    assert answers == [answers[0]] * 3


async def test_something_else_under_the_same_request_id_is_stored_for_the_desk_to_refuse(house: House) -> None:
    body = {**CLOSE, "request_id": request_id()}
    _, first, _ = await house.post("position.close", body)
    status, second, _ = await house.post("position.close", {**body, "position_id": 8})
    assert (status, first["request_id"]) == (202, second["request_id"])
    assert second["stream_seq"] > first["stream_seq"]


async def test_every_form_of_command_is_taken(house: House) -> None:
    bodies = {
        "order.cancel": {"order_id": "o-1"},
        "order.modify": {"order_id": "o-1", "account": "acc-1", "values": {"price": 1.25, "stop_loss": "0"}},
        "position.close": CLOSE,
        "position.modify": {**CLOSE, "values": {"take_profit": "1.3"}, "schema": "command/1"},
        **{f"account.{word}": {"account": "acc-1"} for word in ("halt", "reduce", "resume", "cancel_all", "flatten")},
    }
    for name, body in bodies.items():
        status, answer, _ = await house.post(name, body, token=house.admin)
        assert status == 202, (name, answer)


@pytest.mark.parametrize(
    ("name", "body", "reason", "words"),
    [
        ("order.nothing", {}, "unknown_command", "expected one of order.cancel, order.modify"),
        ("account.halt", {}, "no_account", "account: expected one"),
        ("order.cancel", {"account": "a"}, "invalid", "order_id: expected one with order.cancel"),
        ("position.close", {"account": "a"}, "invalid", "position_id: expected one"),
        ("position.close", {**CLOSE, "order_id": "o"}, "invalid", "order_id: expected none"),
        ("position.close", {**CLOSE, "values": {"price": 1}}, "invalid", "values.price: expected none"),
        ("position.close", {**CLOSE, "values": {"lots": 1}}, "invalid", "values.lots"),
        ("position.close", {**CLOSE, "values": {"volume": "much"}}, "invalid", "values.volume"),
        ("position.modify", CLOSE, "invalid", "expected one of stop_loss, take_profit"),
        ("position.close", {**CLOSE, "volume": "1"}, "invalid", "expected none but account,"),
        ("position.close", {**CLOSE, "position_id": "seven"}, "invalid", "position_id"),
        ("account.halt", {"account": "a", "request_id": "two words"}, "invalid", "request_id"),
        ("account.halt", {"account": "a", "request_id": 7}, "invalid", "request_id"),
        ("account.halt", {"account": "a", "schema": "command/2"}, "invalid", "schema: expected command/1"),
        ("account.halt", {"account": "a", "valid_until": "soon"}, "invalid", "valid_until"),
        ("account.halt", ["account"], "not_an_object", "expected a JSON object, got list"),
    ],
)
async def test_what_can_not_be_meant_is_400_and_names_what_was_expected(
    house: House, name: str, body: Any, reason: str, words: str
) -> None:
    status, answer, _ = await house.post(name, json=body)
    assert (status, answer["reason"]) == (400, reason)
    assert words in answer["error"]


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"null", "not_an_object", "expected a JSON object, got NoneType"),
        (b"", "not_json", "expected JSON"),
        (b"{'account': 'a'}", "not_json", "expected JSON"),
        (b"\xff\xfe", "not_json", "expected JSON"),
        (b'{"account": "a", "account": "b"}', "invalid", "account: given more than once"),
        (b'{"account": NaN}', "not_json", "NaN"),
        (b'{"account": "\\ud800"}', "not_json", "expected JSON"),
    ],
)
async def test_a_body_that_is_no_json_object_is_400(house: House, data: bytes, reason: str, words: str) -> None:
    status, answer, _ = await house.post("account.halt", data=data, headers={"Content-Type": "application/json"})
    assert (status, answer["reason"]) == (400, reason)
    assert words in answer["error"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_a_body_that_does_not_call_itself_json_is_415(house: House, content_type: str) -> None:
    body = json.dumps({"account": "acc-1"})
    status, answer, _ = await house.post("account.halt", data=body, headers={"Content-Type": content_type})
    assert (status, answer["error"]) == (415, f"expected Content-Type: application/json, got {content_type}")


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_that_is_too_long_is_413_whether_it_says_so_first_or_not(house: House, is_chunked: bool) -> None:
    body = json.dumps({"account": "acc-1", "reason": "x" * MOST_BODY_BYTES}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 4096):
            yield body[start : start + 4096]

    headers = {"Content-Type": "application/json"}
    status, answer, _ = await house.post("account.halt", data=chunks() if is_chunked else body, headers=headers)
    assert (status, answer["reason"], answer["error"]) == (413, "too_long", "expected 16384 bytes at most")


async def test_a_command_is_posted_and_nothing_else(house: House) -> None:
    for method in ("GET", "PUT", "DELETE"):
        status, _, headers = await house.group.ask(
            method, house.group.workers[0], "/commands/account.halt", house.token
        )
        assert (status, headers["Allow"]) == (405, "POST")


async def test_the_log_says_who_commanded_what(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, answer, _ = await house.post("account.halt", {"account": "acc-1", "request_id": "r-log"})
    assert f"account.halt (r-log, stream sequence {answer['stream_seq']}) by anna from 127.0.0.1" in caplog.text
    assert house.token not in caplog.text


async def test_whoever_waits_gets_the_answer_or_the_end(house: House) -> None:
    await AnsweringDesk(house.group.nats).start()
    waiting = {"wait=20": "accepted", "wait=20&wait_for=answer": "accepted", "wait=20&wait_for=end": "done"}
    for query, state in waiting.items():
        status, answer, headers = await house.post("account.halt", {"account": "acc-1"}, query=f"?{query}")
        assert (status, answer["schema"], answer["state"]) == (200, "command_result/1", state)
        assert headers["Content-Type"].startswith("application/json")
        assert CommandResultMessage.model_validate(answer).issued_by == "anna"


async def test_a_repeat_that_waits_gets_what_the_first_was_answered(house: House) -> None:
    await AnsweringDesk(house.group.nats, results=({"state": "refused", "why": "no_such_position"},)).start()
    body = {**CLOSE, "request_id": request_id()}
    answers = [(await house.post("position.close", body, query="?wait=20"))[:2] for _ in range(2)]
    assert answers[0] == answers[1]
    assert (answers[0][0], answers[0][1]["state"], answers[0][1]["why"]) == (200, "refused", "no_such_position")


async def test_silence_is_202_after_the_wait(house: House) -> None:
    status, answer, _ = await house.post("account.halt", {"account": "acc-1"}, query="?wait=0.05")
    assert (status, answer.keys()) == (202, {"request_id", "stream_seq", "subject"})
    await AnsweringDesk(house.group.nats, results=({"state": "accepted"},)).start()
    body = {"account": "acc-1", "request_id": request_id()}
    assert (await house.post("account.halt", body, query="?wait=0.2&wait_for=end"))[0] == 202


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?wait=soon", "wait: expected 0 to 30 seconds, got 'soon'"),
        ("?wait=31", "wait: expected 0 to 30"),
        ("?wait=-1", "wait: expected 0 to 30"),
        ("?wait=nan", "wait: expected 0 to 30"),
        ("?wait=1&wait_for=ever", "wait_for: expected answer or end, got 'ever'"),
        ("?account=acc-1", "expected wait, wait_for, got account"),
    ],
)
async def test_a_bad_query_is_400_and_nothing_is_sent(house: House, query: str, words: str) -> None:
    before = (await house.group.nats.jetstream().stream_info("EXECUTION_IN")).state.last_seq
    status, answer, _ = await house.post("account.halt", {"account": "acc-1"}, query=query)
    assert (status, answer["reason"]) == (400, "bad_query")
    assert words in answer["error"]
    assert (await house.group.nats.jetstream().stream_info("EXECUTION_IN")).state.last_seq == before


async def test_before_the_first_connection_it_is_503_and_says_what_to_do(house: House) -> None:
    house.group.nats = None
    for query in ("", "?wait=1"):
        status, answer, headers = await house.post("account.halt", {"account": "acc-1"}, query=query)
        assert (status, answer["reason"], headers["Retry-After"]) == (503, "not_stored", "1")
        assert uuid.UUID(answer["request_id"]).version == 4


async def test_a_nats_that_goes_away_is_503_and_the_same_request_may_be_repeated(tmp_path: Path) -> None:
    file, spec = TokensFile(tmp_path / "tokens"), own_nats(tmp_path)
    async with running_group(tokens_file=file.path) as group:
        house, body = House(group, file), {**CLOSE, "request_id": request_id()}
        with running(spec, tmp_path) as server:
            async with streams_at(spec.address) as client:
                group.nats = client
                first = (await house.post("position.close", body))[:2]
                server.stop()
                status, answer, _ = await house.post("position.close", body)
                assert (status, answer["reason"], answer["request_id"]) == (503, "not_stored", body["request_id"])
                assert "Send it again with the same request_id: it is carried out once" in answer["error"]
                with running(spec, tmp_path):

                    async def posted() -> tuple[int, dict[str, Any]] | None:
                        status, answer, _ = await house.post("position.close", body)
                        return None if status == 503 else (status, answer)

                    assert await eventually(posted, "NATS is back") == first
