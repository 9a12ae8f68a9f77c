"""The publisher as a process: a real Kafka, a real NATS, and kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamapp import subjects, topics
from streamapp.kafka.producer import ClientProducer, Record
from streamapp.local.ports import free_port
from tests.mirror.worlds import DEADLINE_S, World, becomes, world
from tests.nats.servers import own_nats, running

ACCOUNTS = [f"account-{number}" for number in range(6)]
PORT = 6070


class Publisher:
    """``faust -A streamapp.publisher worker`` in a world."""

    def __init__(self, here: World) -> None:
        self._offset = next(at for at in iter(lambda: free_port() - PORT, None) if 0 <= at <= 50_000)
        self._here = here
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, **environment: str) -> None:
        settings = self._here.settings
        with (self._here.folder / "publisher.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "faust", "-A", "streamapp.publisher", "worker", "-l", "info",
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "STREAMAPP_DEPLOYMENT": settings.deployment,
                    "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
                    "STREAMAPP_KAFKA__SESSION_TIMEOUT_S": "6",
                    "STREAMAPP_NATS__URL": settings.nats_url,
                    "STREAMAPP_NATS__PUBLISH_TIMEOUT_S": "1",
                    "STREAMAPP_LOCAL__DATA": str(self._here.folder),
                    "STREAMAPP_LOCAL__PORT_OFFSET": str(self._offset),
                    **environment,
                },
            )  # fmt: skip

    def health(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT + self._offset}/health", timeout=5) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                return dict(json.load(error))
        except OSError:
            return {}

    async def exit_code(self) -> int:
        assert self._process is not None
        async with asyncio.timeout(DEADLINE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self.exit_code()


async def send(here: World, first: int, count: int) -> None:
    """Send ``count`` updates for each account; every second one is for the warehouse only."""
    async with ClientProducer(here.settings.kafka_bootstrap, "test") as producer:
        records = []
        for number in range(first, first + count):
            for account in ACCOUNTS:
                message_id = subjects.message_id(here.settings.deployment, "order", account, number)
                headers = {topics.PUBLISH_SUBJECT: b"orders.filled.EURUSD", topics.PUBLISH_ID: message_id.encode()}
                body = json.dumps({"account": account, "n": number, "from": here.settings.deployment}).encode()
                records.append(Record(topics.UPDATES, account.encode(), body, headers if number % 2 == 0 else {}))
        await producer.send_all(records)


async def stored(here: World, count: int) -> dict[str, list[int]]:
    """Return the numbers said for each account, in the stream's order, as soon as there are ``count``.

    The topic is shared: a new consumer group also reads what other tests sent.
    """
    js = here.client.jetstream()
    said: dict[str, list[int]] = {}
    sequence = 1
    async with asyncio.timeout(DEADLINE_S):
        while sum(map(len, said.values())) < count:
            if (await js.stream_info("EXECUTION_OUT")).state.last_seq < sequence:
                await asyncio.sleep(0.05)
                continue
            body = json.loads((await js.get_msg("EXECUTION_OUT", seq=sequence)).data or b"")
            if body.get("from") == here.settings.deployment:
                said.setdefault(body["account"], []).append(body["n"])
            sequence += 1
    return said


def everything(total: int) -> dict[str, list[int]]:
    return {account: list(range(0, total, 2)) for account in ACCOUNTS}


@pytest.fixture
async def here(tmp_path: Path, kafka_bootstrap: str) -> AsyncIterator[World]:
    async with world(tmp_path, kafka_bootstrap) as made:
        yield made


async def test_everything_is_said_once_and_in_order_though_the_publisher_is_killed_after_publishing(
    here: World,
) -> None:
    publisher = Publisher(here)
    try:
        await send(here, 0, 50)
        for point in ("publisher.after_publish", "publisher.after_publish:5"):
            await publisher.start(STREAMAPP_CRASH_AT=point)
            assert await publisher.exit_code() == -signal.SIGKILL
        await publisher.start()
        await send(here, 50, 50)
        assert await stored(here, 300) == everything(100)
        await becomes(lambda: publisher.health().get("status") == "ok")
    finally:
        await publisher.kill()


async def test_while_nats_is_away_it_waits_says_so_and_goes_on(tmp_path: Path, kafka_bootstrap: str) -> None:
    spec = own_nats(tmp_path)
    with running(spec, tmp_path) as server:
        async with world(tmp_path, kafka_bootstrap, nats=spec) as here:
            publisher = Publisher(here)
            try:
                await publisher.start()
                await becomes(lambda: publisher.health().get("status") == "ok")
                await send(here, 0, 20)
                await stored(here, 60)
                server.kill()
                await send(here, 20, 20)
                await becomes(lambda: "NATS" in str(publisher.health().get("reasons")))
                with running(spec, tmp_path):
                    await becomes(lambda: here.client.is_connected)
                    assert await stored(here, 120) == everything(40)
                    await becomes(lambda: publisher.health().get("status") == "ok")
            finally:
                await publisher.kill()
