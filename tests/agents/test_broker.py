"""The way of an order to its terminal and back, with everything that can go wrong on it (design: desk, submission)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from agents.broker import AGAIN_S, AT_ONCE, GREETING_S, Broker
from streamapp import topics
from streamapp.desk.effects import AckReports
from streamapp.domain.identifiers import magic_of, order_id_for, partition_of
from streamapp.errors import Ambiguous, Transient
from streamapp.messages.terminal import JournalRow
from streamapp.settings import AccountSettings, Settings
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import deal
from tests.kit.records import NOW, FakeClock
from tests.kit.waiting import eventually

NOT_AFTER = NOW + timedelta(seconds=30)
PARTITION = partition_of(ACCOUNT, 8)
CLAIM = ["OrderCreated", "SubmitClaimed"]
DOUBT = [*CLAIM, "OutcomeUnknown"]
REFUSED = ["OrderCreated", "SubmitRefused"]


@pytest.fixture
async def world() -> DeskWorld:
    return await DeskWorld().start()


async def closed_world() -> DeskWorld:
    """Return a world whose terminal hangs: its journal records submits, and answers when the gate opens."""
    world = await DeskWorld().start()
    world.terminals.gate = asyncio.Event()
    return world


async def open_gate(world: DeskWorld) -> None:
    assert world.terminals.gate is not None
    world.terminals.gate.set()
    await world.settled()


def asked(world: DeskWorld) -> list[str]:
    return [request.order_id for request in world.terminals.submits]


def standing(world: DeskWorld, order_id: str) -> str:
    return world.order_row(order_id).standing


def doubts(world: DeskWorld, order_id: str) -> list[str]:
    return sorted(why for attempt in world.order_row(order_id).state.attempts.values() for why in attempt.doubts)


def conflicting_row(order_id: str) -> JournalRow:
    return JournalRow(
        order_id=order_id,
        hash="0" * 64,
        state="recorded",
        attempt=1,
        magic=magic_of(order_id),
        not_after=NOT_AFTER,
        recorded_at=NOW,
    )


# --- claimed, submitted, answered


async def test_an_order_is_claimed_published_submitted_once_and_then_the_journal_s(world: DeskWorld) -> None:
    order_id = await world.signal()
    [request] = world.terminals.submits
    assert (request.order_id, request.epoch, request.not_after) == (order_id, "e1", NOT_AFTER)
    assert world.facts(order_id) == CLAIM
    assert [order["status"] for order in world.published("order/1")] == ["pending", "submitted"]
    assert len(world.store.commits) == 1
    world.later(60)
    await world.tick()
    assert asked(world) == [order_id]


async def test_a_redelivered_signal_of_a_claimed_order_publishes_and_submits_nothing_again(world: DeskWorld) -> None:
    order_id = await world.signal(sequence=7)
    archived, stored = len(world.commits), len(world.outlet.stored)
    world.later(5)
    await world.signal(sequence=7, at=NOW)
    assert asked(world) == [order_id]
    assert (len(world.commits), world.outlet.calls, len(world.store.commits)) == (archived, stored, 1)
    assert len(world.acked) == 2


async def test_orders_that_came_together_are_claimed_together_and_submitted_in_order(world: DeskWorld) -> None:
    ids = [await world.give_signal(f"s-{number}") for number in range(40)]
    await world.settled()
    assert asked(world) == ids
    assert len(world.store.commits) < 4


async def test_a_terminal_has_32_submits_at_most_on_their_way_in_the_order_of_their_claims() -> None:
    world = await closed_world()
    ids = []
    for number in range(AT_ONCE + 8):
        ids.append(await world.give_signal(f"s-{number}"))
        await world.desk.drain()
    assert len(world.store.commits) == len(ids)
    assert asked(world) == ids[:AT_ONCE]
    await open_gate(world)
    assert asked(world) == ids


async def test_a_hung_terminal_delays_neither_reports_nor_new_claims_of_its_account() -> None:
    world = await closed_world()
    order_id = await world.give_signal()
    await world.desk.drain()
    batch = [("accepted", order_id, {"ticket": 7}), ("deal", order_id, deal(9, "0.1"))]
    reporting = asyncio.create_task(world.report(*batch))
    other = await world.give_signal("s-2")
    await world.desk.drain()
    assert world.order_row(order_id).status == "filled"
    assert [ack.watermark for ack in world.terminals.acks] == [2]
    assert asked(world) == [order_id, other]
    await open_gate(world)
    await reporting


# --- a worker that dies


async def lose_the_commit(world: DeskWorld, _: pytest.MonkeyPatch) -> None:
    world.store.refuse = Ambiguous("no answer")
    await world.give_signal(sequence=1)
    await world.settled()
    assert world.failures
    assert (world.terminals.submits, world.commits, world.outlet.stored) == ([], [], [])
    world.store.refuse = None


async def lose_the_acknowledgement(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = world.store.commit

    async def written_but_silent(partition: int, rows: Mapping[bytes, bytes]) -> None:
        await commit(partition, rows)
        raise Ambiguous("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "commit", written_but_silent)
        await world.give_signal(sequence=1)
        await world.settled()
    assert world.failures
    assert (world.terminals.submits, world.commits, world.outlet.stored) == ([], [], [])


async def die_before_the_words_are_there(world: DeskWorld, _: pytest.MonkeyPatch) -> None:
    world.producer.silent, world.outlet.refuse = True, Transient("NATS: not connected")
    world.terminals.gate = asyncio.Event()
    await world.give_signal(sequence=1)
    await world.desk.drain()
    world.producer.silent, world.outlet.refuse, world.terminals.gate = False, None, None


async def die_before_the_answer(world: DeskWorld, _: pytest.MonkeyPatch) -> None:
    world.terminals.gate = asyncio.Event()
    await world.give_signal(sequence=1)
    await world.desk.drain()
    assert len(world.terminals.rows) == 1
    world.terminals.gate = None


async def die_after_the_answer(world: DeskWorld, _: pytest.MonkeyPatch) -> None:
    await world.signal(sequence=1)


@pytest.mark.parametrize(
    "die",
    [
        lose_the_commit,
        lose_the_acknowledgement,
        die_before_the_words_are_there,
        die_before_the_answer,
        die_after_the_answer,
    ],
)
@pytest.mark.parametrize("redelivered", ["before the timer", "after the timer"])
async def test_wherever_a_worker_dies_the_order_is_claimed_once_and_the_next_one_asks_the_same_journal(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch, die: Any, redelivered: str
) -> None:
    await die(world, monkeypatch)
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    world.later(1)
    await world.restart()
    if redelivered == "after the timer":
        await world.tick()
    await world.signal(sequence=1, at=NOW)
    await world.tick()
    assert world.facts(order_id) == CLAIM
    assert set(asked(world)) == {order_id}
    assert {(request.epoch, request.attempt) for request in world.terminals.submits} == {("e1", 1)}
    assert list(world.terminals.rows) == [order_id]
    assert [order["status"] for order in world.published("order/1")] == ["pending", "submitted"]
    assert standing(world, order_id) == "unanswered"
    questions = len(asked(world))
    world.later(60)
    await world.tick()
    assert len(asked(world)) == questions
    assert len({commit.number: commit.at for commit in world.commits}) == 1


@pytest.mark.parametrize("fault", [Ambiguous("no answer"), Transient("not now")])
async def test_the_terminal_is_not_called_and_nothing_published_before_the_claim_is_durable(
    world: DeskWorld, fault: Exception
) -> None:
    world.store.refuse = fault
    await world.signal()
    assert world.failures == [fault]
    assert (world.effects, world.terminals.submits, world.commits, world.acked) == ([], [], [], [])


async def test_in_its_second_life_a_worker_asks_for_unanswered_orders_in_the_order_of_their_claims() -> None:
    world = await DeskWorld(carries_out=False).start()
    ids = []
    for number in range(3):
        ids.append(await world.signal(f"s-{number}"))
        world.later(1)
    assert (asked(world), world.facts()) == ([], 3 * CLAIM)
    await world.restart()
    world.carries_out = True
    await world.tick()
    assert asked(world) == ids


# --- silence, and what waits for the terminal


async def test_a_lost_answer_is_a_doubt_and_the_breaker_opens_until_a_hello_is_answered(world: DeskWorld) -> None:
    first = order_id_for("streamapp", ACCOUNT, "s-1")
    world.terminals.deaf = {first}
    await world.signal()
    assert (standing(world, first), world.facts(first)) == ("unanswered", DOUBT)
    assert doubts(world, first) == ["no_answer"]
    second = await world.signal("s-2")
    assert (standing(world, second), asked(world)) == ("held", [first])
    world.later(4)
    await world.tick()
    assert sorted(asked(world)) == sorted([first, first, second])
    assert (world.facts(first), world.facts(second)) == (DOUBT, CLAIM)
    assert len(world.terminals.rows) == 2


async def test_what_waited_behind_a_submit_without_an_answer_is_in_doubt_as_well_and_asked_again() -> None:
    world = await DeskWorld().start()
    world.terminals.silent = True
    ids = [await world.give_signal(f"s-{number}") for number in range(AT_ONCE + 2)]
    await world.settled()
    assert asked(world) == ids[:1]
    assert [world.facts(order_id) for order_id in ids] == [DOUBT] * len(ids)
    world.terminals.silent = False
    await world.tick()
    assert sorted(asked(world)[1:]) == sorted(ids)


async def test_a_terminal_that_never_answered_gets_nothing_new() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal()
    assert (standing(world, order_id), world.facts()) == ("held", ["OrderCreated"])
    await world.tick()
    assert asked(world) == []
    world.terminals.silent = False
    await world.tick()
    assert (asked(world), world.facts()) == ([order_id], CLAIM)


@pytest.mark.parametrize("life", ["the same", "the next"])
async def test_a_held_order_is_refused_only_after_not_after_and_skew(life: str) -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal(sequence=1)
    if life == "the next":
        await world.restart()
    world.later(31.9)
    await world.tick()
    assert world.facts(order_id) == ["OrderCreated"]
    world.later(0.2)
    await world.tick()
    assert world.facts(order_id) == REFUSED
    [failed] = [order for order in world.published("order/1") if order["status"] == "failed"]
    assert failed["detail"] == "not_connected"
    world.terminals.silent = False
    await world.signal(sequence=1, at=NOW)
    await world.tick()
    assert (asked(world), world.facts(order_id)) == ([], REFUSED)


async def test_a_held_order_past_not_after_is_not_claimed_though_the_terminal_is_back() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal()
    world.later(30.5)
    world.terminals.silent = False
    await world.tick()
    assert world.facts(order_id) == ["OrderCreated"]
    world.later(2)
    await world.tick()
    assert (world.facts(order_id), asked(world)) == (REFUSED, [])


async def test_a_claimed_order_is_never_refused_by_us_however_late_it_is(world: DeskWorld) -> None:
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    world.terminals.deaf = {order_id}
    await world.signal(sequence=1)
    world.terminals.silent = True
    world.later(3600)
    await world.tick()
    await world.restart()
    await world.signal(sequence=1, at=NOW)
    await world.tick()
    assert (standing(world, order_id), world.facts(order_id)) == ("unanswered", DOUBT)
    world.terminals.silent = False
    await world.tick()
    assert asked(world) == [order_id, order_id]


@pytest.mark.parametrize("skew_s", [-3, 3])
async def test_a_terminal_whose_clock_is_off_gets_nothing_new(skew_s: float) -> None:
    world = DeskWorld()
    world.terminals.wrong_clock = FakeClock(NOW + timedelta(seconds=skew_s))
    await world.start()
    order_id = await world.signal()
    assert standing(world, order_id) == "held"
    assert "clock" in (world.broker.link(ACCOUNT).fault or "")
    world.terminals.wrong_clock = None
    await world.tick()
    assert (standing(world, order_id), asked(world)) == ("unanswered", [order_id])


@pytest.mark.parametrize("how", ["recovery", "return", "timer"])
async def test_an_unanswered_order_is_asked_for_again(world: DeskWorld, how: str) -> None:
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    world.terminals.deaf = {order_id}
    await world.signal()
    world.terminals.silent = how == "return"
    if how == "recovery":
        await world.restart()
    elif how == "return":
        await world.tick()
        assert asked(world) == [order_id]
        world.terminals.silent = False
    else:
        world.later(AGAIN_S)
    await world.tick()
    assert asked(world) == [order_id, order_id]
    assert doubts(world, order_id) == ["no_answer"]


async def test_an_order_that_still_waits_is_asked_for_again_but_not_with_every_tick(world: DeskWorld) -> None:
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    questions = list[int]()
    for passed_s in (0, 0, 1, AGAIN_S - 1.5, AGAIN_S):
        world.later(passed_s)
        world.terminals.deaf = {order_id}
        await (world.tick() if questions else world.signal())
        questions.append(len(asked(world)))
    assert questions == [1, 2, 2, 2, 3]
    assert world.facts(order_id) == DOUBT


async def test_more_held_orders_than_fit_into_a_commit_are_claimed_in_several_and_the_worker_goes_on() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    ids = [await world.give_signal(f"s-{number}", metadata={"why": "x" * 4000}) for number in range(210)]
    await world.settled()
    world.terminals.silent = False
    await world.tick()
    world.later(AGAIN_S)
    await world.tick()
    assert world.failures == []
    assert (sorted(asked(world)), len(world.acked)) == (sorted(ids), 210)


# --- another journal, another order under the same id


@pytest.mark.parametrize("has_reported", [False, True])
async def test_a_lost_journal_turns_what_it_held_into_doubts_under_the_old_epoch(
    world: DeskWorld, has_reported: bool
) -> None:
    order_id, done = await world.signal("s-1"), await world.signal("s-2")
    await world.report(("accepted", done, {"ticket": 8}), ("deal", done, deal(9, "0.1", ticket=8)))
    if has_reported:
        await world.report(("accepted", order_id, {"ticket": 7}), first_seq=3)
    world.terminals.rows.clear()
    world.terminals.epoch = "e2"
    world.later(GREETING_S)
    await world.tick()
    [again] = world.terminals.submits[2:]
    assert (again.order_id, again.epoch) == (order_id, "e1")
    assert world.terminals.rows[order_id].state == "doubt"
    assert "SubmitClaimed" in world.facts(order_id)
    world.later(AGAIN_S + GREETING_S)
    await world.tick()
    assert len(world.terminals.submits) == 3
    await world.report(("unknown", order_id, {"attempt": 1, "why": "foreign_epoch"}), epoch="e2")
    await world.restart()
    world.later(60)
    await world.tick()
    assert len(world.terminals.submits) == 3
    assert (await world.signal("s-3"), world.terminals.submits[-1].epoch) == (asked(world)[-1], "e2")


async def test_a_conflict_in_the_journal_is_a_doubt_for_a_person_said_once(world: DeskWorld) -> None:
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    world.terminals.rows[order_id] = conflicting_row(order_id)
    await world.signal()
    assert (doubts(world, order_id), world.facts(order_id)) == (["conflict"], DOUBT)
    [error] = world.published("error/1")
    assert (error["order_id"], error["kind"], error["final"]) == (order_id, "in_doubt", False)
    world.later(60)
    await world.tick()
    assert asked(world) == [order_id]
    await world.restart()
    await world.tick()
    assert asked(world) == [order_id, order_id]
    assert (world.facts(order_id), len(world.published("error/1"))) == (DOUBT, 1)


# --- a partition that moves


async def test_a_reply_after_the_revocation_is_dropped_and_the_new_owner_asks() -> None:
    world = await closed_world()
    order_id = order_id_for("streamapp", ACCOUNT, "s-1")
    world.terminals.rows[order_id] = conflicting_row(order_id)
    await world.give_signal()
    await world.desk.drain()
    world.store.revoke()
    await open_gate(world)
    await world.tick()
    assert world.metrics.submits.labels("conflict")._value.get() == 1
    commits = len(world.store.commits)
    world.store.recover()
    await world.restart()
    assert (world.facts(order_id), len(world.store.commits)) == (CLAIM, commits)
    await world.tick()
    assert (asked(world), world.facts(order_id)) == ([order_id, order_id], DOUBT)


async def test_submits_that_wait_when_their_partition_is_revoked_are_not_begun() -> None:
    world = await closed_world()
    ids = [await world.give_signal(f"s-{number}") for number in range(AT_ONCE + 8)]
    await world.desk.drain()
    world.store.revoke()
    await open_gate(world)
    assert asked(world) == ids[:AT_ONCE]
    world.store.recover()
    await world.restart()
    await world.tick()
    assert sorted(asked(world)[AT_ONCE:]) == sorted(ids)


async def test_a_partition_that_moved_away_is_not_swept_any_more() -> None:
    world = DeskWorld()
    world.terminals.silent = True
    await world.start()
    order_id = await world.signal()
    world.store.recover(set(range(8)) - {PARTITION})
    await world.desk.recover(sorted(world.store.owned))
    world.desk.ready.set()
    world.terminals.silent = False
    world.later(60)
    await world.tick()
    assert (asked(world), world.facts(order_id), world.desk.accounts([ACCOUNT])) == ([], ["OrderCreated"], [])


# --- somebody else's connector

EXECUTION = Settings(accounts={ACCOUNT: AccountSettings(login=1)}, role="execution")


async def test_in_role_execution_the_claim_is_the_submission_and_asks_nobody() -> None:
    world = await DeskWorld(EXECUTION).start()
    order_id = await world.signal(sequence=1)
    await world.signal(sequence=1, at=NOW)
    assert (standing(world, order_id), world.order_row(order_id).claim_epoch) == ("handed_over", "foreign")
    assert (world.facts(), world.effects, world.terminals.hellos) == (CLAIM, [], 0)
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD", "orders.submitted.EURUSD"]


@pytest.mark.parametrize("life", ["the same", "the next"])
async def test_in_role_execution_nobody_is_asked_after_not_after(monkeypatch: pytest.MonkeyPatch, life: str) -> None:
    monkeypatch.setattr("agents.publisher.FIRST_PAUSE_S", 0)
    world = await DeskWorld(EXECUTION).start()
    world.outlet.refuse = Transient("NATS: not connected")
    await world.give_signal()
    await world.desk.drain()
    if life == "the next":
        restarting = asyncio.create_task(world.restart())
        world.later(30)
        world.outlet.refuse = None
        await restarting
    else:
        world.later(30)
        world.outlet.refuse = None
    await world.settled()
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD"]
    assert [message["status"] for message in world.archived("order/1")][:2] == ["pending", "submitted"]


@pytest.mark.parametrize("life", ["the same", "the next"])
async def test_in_role_execution_silence_until_not_after_and_skew_is_a_doubt_said_once(life: str) -> None:
    world = await DeskWorld(EXECUTION).start()
    order_id, filled = await world.signal("s-1"), await world.signal("s-2")
    fill = {"deal": 9, "volume": "0.05", "price": "1.1", "symbol": "EURUSD", "side": "buy", "at": NOW.isoformat()}
    await world.give(
        json.dumps(fill | {"order_id": filled, "account": ACCOUNT}).encode(), topics.BROKER_REPORTS, "fill"
    )
    await world.settled()
    assert world.order_row(filled).status == "partially_filled"
    world.later(31)
    await world.tick()
    if life == "the next":
        await world.restart()
    world.later(1.1)
    await world.tick()
    world.later(60)
    await world.tick()
    assert (world.facts(order_id), doubts(world, filled)) == (DOUBT, [])
    [doubt] = [fact for commit in world.commits for fact in commit.facts if fact.fact == "OutcomeUnknown"]
    assert (doubt.order_id, doubt.at) == (order_id, NOT_AFTER)
    assert topics.DEAD_LETTERS not in {record.topic for record in world.producer.records}


async def test_acks_between_two_pauses_are_one_and_the_newest_says_all(world: DeskWorld) -> None:
    broker = Broker(
        world.terminals, world.settings, world.clock, world.metrics, clock_s=world.clock_s, ack_pause_s=0.05
    )
    broker.attach(world.desk)
    for watermark in range(1, 6):
        broker.carry_out(AckReports(ACCOUNT, "e1", watermark))
    await broker.settled()
    assert [ack.watermark for ack in world.terminals.acks] == [5]
    for watermark in range(6, 9):
        broker.carry_out(AckReports(ACCOUNT, "e1", watermark))
    await eventually(lambda: len(world.terminals.acks) >= 2, within_s=5)
    assert [ack.watermark for ack in world.terminals.acks] == [5, 8]
