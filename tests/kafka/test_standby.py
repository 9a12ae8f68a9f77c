"""A worker that stands by has the rows when their owner dies, and nothing that was written past the fence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kafka.workers import PARTITIONS, Group, foreign, in_place, new_group
from tests.kit.waiting import eventually

KEYS = [f"k{number}" for number in range(40)]


@pytest.fixture
async def group(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Group]:
    async with new_group(kafka_bootstrap, tmp_path) as group:
        yield group


async def put_all(group: Group, value: str) -> set[str | None]:
    """Put every key, and return what was there before."""
    for key in KEYS:
        await group.order(key, "put", key, value=value)
    return {(await group.outcome(key, value=value))["before"] for key in KEYS}


async def ends(group: Group) -> dict[int, int]:
    """Return where each partition of the changelog ends."""
    records = await group.read(group.changelog)
    return {number: 1 + max(r.offset for r in records if r.partition == number) for number in range(PARTITIONS)}


async def test_a_standby_takes_over_what_its_owner_committed_and_nothing_else(group: Group) -> None:
    owner = group.worker("w1", standbys="1")
    owner.start()
    await owner.ready()
    assert await put_all(group, "a") == {None}
    standby = group.worker("w2", standbys="1")
    standby.start()
    await standby.ready()

    async def both_stand_by() -> bool:
        states = [await worker.state() for worker in group.workers]
        return all(state.get("recovered") and len(state["standbys"]) == PARTITIONS // 2 for state in states)

    await eventually(both_stand_by, "each stands by for the half that the other owns")
    assert await put_all(group, "b") == {"a"}
    state = await standby.state()
    theirs = {int(number) for number in state["standbys"]}
    assert theirs.isdisjoint({int(number) for number in state["rows"]}), "a copy is nobody's to read before it is owned"
    log = await ends(group)

    async def has_followed() -> bool:
        reached = (await standby.state())["standbys"]
        return {int(number): offset for number, offset in reached.items()} == {each: log[each] for each in theirs}

    await eventually(has_followed, "the standby has all that was committed")
    key = next(key for key in KEYS if group.partition(key) in theirs)
    await group.producer.send_all([foreign(group.changelog, group.partition(key), key, b"\0" * 8 + b"zombie")])
    owner.kill()
    assert await put_all(group, "c") == {"b"}
    assert len((await standby.ready())["rows"]) == PARTITIONS
    astray = [record for record in await group.read(group.changelog) if not in_place(record)]
    assert [(record.key, record.value[8:]) for record in astray] == [(key.encode(), b"zombie")]
