from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from agents.breakers import Breakers
from agents.broker import Broker
from agents.checks import Checks
from agents.handover import Handover
from streamapp import topics
from streamapp.domain.facts import SubmitClaimed
from streamapp.domain.identifiers import partition_of
from streamapp.domain.parameters import OrderParameters, parameters_hash
from streamapp.errors import Ambiguous
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.command import CheckSubmission, SubmitOrder
from streamapp.messages.fact import FactMessage
from streamapp.metrics import TradingMetrics
from streamapp.settings import AccountSettings, Settings
from tables.durable import DurableTable
from tables.memory import MemoryChangelog, memory_table
from tables.submissions import SubmissionIndex, SubmissionRow, submission_key
from tests.agents.records import NOW, FakeClock, event
from tests.agents.terminals import ScriptedTerminals

SETTINGS = Settings(accounts={"a": AccountSettings(login=1)})
PARTITION = partition_of("a", 8)
PARAMETERS = OrderParameters(symbol="EURUSD", side="buy", order_type="market", volume=Decimal("0.1"))
NOT_AFTER = NOW + timedelta(seconds=30)


def submit(order_id: str = "o-1", not_after: datetime = NOT_AFTER) -> SubmitOrder:
    return SubmitOrder(
        order_id=order_id,
        account="a",
        signal_id=order_id,
        parameters=PARAMETERS,
        parameters_hash=parameters_hash(PARAMETERS),
        not_after=not_after,
        executor="streamapp",
    )


@dataclass
class House:
    """The broker agent with everything around it, and a Kafka that hands checks back to it."""

    agent: Broker | Handover
    checks: Checks
    table: DurableTable[SubmissionRow]
    log: MemoryChangelog
    producer: MemoryProducer
    clock: FakeClock
    terminals: ScriptedTerminals
    index: SubmissionIndex
    statuses: dict[str, str] = field(default_factory=dict)

    async def give(self, *commands: SubmitOrder | CheckSubmission) -> None:
        await self.agent.handle([event(command.encode(), topic=topics.ORDER_COMMANDS) for command in commands])

    async def tick(self) -> list[str]:
        """Let the timer pass once, and let the agent handle the checks it sent; return their orders."""
        before = len(self.producer.on(topics.ORDER_COMMANDS))
        await self.checks.tick()
        checks = self.producer.on(topics.ORDER_COMMANDS)[before:]
        commands = [CheckSubmission.decode(record.value) for record in checks]
        if commands:
            await self.give(*commands)
        return [command.order_id for command in commands]

    def later(self, seconds: float) -> None:
        self.clock.now += timedelta(seconds=seconds)

    def row(self, order_id: str = "o-1") -> SubmissionRow:
        row = self.table.confirmed(submission_key(order_id), partition=PARTITION)
        assert row is not None
        return row

    def said(self) -> list[tuple[str, str, Any]]:
        facts = [FactMessage.decode(record.value) for record in self.producer.on(topics.ARCHIVE)]
        return [
            (fact.order_id or "", fact.fact, getattr(fact.body, "why", None) or getattr(fact.body, "reason", None))
            for fact in facts
        ]


CLAIM = ("o-1", "SubmitClaimed", None)
SILENCE = ("o-1", "OutcomeUnknown", "no_answer")


def house_of(settings: Settings = SETTINGS) -> House:
    table, log = memory_table("submissions", SubmissionRow, partitions=8)
    log.event_partition = PARTITION
    index = SubmissionIndex()
    table.watch(index)
    log.recover()
    producer, clock, metrics = MemoryProducer(), FakeClock(), TradingMetrics()
    terminals = ScriptedTerminals(clock)
    breakers = Breakers(terminals, clock, deadline_s=2, max_skew_s=2, metrics=metrics)
    statuses: dict[str, str] = {}
    shared: dict[str, Any] = {
        "order_status": statuses.get,
        "settings": settings,
        "clock": clock,
        "metrics": metrics,
    }
    agent: Broker | Handover = Handover(table, producer, **shared)
    if settings.is_executor:
        agent = Broker(table, producer, terminals=terminals, breakers=breakers, **shared)
    asked = breakers if settings.is_executor else None
    checks = Checks(index, producer, breakers=asked, settings=settings, clock=clock, metrics=metrics)
    return House(agent, checks, table, log, producer, clock, terminals, index, statuses)


@pytest.fixture
async def house() -> House:
    return house_of()


