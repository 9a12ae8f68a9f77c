from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from agents.incoming import ACCOUNT, COMPLETED
from agents.intake import Intake
from streamapp import topics
from streamapp.domain.facts import OrderCreated
from streamapp.domain.identifiers import partition_of
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.command import SubmitOrder, decode_command
from streamapp.messages.error import ErrorMessage
from streamapp.messages.fact import FactMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, Settings
from tables.memory import memory_table
from tables.signals import SignalRow
from tests.agents.records import NOW, FakeClock, event
from tests.messages.golden import golden

SETTINGS = Settings(accounts={"a": AccountSettings(login=1)}, role="connector", deployment="ours")


def order(**changes: Any) -> bytes:
    fields = {"order_id": "x-1", "account": "a", "symbol": "EURUSD", "side": "sell", "order_type": "market"}
    return json.dumps(fields | {"volume": "0.1", "executor": "foreign", "status": "submitted"} | changes).encode()


class House:
    def __init__(self) -> None:
        self.table, self.log = memory_table("signals", SignalRow, partitions=8)
        self.log.event_partition = partition_of("a", 8)
        self.producer, self.clock = MemoryProducer(), FakeClock()
        self.agent = Intake(self.table, self.producer, SETTINGS, self.clock, TradingMetrics())

    async def give(self, *payloads: bytes, sequence: int = 1, **options: Any) -> None:
        events = [
            event(payload, topic=topics.ORDERS_SUBMITTED, sequence=sequence + number, **options)
            for number, payload in enumerate(payloads)
        ]
        await self.agent.handle(events)

    def commands(self) -> list[SubmitOrder]:
        commands = [decode_command(record.value) for record in self.producer.on(topics.ORDER_COMMANDS)]
        return [command for command in commands if isinstance(command, SubmitOrder)]

    def errors(self) -> list[ErrorMessage]:
        return [ErrorMessage.decode(record.value) for record in self.producer.on(topics.UPDATES)]


@pytest.fixture
async def house() -> House:
    return House()


async def test_a_foreign_order_keeps_its_id_and_becomes_ours_to_execute(house: House) -> None:
    not_after = NOW + timedelta(seconds=7)
    await house.give(order(signal_id="s-9", not_after=not_after.isoformat(), schema="order/1", rev=2))
    [command] = house.commands()
    assert (command.order_id, command.signal_id, command.executor, command.not_after) == (
        "x-1",
        "s-9",
        "ours",
        not_after,
    )
    [record] = house.producer.on(topics.ARCHIVE)
    fact = FactMessage.decode(record.value)
    assert isinstance(fact.body, OrderCreated)
    assert (fact.order_id, fact.body.executor, fact.body.signal_id) == ("x-1", "ours", "s-9")
    assert house.errors() == []


@pytest.mark.parametrize("given", golden("foreign-order"), ids=lambda given: str(given["order_id"]))
async def test_every_field_of_a_foreign_order_is_taken_over(house: House, given: dict[str, Any]) -> None:
    given = given | {"account": "a"}
    await house.give(json.dumps(given).encode())
    [record] = house.producer.on(topics.ARCHIVE)
    fact = FactMessage.decode(record.value)
    body = fact.model_dump(mode="json")["body"]
    adopted = body | body["parameters"] | {"order_id": fact.order_id, "account": fact.account, "executor": "foreign"}
    assert {name: adopted.get(name) for name in given} == given


async def test_a_redelivered_order_says_the_same_again(house: House) -> None:
    await house.give(order())
    said = list(house.producer.records)
    house.clock.now += timedelta(hours=1)
    await house.give(order())
    assert house.producer.records == said * 2


async def test_a_duplicate_says_nothing_and_a_conflict_an_error_that_ends_nothing(house: House) -> None:
    await house.give(order(), order(volume="0.10", rev=3), order(volume="2"))
    assert len(house.commands()) == 1
    assert [(error.kind, error.final) for error in house.errors()] == [("duplicate", False)]
    assert [record.headers["reason"] for record in house.producer.on(topics.DEAD_LETTERS)] == [b"conflict"]


@pytest.mark.parametrize("executor", ["theirs", 5, ["ours"]])
async def test_what_names_another_executor_is_none_of_our_business(house: House, executor: Any) -> None:
    await house.give(order(executor=executor))
    assert house.producer.records == []


@pytest.mark.parametrize("executor", [None, "foreign", "ours"])
async def test_an_order_for_us_or_for_anybody_is_ours(house: House, executor: str | None) -> None:
    await house.give(order(executor=executor))
    assert len(house.commands()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"order_type": "limit", "price": "1.08", "time_in_force": "day"},
        {"order_type": "stop", "price": "1.08"},
        {"order_type": "stop_limit", "side": "buy", "price": "1.08", "stop_limit_price": "1.07"},
    ],
)
async def test_an_order_of_every_type_is_taken_over_with_its_prices(house: House, changes: dict[str, Any]) -> None:
    await house.give(order(**changes))
    (command,) = house.commands()
    said = command.parameters.model_dump(mode="json")
    assert {name: said[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"volume": "NaN"}, b"bad_field"),
        ({"symbol": None}, b"bad_field"),
        ({"order_type": "limit"}, b"bad_field"),
        ({"not_after": (NOW - timedelta(seconds=1)).isoformat()}, b"stale"),
        ({"not_after": "0001-01-01T00:00:00+14:00"}, b"bad_field"),
    ],
)
async def test_an_order_nobody_can_use_is_a_dead_letter_and_a_final_error_and_stays_refused(
    house: House, changes: dict[str, Any], reason: bytes
) -> None:
    await house.give(order(**changes), order())
    letters = house.producer.on(topics.DEAD_LETTERS)
    assert [letter.headers["reason"] for letter in letters] == [reason, b"conflict"] or reason == b"stale"
    assert letters[0].headers["reason"] == reason
    first = house.errors()[0]
    assert (first.order_id, first.kind, first.final) == ("x-1", "invalid", True)
    assert house.commands() == []


@pytest.mark.parametrize("payload", [b"", b"5", order(order_id=None), order(order_id=["x"]), order(account=None)])
async def test_what_names_no_order_costs_nothing_but_itself(house: House, payload: bytes) -> None:
    await house.give(payload, order())
    assert len(house.producer.on(topics.DEAD_LETTERS)) == 1
    assert len(house.commands()) == 1


async def test_an_order_with_only_its_id_is_what_completion_found(house: House) -> None:
    found = json.loads(order()) | {"order_id": "x-1"}
    headers = {ACCOUNT: b"a", COMPLETED: json.dumps(found).encode()}
    await house.give(b'{"order_id": "x-1"}', headers=headers)
    assert [command.parameters.side for command in house.commands()] == ["sell"]


async def test_an_account_that_is_halted_takes_over_nothing(house: House) -> None:
    agent = Intake(
        house.table, house.producer, SETTINGS, house.clock, TradingMetrics(), halted=lambda account: f"{account}: why"
    )
    await agent.handle([event(order(), topic=topics.ORDERS_SUBMITTED, sequence=1)])
    assert house.commands() == []
    assert [record.headers["reason"] for record in house.producer.on(topics.DEAD_LETTERS)] == [b"halted"]
