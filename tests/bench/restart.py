"""How long a worker without a local copy takes until it is ready: a changelog of a million rows is read anew."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from streamapp import topics
from streamapp.domain.identifiers import order_id_for, partition_of
from streamapp.kafka.admin import create_topics
from streamapp.kafka.batches import BatchProducer
from streamapp.kafka.security import Cluster
from streamapp.local.own import free_port_offset
from streamapp.local.process import ProcessSpec, RunningProcess
from streamapp.local.readiness import http_answers
from streamapp.nats.connection import connect
from streamapp.nats.streams import ensure
from streamapp.settings import AccountSettings, KafkaSettings, LocalSettings, NatsSettings, Settings
from tables.adoption import in_batches
from tables.store import KeyValue, fenced
from tests.bench.figures import markdown
from tests.kit.desk import ACCOUNT, DeskWorld
from tests.kit.examples import accepted, deal, returned, started
from tests.kit.stacks import running_kafka_and_nats

OPEN_OF = 1000
"""One order of so many is still open, as is its position."""
ORDER_ROWS = 3
"""Rows of an order: the decision on its signal, the order, its position."""
NAME, DEAL, CLOSING, POSITION_ID = "signal-00000000", 500000000, 400000000, 810000000
"""What is another one in each order's rows, and as long."""
READY_WITHIN_S = 600.0


async def measure(folder: Path, show: Callable[[str], None], progress: Callable[[str], None], *, rows: int) -> None:
    """Print how long a worker's start takes with ``rows`` rows: cold, without a local copy, and then warm, with it."""
    with running_kafka_and_nats(folder) as (bootstrap, nats_url):
        settings = Settings(
            accounts={name: AccountSettings(login=at) for at, name in enumerate(accounts(), start=1)},
            kafka=KafkaSettings(bootstrap=bootstrap),
            nats=NatsSettings(url=nats_url),
            local=LocalSettings(data=folder / "data", port_offset=free_port_offset()),
        )
        progress(f"writing {rows} rows")
        size = await _fill(settings, rows)
        progress("a start without a local copy, then one with it")
        found = [(name, _start(settings, folder)) for name in ("cold", "warm")]
    show(
        f"{rows:,} rows, {size / 1e6:,.0f} MB of keys and values in {settings.kafka.partitions} partitions; one order "
        f"of {OPEN_OF} is open.\n\n"
        + markdown(
            ("start", "until /readyz, s", "CPU of the worker, s"),
            [(name, f"{seconds:.1f}", f"{cpu_s:.1f}") for name, (seconds, cpu_s) in found],
        )
    )


def accounts() -> tuple[str, ...]:
    """Return one account for each partition, so that all have rows."""
    found: dict[int, str] = {}
    for number in range(1000):
        name = f"bench-{number:03}"
        found.setdefault(partition_of(name, KafkaSettings().partitions), name)
    return tuple(found.values())


async def _fill(settings: Settings, rows: int) -> int:
    """Write the rows of orders as their worker would have written them, and return how many bytes they have."""
    cluster, topic = Cluster.of(settings), topics.changelog(settings.deployment, topics.TABLES[0])
    specs = (*topics.TOPICS, *topics.changelogs(settings.deployment))
    await create_topics(cluster, specs, partitions=settings.kafka.partitions, replication_factor=1)
    nats = await connect(settings, "bench", wait_s=10.0)
    await ensure(nats.jetstream(), settings, create=True)
    await nats.close()
    following: defaultdict[int, int] = defaultdict(int)
    size = 0
    every = rows // len(accounts())
    templates = {is_open: await _order(is_open=is_open) for is_open in (False, True)}
    async with BatchProducer(cluster, "bench") as producer:
        for account in accounts():
            partition = partition_of(account, settings.kafka.partitions)
            for batch in in_batches(_rows(templates, account, every)):
                await producer.send(topic, partition, fenced(batch, following[partition]))
                following[partition] += len(batch)
                size += sum(len(key) + len(value) for key, value in batch)
    return size


def _rows(templates: Mapping[bool, Mapping[bytes, bytes]], account: str, count: int) -> Iterator[KeyValue]:
    old = (order_id_for("streamapp", ACCOUNT, NAME), NAME, str(POSITION_ID), str(DEAL), str(DEAL + CLOSING))
    for number in range(count // ORDER_ROWS):
        name = f"signal-{number:08}"
        numbers = (POSITION_ID + number, DEAL + number, DEAL + CLOSING + number)
        new = (order_id_for("streamapp", account, name), name, *map(str, numbers))
        for key, value in templates[number % OPEN_OF == 0].items():
            yield (_renamed(key, old, new, account), _renamed(value, old, new, account))


def _renamed(text: bytes, old: tuple[str, ...], new: tuple[str, ...], account: str) -> bytes:
    for before, after in zip(old, new, strict=True):
        text = text.replace(before.encode(), after.encode())
    text = text.replace(f'"account":"{ACCOUNT}"'.encode(), f'"account":"{account}"'.encode())
    if text.startswith(b"p/"):
        return text.removesuffix(ACCOUNT.encode()) + account.encode()
    return text.replace(f"s/{ACCOUNT}\0".encode(), f"s/{account}\0".encode())


async def _order(*, is_open: bool) -> dict[bytes, bytes]:
    """Return the rows of one order that was filled, as a desk makes them; unless it is open its position is closed."""
    world = await DeskWorld().start()
    order_id = await world.signal(NAME)
    filled = deal(DEAL, "0.05" if is_open else "0.1", position_id=POSITION_ID)
    said = {"started": started().body, "returned": returned().body, "accepted": accepted().body, "deal": filled}
    await world.report(*((kind, order_id, body) for kind, body in said.items()))
    if not is_open:
        closed = deal(DEAL + CLOSING, "0.1", position_id=POSITION_ID, side="sell", entry="out", seconds=5)
        await world.report(("deal", None, closed), first_seq=len(said) + 1)
    rows = {key: value for _, several in world.store.commits for key, value in several.items()}
    return {key: value for key, value in rows.items() if not key.startswith(b"a/")}


def _start(settings: Settings, folder: Path) -> tuple[float, float]:
    """Start a worker, and return after how many seconds it is ready, and of how much CPU."""
    port = settings.ports.trading()
    environment = {
        "STREAMAPP_KAFKA__BOOTSTRAP": settings.kafka_bootstrap,
        "STREAMAPP_NATS__URL": settings.nats_url,
        "STREAMAPP_LOCAL__DATA": str(settings.local.data),
        "STREAMAPP_LOCAL__PORT_OFFSET": str(settings.local.port_offset),
        **{f"STREAMAPP_ACCOUNTS__{name}__LOGIN": str(each.login) for name, each in settings.accounts.items()},
    }
    command = (sys.executable, "-m", "faust", "--loop", "uvloop", "-A", "streamapp.trading", "worker", "-l", "info")
    ready = http_answers(port, "/readyz")
    spec = ProcessSpec("trading", command, ready, {**os.environ, **environment}, ready_within_s=READY_WITHIN_S)
    begin = time.monotonic()
    worker = RunningProcess(spec, folder / "logs")
    try:
        worker.wait_ready()
        seconds, cpu = time.monotonic() - begin, psutil.Process(worker.pid).cpu_times()
        return seconds, cpu.user + cpu.system
    finally:
        worker.stop()
