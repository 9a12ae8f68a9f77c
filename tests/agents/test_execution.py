from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from agents.execution import Execution
from agents.incoming import ACCOUNT, COMPLETED
from agents.rows import RowGate
from streamapp import topics
from streamapp.domain.facts import OrderCreated
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.errors import Ambiguous, Transient
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.command import SubmitOrder, decode_command
from streamapp.messages.decision import DecisionMessage, RefusedMessage
from streamapp.messages.fact import FactMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, ExecutionSettings, Settings
from tables.durable import DurableTable
from tables.memory import MemoryChangelog, memory_table
from tables.signals import SignalRow, signal_key
from tests.agents.records import NOW, FakeClock, event

SETTINGS = Settings(accounts={"a": AccountSettings(login=1), "b": AccountSettings(login=2)})

ELSEWHERE = next(name for name in "bcdefgh" if partition_of(name, 8) != partition_of("a", 8))


def payload(**changes: Any) -> bytes:
    fields = {"signal_id": "s-1", "status": "approved", "account": "a", "symbol": "EURUSD", "side": "buy"}
    return json.dumps(fields | {"order_type": "market", "volume": "0.10"} | changes).encode()


@dataclass
class House:
    """The agent with everything around it."""

    execution: Execution
    table: DurableTable[SignalRow]
    log: MemoryChangelog
    producer: MemoryProducer
    clock: FakeClock

    def decisions(self) -> list[DecisionMessage]:
        values = [record.value for record in self.producer.on(topics.UPDATES)]
        return [DecisionMessage.decode(value) for value in values if b'"signal/1"' in value]

    def refusals(self) -> list[RefusedMessage]:
        records = [record for record in self.producer.on(topics.UPDATES) if topics.PUBLISH_ID in record.headers]
        return [RefusedMessage.decode(record.value) for record in records]

    def facts(self) -> list[FactMessage]:
        return [FactMessage.decode(record.value) for record in self.producer.on(topics.ARCHIVE)]

    def commands(self) -> list[SubmitOrder]:
        commands = [decode_command(record.value) for record in self.producer.on(topics.ORDER_COMMANDS)]
        return [command for command in commands if isinstance(command, SubmitOrder)]


def house_with(settings: Settings = SETTINGS, **options: Any) -> House:
    table, log = memory_table("signals", SignalRow, partitions=8)
    log.event_partition = partition_of("a", 8)
    producer, clock = MemoryProducer(), FakeClock()
    if rows := options.pop("rows", None):
        options["gate"] = RowGate(rows, clock)
    return House(Execution(table, producer, settings, clock, TradingMetrics(), **options), table, log, producer, clock)


@pytest.fixture
async def house() -> House:
    return house_with()


async def test_an_approved_signal_becomes_a_decision_a_fact_and_a_command_in_that_order(house: House) -> None:
    await house.execution.handle([event(payload(strategy="x", expected_price="1.085"), sequence=7)])
    order_id = order_id_for("streamapp", "a", "s-1")
    row = house.table.confirmed(signal_key("a", "s-1"), partition=house.log.event_partition)
    assert row is not None
    assert (row.verdict.decision, row.order_id, row.stream_seq) == ("accepted", order_id, 7)
    [fact], [command], [decision] = house.facts(), house.commands(), house.decisions()
    assert isinstance(fact.body, OrderCreated)
    assert fact.body.executor == "streamapp"
    assert command.not_after == fact.body.not_after == NOW + timedelta(seconds=30)
    assert command.order_id == fact.order_id == decision.order_id == order_id
    assert [r.topic for r in house.producer.records] == [topics.ARCHIVE, topics.ORDER_COMMANDS, topics.UPDATES]
    assert {r.partition for r in house.producer.records} == {house.log.event_partition}


async def test_a_redelivered_signal_repeats_its_decision_whatever_the_clock_and_the_settings_say(house: House) -> None:
    await house.execution.handle([event(payload(), sequence=7)])
    said = list(house.producer.records)
    house.producer.records.clear()
    later = FakeClock(NOW + timedelta(days=1))
    other = Settings(accounts={"c": AccountSettings(login=3)}, execution=ExecutionSettings(signal_ttl_s=1))
    again = Execution(house.table, house.producer, other, later, TradingMetrics())
    await again.handle([event(payload(), sequence=7)])
    assert house.producer.records == said
    assert len(house.log.appended) == 2


async def test_the_same_signal_in_another_message_is_a_duplicate_and_sends_nothing(house: House) -> None:
    await house.execution.handle([event(payload(), sequence=7), event(payload(volume="0.1"), sequence=8)])
    await house.execution.handle([event(payload(status="pending"), sequence=9, at=NOW + timedelta(hours=1))])
    first, second, third = house.decisions()
    assert [first.decision, second.decision, third.decision] == ["accepted", "duplicate", "duplicate"]
    assert second.order_id == third.order_id == first.order_id
    assert third.at == NOW + timedelta(hours=1)
    assert (len(house.facts()), len(house.commands()), house.refusals()) == (1, 1, [])


async def test_other_parameters_under_the_same_id_are_a_conflict_and_the_order_stands(house: House) -> None:
    await house.execution.handle([event(payload(), sequence=7)])
    await house.execution.handle([event(payload(volume="0.2"), sequence=8), event(payload(volume="NaN"), sequence=9)])
    assert [d.decision for d in house.decisions()] == ["accepted", "conflict", "conflict"]
    assert [(r.reason, r.order_id) for r in house.refusals()] == [("conflict", house.decisions()[0].order_id)] * 2
    assert len(house.commands()) == 1


