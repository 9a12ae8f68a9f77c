"""A real worker on a real Kafka: what is killed, frozen, refused or overwritten costs nothing but time."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streamapp.kafka.abort import SOFTWARE
from tests.kafka.workers import PARTITIONS, Group, foreign, in_place, new_group
from tests.kit.waiting import eventually


@pytest.fixture
async def group(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Group]:
    async with new_group(kafka_bootstrap, tmp_path, **{"max.message.bytes": "20000"}) as group:
        yield group


async def test_a_foreign_record_ends_the_worker_and_the_next_start_goes_on_without_it(group: Group) -> None:
    worker = group.worker()
    worker.start()
    await group.order("acc", "put", "k", value="a")
    await group.outcome("k", value="a")
    partition = group.partition("acc")
    committed = {each: int(each == partition) for each in range(PARTITIONS)}

    async def acknowledged() -> bool:
        return await group.committed() == committed

    await eventually(acknowledged, "the first put is committed")
    zombie = struct.pack(">q", 0) + b"of a zombie"
    await group.producer.send_all([foreign(group.changelog, partition, "k", zombie)])
    await group.order("acc", "put", "k", value="b")
    assert await worker.ended() == SOFTWARE
    assert "has another writer: expected offset 1, got 2" in worker.log.read_text()
    assert [mark.name for mark in worker.data.rglob("*.drop")] == [f"desk-{partition}.drop"]
    assert await group.committed() == committed

    worker.start()
    after = await group.outcome("k", value="b")
    assert after["before"] == "a", "neither the zombie's row nor the unconfirmed one is there"
    assert list(worker.data.rglob("*.drop")) == []
    assert (await worker.ready())["rows"][str(partition)] == {"k": "b"}
    log = [(each.offset, in_place(each), each.value[8:]) for each in await group.read(group.changelog)]
    a, b = b"a", b"b"
    assert log == [(0, True, a), (1, False, zombie[8:]), (2, False, b), (3, True, a), (4, True, b)]

    stranger = group.worker("new-machine")
    worker.kill(signal.SIGTERM)
    assert await worker.ended() == 0
    stranger.start()
    await group.order("acc", "put", "k", value="c")
    assert (await group.outcome("k", value="c"))["before"] == "b"


async def test_a_row_that_kafka_never_got_is_not_there_after_the_restart(group: Group) -> None:
    worker = group.worker()
    worker.start()
    await group.order("acc", "put", "k", value="a")
    await group.outcome("k", value="a")
    await group.order("acc", "put_then_die", "k", value="b")
    assert await worker.ended() == -signal.SIGKILL
    assert len(await group.read(group.changelog)) == 1, "the row never left the worker"

    worker.start()
    assert (await group.outcome("k", value="b"))["before"] == "a"


@pytest.mark.parametrize(
    ("do", "rest"),
    [("boom", {}), ("big", {"size": 50_000}), ("big", {"size": 950_000})],
    ids=["raises", "refused by kafka", "too large to send"],
)
async def test_a_failed_event_ends_the_worker_unacknowledged_and_comes_again(
    group: Group, do: str, rest: dict[str, int]
) -> None:
    worker = group.worker()
    worker.start()
    await group.order("acc", "put", "first", value="a")
    await group.outcome("first")
    await group.order("acc", do, "second", **rest)
    await group.order("acc", "put", "third", value="c")
    assert await worker.ended() not in {0, None}
    assert (await group.committed())[group.partition("acc")] <= 1
    assert "third" not in {out["key"] for out in await group.outcomes()}

    worker.start()
    assert await worker.ended() not in {0, None}, "it comes again, and again fails"
    assert (await group.committed())[group.partition("acc")] <= 1


async def test_killed_at_any_moment_and_started_again_nothing_is_lost(group: Group) -> None:
    accounts, per_account = [f"acc{each}" for each in range(12)], 25
    worker = group.worker()
    worker.start()
    await worker.ready()
    dice = random.Random(7)
    for number in range(per_account):
        await asyncio.gather(
            *(group.order(account, "put", f"{account}:{number % 5}", value=str(number)) for account in accounts)
        )
        if number in {5, 12, 19}:
            await asyncio.sleep(dice.random() / 10)  # somewhere in the middle of it
            worker.kill()
            await worker.ended()
            worker.start()
    expected = {f"{account}:{key}": str(per_account - 5 + key) for account in accounts for key in range(5)}

    async def rows() -> bool:
        state = await worker.state()
        return {k: v for rows in state.get("rows", {}).values() for k, v in rows.items()} == expected

    await eventually(rows, "every row has its last value")
    worker.kill(signal.SIGTERM)
    assert await worker.ended() == 0
    assert all(in_place(each) for each in await group.read(group.changelog))
    seen = [(out["key"], out["value"]) for out in await group.outcomes()]
    assert {(f"{a}:{n % 5}", str(n)) for a in accounts for n in range(per_account)} == set(seen)
    assert sum((await group.committed()).values()) == len(accounts) * per_account
    for account in accounts:
        order = [int(value) for key, value in dict.fromkeys(seen) if key.startswith(f"{account}:")]
        assert order == sorted(order), "the order of an account is kept"


async def test_two_workers_share_the_partitions_and_know_each_other(group: Group) -> None:
    one, two = group.worker("one"), group.worker("two")
    one.start()
    await one.ready()
    for number in range(40):
        await group.order(f"acc{number}", "put", f"k{number}", value="a")
    two.start()

    async def shared() -> bool:
        states = [await one.state(), await two.state()]
        owned = [len([tp for tp in state.get("actives", []) if tp[0].endswith("-in")]) for state in states]
        return owned == [PARTITIONS // 2] * 2 and all(state["recovered"] for state in states)

    await eventually(shared, "both own half of the partitions")
    states = [await one.state(), await two.state()]
    assert states[0]["owners"] == states[1]["owners"]
    assert set(states[0]["owners"]) == {one.url, two.url}
    assert states[0]["workers"] == states[1]["workers"] == sorted([one.url, two.url])
    for worker, state in zip((one, two), states, strict=True):
        mine = {partition for topic, partition in state["actives"] if topic.endswith("-in")}
        assert {partition for partition, owner in enumerate(state["owners"]) if owner == worker.url} == mine

    for number in range(40):
        await group.order(f"acc{number}", "put", f"k{number}", value="b")
    outs = [await group.outcome(f"k{number}", value="b") for number in range(40)]
    assert {out["before"] for out in outs} == {"a"}
    assert len({out["pid"] for out in outs}) == 2

    async def owned_once() -> bool:
        rows = [row for worker in (one, two) for rows in (await worker.state())["rows"].values() for row in rows]
        return sorted(rows) == sorted(f"k{number}" for number in range(40))

    await eventually(owned_once, "each row is with its owner, and with nobody else")
    two.kill()
    for number in range(40):
        await group.order(f"acc{number}", "put", f"k{number}", value="c")
    assert {(await group.outcome(f"k{number}", value="c"))["before"] for number in range(40)} == {"b"}
    assert (await one.state())["workers"] == [one.url]


async def test_a_worker_that_was_frozen_past_its_session_ends_when_it_wakes(group: Group) -> None:
    one, two = group.worker("one"), group.worker("two")
    one.start()
    await one.ready()
    await group.order("acc", "put", "k", value="a")
    await group.outcome("k", value="a")
    one.kill(signal.SIGSTOP)
    two.start()
    await group.order("acc", "put", "k", value="b")
    out = await group.outcome("k", value="b")
    one.kill(signal.SIGCONT)
    assert await one.ended() == SOFTWARE
    assert "the event loop stood still" in one.log.read_text()
    assert out["before"] == "a"
    await group.order("acc", "put", "k", value="c")
    assert (await group.outcome("k", value="c"))["pid"] == out["pid"]


async def test_a_worker_without_tables_shares_its_partitions_too(group: Group) -> None:
    one, two = group.worker("one", table="no"), group.worker("two", table="no")
    one.start()
    two.start()

    async def shared() -> bool:
        return all([len((await worker.state()).get("actives", [])) == PARTITIONS // 2 for worker in (one, two)])

    await eventually(shared, "both own half of the partitions")
    for number in range(30):
        await group.order(f"acc{number}", "send", f"k{number}", value="a")
    outs = [await group.outcome(f"k{number}") for number in range(30)]
    assert len({out["pid"] for out in outs}) == 2
    for worker in (one, two):
        worker.kill(signal.SIGTERM)
    assert [await one.ended(), await two.ended()] == [0, 0]
    assert sum((await group.committed()).values()) == 30


@pytest.mark.parametrize("line", ["Starting...", "Joined group", "Recovery complete"])
async def test_a_shutdown_during_the_start_is_an_orderly_one(group: Group, line: str) -> None:
    worker = group.worker()
    worker.start()
    await eventually(lambda: worker.log.exists() and line in worker.log.read_text(), f"the log says {line!r}")
    worker.kill(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_a_shutdown_waits_for_what_was_begun(group: Group) -> None:
    worker = group.worker()
    worker.start()
    await worker.ready()
    await group.order("acc", "slow", "k", value="a", seconds=2)

    async def begun() -> bool:
        return bool((await worker.state())["begun"])

    await eventually(begun, "the order is being handled")
    worker.kill(signal.SIGTERM)
    assert await worker.ended() == 0
    assert [out["key"] for out in await group.outcomes()] == ["k"]
    assert (await group.committed())[group.partition("acc")] == 1


async def test_a_lost_data_folder_costs_nothing_but_reading_the_log_again(group: Group) -> None:
    worker = group.worker()
    worker.start()
    for number in range(20):
        await group.order(f"acc{number}", "put", f"k{number}", value="a")
    for number in range(20):
        await group.outcome(f"k{number}")
    worker.kill()
    await worker.ended()
    shutil.rmtree(worker.data)
    worker.start()
    for number in range(20):
        await group.order(f"acc{number}", "put", f"k{number}", value="b")
    assert {(await group.outcome(f"k{number}", value="b"))["before"] for number in range(20)} == {"a"}
    assert all(in_place(each) for each in await group.read(group.changelog))


async def test_a_rebalance_waits_a_while_for_what_was_begun_and_then_lets_it_go(group: Group) -> None:
    one, two = group.worker("one", drain="1"), group.worker("two", drain="1")
    one.start()
    await one.ready()
    await group.order("acc", "put_late", "k", value="a")
    await group.order("acc", "put", "l", value="b")

    async def begun() -> bool:
        return bool((await one.state())["begun"])

    await eventually(begun, "the order is being handled")
    two.start()
    assert (await group.outcome("k"))["before"] is None
    assert (await group.outcome("l"))["before"] is None
    assert "1 events were not finished in time: they are redelivered" in one.log.read_text()

    async def committed() -> bool:
        return (await group.committed())[group.partition("acc")] == 2

    await eventually(committed, "both orders are committed, the late one once it was handled again")
    assert (one.code(), two.code()) == (None, None)
