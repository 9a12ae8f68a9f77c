"""What lives long is searched for garbage once: a search of everything stands in front of somebody's order.

A trading worker with 2,000 orders of the day has 150,000 objects beside the 120,000 that were imported. Python's own
full searches took 51, 88 and 121 ms of a core within 40 s, more each time, and found nothing; of what came since the
last one they took 48 ms at most. What is lost by it is a cycle that becomes garbage after it outlived a full search, a
connection's for instance, until :func:`collect_all`. What the desk keeps of orders holds no cycles.
"""

from __future__ import annotations

import gc


def settle() -> None:
    """Search what is here now for garbage no more, nor what outlives a full search later."""
    gc.freeze()
    if _keep not in gc.callbacks:
        gc.callbacks.append(_keep)


def collect_all() -> None:
    """Search everything, what has settled too."""
    gc.unfreeze()
    gc.collect()


def _keep(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
