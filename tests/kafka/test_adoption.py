"""A changelog that was copied from another cluster: refused in words, adopted once, and then like any other."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from streamapp.errors import ConfigurationError, Transient
from streamapp.kafka.abort import CONFIGURATION
from streamapp.kafka.admin import live_members
from streamapp.kafka.producer import Record
from streamapp.settings import KafkaSettings, LocalSettings, Settings
from tables.adoption import adopt_changelog
from tables.store import ADOPTION
from tests.kafka.workers import PARTITIONS, Group, Worker, new_group, send_only
from tests.kit.waiting import eventually

KEYS = [f"k{number}" for number in range(30)]


@pytest.fixture
async def group(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Group]:
    async with new_group(kafka_bootstrap, tmp_path) as group:
        yield group


async def put_all(group: Group, value: str) -> set[Any]:
    """Put every key, and return what was there before."""
    for key in KEYS:
        await group.order(key, "put", key, value=value)
    return {(await group.outcome(key, value=value))["before"] for key in KEYS}


async def stopped(worker: Worker) -> None:
    worker.kill(signal.SIGTERM)
    assert await worker.ended() == 0, worker.log.read_text()[-5000:]


async def copied(group: Group, bootstrap: str, folder: Path) -> AsyncIterator[Group]:
    """A deployment whose changelog has the records of ``group``'s, at other offsets: the first ones are missing."""
    async with new_group(bootstrap, folder) as copy:
        for partition in range(PARTITIONS):
            records = [each for each in await group.read(group.changelog) if each.partition == partition]
            await copy.producer.send_all(
                [Record(copy.changelog, each.key, each.value, partition=partition) for each in records[1:]]
            )
        yield copy


@pytest.fixture
async def copy(group: Group, kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Group]:
    worker = group.worker()
    worker.start()
    for value in ("a", "b", "c"):
        await put_all(group, value)
    worker.kill(signal.SIGTERM)
    await worker.ended()
    async for copy in copied(group, kafka_bootstrap, tmp_path):
        yield copy


def settings_of(group: Group) -> Settings:
    prefix, deployment = group.name[:2], group.name[2:].removesuffix("-trading")
    return Settings(
        deployment=deployment,
        kafka=KafkaSettings(bootstrap=group.bootstrap, partitions=PARTITIONS, topic_prefix=prefix),
        local=LocalSettings(data=group.folder),
    )


async def adopted(group: Group, progress: Callable[[str], None] = lambda _: None) -> int:
    """Adopt when the sessions of the workers that are gone have ended."""

    async def gone() -> bool:
        return await live_members(group.bootstrap, group.name) == 0

    await eventually(gone, "the group has no members")
    return await adopt_changelog(settings_of(group), progress)


async def refused(worker: Worker) -> None:
    worker.start()
    assert await worker.ended() == CONFIGURATION
    assert "was copied from another cluster or a backup" in worker.log.read_text()
    assert "streamapp init --adopt-changelog" in worker.log.read_text()


async def test_a_copied_changelog_is_refused_and_adopted_once(group: Group, copy: Group) -> None:
    worker = copy.worker("copy")
    await refused(worker)
    assert await copy.outcomes() == []

    said: list[str] = []
    assert await adopted(copy, said.append) == len(KEYS)
    assert len(said) == PARTITIONS
    assert await adopted(copy) == 0

    worker.start()
    assert await put_all(copy, "d") == {"c"}
    await stopped(worker)
    stranger = copy.worker("new-machine")
    stranger.start()
    assert await put_all(copy, "e") == {"d"}
    with pytest.raises(ConfigurationError, match="has 1 live members: stop every trading worker first"):
        await adopt_changelog(settings_of(copy))
    assert str(ADOPTION) not in json.dumps(await stranger.state())


async def test_an_adoption_that_was_interrupted_is_not_taken_for_a_finished_one(
    copy: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tables.adoption.COMMIT_BYTES", 100)
    send_only(monkeypatch, 2)
    with pytest.raises(Transient, match="adopt the changelog again"):
        await adopt_changelog(settings_of(copy))
    monkeypatch.undo()
    worker = copy.worker("copy")
    await refused(worker)
    assert 0 < await adopted(copy) < len(KEYS)
    worker.start()
    assert await put_all(copy, "d") == {"c"}


async def test_what_a_zombie_left_is_not_adopted(group: Group) -> None:
    worker = group.worker()
    worker.start()
    await put_all(group, "a")
    await stopped(worker)
    await group.producer.send_all([Record(group.changelog, b"k1", b"\0" * 8 + b"zombie", partition=0)])
    before = len(await group.read(group.changelog))
    assert await adopted(group) == 0
    assert len(await group.read(group.changelog)) == before


async def test_a_local_copy_that_reached_further_than_the_copied_log_is_read_anew(group: Group, copy: Group) -> None:
    worker = copy.worker("trading")
    shutil.copytree(group.workers[0].data, worker.data)
    assert list(worker.data.rglob("desk-*.db"))
    await adopted(copy)
    worker.start()
    assert await put_all(copy, "d") == {"c"}
