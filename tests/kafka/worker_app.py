"""A tiny app for the tests of the stream core, run as ``faust -A tests.kafka.worker_app worker``.

Each event on ``{name}-in`` is JSON: {"do": one of STEPS, "key": ..., "value": ...}; outcomes go to ``{name}-out``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agents.lanes import Lanes
from streamapp.kafka.application import build_app
from streamapp.kafka.assignment import Assignment
from streamapp.kafka.producer import Record
from streamapp.kafka.receipts import settle
from tables.durable import DurableTable


class Row(BaseModel, frozen=True):
    value: str


class Keys:
    """An index: the keys of every partition."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, str]] = {}

    def added(self, key: bytes, row: Row, partition: int) -> None:
        self.rows.setdefault(partition, {})[key.decode()] = row.value

    def dropped(self, partition: int) -> None:
        self.rows.pop(partition, None)


NAME = os.environ["TEST_APP"]
app = build_app(
    NAME,
    bootstrap=os.environ["TEST_BOOTSTRAP"],
    data_dir=Path(os.environ["TEST_DATA"]),
    partitions=int(os.environ["TEST_PARTITIONS"]),
    replication_factor=1,
    web_port=int(os.environ["TEST_PORT"]),
    session_timeout_s=float(os.environ.get("TEST_SESSION", "6")),
)
rows = DurableTable.of(app, "rows", Row) if os.environ.get("TEST_TABLE", "yes") == "yes" else None
keys = Keys()
if rows is not None:
    rows.watch(keys)
assignment = Assignment(app)
begun: list[str] = []


async def handle(event: Any) -> None:
    order = json.loads(event.message.value)
    begun.append(order["key"])
    await STEPS[order["do"]](event, order["key"].encode(), order)


async def put(event: Any, key: bytes, order: dict[str, Any]) -> None:
    assert rows is not None
    before = rows.get(key)
    seen = {"key": order["key"], "value": order["value"], "before": before and before.value, "pid": os.getpid()}
    out = Record(f"{NAME}-out", event.message.key, json.dumps(seen).encode(), partition=event.message.partition)
    await rows.put(key, Row(value=order["value"]))
    await app.sends.send_all([out])


async def put_then_die(event: Any, key: bytes, order: dict[str, Any]) -> None:
    assert rows is not None
    if (Path(os.environ["TEST_DATA"]) / "died").exists():
        await put(event, key, order)
        return
    (Path(os.environ["TEST_DATA"]) / "died").touch()
    rows.begin(key, Row(value=order["value"]))
    os.kill(os.getpid(), signal.SIGKILL)


async def put_and_send(event: Any, key: bytes, order: dict[str, Any]) -> None:
    assert rows is not None
    out = Record(
        f"{NAME}-out", event.message.key, json.dumps({"key": order["key"]}).encode(), partition=event.message.partition
    )
    await settle([rows.begin(key, Row(value=order["value"])), app.sends.begin(out)])


async def send(event: Any, key: bytes, order: dict[str, Any]) -> None:
    out = {"key": order["key"], "value": order["value"], "pid": os.getpid()}
    await app.sends.send(f"{NAME}-out", event.message.key, json.dumps(out).encode(), partition=event.message.partition)


async def big(event: Any, key: bytes, order: dict[str, Any]) -> None:
    assert rows is not None
    await rows.put(key, Row(value="x" * order["size"]))


async def boom(event: Any, key: bytes, order: dict[str, Any]) -> None:
    raise ValueError("boom")


async def slow(event: Any, key: bytes, order: dict[str, Any]) -> None:
    await asyncio.sleep(order["seconds"])
    await put(event, key, order)


STEPS = {
    "put": put,
    "put_then_die": put_then_die,
    "put_and_send": put_and_send,
    "send": send,
    "big": big,
    "boom": boom,
    "slow": slow,
}


@app.agent(app.raw_topic(f"{NAME}-in"), isolated_partitions=True)
async def work(stream: Any) -> None:
    if os.environ.get("TEST_LANES", "yes") == "yes":
        lanes = Lanes(stream.ack, deadline_s=float(os.environ.get("TEST_DEADLINE", "10")))
        async for event in stream.noack().events():
            await lanes.put(event.message.key, event, handle)
    else:
        async for event in stream.noack().events():
            await handle(event)
            await stream.ack(event)


@app.page("/state/")
async def state(view: Any, request: Any) -> Any:
    return view.json(
        {
            "recovered": rows is None or rows.recovered.is_set(),
            "indexed": rows is None or rows.indexed.is_set(),
            "rows": keys.rows,
            "begun": len(begun),
            "workers": sorted(map(str, assignment.workers())),
            "owners": [str(assignment.owner(f"{NAME}-in", p)) for p in range(app.conf.topic_partitions)],
            "actives": sorted(map(list, app.consumer.assignment())) if app.consumer else [],
        }
    )
