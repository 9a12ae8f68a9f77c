"""The port of commands on a real NATS: stored once by what is asked, and every result heard."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from streamapp import subjects
from streamapp.errors import Transient
from streamapp.messages.command import CommandRequest, CommandResultMessage
from streamapp.nats.commands import AskedCommand, NatsCommands
from streamapp.settings import NatsSettings
from streamapp.web.commands import Commands
from tests.kit.command_answers import AnsweringDesk, result_of, streams_at
from tests.kit.stacks import running
from tests.nats.servers import own_nats


@pytest.fixture
async def client(nats_of_this_module: str) -> AsyncIterator[Client]:
    async with streams_at(nats_of_this_module) as client:
        yield client


@pytest.fixture
def commands(client: Client) -> Commands:
    return NatsCommands(lambda: client, NatsSettings(publish_timeout_s=5))


def command(**content: Any) -> CommandRequest:
    return CommandRequest(**{"request_id": secrets.token_hex(8), "account": "acc.1", **content})


async def heard_by(asked: AskedCommand, seconds: float = 5) -> list[str]:
    async with asyncio.timeout(seconds):
        return [result.state async for result in asked.results]


async def test_a_command_is_in_its_stream_when_it_is_said_to_be(commands: Commands, client: Client) -> None:
    asked = command(position_id=7)
    stored = await commands.publish("position.close", asked)
    message = await client.jetstream().get_msg("EXECUTION_IN", stored.stream_seq)
    assert stored.subject == message.subject == "commands.position.close.acc%2E1"
    assert not stored.is_repeat
    assert CommandRequest.decode(message.data or b"") == asked


async def test_an_order_leads_to_its_account_by_itself(commands: Commands) -> None:
    asked = command(account=None, order_id="o-1")
    assert (await commands.publish("order.cancel", asked)).subject == "commands.order.cancel.-"


async def test_a_repeat_is_stored_once_whenever_and_by_whom_it_is_repeated(commands: Commands) -> None:
    asked = command(position_id=7, issued_by="anna", issued_at="2026-11-27T03:00:00Z")
    first = await commands.publish("position.close", asked)
    again = asked.model_copy(update={"issued_by": "boris", "issued_at": None, "reason": "once more"})
    second = await commands.publish("position.close", again)
    assert (second.stream_seq, second.is_repeat) == (first.stream_seq, True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("position.close", {"position_id": 8}),
        ("position.close", {"account": "acc.2"}),
        ("position.close", {"values": {"volume": "0.1"}}),
        ("position.close", {"valid_until": "2026-11-27T03:00:00Z"}),
        ("position.modify", {}),
    ],
)
async def test_something_else_under_the_same_request_id_comes_to_the_desk_too(
    commands: Commands, name: str, change: dict[str, Any]
) -> None:
    asked = command(position_id=7)
    first = await commands.publish("position.close", asked)
    other = CommandRequest.model_validate(asked.model_dump() | change)
    second = await commands.publish(name, other)
    assert second.stream_seq > first.stream_seq
    assert not second.is_repeat


async def test_results_are_heard_to_the_end(commands: Commands, client: Client) -> None:
    await AnsweringDesk(client).start()
    async with commands.asked("account.halt", command()) as asked:
        assert await heard_by(asked) == ["accepted", "done"]


async def test_a_repeat_hears_what_the_first_was_answered(commands: Commands, client: Client) -> None:
    desk = await AnsweringDesk(client, results=({"state": "accepted"}, {"state": "failed", "detail": "x"})).start()
    halt = command()
    for expected in (["accepted", "failed"], ["failed"], ["failed"]):
        async with commands.asked("account.halt", halt) as asked:
            assert await heard_by(asked) == expected
    assert desk.of(halt.request_id) == [halt]


async def test_a_repeat_that_comes_before_the_end_hears_the_end(commands: Commands, client: Client) -> None:
    await AnsweringDesk(client, results=({"state": "accepted"},)).start()
    halt, js = command(), client.jetstream()
    async with commands.asked("account.halt", halt) as first:
        assert (await anext(aiter(first.results))).state == "accepted"
    async with commands.asked("account.halt", halt) as second:
        results = aiter(second.results)
        assert (await anext(results)).state == "accepted"
        for revision, state in ((1, "accepted"), (2, "done")):
            result = result_of(second.stored.subject, halt, second.stored.stream_seq, revision=revision, state=state)
            await js.publish(subjects.command_result(halt.request_id), result.encode())
        assert [result.state async for result in results] == ["done"]


async def test_the_refusal_of_a_later_command_under_the_same_id_is_not_the_answer(
    commands: Commands, client: Client
) -> None:
    halt, js = command(), client.jetstream()
    async with commands.asked("account.halt", halt) as asked:
        subject, place = subjects.command_result(halt.request_id), asked.stored
        mine = result_of(place.subject, halt, place.stream_seq, revision=1, state="done")
        later = mine.model_copy(update={"stream_seq": place.stream_seq + 1, "state": "refused"})
        for payload in (later.encode(), b"nonsense", mine.encode()):
            await js.publish(subject, payload)
        assert await heard_by(asked) == ["done"]
    assert CommandResultMessage.decode(later.encode()) == later


async def test_nobody_hears_any_longer_than_it_waits(commands: Commands, client: Client) -> None:
    await commands.publish("account.halt", command())
    subscriptions = set(client._subs)
    async with commands.asked("account.halt", command()) as asked:
        assert len(client._subs) == len(subscriptions) + 1
        with pytest.raises(TimeoutError):
            await heard_by(asked, 0.05)
    assert set(client._subs) == subscriptions


async def test_without_a_connection_nothing_is_said_to_be_stored() -> None:
    nowhere = NatsCommands(lambda: None, NatsSettings(publish_timeout_s=1))
    with pytest.raises(Transient, match="NATS: connecting"):
        await nowhere.publish("account.halt", command())
    with pytest.raises(Transient, match="NATS: connecting"):
        async with nowhere.asked("account.halt", command()):
            pass


async def test_a_nats_that_is_gone_and_one_without_streams_have_stored_nothing(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path) as server:
        async with streams_at(spec.address) as client:
            gone = NatsCommands(lambda: client, NatsSettings(publish_timeout_s=0.5))
            await client.jetstream().delete_stream("EXECUTION_IN")
            with pytest.raises(Transient, match="Send it again with the same request_id"):
                await gone.publish("account.halt", command())
            server.stop()
            with pytest.raises(Transient, match="Send it again with the same request_id"):
                await gone.publish("account.halt", command())
            with pytest.raises(Transient, match="Send it again with the same request_id"):
                async with gone.asked("account.halt", command()):
                    pass
