"""The store on a real Kafka with a real RocksDB: its contract, how commits join, and what is refused."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import uuid4

import pytest

from streamapp.errors import Ambiguous, Definite, Transient
from streamapp.kafka.admin import create_topics
from streamapp.kafka.application import build_app
from streamapp.local.ports import free_port
from streamapp.topics import TopicSpec
from tables import changelog as module
from tables.adoption import PartitionLog
from tables.changelog import FencedStore
from tables.store import COMMIT_BYTES, ENDED, Store, in_place, size_of
from tests.kafka.workers import read
from tests.tables.stores import CONTRACT, PARTITIONS, Listening


class Left(BaseException):
    """The process would have ended."""


@asynccontextmanager
async def fenced(
    bootstrap: str, data: Path, *, partitions: int = PARTITIONS, max_message_bytes: int = 1 << 20
) -> AsyncIterator[FencedStore]:
    name = f"app-{uuid4().hex[:8]}"
    config = {"cleanup.policy": "compact", "max.message.bytes": str(max_message_bytes)}
    specs = [TopicSpec(f"{name}-in"), TopicSpec(f"{name}-desk-changelog", config)]
    await create_topics(bootstrap, specs, partitions=partitions, replication_factor=1)
    app = build_app(
        name,
        bootstrap=bootstrap,
        data_dir=data,
        partitions=partitions,
        replication_factor=1,
        web_port=free_port(),
        stop_grace_s=300.0,  # a stop that takes longer ends the process, which is that of the tests here
    )
    app.agent(app.raw_topic(f"{name}-in"), isolated_partitions=True)(_nothing)
    store, listening = app.Table("desk"), Listening()
    store.attach(listening)
    await app.start()
    try:
        await asyncio.wait_for(listening.ready.wait(), 60)
        assert listening.calls == [("revoked", []), ("recovered", list(range(partitions)))]
        yield store
    finally:
        await app.stop()
    assert listening.calls[2] == ("revoked", list(range(partitions)))


async def _nothing(stream: Any) -> None:
    async for _ in stream.noack().events():
        pass


class Batches:
    """Counts the batches of a store, and holds them back when told to."""

    def __init__(self, store: FencedStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: defaultdict[int, list[int]] = defaultdict(list)
        self.largest = 0
        self.in_flight = 0
        self.held = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()
        self._send = store._producer.send
        monkeypatch.setattr(store._producer, "send", self.send)

    async def send(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]) -> int:
        self.sent[partition].append(len(records))
        self.largest = max(self.largest, size_of(records))
        self.in_flight += 1
        self.held.set()
        await self.go.wait()
        offset = await self._send(topic, partition, records)
        self.in_flight -= 1
        return offset


@pytest.fixture
async def store(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[FencedStore]:
    async with fenced(kafka_bootstrap, tmp_path) as store:
        yield store


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reasons for which the process would have ended."""
    reasons: list[str] = []

    def abort(reason: str, **_: Any) -> NoReturn:
        reasons.append(reason)
        raise Left(reason)

    monkeypatch.setattr(module, "abort", abort)
    return reasons


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: promise.__name__)
async def test_the_fenced_store_holds_the_contract(store: Store, promise: Callable[[Store], Awaitable[None]]) -> None:
    await promise(store)


