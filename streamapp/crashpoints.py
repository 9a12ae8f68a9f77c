"""Named places at which a test can kill the process (design: submission "Named crash points").

``STREAMAPP_CRASH_AT=broker.after_claim`` kills at the first time the point is reached, ``broker.after_claim:7`` at the
seventh. Where the variable is not set this costs one comparison.
"""

from __future__ import annotations

import os
import signal
import sys

POINTS = frozenset(
    {
        "mirror.after_kafka_ack",
        "execution.after_put",
        "execution.after_emit",
        "broker.after_claim",
        "broker.after_reply",
        "terminal.after_intent",
        "terminal.after_started",
        "terminal.in_order_send",
        "terminal.after_result",
        "reports.after_fact",
        "ledger.after_put",
        "ledger.after_emit",
        "publisher.after_publish",
        "warehouse.after_insert",
    }
)
_left: dict[str, int] = {}


def arm(wanted: str | None) -> None:
    """Choose the point at which this process dies; None: none.

    Called once by composition roots with the environment's value.

    Raises:
        ValueError: the point is not one of :data:`POINTS`.
    """
    _left.clear()
    if not wanted:
        return
    name, _, times = wanted.partition(":")
    if name not in POINTS:
        raise ValueError(f"STREAMAPP_CRASH_AT: expected one of {', '.join(sorted(POINTS))}, got {name}")
    _left[name] = int(times or 1)


def reach(name: str) -> None:
    """Die here, without a word and without cleaning up, if a test armed this point."""
    if _left and name in _left:
        _left[name] -= 1
        if _left[name] <= 0:
            if sys.platform == "win32":
                os._exit(137)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
