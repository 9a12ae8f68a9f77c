"""The outbox: what a commit says reaches the archive and NATS, whatever happens, and is then forgotten."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from agents.outbox import BOUND, Outbox, Unsaid
from streamapp import topics
from streamapp.domain.identifiers import partition_of
from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.memory import MemoryProducer
from streamapp.messages.account import AccountMessage
from streamapp.messages.commit import Publication
from streamapp.settings import AccountSettings, Settings
from tables.accounts import account_key, outbox_of
from tables.store import COMMIT_BYTES, size_of
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.records import NOW
from tests.kit.waiting import eventually

PARTITION = partition_of(ACCOUNT, 8)
AWAY = Transient("NATS: not connected")
LARGE = {"why": "x" * 20_000}


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.publisher.FIRST_PAUSE_S", 0)
    monkeypatch.setattr("agents.publisher.LONGEST_PAUSE_S", 0)


def unsaid(world: DeskWorld, account: str = ACCOUNT) -> list[bytes]:
    """Return the commits that the account's durable row holds."""
    row = world.store.get(account_key(account), partition=partition_of(account, 8))
    return [] if row is None else outbox_of(row)


async def test_words_that_are_not_said_yet_are_written_with_the_next_commit_and_delay_nothing() -> None:
    world = await DeskWorld().start()
    world.outlet.refuse = AWAY
    for number in range(3):
        await world.give_signal(f"s-{number}")
        await world.desk.drain()
    assert (len(world.acked), len(world.terminals.submits), world.outlet.stored) == (3, 3, [])
    assert [json.loads(commit)["number"] for commit in unsaid(world)] == [1, 2, 3]
    world.outlet.refuse = None
    await world.settled()
    await world.signal("s-3")
    assert [json.loads(commit)["number"] for commit in unsaid(world)] == [4]
    assert [commit.number for commit in world.commits] == [1, 2, 3, 4]
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD", "orders.submitted.EURUSD"] * 4


@pytest.mark.parametrize("which", ["archive", "NATS"])
async def test_a_commit_is_said_when_both_the_archive_and_nats_have_it(which: str) -> None:
    world = await DeskWorld().start()
    if which == "archive":
        world.producer.silent = True
    else:
        world.outlet.refuse = AWAY
    await world.give_signal()
    await world.desk.drain()
    await eventually(lambda: world.outlet.stored if which == "archive" else world.commits)
    assert world.outbox.unsaid()[ACCOUNT] == len(unsaid(world)[0])


async def test_an_account_with_too_much_unsaid_waits_and_says_why_and_the_others_go_on() -> None:
    world = await DeskWorld().start()
    world.outlet.refuse = AWAY
    given = 0
    while not world.outbox.troubles:
        given += 1
        assert given < 50
        await world.give_signal(f"s-{given}", metadata=LARGE)
        await world.desk.drain()
    commits = len(world.store.commits)
    assert BOUND < world.outbox.unsaid()[ACCOUNT] < 2 * BOUND
    waiting = await world.give_signal("last")
    await world.give_signal(account="b")
    await eventually(lambda: len(world.acked) > given)
    [trouble] = world.outbox.troubles
    assert trouble.startswith(f"account {ACCOUNT}: ")
    assert "its lane waits" in trouble
    assert world.publisher.troubles == (str(AWAY),)
    assert len(world.store.commits) == commits + 1
    assert world.signal_row("s-1", "b") is not None
    assert world.signal_row("last") is None
    world.outlet.refuse = None
    await world.settled()
    assert (world.outbox.troubles, world.failures) == ([], [])
    assert world.terminals.submits[-1].order_id == waiting
    assert len(world.acked) == given + 2


