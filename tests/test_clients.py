"""The client of programs in Python, on a real NATS; who answers in the trading worker's place is played here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import streamapp
from streamapp import subjects
from streamapp.clients import Client
from streamapp.errors import Ambiguous, ConfigurationError, Transient, Unusable
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Settings
from streamapp.subjects import StreamSpec
from tests.kit.played_desk import NOW, PlayedDesk
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats

SIGNAL: dict[str, Any] = {
    "signal_id": "s-1",
    "status": "approved",
    "account": "a",
    "symbol": "EURUSD",
    "side": "buy",
    "order_type": "market",
    "volume": Decimal("0.10"),
    "valid_until": NOW,
}


@pytest.fixture
async def desk(nats_of_this_module: str) -> AsyncIterator[PlayedDesk]:
    settings = Settings(nats=NatsSettings(url=nats_of_this_module))
    nats = await connect(settings, "desk")
    await ensure(nats.jetstream(), settings, create=True)
    desk = PlayedDesk(nats)
    await desk.listen()
    yield desk
    for stream in subjects.STREAMS:  # with the ids of messages that they remember
        await nats.jetstream().delete_stream(stream.name)
    await nats.close()


@pytest.fixture
async def client(desk: PlayedDesk, nats_of_this_module: str) -> AsyncIterator[Client]:
    async with streamapp.client(nats_of_this_module) as client:
        yield client


# --- signals


async def test_a_signal_is_sent_in_words_and_its_decision_returned(desk: PlayedDesk, client: Client) -> None:
    answer = await client.send(SIGNAL)
    assert isinstance(answer, AcceptedMessage)
    assert answer.order_id == "o-1"
    assert desk.heard == [SIGNAL | {"volume": "0.10", "valid_until": "2026-11-20T12:00:00.000000Z"}]


async def test_a_refusal_is_a_decision_and_no_error(desk: PlayedDesk, client: Client) -> None:
    desk.reason = "guard"
    answer = await client.send(SIGNAL)
    assert isinstance(answer, RefusedMessage)
    assert answer.reason == "guard"


async def test_the_same_signal_again_is_stored_once_and_answered_with_what_stands(
    desk: PlayedDesk, client: Client
) -> None:
    first = await client.send(SIGNAL)
    assert await client.send(SIGNAL) == first
    assert len(desk.heard) == 1


async def test_answers_of_signals_that_are_sent_at_once_are_not_mixed_up(desk: PlayedDesk, client: Client) -> None:
    desk.silent = True
    signals = [SIGNAL | {"signal_id": f"s-{number}"} for number in range(20)]
    sending = [asyncio.ensure_future(client.send(signal)) for signal in signals]

    async def all_heard() -> bool:
        return len(desk.heard) == len(signals)

    await eventually(all_heard, "all signals heard")
    state = (await desk.js.stream_info(subjects.EXECUTION_IN.name)).state
    for sequence, signal in reversed(list(enumerate(desk.heard, start=state.first_seq))):
        await desk.answer(signal, sequence)
    answers = await asyncio.gather(*sending)
    assert [answer.signal_id for answer in answers] == [signal["signal_id"] for signal in signals]


async def test_a_signal_of_several_accounts_is_answered_with_all_of_its_copies(
    desk: PlayedDesk, client: Client
) -> None:
    desk.copies = 3
    answer = await client.send_to_all(SIGNAL | {"account": None})
    assert [copy.account for copy in answer.copies] == ["a0", "a1", "a2"]
    assert await client.send_to_all(SIGNAL | {"account": None}) == answer  # from the stream: it is said once
    with pytest.raises(Unusable, match="account: expected none, since routing names them, got 'a'"):
        await client.send_to_all(SIGNAL)


async def test_silence_is_no_outcome(desk: PlayedDesk, client: Client) -> None:
    desk.silent = True
    with pytest.raises(
        Ambiguous, match=r"signal s-1: no answer within 0.3 s. That is no outcome, it may still be trade"
    ):
        await client.send(SIGNAL, within_s=0.3)
    await desk.wake()
    assert isinstance(await client.send(SIGNAL), AcceptedMessage)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"signal_id": None}, "signal_id"),
        ({"symbol": None}, "symbol: expected a text, got None"),
        ({"symbol": "  "}, "symbol: expected a text"),
        ({"volume": float("nan")}, "the signal is no JSON"),
        ({"volume": object()}, "expected text, numbers, times and objects of them, got a object"),
        ({"valid_until": datetime(2026, 11, 20, 12, 0)}, "expected a time with an offset"),  # noqa: DTZ001
        ({"metadata": "x" * 2_000_000}, "NATS takes .* bytes at most"),
    ],
)
async def test_what_is_no_signal_is_not_sent(
    desk: PlayedDesk, client: Client, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Unusable, match=told):
        await client.send(SIGNAL | changes)
    assert desk.heard == []


async def test_a_nats_without_our_streams_is_told_of(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        async with streamapp.client(spec.address) as client:
            with pytest.raises(Transient, match=r"no stream keeps signals.approved: run `streamapp init`"):
                await client.send(SIGNAL, within_s=0.5)
            with pytest.raises(ConfigurationError, match=r"stream not found. Run `streamapp init`"):
                await anext(client.orders())


async def test_a_server_that_comes_back_has_the_signal_once_and_the_orders_go_on(tmp_path: Path) -> None:
    spec = own_nats(tmp_path)
    settings = Settings(nats=NatsSettings(url=spec.address))
    with running(spec, tmp_path):
        nats = await connect(settings, "desk")
        await ensure(nats.jetstream(), settings, create=True)
        desk = PlayedDesk(nats)
        await desk.listen()
        following = streamapp.client(spec.address)
        client = await following.__aenter__()
        orders = client.orders()
        first = asyncio.ensure_future(anext(orders))
        await followed(desk, subjects.EXECUTION_OUT)
        await desk.say("orders.filled.EURUSD", "order-1", order_id="o-1", rev=1)
        assert (await first).order_id == "o-1"
    sending = asyncio.ensure_future(client.send(SIGNAL, within_s=60))
    following_on = asyncio.ensure_future(anext(orders))
    with running(spec, tmp_path):
        assert isinstance(await sending, AcceptedMessage)
        await desk.say("orders.filled.EURUSD", "order-1", order_id="o-2", rev=1)
        assert (await following_on).order_id == "o-2"
        assert len(desk.heard) == 1
        await orders.aclose()
        await following.__aexit__(None, None, None)
        await nats.close()


# --- what happens


async def followed(desk: PlayedDesk, stream: StreamSpec) -> None:
    """Return when somebody follows the stream beside those who do so from the beginning: mirror and the desk."""
    own = {subjects.EXECUTION_IN: 2}.get(stream, 0)

    async def is_followed() -> bool:
        return (await desk.js.stream_info(stream.name)).state.consumer_count > own

    await eventually(is_followed, "somebody follows it")


async def test_each_revision_of_an_order_comes_once_and_none_that_is_older(desk: PlayedDesk, client: Client) -> None:
    seen: list[tuple[str, int]] = []
    async with aclosing(client.orders(symbol="EURUSD")) as orders:
        first = asyncio.ensure_future(anext(orders))
        await followed(desk, subjects.EXECUTION_OUT)
        for order_id, rev in (("o-1", 1), ("o-1", 3), ("o-1", 2), ("o-1", 3), ("o-2", 1), ("o-1", 4)):
            await desk.say("orders.filled.EURUSD", "order-1", order_id=order_id, rev=rev)
        await desk.say("orders.filled.GBPUSD", "order-1", order_id="o-3", rev=1)
        await desk.say("orders.filled.EURUSD", "order-1", order_id="last", rev=1)
        order = await first
        while order.order_id != "last":
            seen.append((order.order_id, order.rev))
            order = await anext(orders)
    assert seen == [("o-1", 1), ("o-1", 3), ("o-2", 1), ("o-1", 4)]


async def test_a_position_goes_on_behind_what_was_done_and_repeats_what_was_not(
    desk: PlayedDesk, client: Client
) -> None:
    async with aclosing(client.fills("bot")) as fills:
        first = asyncio.ensure_future(anext(fills))
        await followed(desk, subjects.EXECUTION_IN)
        for deal in (1, 2, 3):
            await desk.say("broker.fill.EURUSD", "fill-1", deal=deal)
        await desk.js.publish("broker.fill.EURUSD", b'{"somebody": "else"}')
        await desk.say("broker.fill.EURUSD", "fill-1", deal=4)
        assert (await first).deal == 1
        assert (await anext(fills)).deal == 2  # which says that 1 is done
    async with aclosing(client.fills("bot")) as fills:
        assert [(await anext(fills)).deal for _ in range(3)] == [2, 3, 4]
    with pytest.raises(ConfigurationError, match="client-fills-bot was begun with another symbol: choose another name"):
        await anext(client.fills("bot", symbol="EURUSD"))


async def test_a_message_of_a_later_version_is_an_error_and_not_left_out(desk: PlayedDesk, client: Client) -> None:
    async with aclosing(client.orders()) as orders:
        first = asyncio.ensure_future(anext(orders))
        await followed(desk, subjects.EXECUTION_OUT)
        await desk.say("orders.filled.EURUSD", "order-1", schema="order/2")
        with pytest.raises(ConfigurationError, match="install the version that the trading worker has"):
            await first


async def test_a_program_without_an_event_loop_does_the_same(desk: PlayedDesk, nats_of_this_module: str) -> None:
    def program() -> str | None:
        with streamapp.sync_client(nats_of_this_module) as client:
            with pytest.raises(Unusable, match="unknown_command: expected one of"):
                client.command("order.frobnicate")  # type: ignore[arg-type]
            with pytest.raises(Ambiguous, match=r"no answer within 0.2 s. It may still be carried out"):
                client.command("account.halt", account="a", within_s=0.2)
            answer = client.send(SIGNAL)
            assert isinstance(answer, AcceptedMessage)
            asyncio.run_coroutine_threadsafe(say_one(), loop)
            for order in client.orders():
                return order.order_id
        return None

    async def say_one() -> None:
        await followed(desk, subjects.EXECUTION_OUT)
        await desk.say("orders.filled.EURUSD", "order-1", order_id="o-7", rev=1)

    loop = asyncio.get_running_loop()
    assert await asyncio.to_thread(program) == "o-7"


def test_no_server_is_one_sentence() -> None:
    with pytest.raises(Transient, match="NATS"), streamapp.sync_client("nats://127.0.0.1:1", wait_s=0.2):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"nats.user_name: Extra inputs are not permitted"),
        streamapp.sync_client("nats://127.0.0.1:1", user_name="x"),
    ):
        pass
