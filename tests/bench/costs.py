"""What a stretch of time cost: CPU of every process, what Kafka and JetStream wrote down.

No process, topic or stream is known here by its name: the running stack, the broker and the server are asked.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from nats.aio.client import Client

from streamapp.local.own import OwnStack
from streamapp.local.state import StackFolder

GROUPS = "__consumer_offsets"
"""Where Kafka keeps how far each consumer group has read; counted apart: it is the broker's own topic."""
SUPERVISOR = "streamapp up"
_BATCH_HEAD = struct.Struct(">qi")
"""Each record batch in a segment begins with its first offset and with how many bytes follow these two fields."""


@dataclass(frozen=True)
class Reading:
    """All counters at one moment (seconds of the monotonic clock): CPU seconds, end offsets, stream sequences."""

    at_s: float
    cpu_s: Mapping[str, float]
    ends: Mapping[TopicPartition, int]
    stored: Mapping[str, int]


@dataclass(frozen=True)
class Costs:
    """What was used between two readings.

    ``records`` and ``batches`` are Kafka's by topic. A batch is what one produce request brings to one partition, so
    there were as many produce requests or fewer. ``stored`` are JetStream's messages by stream, each of which is one
    fsync with ``sync_interval: always``.
    """

    seconds: float
    cpu_s: Mapping[str, float]
    records: Mapping[str, int]
    batches: Mapping[str, int]
    stored: Mapping[str, int]


class Meters:
    """Reads the counters of a running stack; made by :func:`meters_of`."""

    def __init__(self, stack: OwnStack, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, nats: Client) -> None:
        self._stack = stack
        self._consumer = consumer
        self._admin = admin
        self._nats = nats

    async def read(self) -> Reading:
        """Return what the counters show now."""
        parts = [
            TopicPartition(topic["topic"], part["partition"])
            for topic in await self._admin.describe_topics()
            for part in topic["partitions"]
        ]
        streams = await self._nats.jetstream().streams_info()
        return Reading(
            at_s=time.monotonic(),
            cpu_s=_cpu_of(self._stack),
            ends=await self._consumer.end_offsets(parts),
            stored={str(stream.config.name): stream.state.last_seq for stream in streams},
        )

    async def since(self, before: Reading) -> Costs:
        """Return what was used since an earlier reading."""
        after = await self.read()
        grown = {part: (before.ends.get(part, 0), end) for part, end in after.ends.items()}
        records, batches = Counter[str](), Counter[str]()
        for part, (begin, end) in grown.items():
            if end > begin:
                records[part.topic] += end - begin
                batches[part.topic] += _batches(self._log(part), begin, end)
        return Costs(
            seconds=after.at_s - before.at_s,
            cpu_s={name: cpu - before.cpu_s.get(name, 0.0) for name, cpu in after.cpu_s.items()},
            records=records,
            batches=batches,
            stored={name: last - before.stored.get(name, 0) for name, last in after.stored.items()},
        )

    def _log(self, part: TopicPartition) -> Path:
        return self._stack.data / "kafka" / "store" / f"{part.topic}-{part.partition}"


@asynccontextmanager
async def meters_of(stack: OwnStack, nats: Client) -> AsyncIterator[Meters]:
    """Yield the meters of a stack. They fetch nothing, and cost the stack nothing while they are not read."""
    bootstrap = stack.settings.kafka_bootstrap
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    async with contextlib.AsyncExitStack() as opened:
        for client, close in ((consumer, consumer.stop), (admin, admin.close)):
            await client.start()
            opened.push_async_callback(close)
        yield Meters(stack, consumer, admin, nats)


def _cpu_of(stack: OwnStack) -> dict[str, float]:
    """Return the CPU seconds of each process so far, those it started included."""
    state = StackFolder(stack.data).read()
    assert state is not None
    found = {}
    for name, (pid, _) in state.processes.items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found[name] = sum(map(_cpu_s, [process, *process.children(recursive=True)]))
    return found | {SUPERVISOR: _cpu_s(psutil.Process(state.pid))}


def _cpu_s(process: psutil.Process) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _batches(folder: Path, begin: int, end: int) -> int:
    """Return how many batches of a partition begin at offsets from ``begin`` to before ``end``."""
    segments = sorted(folder.glob("*.log"))
    following = [int(segment.stem) for segment in segments[1:]]
    wanted = [segment for segment, next_base in zip(segments, [*following, end + 1], strict=True) if next_base > begin]
    return sum(begin <= first < end for segment in wanted for first in _first_offsets(segment.read_bytes()))


def _first_offsets(segment: bytes) -> list[int]:
    found, at = [], 0
    while at + _BATCH_HEAD.size <= len(segment):
        first, length = _BATCH_HEAD.unpack_from(segment, at)
        found.append(first)
        at += _BATCH_HEAD.size + length
    return found
