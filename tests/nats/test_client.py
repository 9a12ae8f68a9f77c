"""A client that nobody's message can stop, against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api

from streamapp.nats.client import kept_headers, readable
from streamapp.nats.connection import connect
from streamapp.settings import NatsSettings, Settings
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats, publish_raw

POISON = [
    (b"poison.\xff\xfe", b""),
    (b"poison.a\x0bb", b""),
    (b"poison.a\x0cb", b"NATS/1.0\r\nA: b\r\n\r\n"),
    (b"poison.a\x00b\x85", b""),
    (b"poison.a*b>", b""),
    (b"poison.status", b"NATS/1.0\r\nStatus: 404\r\n\r\n"),
    (b"poison.inline", b"NATS/1.0 404 No Messages\r\n\r\n"),
    (b"poison.inline", b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
    (b"poison.bytes", b"NATS/1.0\r\n\xff\xfe: \xff\r\nno colon\r\n\r\n"),
    (b"poison.garbage", b"garbage"),
]


async def test_a_consumer_reads_on_behind_every_message_that_the_server_stored(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        client = await connect(Settings(nats=NatsSettings(url=spec.address)), "test")
        try:
            await _read_on(client, spec.address)
        finally:
            await client.close()


async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        client = await connect(Settings(nats=NatsSettings(url=spec.address)), "test")
        try:
            for outcome in (Msg(client, "reply", data=b"!"), Msg(client, "reply", headers={"Status": "503"})):
                await client.subscribe("silent", cb=_ignored)
                asking = asyncio.create_task(client.request("silent", b"?", timeout=60))
                await eventually(lambda: client._resp_map)
                (answer,) = client._resp_map.values()
                answer.set_result(outcome)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.request("silent", b"?", timeout=60)
            asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)  # type: ignore[union-attr]
            with pytest.raises(asyncio.CancelledError):
                await client.request("silent", b"?", timeout=60)
            # Who tidies up after a cancellation still gets answers.
            await client.subscribe("answering", cb=_agreed)
            assert (await client.request("answering", b"?", timeout=60)).data == b"yes"
        finally:
            await client.close()


async def _ignored(_: Msg) -> None:
    """Answer nothing."""


async def _agreed(message: Msg) -> None:
    await message.respond(b"yes")


async def test_a_prefix_is_put_before_and_taken_off_every_subject_of_ours_and_no_other(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        plain = await connect(Settings(nats=NatsSettings(url=spec.address)), "outside")
        prefixed = NatsSettings(url=spec.address, subject_prefix="desks.fx")
        ours = await connect(Settings(nats=prefixed), "ours")
        try:
            outside = await plain.subscribe(">")
            inside = await ours.subscribe("mt5.*.*")
            await plain.flush()
            await ours.flush()
            asked = asyncio.create_task(ours.request("mt5.demo.hello", b"?", timeout=5))
            request = await inside.next_msg(timeout=5)
            assert (request.subject, (await outside.next_msg(timeout=5)).subject) == (
                "mt5.demo.hello",
                "desks.fx.mt5.demo.hello",
            )
            await request.respond(b"!")
            assert (await asked).data == b"!"

            js = ours.jetstream()
            await js.add_stream(name="IN", subjects=["desks.fx.signals.>"])
            assert (await js.publish("signals.approved.EURUSD", b"{}")).stream == "IN"
            (stored,) = await (await js.pull_subscribe(">", "reader", stream="IN")).fetch(1, timeout=5)
            assert stored.subject == "signals.approved.EURUSD"
            await stored.ack_sync()
        finally:
            await ours.close()
            await plain.close()


async def _read_on(client: Client, url: str) -> None:
    js = client.jetstream()
    await js.add_stream(name="POISON", subjects=["poison.>"])
    await js.add_consumer("POISON", api.ConsumerConfig(durable_name="reader", ack_policy=api.AckPolicy.EXPLICIT))
    for subject, headers in POISON:
        assert b"-ERR" not in await publish_raw(url, subject, b"{}", headers)
    await js.publish("poison.last", b"good", headers={"Streamapp-Origin": "a/b", "Other": "x"})
    subscription = await js.pull_subscribe_bind(consumer="reader", stream="POISON")
    seen: list[Msg] = []
    while len(seen) < len(POISON) + 1:
        batch = await subscription.fetch(100, timeout=5)
        seen += batch
    for message in seen:
        await message.ack()
    assert [message.metadata.sequence.stream for message in seen] == list(range(1, len(POISON) + 2))
    assert seen[-1].data == b"good"
    assert seen[-1].headers == {"Streamapp-Origin": "a/b"}
    assert client.stats["reconnects"] == 0

    async def all_acknowledged() -> bool:
        return bool((await js.consumer_info("POISON", "reader")).num_ack_pending == 0)

    # An ack has no answer, and the server works on it after it has read it.
    await eventually(all_acknowledged)


@pytest.mark.parametrize(
    ("block", "kept"),
    [
        (b"NATS/1.0\r\nStreamapp-Origin: a/b\r\n\r\n", b"NATS/1.0\r\nStreamapp-Origin: a/b\r\n\r\n"),
        (
            b"NATS/1.0\r\nstreamapp-origin:a/b\r\nStreamapp-Origin: c\r\n\r\n",
            b"NATS/1.0\r\nStreamapp-Origin: a/b\r\n\r\n",
        ),
        (b"NATS/1.0\r\nOther: x\r\n\r\n", b""),
        (b"NATS/1.0\r\nStreamapp-Origin: \xff\r\n\r\n", b""),
        (b"", b""),
    ],
)
def test_of_a_header_block_only_what_we_read_is_kept(block: bytes, kept: bytes) -> None:
    assert kept_headers(block) == kept


def test_a_subject_that_is_no_text_is_made_readable() -> None:
    assert readable(b"a.\xff") == b"a.\\xff"
    assert readable("a.é".encode()) == "a.é".encode()
