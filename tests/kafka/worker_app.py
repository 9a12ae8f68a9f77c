"""A tiny app for the tests of the stream core, run as ``faust -A tests.kafka.worker_app worker``.

Each event on ``{name}-in`` is JSON: {"do": one of STEPS, "key": ..., "value": ...}; outcomes go to ``{name}-out``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from faust.exceptions import ConsumerNotStarted

from streamapp.kafka.application import build_app
from streamapp.kafka.assignment import Assignment

NAME = os.environ["TEST_APP"]


def stop_at(moment: str) -> None:
    """Ask this process to end, if this is the moment that the test named."""
    if os.environ.get("TEST_STOP_AT") == moment:
        os.kill(os.getpid(), signal.SIGTERM)


async def check(_: object) -> None:
    stop_at("check")


app = build_app(
    NAME,
    bootstrap=os.environ["TEST_BOOTSTRAP"],
    data_dir=Path(os.environ["TEST_DATA"]),
    partitions=int(os.environ["TEST_PARTITIONS"]),
    replication_factor=1,
    web_port=int(os.environ["TEST_PORT"]),
    session_timeout_s=float(os.environ.get("TEST_SESSION", "6")),
    drain_s=float(os.environ.get("TEST_DRAIN", "5")),
    check=check,
    standby_replicas=int(os.environ.get("TEST_STANDBYS", "0")),
)
store: Any = app.Table("desk") if os.environ.get("TEST_TABLE", "yes") == "yes" else None
assignment = Assignment(app)
begun: list[str] = []


class Rebalances:
    """Knows whether the rows are there."""

    def __init__(self) -> None:
        self.complete = asyncio.Event()
        self.lost = asyncio.Event()

    def revoked(self, partitions: Iterable[int]) -> None:
        self.complete.clear()
        if partitions:
            self.lost.set()

    def recovered(self, partitions: Iterable[int]) -> None:
        stop_at("recovered")
        self.complete.set()


rebalances = Rebalances()
if store is not None:
    store.attach(rebalances)
    take_in = store.take_in

    def taken_in(partition: int, records: Any) -> None:
        take_in(partition, records)
        stop_at("reading")

    store.take_in = taken_in


@app.on_partitions_assigned.connect
async def assigned(*_: Any, **__: Any) -> None:
    stop_at("assigned")


@app.on_rebalance_complete.connect
async def read(*_: Any, **__: Any) -> None:
    stop_at("read")


def happened_before(name: str) -> bool:
    """Return whether this was asked with ``name`` before, in this life or an earlier one."""
    path = Path(os.environ["TEST_DATA"]).parent / f"{NAME}.{name}"
    happened = path.exists()
    path.touch()
    return happened


async def put(event: Any, key: bytes, order: dict[str, Any]) -> None:
    partition = event.message.partition
    before = store.get(key, partition=partition)
    seen = {"before": before and before.decode(), "pid": os.getpid()}
    await store.commit(partition, {key: order["value"].encode()})
    await answer(event, order | seen)


async def answer(event: Any, seen: dict[str, Any]) -> None:
    partition, value = event.message.partition, json.dumps(seen).encode()
    await app.sends.send(f"{NAME}-out", event.message.key, value, partition=partition)


async def put_then_die(event: Any, key: bytes, order: dict[str, Any]) -> None:
    if happened_before("died"):
        await put(event, key, order)
        return
    commit = asyncio.ensure_future(store.commit(event.message.partition, {key: order["value"].encode()}))
    assert not commit.done()
    os.kill(os.getpid(), signal.SIGKILL)


async def put_many(event: Any, key: bytes, order: dict[str, Any]) -> None:
    """Replace all rows below the key in one commit, if they are all there and all the same."""
    partition, rows = event.message.partition, order["rows"]
    before = [value for _, value in store.scan(partition, key + b"/")]
    assert len(before) in {0, rows}, f"{len(before)} of {rows} rows"
    assert len({value[:20] for value in before}) <= 1, "rows of two commits"
    value = f"{order['value']:>20}".encode() + b"x" * 1000
    await store.commit(partition, {b"%s/%04d" % (key, number): value for number in range(rows)})
    await answer(event, order)


async def put_late(event: Any, key: bytes, order: dict[str, Any]) -> None:
    """Be not finished before the partition is revoked, the first time."""
    if happened_before("late"):
        await put(event, key, order)
    else:
        await rebalances.lost.wait()


async def send(event: Any, key: bytes, order: dict[str, Any]) -> None:
    await answer(event, order | {"pid": os.getpid()})


async def big(event: Any, key: bytes, order: dict[str, Any]) -> None:
    await store.commit(event.message.partition, {key: b"x" * order["size"]})


async def boom(event: Any, key: bytes, order: dict[str, Any]) -> None:
    raise ValueError("boom")


async def slow(event: Any, key: bytes, order: dict[str, Any]) -> None:
    await asyncio.sleep(order["seconds"])
    await put(event, key, order)


STEPS = {
    "put": put,
    "put_then_die": put_then_die,
    "put_many": put_many,
    "put_late": put_late,
    "send": send,
    "big": big,
    "boom": boom,
    "slow": slow,
}


@app.agent(app.raw_topic(f"{NAME}-in"), isolated_partitions=True)
async def work(stream: Any) -> None:
    async for event in stream.noack().events():
        order = json.loads(event.message.value)
        begun.append(order["key"])
        stop_at("event")
        await STEPS[order["do"]](event, order["key"].encode(), order)
        await stream.ack(event)


def rows() -> dict[int, dict[str, str]]:
    if store is None:
        return {}
    scanned = {partition: dict(store.scan(partition, b"")) for partition in store.owned}
    return {
        partition: {key.decode(): value.decode() for key, value in found.items()}
        for partition, found in scanned.items()
        if found
    }


def standbys() -> dict[int, int]:
    """Return where each copy of a partition that another worker owns is to be read on."""
    return {} if store is None else {tp.partition: offset for tp, offset in store._standby_starts().items()}


def actives() -> list[list[Any]]:
    """Return what Kafka has given this worker, nothing while it has not asked."""
    try:
        return sorted(map(list, app.consumer.assignment())) if app.consumer else []
    except ConsumerNotStarted:
        return []


@app.page("/state/")
async def state(view: Any, request: Any) -> Any:
    return view.json(
        {
            "recovered": store is None or rebalances.complete.is_set(),
            "rows": rows(),
            "begun": len(begun),
            "standbys": standbys(),
            "workers": sorted(map(str, assignment.workers())),
            "owners": [str(assignment.owner(f"{NAME}-in", p)) for p in range(app.conf.topic_partitions)],
            "actives": actives(),
        }
    )
