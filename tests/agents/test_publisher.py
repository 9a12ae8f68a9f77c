"""The publisher: in order within an account, for as long as it takes, and never after not_after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.publisher import Publisher
from streamapp import subjects, topics
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Transient, Unusable
from streamapp.kafka.memory import MemoryProducer
from streamapp.metrics import SinkMetrics
from streamapp.nats.outlet import Outlet
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Role, Settings
from tests.agents.records import NOW, FakeClock, event
from tests.nats.servers import own_nats, running


class FakeOutlet:
    """Remembers what was stored; ``away`` makes it fail, ``refuses`` names subjects that are never stored."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bytes, dict[str, str]]] = []
        self.away: set[str] = set()
        self.refuses: set[str] = set()
        self.tried = asyncio.Event()

    async def publish(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        await asyncio.sleep(0)
        self.tried.set()
        if subject in self.refuses:
            raise Unusable("too_long", "NATS takes 3 bytes")
        if self.away & {subject, "*"}:
            raise Transient("NATS: not connected")
        self.said.append((subject, payload, dict(headers)))


class Bench:
    def __init__(self, role: Role = "both") -> None:
        self.outlet, self.producer, self.clock, self.metrics = (
            FakeOutlet(),
            MemoryProducer(),
            FakeClock(),
            SinkMetrics(),
        )
        self.publisher = Publisher(
            self.outlet, Settings(role=role), producer=self.producer, clock=self.clock, metrics=self.metrics
        )

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _, _ in self.outlet.said]


def update(subject: str, payload: bytes = b"{}", *, account: str = "a", said_id: str = "streamapp:order:o-1:1") -> Any:
    headers = {
        topics.PUBLISH_SUBJECT: subject.encode(),
        topics.PUBLISH_ID: said_id.encode(),
        "traceparent": b"00-1-2-01",
    }
    return event(payload, account=account, topic=topics.UPDATES, headers=headers)


async def test_an_update_is_said_untouched_with_its_id_and_who_we_are() -> None:
    bench = Bench()
    await bench.publisher.publish([update("orders.filled.EURUSD", b'{"schema": "order/1"}')])
    assert bench.outlet.said == [
        (
            "orders.filled.EURUSD",
            b'{"schema": "order/1"}',
            {
                "Nats-Msg-Id": "streamapp:order:o-1:1",
                "Streamapp-Origin": "streamapp/both",
                "Content-Type": "application/json",
                "traceparent": "00-1-2-01",
            },
        )
    ]
    assert 'streamapp_published_total{schema="order"} 1.0' in bench.metrics.text()


async def test_an_update_without_a_subject_is_not_said() -> None:
    bench = Bench()
    await bench.publisher.publish([event(b"{}", topic=topics.UPDATES)])
    assert bench.outlet.said == []


async def test_what_waits_holds_back_its_account_and_no_other() -> None:
    bench = Bench()
    bench.outlet.away = {"orders.submitted.X"}
    work = asyncio.create_task(
        bench.publisher.publish(
            [
                update("orders.pending.X"),
                update("orders.submitted.X"),
                update("orders.filled.X"),
                update("orders.pending.Y", account="b"),
                update("orders.filled.Y", account="b"),
            ]
        )
    )
    async with asyncio.timeout(5):
        while len(bench.outlet.said) < 3 or not bench.publisher.troubles:
            bench.outlet.tried.clear()
            await bench.outlet.tried.wait()
    assert bench.subjects == ["orders.pending.X", "orders.pending.Y", "orders.filled.Y"]
    assert bench.publisher.troubles == ("NATS: not connected",)
    bench.outlet.away = set()
    await work
    assert bench.subjects[3:] == ["orders.submitted.X", "orders.filled.X"]
    assert not bench.publisher.troubles


async def test_what_nats_will_never_take_is_a_dead_letter_and_the_next_is_said() -> None:
    bench = Bench()
    bench.outlet.refuses = {"orders.pending.X"}
    await bench.publisher.publish([update("orders.pending.X", b"long"), update("orders.filled.X")])
    assert bench.subjects == ["orders.filled.X"]
    [letter] = bench.producer.on(topics.DEAD_LETTERS)
    assert (letter.value, letter.headers["reason"], letter.key) == (b"long", b"too_long", b"a")