async def test_commits_that_are_wanted_while_a_batch_is_in_flight_are_the_next_batch(
    store: FencedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(store, monkeypatch)
    batches.go.clear()
    first = asyncio.ensure_future(store.commit(0, {b"a": b"1", b"b": b"1"}))
    await batches.held.wait()
    later = [asyncio.ensure_future(store.commit(0, {b"a": b"%d" % number})) for number in range(2, 10)]
    other = asyncio.ensure_future(store.commit(1, {b"c": b"1"}))
    await asyncio.sleep(0)
    batches.go.set()
    await asyncio.gather(first, *later, other)
    assert batches.sent == {0: [2, 8], 1: [1]}
    assert store.get(b"a", partition=0) == b"9"
    log = await read(str(store.app.conf.broker[0]).removeprefix("kafka://"), store.changelog_topic_name, PARTITIONS)
    assert [record.value[8:] for record in log if record.key == b"a"] == [b"%d" % number for number in range(1, 10)]
    assert all(in_place(record) for record in log)


async def test_a_batch_of_joined_commits_is_never_larger_than_one_commit_may_be(
    store: FencedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(store, monkeypatch)
    batches.go.clear()
    commits = [asyncio.ensure_future(store.commit(0, {b"%d" % number: b"x" * 100_000})) for number in range(20)]
    await batches.held.wait()
    batches.go.set()
    await asyncio.gather(*commits)
    assert batches.sent == {0: [5, 5, 5, 5]}
    assert 500_000 < batches.largest <= COMMIT_BYTES + 5 * 8


async def test_a_hundred_commits_at_once_over_eight_partitions_keep_their_order(
    kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fenced(kafka_bootstrap, tmp_path, partitions=8) as store:
        batches = Batches(store, monkeypatch)
        finished: defaultdict[int, list[int]] = defaultdict(list)

        async def commit(number: int) -> None:
            await store.commit(number % 8, {b"newest": b"%d" % number, b"n/%03d" % number: b"-"})
            finished[number % 8].append(number)

        await asyncio.gather(*(commit(number) for number in range(100)))
        for partition in range(8):
            numbers = list(range(partition, 100, 8))
            assert finished[partition] == numbers
            assert store.get(b"newest", partition=partition) == b"%d" % numbers[-1]
            assert [key for key, _ in store.scan(partition, b"n/")] == [b"n/%03d" % number for number in numbers]
        assert sum(map(len, batches.sent.values())) == 8, "all commits of a partition were one batch"


async def test_what_kafka_refuses_is_definite_and_the_next_commit_is_written(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    async with fenced(kafka_bootstrap, tmp_path, max_message_bytes=20_000) as store:
        await store.commit(0, {b"k": b"1"})
        with pytest.raises(Definite, match="MessageSizeTooLargeError"):
            await store.commit(0, {b"k": b"x" * 50_000})
        assert store.get(b"k", partition=0) == b"1"
        await asyncio.gather(*(store.commit(partition, {b"k": b"2"}) for partition in range(PARTITIONS)))
        assert store.get(b"k", partition=0) == store.get(b"k", partition=1) == b"2"


async def test_a_refusal_after_a_try_that_was_written_ends_the_process(
    store: FencedStore, monkeypatch: pytest.MonkeyPatch, leaves: list[str]
) -> None:
    send = store._producer.send

    async def refused(*batch: Any) -> int:
        await send(*batch)
        raise Definite("refused the second time")

    monkeypatch.setattr(store._producer, "send", refused)
    with pytest.raises(Left):
        await store._write(0, 0, [(b"k", b"1")])
    assert "its changelog ends at 1, expected 0" in leaves[0]
    assert store.get(b"k", partition=0) is None


@pytest.mark.parametrize("offset", [7, -1], ids=["somebody else wrote", "kafka has forgotten which it was"])
async def test_another_offset_than_expected_ends_the_process_and_leaves_a_mark(
    store: FencedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: list[str], offset: int
) -> None:
    async def sent(*_: Any) -> int:
        return offset

    monkeypatch.setattr(store._producer, "send", sent)
    with pytest.raises(Left):
        await store._write(0, 0, [(b"k", b"1")])
    assert f"has another writer: expected offset 0, got {offset}" in leaves[0]
    assert [mark.name for mark in tmp_path.rglob("*.drop")] == ["desk-0.drop"]
    assert store.get(b"k", partition=0) is None


async def test_silence_ends_the_process(store: FencedStore, monkeypatch: pytest.MonkeyPatch, leaves: list[str]) -> None:
    async def silent(*_: Any, **__: Any) -> Any:
        return asyncio.get_running_loop().create_future()

    monkeypatch.setattr("streamapp.kafka.batches.ACK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(store._producer._client, "send_batch", silent)
    with pytest.raises(Ambiguous, match="TimeoutError"):
        await store._producer.send(store.changelog_topic_name, 0, [(b"k", b"1")])
    with pytest.raises(Left):
        await store._write(0, 0, [(b"k", b"1")])
    assert "nobody knows what became of a commit to partition 0" in leaves[0]


async def test_a_revocation_refuses_what_waits_and_waits_for_what_is_in_flight(
    store: FencedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(store, monkeypatch)
    batches.go.clear()
    flying = asyncio.ensure_future(store.commit(0, {b"k": b"1"}))
    await batches.held.wait()
    waiting = asyncio.ensure_future(store.commit(0, {b"k": b"2"}))
    await asyncio.sleep(0)
    releasing = asyncio.ensure_future(store._release())
    await asyncio.sleep(0)
    assert store.owned == frozenset()
    with pytest.raises(Transient, match="expected to own partition 0"):
        await waiting
    with pytest.raises(Transient, match="expected to own partition 0"):
        await store.commit(0, {b"k": b"3"})
    assert not releasing.done()
    batches.go.set()
    await releasing
    assert flying.done()
    await flying
    assert store.data._dbs[0].get(b"k") == b"1"


async def test_a_row_that_has_ended_is_none_to_whoever_reads_the_log(store: FencedStore) -> None:
    await store.commit(0, {b"k": b"1", b"l": b"1"})
    await store.commit(0, {b"k": ENDED})
    await store.commit(0, {b"l": b"2"})
    log = await read(str(store.app.conf.broker[0]).removeprefix("kafka://"), store.changelog_topic_name, PARTITIONS)
    assert [len(record.value) for record in log if record.key == b"k"] == [9, 8], "its offset, and nothing else"
    store.data._dbs[0].put(b"k", b"of an older copy")
    store.apply_changelog_batch([SimpleNamespace(message=record) for record in log])
    assert (store.get(b"k", partition=0), store.get(b"l", partition=0)) == (None, b"2")
    adopted = PartitionLog(end=4)
    for record in log:
        adopted.add(record)
    assert adopted.newest[b"k"] == (ENDED, True)


async def test_a_recovery_that_ends_after_the_next_revocation_opens_nothing(store: FencedStore) -> None:
    await store._release()
    await store._take_up(dict.fromkeys(range(PARTITIONS), 0))
    assert store.owned == frozenset()


@pytest.mark.parametrize("by", ["a rebalance", "a stop"])
async def test_a_recovery_whose_reading_was_interrupted_takes_nothing_up(
    by: str, store: FencedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust says that it is complete all the same, when only a part of the log has been read."""
    await store.commit(0, {b"k": b"1"})
    recovery, batches = store.app.tables.recovery, Batches(store, monkeypatch)
    opened = store.owned
    store._overwritten[0].add(b"k")
    with monkeypatch.context() as patched:
        event = recovery.signal_recovery_start if by == "a rebalance" else recovery._stopped
        patched.setattr(event, "is_set", lambda: True)
        await store.on_recovery_completed(recovery.active_tps, set())
    assert batches.sent == {}
    assert store.owned == opened
    assert store._overwritten[0] == {b"k"}


async def test_survivors_that_a_rebalance_cuts_off_are_committed_by_the_next_recovery(
    store: FencedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.commit(0, {b"k": b"1", b"l": b"1"})
    await store._release()
    store._assigned, batches = True, Batches(store, monkeypatch)
    store._overwritten[0] |= {b"k", b"new"}
    store._overwritten[1] |= {b"new"}
    store._mark(0)
    batches.go.clear()
    cut_off = asyncio.ensure_future(store._take_up({0: 2, 1: 0}))
    await batches.held.wait()
    releasing = asyncio.ensure_future(store._release())
    await asyncio.sleep(0)
    batches.go.set()
    await asyncio.gather(cut_off, releasing)
    assert store.owned == frozenset()
    store._assigned = True
    await store._take_up({0: 3, 1: 0})
    assert store.owned == {0, 1}
    assert batches.sent[0] in ([1], [1, 1])
    assert (store.get(b"k", partition=0), store.get(b"new", partition=0)) == (b"1", None)
    assert not store._mark_path(0).exists()
