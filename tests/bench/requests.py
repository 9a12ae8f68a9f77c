"""How many requests Kafka answers, by kind: it writes each down while they are counted, and is slower by it."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from streamapp.errors import Transient
from streamapp.local.kafka import java_command, resolve_class_path
from streamapp.local.own import OwnStack

_KIND = re.compile(rb'"requestApiKeyName":"(\w+)"')
COUNTED = ("PRODUCE", "FETCH")
"""What the road asks for each order; the others are groups' and clients' housekeeping."""


@dataclass
class Requests:
    """What was asked while it was counted; ``by_kind`` is complete when the counting is over."""

    seconds: float = 0.0
    by_kind: Mapping[str, int] = field(default_factory=dict)


@asynccontextmanager
async def counted(stack: OwnStack) -> AsyncIterator[Requests]:
    """Count the requests that end within the block, by the broker's own log of them."""
    log = stack.data / "logs" / "kafka.log"
    found = Requests()
    await _log_level(stack, "DEBUG")
    try:
        begin, skipped = time.monotonic(), log.stat().st_size
        yield found
        found.seconds = time.monotonic() - begin
        with log.open("rb") as lines:
            lines.seek(skipped)
            found.by_kind = Counter(kind.group(1).decode() for line in lines if (kind := _KIND.search(line)))
    finally:
        await _log_level(stack, "INFO")


async def _log_level(stack: OwnStack, level: str) -> None:
    java = java_command(resolve_class_path(), stack.data / "kafka" / "server.properties")
    where = ("--bootstrap-server", stack.settings.kafka_bootstrap, "--entity-type", "broker-loggers")
    what = ("--entity-name", "1", "--alter", "--add-config", f"kafka.request.logger={level}")
    tool = await asyncio.create_subprocess_exec(
        *(*java, "kafka.admin.ConfigCommand", *where, *what),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await tool.communicate()
    if tool.returncode:
        raise Transient(f"expected Kafka to log its requests at {level}, got: {said.decode()[-500:]}")
