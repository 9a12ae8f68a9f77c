"""The inbox of a session on a real NATS: one request stays open, and whatever ends it is noticed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StreamConfig

from streamapp.errors import Transient
from streamapp.mirror import consumer
from streamapp.mirror.consumer import PullInbox
from streamapp.nats.connection import connect
from streamapp.settings import NatsSettings, Settings
from tests.kit.stacks import running
from tests.nats.servers import own_nats

STREAM, DURABLE = "S", "c"


@dataclass
class Server:
    client: Client
    requests: list[bytes] = field(default_factory=list)

    async def publish(self, number: int) -> None:
        await self.client.jetstream().publish("s.x", str(number).encode())

    async def count_request(self, message: Msg) -> None:
        self.requests.append(message.data)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        client = await connect(Settings(nats=NatsSettings(url=spec.address)), "test")
        made = Server(client)
        await client.jetstream().add_stream(StreamConfig(name=STREAM, subjects=["s.>"]))
        await client.jetstream().add_consumer(STREAM, ConsumerConfig(durable_name=DURABLE))
        await client.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{DURABLE}", cb=made.count_request)
        yield made
        await client.close()


async def received(inbox: PullInbox, count: int) -> list[int]:
    numbers: list[int] = []
    while len(numbers) < count:
        numbers += [int(message.data) for message in await inbox.next_group()]
    return numbers


async def test_one_request_brings_message_after_message_as_each_arrives(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PULL_S", 30.0)
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        for number in range(50):
            await server.publish(number)
            assert await received(inbox, 1) == [number]
    assert [json.loads(request) for request in server.requests] == [{"batch": 200, "expires": 30_000_000_000}]


async def test_a_request_that_is_used_up_is_followed_by_another_without_a_gap(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PULL", 7)
    monkeypatch.setattr(consumer, "PULL_S", 30.0)
    for number in range(40):
        await server.publish(number)
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        assert await received(inbox, 40) == list(range(40))
    assert len(server.requests) == 6


async def test_a_request_that_brought_nothing_ends_by_its_age_and_the_next_one_works(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PULL_S", 0.2)
    monkeypatch.setattr(consumer, "PULL_GRACE_S", 30.0)
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        assert await inbox.next_group() == []
        await server.publish(1)
        assert await received(inbox, 1) == [1]


async def test_a_request_that_the_server_lost_is_made_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "PULL_S", 0.2)
    monkeypatch.setattr(consumer, "PULL_GRACE_S", 0.1)
    await server.publish(1)
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        subject, inbox._next_subject = inbox._next_subject, "nobody.listens"
        await server.client.subscribe("nobody.listens")
        assert await inbox.next_group() == []
        inbox._next_subject = subject
        assert await received(inbox, 1) == [1]


async def test_the_late_end_of_an_earlier_request_does_not_end_the_open_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PULL_S", 30.0)
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        await server.publish(1)
        assert await received(inbox, 1) == [1]
        late = {"Status": "408", "Description": "Request Timeout"}
        await server.client.publish(f"{inbox._inbox}.0", headers=late)
        assert await inbox.next_group() == []
        await server.publish(2)
        assert await received(inbox, 1) == [2]
    assert len(server.requests) == 1


async def test_a_consumer_that_is_gone_ends_the_session_in_the_servers_words(server: Server) -> None:
    async with PullInbox(server.client, STREAM, DURABLE) as inbox:
        await server.publish(1)
        assert await received(inbox, 1) == [1]
        await server.client.jetstream().delete_consumer(STREAM, DURABLE)
        with pytest.raises(Transient, match="409 Consumer Deleted"):
            await inbox.next_group()
    async with PullInbox(server.client, STREAM, "never-created") as inbox:
        with pytest.raises(Transient, match="503"):
            await inbox.next_group()