async def test_a_refused_signal_stays_refused(house: House) -> None:
    await house.execution.handle([event(payload(status="pending"), sequence=1)])
    await house.execution.handle([event(payload(), sequence=2), event(payload(volume="1"), sequence=3)])
    assert [(d.decision, d.reason) for d in house.decisions()] == [
        ("refused", "not_approved"),
        ("duplicate", "not_approved"),
        ("conflict", "conflict"),
    ]
    assert house.commands() == []


async def test_the_same_id_on_another_account_is_another_signal(house: House) -> None:
    await house.execution.handle([event(payload(), sequence=1)])
    house.log.event_partition = partition_of("b", 8)
    await house.execution.handle([event(payload(account="b"), account="b", sequence=2)])
    assert len({command.order_id for command in house.commands()}) == 2


BAD: dict[str, list[Any]] = {
    "volume": ["NaN", "Infinity", "-1", "0", "1e400", [], True, None, "1e-11"],
    "side": ["long", None, 1],
    "symbol": ["", None, 5, "x" * 65, {"a": 1}],
    "order_type": ["stop_limit", "limit", None],
    "approved_at": ["0001-01-01T00:00:00+14:00", "yesterday", "2026-11-20T12:00:00", 1e30],
    "metadata": [5, json.loads('{"a":' * 300 + "1" + "}" * 300)],
    "stop_loss": ["-1", "x"],
    "expiration": ["2026-11-20T12:00:00Z"],
    "account": [5, "", "q" * 200, {"x": 1}],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
async def test_a_bad_field_is_refused_and_the_next_good_signal_passes(house: House, field: str, value: Any) -> None:
    account = (value if isinstance(value, str) else str(value)[:128]) if field == "account" else "a"
    house.log.event_partition = partition_of(account, 8)
    bad = event(payload(**{"signal_id": "bad", field: value}), account=account, sequence=1)
    await house.execution.handle([bad])
    house.log.event_partition = partition_of("a", 8)
    await house.execution.handle([event(payload(), sequence=2)])
    first, second = house.decisions()
    assert (first.decision, first.reason, second.decision) == ("refused", "bad_field", "accepted")
    assert [refused.signal_id for refused in house.refusals()] == ["bad"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"5", "not_an_object"),
        (payload(signal_id="a b"), "no_signal_id"),
        (payload(account=None), "no_account"),
        (payload(account=ELSEWHERE), "wrong_key"),
    ],
)
async def test_what_names_no_signal_of_this_partition_is_a_dead_letter(house: House, value: bytes, reason: str) -> None:
    await house.execution.handle([event(value), event(payload(), sequence=2)])
    [letter] = house.producer.on(topics.DEAD_LETTERS)
    assert letter.headers["reason"] == reason.encode()
    assert [d.decision for d in house.decisions()] == ["accepted"]


async def test_a_pinned_account_and_completed_fields_count_where_the_payload_says_nothing(house: House) -> None:
    found = {"symbol": "EURUSD", "side": "sell", "order_type": "market", "volume": "1", "status": "approved"}
    headers = {ACCOUNT: b"a", COMPLETED: json.dumps(found).encode()}
    await house.execution.handle([event(b'{"signal_id": "s-1", "volume": "2"}', sequence=1, headers=headers)])
    [command] = house.commands()
    assert (command.account, command.parameters.side, str(command.parameters.volume)) == ("a", "sell", "2")


async def test_in_role_execution_the_order_is_a_foreign_connectors() -> None:
    house = house_with(Settings(accounts={"a": AccountSettings(login=1)}, role="execution"))
    await house.execution.handle([event(payload(), sequence=1)])
    assert [command.executor for command in house.commands()] == ["foreign"]


async def test_a_halted_account_opens_nothing() -> None:
    house = house_with(halted=lambda account: "overfilled" if account == "a" else None)
    await house.execution.handle([event(payload(), sequence=1)])
    assert [(d.decision, d.reason, d.detail) for d in house.decisions()] == [("refused", "halted", "overfilled")]


async def test_nothing_is_said_before_the_decision_is_durable(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tables.durable.ACK_TIMEOUT_S", 0.01)
    house.log.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.execution.handle([event(payload(), sequence=1)])
    assert house.producer.records == []


class Rows:
    """trading_signals with an outcome for each question."""

    def __init__(self, *outcomes: dict[str, Any] | None) -> None:
        self.outcomes = list(outcomes)

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome is not None and "down" in outcome:
            raise Transient("no answer")
        return outcome


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([{"status": "approved"}], ("accepted", None)),
        ([None, {"status": "approved"}], ("accepted", None)),
        ([{"down": True}, {"status": "pending"}, {"status": "approved"}], ("accepted", None)),
    ],
)
async def test_a_required_row_may_come_a_little_later(
    outcomes: list[dict[str, Any] | None], expected: tuple[str, str | None]
) -> None:
    house = house_with(rows=Rows(*outcomes))
    await house.execution.handle([event(payload(), sequence=1)])
    assert [(d.decision, d.reason) for d in house.decisions()] == [expected]


@pytest.mark.parametrize(
    ("outcome", "reason"), [(None, "no_row"), ({"down": True}, "row_unavailable"), ({"status": "new"}, "not_approved")]
)
async def test_without_its_required_row_a_signal_is_refused_in_the_end(
    outcome: dict[str, Any] | None, reason: str
) -> None:
    house = house_with(rows=Rows(outcome))
    deadline = NOW + timedelta(milliseconds=30)
    await house.execution.handle([event(payload(valid_until=deadline.isoformat()), sequence=1)])
    assert [(d.decision, d.reason) for d in house.decisions()] == [("refused", reason)]
