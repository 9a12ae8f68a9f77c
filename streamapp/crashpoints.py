"""Named places at which a test can kill the process (design: submission "Named crash points").

``STREAMAPP_CRASH_AT=desk.after_commit`` kills at the first time the point is reached, ``desk.after_commit:7`` at the
seventh, ``desk.after_commit@report:7`` at the seventh commit that takes in a report. Where the variable is not set this
costs one comparison.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

POINTS = frozenset(
    {
        "mirror.after_kafka_ack",
        "desk.before_commit",
        "desk.after_commit",
        "desk.after_submit",
        "desk.after_outbox",
        "terminal.after_intent",
        "terminal.after_started",
        "terminal.in_order_send",
        "terminal.after_result",
        "terminal.in_prune",
        "terminal.after_prune",
        "publisher.after_publish",
        "warehouse.after_insert",
    }
)
_left: dict[str, int] = {}
_kind: str = ""


def arm(wanted: str | None) -> None:
    """Choose the point at which this process dies; None: none.

    Called once by composition roots with the environment's value: ``point[@kind][:times]``.

    Raises:
        ValueError: the point is not one of :data:`POINTS`.
    """
    global _kind
    _left.clear()
    if not wanted:
        return
    place, _, times = wanted.partition(":")
    name, _, _kind = place.partition("@")
    if name not in POINTS:
        raise ValueError(f"STREAMAPP_CRASH_AT: expected one of {', '.join(sorted(POINTS))}, got {name}")
    _left[name] = int(times or 1)


def reach(name: str, kinds: Iterable[str] = ()) -> None:
    """Die here, without a word and without cleaning up, if a test armed this point, for one of these kinds or any."""
    if _left and name in _left and (not _kind or _kind in kinds):
        _left[name] -= 1
        if _left[name] <= 0:
            if sys.platform == "win32":
                os._exit(137)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
