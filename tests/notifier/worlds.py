"""Receivers of a test's own beside the shared Kafka, and notifiers that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from streamapp import topics
from streamapp.domain.identifiers import partition_of
from streamapp.kafka.admin import create_topics
from streamapp.local.ports import free_port
from streamapp.messages.commit import Publication, encode_commit
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.envelope import Message
from streamapp.messages.error import ErrorMessage
from streamapp.settings import KafkaSettings
from tests.kit.waiting import eventually

PARTITIONS = 2
NOTIFIER_PORT = 6074
PASSWORD, SECRET_PATH = "pa55word", "t0ken-in-the-path"
ACCOUNT = "demo-hedging"


class ReceiverServer:
    """Somebody's HTTP receiver: what it was told, and what it answers."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.told: list[dict[str, Any]] = []
        self.tries = 0
        self.answer: Callable[[], int] = lambda: 200
        self._port = server.server_address[1]

    @property
    def url(self) -> str:
        return f"json://user:{PASSWORD}@127.0.0.1:{self._port}/{SECRET_PATH}"

    @property
    def titles(self) -> list[str]:
        return [each["title"] for each in self.told]

    def take(self, message: dict[str, Any]) -> int:
        self.tries += 1
        status = self.answer()
        if status == 200:
            self.told.append(message)
        return status

    async def has(self, count: int) -> list[str]:
        """Return the titles as soon as they are so many."""
        await eventually(lambda: len(self.told) >= count, lambda: f"{count} messages, got {self.titles}")
        return self.titles


@contextmanager
def receiver() -> Iterator[ReceiverServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = made.take(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = ReceiverServer(server)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class NotifierWorld:
    """Topics of its own, and one notifier at a time in it."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self.folder = folder
        self.kafka = KafkaSettings(
            bootstrap=bootstrap, partitions=PARTITIONS, topic_prefix=f"n{uuid.uuid4().hex[:8]}.", session_timeout_s=6
        )
        offset = next(at for at in iter(lambda: free_port() - NOTIFIER_PORT, None) if 0 <= at <= 50_000)
        self.port = NOTIFIER_PORT + offset
        self.urls_file = folder / "notify.urls"
        self.log = folder / "notifier.log"
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        self._number = 0
        self._process: asyncio.subprocess.Process | None = None
        self._environment = {
            **os.environ,
            "STREAMAPP_KAFKA__BOOTSTRAP": bootstrap,
            "STREAMAPP_KAFKA__PARTITIONS": str(PARTITIONS),
            "STREAMAPP_KAFKA__TOPIC_PREFIX": self.kafka.topic_prefix,
            "STREAMAPP_KAFKA__SESSION_TIMEOUT_S": "6",
            "STREAMAPP_LOCAL__PORT_OFFSET": str(offset),
            "STREAMAPP_LOCAL__DATA": str(folder / "data"),
            "STREAMAPP_NOTIFY__URLS_FILE": str(self.urls_file),
            "STREAMAPP_LOG__LEVEL": "debug",
        }

    def receivers(self, *lines: str) -> None:
        self.urls_file.write_text("# who is told\n" + "".join(f"{line}\n" for line in lines))
        self.urls_file.chmod(0o600)

    async def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a command of the world to its end; return its code and all that it says."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={**self._environment, **environment},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    async def start(self, **notify: object) -> None:
        """Start a notifier, and return when it reads."""
        settings = {f"STREAMAPP_NOTIFY__{name.upper()}": str(value) for name, value in notify.items()}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "streamapp.notifier",
                env={**self._environment, **settings},
                stdout=log,
                stderr=log,
            )
        await eventually(lambda: asyncio.to_thread(self._is_ready), self.log.read_text)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        self.send(signal.SIGTERM)
        assert await self.ended() == 0, self.log.read_text()

    async def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            await self.ended()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.log.read_text()
        return self.get("/readyz")[0] == 200

    async def commit(self, *messages: Message, account: str = ACCOUNT, at: datetime | None = None) -> None:
        """Archive a commit of an account, as the desk's outbox does."""
        self._number += 1
        at = at or now()
        value = encode_commit(account, self._number, at, (), [Publication(each.encode()) for each in messages])
        await self.write(topics.ARCHIVE, value, account, at)

    async def write(self, topic: str, value: bytes, account: str, at: datetime) -> None:
        await self.producer.send_and_wait(
            self.kafka.prefixed(topic), value, key=account.encode(), partition=partition_of(account, PARTITIONS),
            timestamp_ms=int(at.timestamp() * 1000),
        )  # fmt: skip

    async def bury(self, letter: DeadLetter) -> None:
        topic = self.kafka.prefixed(topics.DEAD_LETTERS)
        await self.producer.send_and_wait(topic, letter.value, partition=0, headers=list(letter.headers.items()))


def now() -> datetime:
    return datetime.now(UTC)


def rejection(number: int, *, at: datetime | None = None) -> ErrorMessage:
    """Return the error/1 of an order that the broker rejected; its symbol is its number."""
    return ErrorMessage(
        error_id=f"order-{number}:1:rejected", order_id=f"order-{number}", account=ACCOUNT, symbol=f"SYM{number}",
        kind="rejected", retcode=10019, retcode_name="NO_MONEY", message="No money", attempt=1, final=True,
        at=at or now() - timedelta(seconds=1),
    )  # fmt: skip


def rejected(*numbers: int) -> list[str]:
    """Return the titles of their messages."""
    return [f"rejected: order of SYM{number}, account {ACCOUNT}" for number in numbers]


@asynccontextmanager
async def notifier_world(folder: Path, bootstrap: str) -> AsyncIterator[NotifierWorld]:
    made = NotifierWorld(folder, bootstrap)
    await create_topics(
        bootstrap, topics.own_topics(made.kafka.topic_prefix), partitions=PARTITIONS, replication_factor=1
    )
    async with made.producer:
        try:
            yield made
        finally:
            await made.kill()