async def test_an_order_is_claimed_said_submitted_once_and_recorded(house: House) -> None:
    await house.give(submit())
    row = house.row()
    assert (row.state, row.epoch, row.recorded_epoch, row.answer) == ("recorded", "e1", "e1", "recorded")
    assert house.said() == [CLAIM]
    [request] = house.terminals.submits
    assert (request.order_id, request.epoch, request.not_after) == ("o-1", "e1", NOT_AFTER)
    assert [SubmissionRow.model_validate_json(value).state for _, _, value in house.log.appended] == [
        "claimed",
        "recorded",
    ]


async def test_a_redelivered_command_of_a_recorded_order_only_says_the_claim_again(house: House) -> None:
    await house.give(submit())
    first = house.producer.on(topics.ARCHIVE)
    house.later(5)
    await house.give(submit())
    assert house.producer.on(topics.ARCHIVE) == [*first, *first]
    assert len(house.terminals.submits) == 1


async def test_the_terminal_is_not_called_before_the_claim_is_durable(house: House) -> None:
    house.log.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.give(submit())
    assert house.terminals.submits == []
    assert house.said() == []


async def test_the_terminal_is_not_called_before_the_claim_is_said(house: House) -> None:
    house.producer.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.give(submit())
    assert house.terminals.submits == []
    assert house.row().state == "claimed"


async def test_a_claimed_row_found_again_is_put_said_and_submitted_again(house: House) -> None:
    house.producer.refuse = Ambiguous("no answer")
    with pytest.raises(Ambiguous):
        await house.give(submit())
    house.producer.refuse = None
    house.later(1)
    await house.give(submit())
    assert house.said() == [CLAIM]
    assert [request.epoch for request in house.terminals.submits] == ["e1"]
    assert len([value for _, _, value in house.log.appended if b'"claimed"' in value[:20]]) == 2
    assert house.row().claimed_at == NOW


async def test_several_orders_are_claimed_together_and_submitted_in_order(house: House) -> None:
    await house.give(*(submit(f"o-{number}") for number in range(40)))
    assert [request.order_id for request in house.terminals.submits] == [f"o-{number}" for number in range(40)]
    assert {house.row(f"o-{number}").state for number in range(40)} == {"recorded"}


async def test_a_lost_answer_is_a_doubt_and_the_breaker_opens_until_a_hello_is_answered(house: House) -> None:
    house.terminals.deaf = {"o-1"}
    await house.give(submit())
    assert house.row().state == "claimed"
    assert house.said() == [CLAIM, SILENCE]
    await house.give(submit("o-2"))
    assert house.row("o-2").state == "held"
    assert len(house.terminals.submits) == 1
    house.later(4)
    assert await house.tick() == ["o-1", "o-2"]
    assert (house.row().state, house.row("o-2").state) == ("recorded", "recorded")
    assert len(house.terminals.rows) == 2


async def test_a_terminal_that_never_answered_gets_nothing_new(house: House) -> None:
    house.terminals.silent = True
    await house.give(submit())
    assert house.row().state == "held"
    assert house.said() == []
    assert await house.tick() == []
    house.terminals.silent = False
    assert await house.tick() == ["o-1"]
    assert house.row().state == "recorded"
    assert house.said() == [CLAIM]


async def test_a_held_order_is_refused_only_after_not_after_and_skew(house: House) -> None:
    house.terminals.silent = True
    await house.give(submit())
    house.later(31.9)
    assert await house.tick() == []
    house.later(0.2)
    assert await house.tick() == ["o-1"]
    assert house.row().state == "refused"
    assert house.said() == [("o-1", "SubmitRefused", "not_connected")]
    house.terminals.silent = False
    await house.give(submit())
    assert house.terminals.submits == []
    assert house.said() == [("o-1", "SubmitRefused", "not_connected")] * 2


async def test_a_held_order_past_not_after_is_not_claimed_though_the_terminal_is_back(house: House) -> None:
    house.terminals.silent = True
    await house.give(submit())
    house.later(30.5)
    house.terminals.silent = False
    assert await house.tick() == []
    house.later(2)
    assert await house.tick() == ["o-1"]
    assert house.row().state == "refused"
    assert house.terminals.submits == []


async def test_a_claimed_order_is_never_refused_by_the_agent_however_late_it_is(house: House) -> None:
    house.terminals.silent = True
    house.terminals.deaf = {"o-1"}
    house.terminals.silent = False
    await house.give(submit())
    house.terminals.silent = True
    house.later(3600)
    assert await house.tick() == []
    await house.give(submit())
    assert house.row().state == "claimed"
    assert {reason for _, kind, reason in house.said() if kind != "SubmitClaimed"} == {"no_answer"}


