"""The views on two real workers: Kafka's own assignment says who owns what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from streamapp import topics
from streamapp.domain.identifiers import partition_of
from streamapp.kafka.abort import CONFIGURATION
from streamapp.kafka.admin import create_topics
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local.ports import free_port
from streamapp.topics import TopicSpec
from tests.kit.waiting import eventually
from tests.web.group import PARTITIONS, ids

ACCOUNTS = [f"account-{number}" for number in range(12)]
READY_WITHIN_S = 90.0


class Pair:
    """Two workers of one group."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        self.folder = folder
        self.deployment = f"web-{os.urandom(4).hex()}"
        self.urls: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *, advertised: str | None = None) -> None:
        """Start a worker on an address of its own, as if it had a host of its own."""
        number = len(self.processes) + 1
        # A worker's port is 6065 and its number on top of the offset.
        host, port = f"127.0.0.{number + 1}", free_port()
        url = f"http://{host}:{port}"
        environment = os.environ | {
            "STREAMAPP_DEPLOYMENT": self.deployment,
            "STREAMAPP_WORKER": str(number),
            "STREAMAPP_KAFKA__BOOTSTRAP": self.bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_CLICKHOUSE__URL": f"http://127.0.0.1:{free_port()}",
            "STREAMAPP_LOCAL__DATA": str(self.folder / str(number)),
            "STREAMAPP_LOCAL__PORT_OFFSET": str(port - 6065 - number),
            "STREAMAPP_WEB__BIND": host,
            "STREAMAPP_WEB__ADVERTISED_URL": advertised or url,
        }
        command = [sys.executable, "-m", "faust", "-A", "tests.web.worker_app", "worker", "-l", "info"]
        with (self.folder / f"{number}.log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        self.urls.append(url)

    async def get(self, worker: int, path: str) -> tuple[int, Any, str | None]:
        timeout = aiohttp.ClientTimeout(total=30)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self.urls[worker] + path) as answer,
            ):
                return answer.status, await answer.json(), answer.headers.get("Streamapp-Answered-By")
        except (aiohttp.ClientError, OSError):
            return 0, {}, None

    async def ready(self) -> bool:
        for number, process in enumerate(self.processes, start=1):
            assert process.poll() is None, (self.folder / f"{number}.log").read_text()[-3000:]
        states = [(await self.get(worker, "/health"))[0] for worker in range(len(self.processes))]
        lists = [await self.get(worker, "/accounts") for worker in range(len(self.processes))]
        return set(states) == {200} and not any(body.get("incomplete", True) for _, body, _ in lists)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
async def pair(kafka_of_this_module: str, tmp_path: Path) -> AsyncIterator[Pair]:
    pair = Pair(kafka_of_this_module, tmp_path)
    specs = (TopicSpec(topics.ARCHIVE), *topics.changelogs(pair.deployment))
    await create_topics(pair.bootstrap, specs, partitions=PARTITIONS, replication_factor=1)
    try:
        yield pair
    finally:
        pair.stop()


async def test_fifty_orders_are_found_by_asking_either_of_two_workers(pair: Pair) -> None:
    orders = [*ids(ACCOUNTS, 50), *((f"foreign/{number}", ACCOUNTS[number]) for number in range(6))]
    pair.start()
    await eventually(pair.ready, "the first worker is ready", within_s=READY_WITHIN_S)
    pair.start()
    async with ClientProducer(pair.bootstrap, "test") as producer:
        for order_id, account in orders:
            value = json.dumps({"order_id": order_id, "account": account}).encode()
            partition = partition_of(account, PARTITIONS)
            await producer.send_all([Record(topics.ARCHIVE, account.encode(), value, partition=partition)])

    async def all_are_there() -> bool:
        status, body, _ = await pair.get(0, "/orders?status=submitted&limit=1000")
        return status == 200 and len(body["orders"]) == len(orders) and await pair.ready()

    await eventually(all_are_there, "both workers have partitions, and all orders are in their tables", READY_WITHIN_S)
    answered: set[str | None] = set()
    for worker in (0, 1):
        for order_id, account in orders:
            status, body, by = await pair.get(worker, f"/orders/{quote(order_id, safe='')}")
            assert (status, body["order_id"], body["account"]) == (200, order_id, account)
            answered.add(by)
    assert {url.rstrip("/") for url in answered if url} == set(pair.urls)

    pair.start(advertised=pair.urls[0])
    refused = pair.processes.pop()
    await eventually(lambda: refused.poll() is not None, "a third worker, known by the first one's address, ends")
    assert refused.returncode == CONFIGURATION
    assert f"has {pair.urls[0]} as well" in (pair.folder / "3.log").read_text()
    pair.urls.pop()
    assert await pair.ready(), "and nobody noticed"

    pair.processes[1].kill()
    pair.processes[1].wait()
    _, body, _ = await pair.get(0, "/orders?status=submitted&limit=1000")
    assert body["incomplete"]
    assert [url.rstrip("/") for url in body["missing"]] == [pair.urls[1]]
    assert 0 < len(body["orders"]) < len(orders)
    statuses = {(await pair.get(0, f"/orders/{quote(order_id, safe='')}"))[0] for order_id, _ in orders}
    assert statuses == {200, 503}
