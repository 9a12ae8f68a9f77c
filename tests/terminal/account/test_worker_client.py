"""The pipe to a real worker process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamapp.processes.children import spawn
from streamapp.terminal.account import worker_client as module
from streamapp.terminal.account.worker_client import ORDER, NotHandedOverError, WorkerClient, WorkerLostError
from streamapp.terminal.pipe.calls import Initialize, Look, ReadQuote, Send
from tests.kit.waiting import PATIENCE_S, eventually
from tests.terminal.conftest import Market
from tests.terminal.scripted import LOGIN, SERVER

WHO = Initialize(None, None, LOGIN, SERVER, "s3cret", timeout_ms=10_000)


@pytest.fixture
async def link(tmp_path: Path, market: Market) -> AsyncIterator[WorkerClient]:
    link = WorkerClient(
        "simulated", tmp_path / "worker.lock", environment={"STREAMAPP_SIMULATOR_ADDRESS": market.address}
    )
    running = asyncio.create_task(link.run())
    await link.start()
    yield link
    await link.stop()
    running.cancel()


async def test_a_worker_answers_one_after_another(link: WorkerClient) -> None:
    initialized = await link.call(WHO, deadline_s=PATIENCE_S)
    assert initialized.value.done
    answers = await asyncio.gather(*(link.call(Look(), deadline_s=PATIENCE_S) for _ in range(5)))
    assert {answer.value.account.login for answer in answers if answer.value.account} == {LOGIN}


async def test_the_password_is_never_in_arguments_environment_or_log(link: WorkerClient, tmp_path: Path) -> None:
    answer = await link.call(WHO, deadline_s=PATIENCE_S)
    assert "s3cret" not in str(answer.log)
    pid = (tmp_path / "worker.lock").read_text()
    for part in ("cmdline", "environ"):
        process = Path("/proc", pid, part)
        if process.exists():
            assert b"s3cret" not in process.read_bytes()


async def test_before_initialize_nothing_reaches_the_module(link: WorkerClient) -> None:
    answer = await link.call(Look(), deadline_s=PATIENCE_S)
    assert answer.found is None
    assert answer.failure
    assert answer.broken == (-10004, "not initialised")


async def test_past_the_deadline_the_worker_is_dead_and_a_new_one_can_be_made(
    link: WorkerClient, market: Market, tmp_path: Path
) -> None:
    await link.call(WHO, deadline_s=PATIENCE_S)
    pid = int((tmp_path / "worker.lock").read_text())
    market.fault("hang", on="account_info", nth=1, params={"ms": int(PATIENCE_S * 1000)})
    hanging = asyncio.create_task(link.call(Look(), deadline_s=0.5))
    waiting = asyncio.create_task(link.call(Look(), deadline_s=PATIENCE_S))
    with pytest.raises(WorkerLostError) as lost:
        await hanging
    assert lost.value.deadline
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(NotHandedOverError):
        await waiting
    assert not link.is_alive
    await link.start()
    assert (await link.call(WHO, deadline_s=PATIENCE_S)).value.done


async def test_a_worker_that_is_killed_in_a_call_is_lost_and_not_asked_again(
    link: WorkerClient, market: Market, tmp_path: Path
) -> None:
    await link.call(WHO, deadline_s=PATIENCE_S)
    market.fault("hang", on="account_info", nth=1, params={"ms": int(PATIENCE_S * 1000)})
    hanging = asyncio.create_task(link.call(Look(), deadline_s=PATIENCE_S))
    await eventually(link._waiting.empty)
    os.kill(int((tmp_path / "worker.lock").read_text()), signal.SIGKILL)
    with pytest.raises(WorkerLostError) as lost:
        await hanging
    assert not lost.value.deadline
    with pytest.raises(NotHandedOverError):
        await link.call(Look(), deadline_s=PATIENCE_S)


async def test_orders_go_before_reads(link: WorkerClient) -> None:
    await link.call(WHO, deadline_s=PATIENCE_S)
    done: list[str] = []

    async def call(name: str, urgency: int) -> None:
        await link.call(ReadQuote("EURUSD"), deadline_s=PATIENCE_S, urgency=urgency)
        done.append(name)

    await asyncio.gather(*(call(f"read{n}", 1) for n in range(3)), call("order", ORDER))
    assert done.index("order") < 2


async def test_an_idle_worker_ends_when_it_is_asked_to(link: WorkerClient, tmp_path: Path) -> None:
    await link.call(WHO, deadline_s=PATIENCE_S)
    pid = int((tmp_path / "worker.lock").read_text())
    await link.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_worker_that_is_ended_during_a_call_takes_nobody_with_it(link: WorkerClient, market: Market) -> None:
    await link.call(WHO, deadline_s=PATIENCE_S)
    market.fault("hang", on="positions_get", nth=1)
    hanging = asyncio.create_task(link.call(Look(positions=True), deadline_s=PATIENCE_S))
    waiting = asyncio.create_task(link.call(Look(), deadline_s=PATIENCE_S))
    await eventually(lambda: market.faults()[0]["hits"])
    await link.end()
    await link.start()
    with pytest.raises(WorkerLostError):
        await hanging
    with pytest.raises(NotHandedOverError):
        await waiting
    assert link.is_alive
    assert (await link.call(WHO, deadline_s=PATIENCE_S)).value.done


BABBLER = """
import sys

def main():
    sys.stdin.buffer.read(4)
    sys.stdout.buffer.write(bytes.fromhex(sys.argv[1]))
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
"""


@pytest.mark.parametrize(
    "answer", [b"\0\0\0\2{}", b"\0\0\0\4what", b'\0\0\0\x0e{"found":null}', b"Traceback (most recent call last)"]
)
async def test_an_answer_that_can_not_be_read_leaves_a_doubt_and_a_dead_worker(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "babbler.py").write_text(BABBLER)

    async def spawn_babbler(*_: Any, **__: Any) -> Any:
        return await spawn("babbler", answer.hex(), environment={"PYTHONPATH": str(tmp_path)})

    monkeypatch.setattr(module, "spawn", spawn_babbler)
    client = WorkerClient("simulated", tmp_path / "worker.lock")
    running = asyncio.create_task(client.run())
    await client.start()
    with pytest.raises(WorkerLostError, match="can't be read") as lost:
        await client.call(Send({}, 1e12), deadline_s=PATIENCE_S)
    assert not lost.value.deadline
    assert not client.is_alive
    running.cancel()