async def test_a_late_order_that_was_never_claimed_is_the_journals_to_refuse(house: House) -> None:
    house.later(100)
    await house.give(submit())
    assert (house.row().state, house.row().answer) == ("recorded", "refused")
    assert house.said() == [CLAIM]


@pytest.mark.parametrize("skew_s", [-3, 3])
async def test_a_terminal_whose_clock_is_off_gets_nothing_new(house: House, skew_s: float) -> None:
    house.terminals.wrong_clock = FakeClock(NOW + timedelta(seconds=skew_s))
    await house.give(submit())
    assert house.row().state == "held"
    house.terminals.wrong_clock = None
    assert await house.tick() == ["o-1"]
    assert house.row().state == "recorded"


async def test_a_lost_journal_turns_what_it_held_into_doubts_under_the_old_epoch(house: House) -> None:
    await house.give(submit("o-1"), submit("o-2"))
    house.statuses |= {"o-1": "submitted", "o-2": "filled"}
    house.terminals.rows.clear()
    house.terminals.epoch = "e2"
    house.later(1)
    assert sorted(await house.tick()) == ["o-1", "o-2"]
    assert [request.epoch for request in house.terminals.submits] == ["e1", "e1", "e1"]
    assert house.terminals.submits[-1].order_id == "o-1"
    assert (house.row().answer, house.row().epoch, house.row().recorded_epoch) == ("doubt", "e1", "e2")
    assert house.row("o-2").recorded_epoch == "e2"
    house.later(60)
    assert await house.tick() == []


async def test_a_conflict_in_the_journal_is_recorded_and_said_for_an_operator(house: House) -> None:
    await house.give(submit())
    other = submit("o-2").model_copy(update={"parameters_hash": "0" * 64})
    house.terminals.rows["o-2"] = house.terminals.rows["o-1"].model_copy(update={"order_id": "o-2"})
    await house.give(other)
    assert (house.row("o-2").state, house.row("o-2").answer) == ("recorded", "conflict")
    doubt = ("o-2", "OutcomeUnknown", "conflict")
    assert house.said()[-1] == doubt
    await house.give(other)
    assert house.said()[-1] == doubt
    assert len(house.terminals.submits) == 2


async def test_a_check_of_an_order_nobody_knows_and_a_broken_command_cost_nothing(house: House) -> None:
    await house.give(CheckSubmission(order_id="o-9", account="a", cause="held"))
    await house.agent.handle([event(b"{", topic=topics.ORDER_COMMANDS), event(submit().encode())])
    assert [record.headers["reason"] for record in house.producer.on(topics.DEAD_LETTERS)] == [b"not_json"]
    assert house.row().state == "recorded"


async def test_a_row_that_still_waits_is_checked_again_but_not_with_every_tick(house: House) -> None:
    house.terminals.deaf = {"o-1"}
    await house.give(submit())
    house.later(4)
    await house.checks.tick()
    house.later(1)
    assert await house.checks.tick() == 0
    house.later(5)
    assert await house.checks.tick() == 1


async def test_a_partition_that_moved_away_is_not_checked_any_more(house: House) -> None:
    house.terminals.silent = True
    await house.give(submit())
    house.index.dropped(PARTITION)
    house.terminals.silent = False
    assert await house.tick() == []


EXECUTION = Settings(accounts={"a": AccountSettings(login=1)}, role="execution")


async def test_in_role_execution_the_claim_is_the_submission() -> None:
    house = house_of(EXECUTION)
    await house.give(submit())
    await house.give(submit())
    assert (house.row().state, house.row().epoch) == ("claimed", "foreign")
    assert house.said() == [CLAIM, CLAIM]
    assert house.terminals.submits == []
    [first, second] = house.producer.on(topics.ARCHIVE)
    assert first == second
    assert isinstance(FactMessage.decode(first.value).body, SubmitClaimed)


async def test_in_role_execution_nothing_is_claimed_after_not_after() -> None:
    house = house_of(EXECUTION)
    house.later(30)
    await house.give(submit())
    await house.give(submit())
    assert house.said() == [("o-1", "SubmitRefused", "stale")] * 2


async def test_in_role_execution_silence_until_not_after_is_a_doubt_said_once() -> None:
    house = house_of(EXECUTION)
    await house.give(submit("o-1"), submit("o-2"))
    house.statuses |= {"o-1": "submitted", "o-2": "partially_filled"}
    house.later(31)
    assert await house.tick() == []
    house.later(2)
    assert sorted(await house.tick()) == ["o-1", "o-2"]
    assert [said for said in house.said() if said[1] == "OutcomeUnknown"] == [SILENCE]
    assert {house.row().state, house.row("o-2").state} == {"recorded"}
    house.later(60)
    assert await house.tick() == []
