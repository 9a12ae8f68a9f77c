"""Percentiles, and what the processes of a stack use."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from streamapp.errors import Transient
from streamapp.local.own import OwnStack

PROCESSES = ("kafka", "nats", "clickhouse", "market", "mirror", "trading", "publisher", "warehouse", "terminals")


def percentiles(values_s: Sequence[float], *, places: int = 1) -> str:
    """Return p50, p90, p99 and the maximum of times in seconds, as milliseconds."""
    if len(values_s) < 2:
        return "too few"
    width = places + 6
    cuts = statistics.quantiles(values_s, n=100, method="inclusive")
    shown = (("p50", cuts[49]), ("p90", cuts[89]), ("p99", cuts[98]), ("max", max(values_s)))
    return "  ".join(f"{name} {value * 1000:{width}.{places}f}" for name, value in shown) + f"  ms   n {len(values_s)}"


@dataclass(frozen=True)
class Use:
    """CPU seconds so far and memory now, children included."""

    cpu_s: float
    rss_bytes: int


def uses(stack: OwnStack) -> dict[str, Use]:
    """Return what every process uses."""
    found = {}
    for name in PROCESSES:
        with contextlib.suppress(Transient, psutil.Error):
            process = psutil.Process(stack.pid_of(name))
            found[name] = _sum([process, *process.children(recursive=True)])
    return found


def _sum(processes: list[psutil.Process]) -> Use:
    cpu_s, rss = 0.0, 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            cpu_s += times.user + times.system
            rss += process.memory_info().rss
    return Use(cpu_s, rss)


def table(before: dict[str, Use], after: dict[str, Use], wall_s: float) -> str:
    """Return the use of each process between two looks, as lines."""
    lines = [f"{'process':<12} {'CPU %':>7} {'RSS MB':>8}"]
    for name, now in after.items():
        share = (now.cpu_s - before.get(name, Use(0, 0)).cpu_s) / wall_s * 100
        lines.append(f"{name:<12} {share:>7.0f} {now.rss_bytes / 1e6:>8.0f}")
    return "\n".join(lines)