@pytest.mark.parametrize("said_id", ["", "a b", "\n"])
async def test_an_update_that_can_t_have_an_id_is_a_dead_letter(said_id: str) -> None:
    bench = Bench()
    await bench.publisher.publish([update("orders.filled.X", said_id=said_id)])
    assert [letter.headers["reason"] for letter in bench.producer.on(topics.DEAD_LETTERS)] == [b"bad_header"]


@pytest.mark.parametrize(
    ("role", "said"),
    [
        ("both", ["orders.filled.X", "broker.fill.X", "broker.error.X", "accounts.a"]),
        ("execution", ["orders.filled.X", "broker.error.X", "accounts.a"]),
        ("connector", ["broker.fill.X", "broker.error.X"]),
    ],
)
async def test_each_role_says_what_is_its_to_say(role: Role, said: list[str]) -> None:
    bench = Bench(role)
    everything = ["orders.filled.X", "broker.fill.X", "broker.error.X", "accounts.a"]
    await bench.publisher.publish([update(subject) for subject in everything])
    assert bench.subjects == said


def asking(until_s: float) -> bytes:
    return json.dumps({"not_after": time_text(NOW + timedelta(seconds=until_s))}).encode()


async def test_somebody_else_s_connector_is_never_asked_after_not_after() -> None:
    bench = Bench("execution")
    await bench.publisher.publish(
        [update("orders.submitted.X", asking(-1)), update("orders.submitted.X", asking(0)), update("orders.filled.X")]
    )
    assert bench.subjects == ["orders.filled.X"]
    assert 'left_out_total{reason="not_after"} 2.0' in bench.metrics.text()
    await bench.publisher.publish([update("orders.submitted.X", asking(1))])
    assert bench.subjects[-1] == "orders.submitted.X"


async def test_asking_is_given_up_when_not_after_passes_while_nats_is_away() -> None:
    bench = Bench("execution")
    bench.outlet.away = {"*"}
    work = asyncio.create_task(bench.publisher.publish([update("orders.submitted.X", asking(30))]))
    async with asyncio.timeout(5):
        await bench.outlet.tried.wait()
        bench.clock.now = NOW + timedelta(seconds=30)
        await work
    assert bench.outlet.said == []


async def test_what_asks_for_an_execution_without_a_deadline_is_a_dead_letter() -> None:
    bench = Bench("execution")
    await bench.publisher.publish(
        [update("orders.submitted.X", payload) for payload in (b"{}", b"[]", b'{"not_after": 7}')]
    )
    assert len(bench.producer.on(topics.DEAD_LETTERS)) == 3
    assert bench.outlet.said == []


@pytest.fixture
async def settings(tmp_path: Path) -> AsyncIterator[Settings]:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        yield Settings(nats=NatsSettings(url=spec.address, publish_timeout_s=1.0))


async def test_the_real_outlet_stores_once_by_id_and_tells_never_from_not_now(settings: Settings) -> None:
    outlet = Outlet(settings, "test")
    with pytest.raises(Transient, match="connecting"):
        await outlet.publish("orders.filled.X", b"{}", {})
    await outlet.keep()
    assert outlet._client is not None
    js = outlet._client.jetstream()
    with pytest.raises(Transient, match="no stream keeps"):
        await outlet.publish("orders.filled.X", b"{}", {})
    await ensure(js, settings, create=True)
    for _ in range(3):
        await outlet.publish("orders.filled.X", b"{}", {subjects.MESSAGE_ID_HEADER: "d:order:o-1:1"})
    assert (await js.stream_info("EXECUTION_OUT")).state.messages == 1
    with pytest.raises(Unusable, match="too_long"):
        await outlet.publish("orders.filled.X", b"x" * 1_100_000, {})
    with pytest.raises(Unusable, match="bad_subject"):
        await outlet.publish("orders.filled. X", b"{}", {})
    await js.update_stream((await js.stream_info("EXECUTION_OUT")).config.evolve(max_msg_size=100))
    with pytest.raises(Unusable, match="too_long"):
        await outlet.publish("orders.filled.X", b"x" * 1000, {})
    assert outlet.reasons == []
    await outlet.close()
