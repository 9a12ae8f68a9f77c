from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from agents.completion import Completion
from agents.incoming import ACCOUNT, COMPLETED, Incoming
from agents.readings import read
from streamapp import topics
from streamapp.domain.identifiers import partition_of
from streamapp.errors import Transient
from streamapp.kafka.memory import MemoryProducer
from streamapp.kafka.producer import Record
from streamapp.messages.decision import DecisionMessage, RefusedMessage
from streamapp.messages.error import ErrorMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, ExecutionSettings, Settings
from tables.memory import memory_table
from tables.pins import PinRow
from tests.agents.records import NOW, FakeClock, event

SIGNAL = {"signal_id": "s-1", "status": "approved", "symbol": "EURUSD", "side": "buy", "order_type": "market"}
WHOLE = SIGNAL | {"volume": "0.1"}
SUBJECT = {topics.NATS_SUBJECT: b"signals.approved.EURUSD"}


class Rows:
    """Both tables of ClickHouse, or a ClickHouse that is down."""

    def __init__(self, row: dict[str, Any] | None = None, *, down: bool = False) -> None:
        self.row, self.down = row, down

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        if self.down:
            raise Transient("no answer")
        return self.row

    async def order(self, order_id: str) -> dict[str, Any] | None:
        return await self.signal(order_id)


class House:
    def __init__(self, rows: Rows | None = None, *, routing: dict[str, str] | None = None, role: str = "both") -> None:
        table, log = memory_table("pins", PinRow, partitions=8)
        self.partition = log.event_partition = partition_of("s-1", 8)
        self.log, self.producer, self.clock = log, MemoryProducer(), FakeClock()
        self.settings = Settings(
            accounts={"a": AccountSettings(login=1)},
            execution=ExecutionSettings(routing=routing or {}),
            role=role,
        )
        self.agent = Completion(
            table, self.producer, self.settings, self.clock, TradingMetrics(), signals=rows, orders=rows
        )

    async def give(self, payload: dict[str, Any], subject: dict[str, bytes] | None = None, **options: Any) -> None:
        headers = SUBJECT if subject is None else subject
        record = event(
            json.dumps(payload).encode(), topic=topics.INCOMPLETE, account="s-1", sequence=5, headers=headers, **options
        )
        await self.agent.handle(record)

    def sent_on(self) -> Record:
        [record] = self.producer.on(topics.SIGNALS_APPROVED)
        return record


async def test_routing_gives_a_signal_its_account_without_asking_clickhouse() -> None:
    house = House(Rows(down=True), routing={"*/EURUSD": "a"})
    await house.give(WHOLE)
    record = house.sent_on()
    assert json.loads(record.value) == WHOLE
    assert (record.key, record.partition, record.headers[ACCOUNT]) == (b"a", partition_of("a", 8), b"a")
    assert COMPLETED not in record.headers
    assert record.headers[topics.NATS_SEQUENCE] == b"5"


async def test_a_pin_holds_whatever_routing_says_later() -> None:
    house = House(routing={"*/*": "a"})
    await house.give(WHOLE)
    house.agent._settings = House(routing={"*/*": "b"}).settings
    await house.give(WHOLE | {"strategy": "other"})
    assert [record.headers[ACCOUNT] for record in house.producer.on(topics.SIGNALS_APPROVED)] == [b"a", b"a"]


async def test_a_signal_with_only_its_id_is_completed_from_the_risk_engines_row_and_can_be_read() -> None:
    house = House(Rows(WHOLE | {"account": "a", "volume": "0.2"}))
    await house.give({"signal_id": "s-1", "volume": "0.3"})
    record = house.sent_on()
    assert json.loads(record.headers[COMPLETED])["side"] == "buy"
    arrived = event(record.value, account="a", headers=dict(record.headers))
    reading = read(Incoming.of(arrived), house.settings)
    assert reading.signal is not None
    assert (reading.account, str(reading.signal.volume), reading.signal.symbol) == ("a", "0.3", "EURUSD")


async def test_a_row_without_an_account_is_routed_by_what_it_says() -> None:
    house = House(Rows(WHOLE | {"strategy": "x"}), routing={"x/EURUSD": "a"})
    await house.give({"signal_id": "s-1"})
    assert house.sent_on().headers[ACCOUNT] == b"a"


@pytest.mark.parametrize("rows", [None, Rows(), Rows(down=True), Rows({"symbol": "EURUSD"})])
async def test_what_is_unresolved_at_its_deadline_is_refused_once_for_all(rows: Rows | None) -> None:
    house = House(rows)
    house.clock.now = NOW + timedelta(seconds=30)
    await house.give(SIGNAL)
    await house.give(SIGNAL)
    updates = house.producer.on(topics.UPDATES)
    assert updates[:2] == updates[2:]
    decision, refused = DecisionMessage.decode(updates[0].value), RefusedMessage.decode(updates[1].value)
    assert (decision.decision, decision.reason, decision.account, decision.stream_seq) == (
        "refused",
        "unresolved",
        "",
        5,
    )
    assert (refused.reason, refused.symbol) == ("unresolved", "EURUSD")
    assert updates[1].headers[topics.PUBLISH_SUBJECT] == b"signals.refused.EURUSD"
    assert house.producer.on(topics.SIGNALS_APPROVED) == []


async def test_before_its_deadline_it_goes_to_the_end_of_the_topic_with_its_place_in_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.completion.LOOK_S", 0.0)
    house = House(Rows(down=True))
    await house.give(SIGNAL)
    [record] = house.producer.on(topics.INCOMPLETE)
    assert json.loads(record.value) == SIGNAL
    assert (record.partition, record.headers[topics.NATS_SEQUENCE]) == (house.partition, b"5")
    assert Incoming.of(event(record.value, headers=dict(record.headers))).at == NOW
    assert house.log.appended == []


async def test_a_foreign_order_that_stays_unresolved_is_a_dead_letter_and_an_error() -> None:
    house = House(Rows(), role="connector")
    house.clock.now = NOW + timedelta(seconds=30)
    await house.give({"order_id": "s-1"}, subject={})
    [letter], [update] = house.producer.on(topics.DEAD_LETTERS), house.producer.on(topics.UPDATES)
    error = ErrorMessage.decode(update.value)
    assert letter.headers["reason"] == b"unresolved"
    assert (error.order_id, error.kind, error.final) == ("s-1", "invalid", True)


async def test_a_foreign_order_with_only_its_id_goes_to_intake_completed() -> None:
    house = House(Rows({"account": "a", "symbol": "EURUSD", "side": "buy", "order_type": "market", "volume": "1"}))
    await house.give({"order_id": "s-1"}, subject={topics.NATS_SUBJECT: b"orders.submitted.EURUSD"})
    [record] = house.producer.on(topics.ORDERS_SUBMITTED)
    assert json.loads(record.headers[COMPLETED])["volume"] == "1"


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"signal_id": 5}', b'{"signal_id": "a b"}'])
async def test_what_has_no_id_is_a_dead_letter(payload: bytes) -> None:
    house = House()
    await house.agent.handle(event(payload, topic=topics.INCOMPLETE, account="s-1"))
    assert len(house.producer.on(topics.DEAD_LETTERS)) == 1
