"""Who is the active mirror: one key in NATS, renewed by its holder, taken over when it stands still.

The lease is for quiet, not for safety: two active mirrors would keep order (see :mod:`streamapp.mirror.consumer`), but
each would make the other begin anew all the time. So it needs no clock that all agree on: a holder is gone when its key
has not changed for ``TAKEOVER_S`` of the waiting one's own time, or when it is a process of this machine that is not
there any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

logger = logging.getLogger(__name__)

KEY = "active"
RENEW_S = 1.0
TAKEOVER_S = 5.0
"""Five renewals missed. A restarted NATS is back in one; a mirror that is slower than this is too slow anyway."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", None)
_NATS_ERRORS = (nats.errors.Error, TimeoutError, OSError)


def now_s() -> float:
    """Return seconds that go on counting while the process, and where the system offers it the machine, is asleep."""
    return time.clock_gettime(_CLOCK) if _CLOCK is not None else time.monotonic()


def this_machine() -> str:
    """Return a name for where a process id of ours means something: the host, and on Linux the namespace."""
    try:
        return f"{platform.node()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


class Lease:
    """Keeps trying to be the active mirror, and says whether it is.

    Args:
        js: The connection's JetStream.
        bucket: The name of the key-value bucket, :func:`streamapp.subjects.lease_bucket`.
        progress: What the next holder should know: the last acknowledged sequence of each stream.
    """

    def __init__(self, js: JetStreamContext, bucket: str, progress: Callable[[], dict[str, int]]) -> None:
        self.found: dict[str, int] = {}
        """What the holder before us had acknowledged when it last said so."""
        self.holder = ""
        """Who has it, for the log and ``/health``."""
        self._js = js
        self._name = bucket
        self._bucket: KeyValue | None = None
        self._progress = progress
        self._me = {"host": this_machine(), "pid": os.getpid()}
        self._revision: int | None = None
        self._valid_until_s = 0.0
        self._seen: tuple[int, float] = (0, now_s())
        self._changed = asyncio.Event()

    @property
    def is_held(self) -> bool:
        """Whether we are the active mirror, by a renewal that the server confirmed less than ``TAKEOVER_S`` ago."""
        return self._revision is not None and now_s() < self._valid_until_s

    async def wait(self) -> None:
        """Return when we hold it."""
        while not self.is_held:
            self._changed.clear()
            await self._changed.wait()

    async def keep(self) -> None:
        """Take it as soon as it is free and renew it, for ever; run it as a task of its own."""
        while True:
            try:
                if self._bucket is None:
                    self._bucket = await self._js.key_value(self._name)
                await (self._renew(self._bucket) if self._revision is not None else self._try(self._bucket))
            except KeyWrongLastSequenceError:
                if self._revision is not None:
                    logger.warning("another mirror took the lease while this one stood still; standing by")
                self._revision = None
            except BucketNotFoundError:
                self.holder = "nobody: the lease's bucket is missing. Run `streamapp init`"
            except _NATS_ERRORS as error:
                logger.debug("the lease was not renewed: %r", error)
            await asyncio.sleep(RENEW_S)

    async def release(self) -> None:
        """Let the next one take it at once."""
        if self._revision is None:
            return
        assert self._bucket is not None
        revision, self._revision = self._revision, None
        try:
            # An empty holder, not a deletion: the next one still wants to know how far we came.
            await self._bucket.update(KEY, self._value({"host": "", "pid": 0}), last=revision)
        except _NATS_ERRORS as error:
            logger.warning("the lease was not released, another mirror waits %s s for it: %r", TAKEOVER_S, error)

    def _value(self, who: dict[str, Any]) -> bytes:
        return json.dumps({**who, "progress": {**self.found, **self._progress()}}).encode()

    async def _renew(self, bucket: KeyValue) -> None:
        asked_s = now_s()
        revision = await bucket.update(KEY, self._value(self._me), last=self._revision)
        self._hold(revision, asked_s)

    async def _try(self, bucket: KeyValue) -> None:
        asked_s = now_s()
        try:
            entry = await bucket.get(KEY)
        except KeyNotFoundError:
            self._hold(await bucket.create(KEY, self._value(self._me)), asked_s)
            return
        assert entry.revision is not None
        holder = _read(entry.value)
        self.holder = f"process {holder.get('pid')} on {str(holder.get('host')).partition('/')[0]}"
        if self._seen[0] != entry.revision:
            self._seen = (entry.revision, asked_s)
        if not (self._is_gone(holder) or asked_s - self._seen[1] > TAKEOVER_S):
            return
        self.found = _progress(holder)
        self._hold(await bucket.update(KEY, self._value(self._me), last=entry.revision), asked_s)

    def _hold(self, revision: int, asked_s: float) -> None:
        if self._revision is None:
            logger.info("this mirror is the active one")
            self.holder = "this process"
        self._revision = revision
        self._valid_until_s = asked_s + TAKEOVER_S
        self._changed.set()

    def _is_gone(self, holder: dict[str, Any]) -> bool:
        if not holder.get("pid") or all(holder.get(name) == value for name, value in self._me.items()):
            return True  # given back; or our own, whose renewal arrived although its answer did not
        pid = holder["pid"]
        return holder.get("host") == self._me["host"] and isinstance(pid, int) and not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _progress(holder: dict[str, Any]) -> dict[str, int]:
    progress = holder.get("progress")
    named = progress.items() if isinstance(progress, dict) else ()
    return {stream: last for stream, last in named if isinstance(last, int)}


def _read(value: bytes | None) -> dict[str, Any]:
    try:
        holder = json.loads(value or b"{}")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}
