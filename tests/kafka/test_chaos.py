"""Workers that come, go, freeze and die at random under load: the road loses nothing and the fence holds."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kafka.workers import PARTITIONS, Group, Worker, in_place, new_group
from tests.kit.waiting import eventually

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
        done = await eventually(
            partial(progress, group, workers, done), f"more than {done} of {total} commits (seed {seed})"
        )
    seen = [(out["key"], out["value"]) for out in await group.outcomes()]
    sent = {(f"{account}:{number % 5}", str(number)) for account in ACCOUNTS for number in range(rounds)}
    assert set(seen) == sent
    for account in ACCOUNTS:
        order = [int(value) for key, value in dict.fromkeys(seen) if key.startswith(f"{account}:")]
        assert order == sorted(order), "an account's orders were handled in their order"
    rows = {record.key.decode(): record.value[8:] for record in await group.read(group.changelog) if in_place(record)}
    last = {key: value.encode() for key, value in sorted(sent, key=lambda pair: int(pair[1]))}
    assert rows == last, "the surviving rows of the changelog are the last ones"


ROWS = 150
"""Of one commit: 150 kB, so that a crash has something to tear apart."""


def runs(log: list[Any]) -> list[tuple[str, bytes]]:
    """Return the commits in a changelog, each as its key and value, or fail at one that is not whole."""
    found = []
    for partition in range(PARTITIONS):
        rows = [each for each in log if each.partition == partition and in_place(each)]
        for start in range(0, len(rows), ROWS):
            commit = rows[start : start + ROWS]
            key, value = commit[0].key.decode().partition("/")[0], commit[0].value[8:28]
            assert [each.key.decode() for each in commit] == [f"{key}/{number:04}" for number in range(ROWS)]
            assert {each.value[8:28] for each in commit} == {value}, "rows of two commits"
            found.append((key, value.strip()))
    return found


@pytest.mark.crash
async def test_a_commit_of_many_rows_is_there_wholly_or_not_at_all_whenever_the_worker_is_killed(group: Group) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "1"))
    dice, worker, number = random.Random(seed), group.worker(), 0
    for _ in range(ROUNDS * 2):
        worker.start()
        await worker.ready()
        orders = [(account, str(number + more)) for more in range(20) for account in ACCOUNTS[:PARTITIONS]]
        number += 20
        for account, value in orders:
            await group.order(account, "put_many", account, value=value, rows=ROWS)
        await asyncio.sleep(dice.random())  # anywhere in the middle of the commits
        worker.kill()
        await worker.ended()
    worker.start()
    last = str(number - 1)
    for account in ACCOUNTS[:PARTITIONS]:
        await group.outcome(account, value=last)
    # What was redelivered is being worked through once more: the rows are the last ones when that is over.
    await eventually(partial(has_rows, worker, last), "the last commit's rows are in place")
    _, _, trace = worker.log.read_text().partition("Traceback")
    assert not trace, f"no worker saw a part of a commit: {trace[:4000]}"
    commits = runs(await group.read(group.changelog))
    assert {(account, b"%d" % value) for account in ACCOUNTS[:PARTITIONS] for value in range(number)} == set(commits)


async def has_rows(worker: Worker, value: str) -> bool:
    """Return whether every row of every account has ``value``."""
    found = (await worker.ready())["rows"].values()
    rows = {key: row[:20].strip() for partition in found for key, row in partition.items()}
    return rows == {f"{account}/{row:04}": value for account in ACCOUNTS[:PARTITIONS] for row in range(ROWS)}
