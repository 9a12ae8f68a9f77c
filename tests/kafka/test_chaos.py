"""Workers that come, go, freeze and die at random under load: the road loses nothing and the fence holds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from tests.kafka.workers import Group, Worker, in_place, new_group, until

ACCOUNTS = [f"acc{each}" for each in range(16)]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))


@pytest.fixture
async def group(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Group]:
    async with new_group(kafka_bootstrap, tmp_path) as group:
        yield group


async def load(group: Group, stop: asyncio.Event) -> int:
    """Send rounds of one order an account until told to stop; return how many rounds."""
    number = 0
    while not stop.is_set():
        await asyncio.gather(
            *(group.order(account, "put", f"{account}:{number % 5}", value=str(number)) for account in ACCOUNTS)
        )
        number += 1
        await asyncio.sleep(0.05)  # the pace of the load, not a wait for anything
    return number


async def disturb(worker: Worker, dice: random.Random) -> None:
    how = dice.choice(["kill", "terminate", "freeze", "freeze briefly"])
    if how in {"kill", "terminate"}:
        worker.kill(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        await worker.ended()
    else:
        worker.kill(signal.SIGSTOP)
        await asyncio.sleep(8 if how == "freeze" else 1)  # the session is 6 s
        worker.kill(signal.SIGCONT)
        await asyncio.sleep(1)
    await asyncio.sleep(dice.random() * 4)
    if worker.code() is not None:
        worker.start()


async def progress(group: Group, workers: list[Worker], done: int) -> int | None:
    """Start again what has ended, and return the number of committed orders if it is more than ``done``."""
    for worker in workers:
        if worker.code() is not None:
            worker.start()
    committed = sum((await group.committed()).values())
    return committed if committed > done else None


@pytest.mark.crash
@pytest.mark.timeout(280)
async def test_nothing_is_lost_and_no_row_is_wrong_whatever_happens_to_two_workers(group: Group) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    dice, stop = random.Random(seed), asyncio.Event()
    workers = [group.worker(name) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    await workers[0].ready()
    loading = asyncio.ensure_future(load(group, stop))
    for _ in range(ROUNDS):
        await disturb(dice.choice(workers), dice)
    stop.set()
    rounds = await loading
    total = rounds * len(ACCOUNTS)

    done = 0
    while done < total:
        done = await until(
            partial(progress, group, workers, done), f"more than {done} of {total} commits (seed {seed})"
        )
    seen = [(out["key"], out["value"]) for out in await group.outcomes()]
    sent = {(f"{account}:{number % 5}", str(number)) for account in ACCOUNTS for number in range(rounds)}
    assert set(seen) == sent
    for account in ACCOUNTS:
        order = [int(value) for key, value in dict.fromkeys(seen) if key.startswith(f"{account}:")]
        assert order == sorted(order), "an account's orders were handled in their order"
    rows = {record.key.decode(): record.value[8:] for record in await group.read(group.changelog) if in_place(record)}
    last = {key: b'{"value":"%s"}' % value.encode() for key, value in sorted(sent, key=lambda pair: int(pair[1]))}
    assert rows == last, "the surviving rows of the changelog are the last ones"