@pytest.mark.parametrize("size", [300, 20_000, 60_000])
async def test_no_commit_grows_beyond_what_kafka_takes_however_much_waits_and_is_unsaid(size: int) -> None:
    world = await DeskWorld().start()
    world.outlet.refuse = AWAY
    count = 150 if size == 300 else 20
    for number in range(count):
        await world.give_signal(f"s-{number}", metadata={"why": '"' * (size // 2)})
    await eventually(lambda: world.outbox.troubles or world.failures)
    world.outlet.refuse = None
    await world.settled()
    assert world.failures == []
    assert len(world.acked) == len(world.published("order/1")) / 2 == count
    assert max(size_of(rows.items()) for _, rows in world.store.commits) <= COMMIT_BYTES


async def test_what_was_not_known_to_be_said_is_said_again_before_the_next_life_begins() -> None:
    world = await DeskWorld().start()
    world.producer.silent, world.outlet.refuse = True, AWAY
    for number in range(2):
        await world.give_signal(f"s-{number}")
        await world.desk.drain()
    kept = unsaid(world)
    world.later(5)
    world.producer.silent = False
    last, starting = world.publisher, asyncio.create_task(world.restart())
    await eventually(lambda: world.publisher is not last and world.publisher.troubles)
    await world.give_signal("s-3")
    await eventually(lambda: len(world.producer.on(topics.ARCHIVE)) == 2)
    assert (len(world.acked), world.signal_row("s-3"), world.desk.ready.is_set()) == (2, None, False)
    world.outlet.refuse = None
    await starting
    assert [record.value for record in world.producer.on(topics.ARCHIVE)][:2] == kept
    assert world.subjects == ["signals.accepted.EURUSD", "orders.pending.EURUSD", "orders.submitted.EURUSD"] * 2
    await world.settled()
    assert [commit.number for commit in world.commits] == [1, 2, 3]


async def test_what_was_said_before_a_crash_is_said_again_under_its_ids_and_stored_once() -> None:
    world = await DeskWorld().start()
    await world.signal()
    [first], calls = world.producer.on(topics.ARCHIVE), world.outlet.calls
    await world.restart()
    assert [record.value for record in world.producer.on(topics.ARCHIVE)] == [first.value, first.value]
    assert (world.outlet.calls, len(world.outlet.stored)) == (2 * calls, calls)


async def test_an_idle_account_empties_its_durable_outbox_and_an_orderly_restart_repeats_nothing() -> None:
    world = await DeskWorld(idle_s=0).start()
    await world.signal()
    await eventually(lambda: not unsaid(world))
    await world.desk.drain()
    commits, calls = len(world.store.commits), world.outlet.calls
    await world.restart()
    assert (len(world.commits), world.outlet.calls, len(world.store.commits)) == (1, calls, commits)
    await world.signal("s-2")
    assert [commit.number for commit in world.commits] == [1, 2]


async def test_an_outbox_is_not_emptied_while_anything_is_unsaid() -> None:
    world = await DeskWorld().start()
    world.outlet.refuse = AWAY
    await world.give_signal()
    world.desk.tidy(ACCOUNT, PARTITION)
    await world.give_signal("s-2")
    await world.desk.drain()
    world.desk.tidy(ACCOUNT, PARTITION)
    await world.desk.drain()
    assert [json.loads(commit)["number"] for commit in unsaid(world)] == [1]


async def test_news_of_an_account_s_money_does_not_keep_its_outbox_from_being_emptied() -> None:
    world = await DeskWorld(idle_s=0).start()
    state = AccountMessage(account=ACCOUNT, connection="ready", balance="1", at=NOW)
    await world.snapshot(state)
    await world.signal()
    for seconds in range(1, 5):
        at = NOW + timedelta(seconds=seconds)
        await world.snapshot(state.model_copy(update={"equity": seconds, "at": at}), at=at)
    await eventually(lambda: not unsaid(world))


@pytest.mark.parametrize("error", [Definite("refused"), Ambiguous("no answer")])
async def test_an_archive_that_refuses_ends_the_worker_and_the_next_one_says_it(error: Exception) -> None:
    world = await DeskWorld().start()
    world.producer.refuse = error
    await world.give_signal()
    await world.desk.drain()
    await eventually(lambda: world.failures)
    assert world.failures == [f"{topics.ARCHIVE} did not take a commit of account {ACCOUNT}: {error!r}"]
    world.producer.refuse = None
    await world.restart()
    assert [commit.number for commit in world.commits] == [1]


async def test_an_archive_that_does_not_answer_in_time_ends_the_worker() -> None:
    producer, failed = MemoryProducer(), asyncio.get_running_loop().create_future()
    producer.silent = True
    outbox = Outbox(producer, lambda _: None, lambda *_: None, on_failure=failed.set_result, timeout_s=0)
    outbox.say(ACCOUNT, PARTITION, 1, b"{}", ())
    assert "did not acknowledge a commit" in await asyncio.wait_for(failed, 5)


async def test_after_an_orderly_shutdown_no_answer_is_expected_any_more() -> None:
    producer, failures = MemoryProducer(), list[str]()
    producer.silent = True
    outbox = Outbox(producer, lambda _: None, lambda *_: None, on_failure=failures.append, timeout_s=0)
    outbox.say(ACCOUNT, PARTITION, 1, b"{}", ())
    outbox.close()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (failures, outbox.unsaid()) == ([], {})


async def test_a_lane_that_waits_for_room_lets_go_when_its_partition_is_revoked() -> None:
    world = await DeskWorld().start()
    world.outlet.refuse = AWAY
    number = 0
    while not world.outbox.troubles:
        number += 1
        await world.give_signal(f"s-{number}", metadata=LARGE)
        await world.desk.drain()
    await world.give_signal("last")
    await eventually(lambda: world.desk.is_busy)
    world.store.revoke()
    await asyncio.wait_for(world.desk.drain(), 5)
    assert (world.failures, world.outbox.unsaid(), world.publisher.troubles) == ([], {}, ())
    assert len(world.acked) == number


async def test_messages_that_are_no_account_s_are_waited_for_until_the_partition_is_revoked() -> None:
    publishing: list[Unsaid] = []
    producer = MemoryProducer()
    outbox = Outbox(producer, publishing.append, lambda *_: None)
    words = [Publication(b"{}", "signals.refused.X", "streamapp:refused:1")]

    def say(partition: int) -> asyncio.Task[Any]:
        return asyncio.create_task(outbox.say_aside(partition, words, NOW))

    said, lost = say(1), say(2)
    await eventually(lambda: len(publishing) == 2 and len(producer.records) == 2)
    outbox.published(publishing[0])
    await asyncio.wait_for(said, 5)
    assert not lost.done()
    outbox.drop(frozenset({2}))
    with pytest.raises(Transient, match="given up"):
        await asyncio.wait_for(lost, 5)


async def test_what_is_no_account_s_is_said_without_a_number_and_finished_when_all_have_it() -> None:
    settings = Settings(role="execution", accounts={ACCOUNT: AccountSettings(login=1)})
    world = await DeskWorld(settings, idle_s=0).start()
    world.outlet.refuse = AWAY
    said = {"order_id": "nobody's", "fill_id": "f", "volume": "0.1", "price": "1.1", "symbol": "EURUSD", "side": "buy"}
    await world.give(json.dumps(said).encode(), topics.BROKER_REPORTS, "fill", account="", partition=3)
    await eventually(lambda: world.outlet.calls)
    assert world.acked == []
    world.outlet.refuse = None
    await world.settled()
    assert (len(world.acked), world.subjects) == (1, ["broker.error.EURUSD"])
    assert [letter["reason"] for letter in world.dead_letters()] == [b"unknown_order"]
    assert ([(commit.account, commit.number) for commit in world.commits], world.store.commits) == ([("", 0)], [])
    assert world.failures == []
