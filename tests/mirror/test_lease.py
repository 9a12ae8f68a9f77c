"""The lease: one holder, taken over from the dead at once and from the silent after a while."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from streamapp.mirror import lease as module
from streamapp.mirror.lease import KEY, Lease, this_machine
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import NatsSettings, Settings
from tests.kit.stacks import running
from tests.kit.waiting import eventually
from tests.nats.servers import own_nats

BUCKET = "streamapp-mirror"


@pytest.fixture
async def js(tmp_path: Path) -> AsyncIterator[JetStreamContext]:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path):
        settings = Settings(nats=NatsSettings(url=spec.address))
        client = await connect(settings, "test")
        await ensure(client.jetstream(), settings, create=True)
        yield client.jetstream()
        await client.close()


@pytest.fixture
async def bucket(js: JetStreamContext) -> KeyValue:
    return await js.key_value(BUCKET)


async def taken(lease: Lease) -> None:
    task = asyncio.create_task(lease.keep())
    try:
        async with asyncio.timeout(10):
            await lease.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def holds(lease: Lease) -> bool:
    return lease.is_held


def a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


async def test_a_free_lease_is_taken_and_given_back_with_how_far_we_came(
    js: JetStreamContext, bucket: KeyValue
) -> None:
    first = Lease(js, BUCKET, lambda: {"EXECUTION_IN": 17})
    await taken(first)
    assert holds(first)
    await first.release()
    assert not holds(first)
    second = Lease(js, BUCKET, dict)
    await taken(second)
    assert second.found == {"EXECUTION_IN": 17}
    entry = await bucket.get(KEY)
    assert json.loads(entry.value or b"")["progress"] == {"EXECUTION_IN": 17}, "until we know better"


@pytest.mark.parametrize(
    "holder",
    [
        {"host": this_machine(), "pid": a_dead_process()},
        {"host": this_machine(), "pid": os.getpid()},  # ours: renewed, and the answer was lost
        {"host": "", "pid": 0},
        {},
        {"progress": "nonsense", "pid": None},
    ],
)
async def test_from_a_holder_that_is_not_there_it_is_taken_at_once(
    js: JetStreamContext, bucket: KeyValue, holder: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEOVER_S", 1000.0)
    await bucket.put(KEY, json.dumps(holder).encode())
    lease = Lease(js, BUCKET, dict)
    await taken(lease)
    assert holds(lease)


@pytest.mark.parametrize("value", [b"", b"not json", b"[]", b'{"host": 7, "pid": "x"}'])
async def test_a_value_that_nobody_can_read_is_replaced_after_a_while(
    js: JetStreamContext, bucket: KeyValue, value: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEOVER_S", 1.5)
    await bucket.put(KEY, value)
    await taken(Lease(js, BUCKET, dict))


async def test_a_silent_holder_elsewhere_keeps_it_for_a_while_and_a_renewal_of_it_longer(
    js: JetStreamContext, bucket: KeyValue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(module, "now_s", lambda: now_s)
    await bucket.put(KEY, b'{"host": "elsewhere", "pid": 1}')
    lease = Lease(js, BUCKET, dict)
    await lease._try(bucket)
    now_s = 4.0
    await bucket.put(KEY, b'{"host": "elsewhere", "pid": 1}')
    await lease._try(bucket)
    now_s = 8.0
    await lease._try(bucket)
    assert not holds(lease)
    now_s = 9.5
    await lease._try(bucket)
    assert holds(lease)
    now_s = 14.4
    assert holds(lease)
    now_s = 14.6
    assert not holds(lease), "nobody confirmed it for five seconds"


async def test_who_lost_it_stands_by(js: JetStreamContext, bucket: KeyValue) -> None:
    lease = Lease(js, BUCKET, dict)
    await taken(lease)
    await bucket.put(KEY, b'{"host": "elsewhere", "pid": 1}')
    task = asyncio.create_task(lease.keep())
    await eventually(lambda: not holds(lease) and "elsewhere" in lease.holder, "it stands by")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
