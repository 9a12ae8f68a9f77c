"""SIGTERM at any moment of a worker's life ends it with exit code 0; what it had not finished the next one does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamapp.kafka.producer import Record
from tables.store import fenced
from tests.kafka.workers import PARTITIONS, Group, new_group

MOMENTS = ("check", "assigned", "reading", "read", "recovered", "event")


async def seeded(group: Group) -> None:
    """Let there be rows to recover and an order to carry out, as another worker left them."""
    for partition in range(PARTITIONS):
        [(key, value)] = fenced([(b"old", b"v")], 0)
        await group.producer.send_all([Record(group.changelog, key, value, partition=partition)])
    await group.order("a", "put", "k", value="1")


async def stopped_at(moment: str, bootstrap: str, folder: Path) -> None:
    folder.mkdir()
    async with new_group(bootstrap, folder) as group:
        await seeded(group)
        worker = group.worker(stop_at=moment)
        worker.start()
        assert await worker.ended() == 0, f"{moment}:\n{worker.log.read_text()[-5000:]}"
        assert "Signal received: 15" in worker.log.read_text()


async def test_a_worker_that_is_asked_to_stop_at_any_moment_of_its_start_ends_well(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    await asyncio.gather(*(stopped_at(moment, kafka_bootstrap, tmp_path / moment) for moment in MOMENTS))


async def test_a_stop_does_not_wait_for_what_takes_too_long_and_the_next_worker_does_it(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    async with new_group(kafka_bootstrap, tmp_path) as group:
        worker = group.worker(stop_at="event", drain="0.5")
        await group.order("a", "put_late", "k", value="1")
        worker.start()
        assert await worker.ended() == 0
        assert "1 events were not finished in time: they are redelivered" in worker.log.read_text()
        worker = group.worker()
        worker.start()
        assert await group.outcome("k", value="1")
