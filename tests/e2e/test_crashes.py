"""Killed, frozen, restarted: no order twice in the broker's ledger, nothing lost, and everyone still agrees."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamapp.errors import Transient
from streamapp.local.own import OwnStack
from streamapp.local.process import RunningProcess
from tests.e2e.road import travel
from tests.e2e.traffic import Traffic
from tests.kit.stacks import accounts_of, second_worker_at
from tests.kit.waiting import eventually

PROCESSES = ("mirror", "trading", "warehouse", "terminals", "market")
SERVERS = ("kafka", "nats", "clickhouse")
RESTART_WITHIN_S = 90.0
IN_FLIGHT = 2
"""Orders on the road when a process is struck; a quick road rarely holds more of them at once at this rate."""


async def killed_and_back(stack: OwnStack, name: str, traffic: Traffic) -> None:
    """SIGKILL a process while orders are on the road, and wait until its supervisor has another one running."""
    victim = stack.pid_of(name)
    await traffic.crowded(IN_FLIGHT)
    os.kill(victim, signal.SIGKILL)

    def is_back() -> bool:
        with contextlib.suppress(Transient):  # between its end and the next start
            return stack.pid_of(name) != victim
        return False

    await eventually(is_back, f"{name} is started again", RESTART_WITHIN_S)


@pytest.mark.parametrize("name", [*PROCESSES, *SERVERS])
async def test_nothing_is_lost_or_doubled_when_it_is_killed_among_orders(stack: OwnStack, name: str) -> None:
    outcome = await travel(
        stack.settings, signals=220, rate=22, seed=11, meanwhile=lambda traffic: killed_and_back(stack, name, traffic)
    )
    assert outcome.differences == []


@pytest.fixture
def second_worker(stack: OwnStack, tmp_path: Path) -> Iterator[RunningProcess]:
    with second_worker_at(stack, tmp_path) as worker:
        yield worker


async def test_what_a_killed_worker_had_on_the_road_is_the_other_one_s_to_finish(
    stack: OwnStack, second_worker: RunningProcess
) -> None:
    accounts = await eventually(lambda: accounts_of(stack.settings.ports.trading(2)), "accounts of the second worker")
    assert accounts < stack.settings.accounts.keys()

    async def killed(traffic: Traffic) -> None:
        await traffic.crowded(IN_FLIGHT, accounts)
        second_worker.kill()

        async def taken_over() -> bool:
            return await accounts_of(stack.settings.ports.trading()) == stack.settings.accounts.keys()

        await eventually(taken_over, "the first worker has every account", RESTART_WITHIN_S)

    outcome = await travel(stack.settings, signals=220, rate=22, seed=19, meanwhile=killed)
    assert outcome.differences == []


async def test_a_worker_frozen_beyond_its_session_and_woken_again_doubles_nothing(
    stack: OwnStack, second_worker: RunningProcess
) -> None:
    session_s = stack.settings.kafka.session_timeout_s
    accounts = await eventually(lambda: accounts_of(stack.settings.ports.trading(2)), "accounts of the second worker")

    async def frozen_and_woken(traffic: Traffic) -> None:
        await traffic.crowded(1, accounts)
        os.kill(second_worker.pid, signal.SIGSTOP)
        await asyncio.sleep(2 * session_s)  # the passing of time is the fault here
        os.kill(second_worker.pid, signal.SIGCONT)

    outcome = await travel(stack.settings, signals=360, rate=20, seed=17, meanwhile=frozen_and_woken)
    assert outcome.differences == []
