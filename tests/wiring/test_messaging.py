"""The contract of the Terminals port, held by the fake and by the client over a real NATS."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import nats
import pytest

from streamapp import subjects
from streamapp.desk.effects import Terminals
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.messages.envelope import Message
from streamapp.messages.operation import (
    OPERATIONS,
    CancelRequest,
    OperationReply,
    ProtectRequest,
    ResumeReply,
    ResumeRequest,
)
from streamapp.messages.terminal import AckRequest, ReplayReply, ReplayRequest, SubmitReply, SubmitRequest
from streamapp.wiring.messaging import NatsTerminals
from tests.kit.records import NOW, FakeClock
from tests.kit.terminals import ScriptedTerminals

PARAMETERS = OrderParameters(symbol="EURUSD", side="buy", order_type="market", volume=Decimal(1))
SHORT_S = 0.2


@dataclass
class Line:
    """A port, the terminal at its other end, and the account it is for."""

    port: Terminals
    terminal: ScriptedTerminals
    account: str
    client: Any = None

    def request(self, order_id: str) -> SubmitRequest:
        return SubmitRequest(
            order_id=order_id,
            account=self.account,
            hash=parameters_hash(PARAMETERS),
            epoch="e1",
            not_after=NOW + timedelta(seconds=30),
            parameters=PARAMETERS,
        )


@pytest.fixture(params=["scripted", "nats"])
async def line(request: pytest.FixtureRequest) -> AsyncIterator[Line]:
    terminal = ScriptedTerminals(FakeClock())
    account = f"über {uuid.uuid4().hex}"
    if request.param == "scripted":
        yield Line(terminal, terminal, account)
        return
    client = await nats.connect(request.getfixturevalue("nats_url"))

    def answer(operation: str, ask: Callable[[bytes], Awaitable[Message | None]]) -> Awaitable[Any]:
        async def respond(message: Any) -> None:
            if (reply := await ask(message.data)) is not None:
                await message.respond(reply.encode())

        return client.subscribe(subjects.terminal(account, operation), cb=respond)

    await answer("hello", lambda _: terminal.hello(account, timeout_s=1))
    await answer("submit", lambda data: terminal.submit(SubmitRequest.decode(data), timeout_s=1))
    for operation, model in OPERATIONS.items():
        await answer(operation, partial(operated, terminal, model))
    await answer("resume", partial(operated, terminal, ResumeRequest))
    await answer("ack", lambda data: terminal.ack(account, AckRequest.decode(data), timeout_s=1))
    await answer("replay", lambda data: terminal.replay(account, ReplayRequest.decode(data), timeout_s=1))
    await client.flush()
    yield Line(NatsTerminals(client), terminal, account, client)
    await client.close()


async def operated(terminal: ScriptedTerminals, model: Any, data: bytes) -> Message | None:
    """Answer as a real terminal does, with what the scripted one answered."""
    request = model.decode(data)
    if (answer := await terminal.operate(request, timeout_s=1)) is None:
        return None
    if isinstance(request, ResumeRequest):
        return ResumeReply(account=request.account, clock=NOW)
    return OperationReply(
        request_id=request.request_id, account=request.account, **answer._asdict(), epoch="e1", clock=NOW
    )


async def test_a_hello_says_who_the_terminal_is(line: Line) -> None:
    reply = await line.port.hello(line.account, timeout_s=5)
    assert reply is not None
    assert (reply.epoch, reply.account, reply.clock) == ("e1", line.account, NOW)


async def test_a_submit_is_answered_from_the_journal_however_often_it_comes(line: Line) -> None:
    first = await line.port.submit(line.request("o-1"), timeout_s=5)
    second = await line.port.submit(line.request("o-1"), timeout_s=5)
    assert first == second
    assert first is not None
    assert (first.state, len(line.terminal.rows)) == ("recorded", 1)


async def test_levels_of_a_position_reach_the_terminal_and_its_answer_us(line: Line) -> None:
    asked = ProtectRequest(
        request_id="r-1", account=line.account, not_after=NOW, position_id=7, stop_loss=Decimal("1.08")
    )
    reply = await line.port.operate(asked, timeout_s=5)
    assert (reply, line.terminal.protects) == (("done", ""), [asked])
    line.terminal.outcome = "rejected"
    assert await line.port.operate(asked, timeout_s=5) == ("rejected", "as told")
    line.terminal.silent = True
    assert await line.port.operate(asked, timeout_s=SHORT_S) is None


async def test_a_cancel_and_a_resume_reach_the_terminal(line: Line) -> None:
    cancel = CancelRequest(request_id="r-1", account=line.account, not_after=NOW, order_id="o-1")
    resume = ResumeRequest(request_id="r-2", account=line.account, issued_by="ops")
    for asked in (cancel, resume):
        assert await line.port.operate(asked, timeout_s=5) == ("done", "")
    assert line.terminal.operations == [cancel, resume]


async def test_a_watermark_and_a_replay_reach_the_terminal(line: Line) -> None:
    line.terminal.last_seq = 7
    told = await line.port.ack(line.account, AckRequest(epoch="e1", watermark=3), timeout_s=5)
    assert told is not None
    assert (told.released_seq, told.last_seq) == (3, 7)
    asked = ReplayRequest(epoch="e1", after_seq=3, replay_id="r")
    replayed = await line.port.replay(line.account, asked, timeout_s=5)
    assert replayed is not None
    assert (replayed.published, line.terminal.replays) == (4, [asked])


async def test_a_silent_terminal_is_none_and_not_an_error(line: Line) -> None:
    line.terminal.silent = True
    assert await line.port.hello(line.account, timeout_s=SHORT_S) is None
    assert await line.port.submit(line.request("o-1"), timeout_s=SHORT_S) is None
    assert await line.port.ack(line.account, AckRequest(epoch="e1", watermark=1), timeout_s=SHORT_S) is None
    asked = ReplayRequest(epoch="e1", after_seq=0, replay_id="r")
    assert await line.port.replay(line.account, asked, timeout_s=SHORT_S) is None


@pytest.mark.parametrize(
    "answer",
    [b"", b"{", b'{"error": "broken"}', SubmitReply(state=None, epoch="e", clock=NOW, error="locked").encode()],
)
async def test_an_answer_that_says_nothing_is_silence(nats_url: str, answer: bytes) -> None:
    client, line = await nats.connect(nats_url), f"a{uuid.uuid4().hex}"

    async def respond(message: Any) -> None:
        await message.respond(answer)

    await client.subscribe(subjects.terminal(line, "submit"), cb=respond)
    await client.flush()
    request = Line(NatsTerminals(client), ScriptedTerminals(FakeClock()), line).request("o-1")
    assert await NatsTerminals(client).submit(request, timeout_s=5) is None
    await client.close()


async def test_a_terminal_that_can_t_replay_is_silent(nats_url: str) -> None:
    client, account = await nats.connect(nats_url), f"a{uuid.uuid4().hex}"

    async def respond(message: Any) -> None:
        await message.respond(ReplayReply(epoch="e", published=0, error="locked").encode())

    await client.subscribe(subjects.terminal(account, "replay"), cb=respond)
    await client.flush()
    asked = ReplayRequest(epoch="e", after_seq=0, replay_id="r")
    assert await NatsTerminals(client).replay(account, asked, timeout_s=5) is None
    await client.close()


async def test_a_lost_connection_is_silence(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    await client.close()
    assert await NatsTerminals(client).hello("a", timeout_s=SHORT_S) is None
