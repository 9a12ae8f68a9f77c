"""The page of figures that the benchmark prints, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench.costs import GROUPS, Costs
from tests.bench.figures import markdown, p50_and_p99
from tests.bench.load import Heard

Counts = Callable[[Costs], Mapping[str, int]]
LEAST_SHOWN = 0.05
"""An order: what is less is left out of the lines by topic and stream, and stays in the sums."""
WRITTEN = (
    "Written for one order, beyond what is written in the same time anyway, and each second while no signal comes. A "
    "produce batch is what one produce request brings to one partition: there are as many requests or fewer. Every "
    "message that JetStream stores is one fsync (`sync_interval: always`):"
)


@dataclass(frozen=True)
class Run:
    """One rate: what was heard, what it cost from the first signal to the last end, and the bare hops after it."""

    rate: float
    heard: Heard
    seconds: float
    drained: bool
    costs: Costs
    hops_s: Sequence[float]


@dataclass(frozen=True)
class Sustained:
    """The highest of ``tried`` that was kept up (signals a second; 0: none), and what that means."""

    rate: float
    tried: Sequence[float]
    hold_s: float
    within_s: float


def page(machine: str, idle: Costs, runs: Sequence[Run], sustained: Sustained | None) -> str:
    """Return all of it; ``sustained`` None: it was not searched for."""
    parts = [machine, latency(runs)]
    if sustained is not None:
        parts.append(_sustained(sustained))
    parts += [
        "CPU of each process, its children included: milliseconds an order, and of one core while no signal comes:"
    ]
    parts += [cpu(idle, runs), WRITTEN, written(idle, runs)]
    return "\n\n".join(parts)


def latency(runs: Sequence[Run]) -> str:
    """Return the table of times; p50 / p99 in milliseconds."""
    head = [
        "signals/s", "filled/s", "publish → order_send, ms p50 / p99", "publish → orders.filled, ms p50 / p99",
        "the bare hops, ms p50 / p99",
    ]  # fmt: skip
    rows = [
        [
            f"{run.rate:g}" if run.drained else f"{run.rate:g}, not kept up",
            f"{len(run.heard.filled) / run.seconds:.1f}",
            p50_and_p99(run.heard.to_order_send()),
            p50_and_p99(run.heard.to_filled()),
            p50_and_p99(run.hops_s),
        ]
        for run in runs
    ]
    return markdown(head, rows)


def cpu(idle: Costs, runs: Sequence[Run]) -> str:
    """Return the table of CPU by process, the largest first."""
    names = sorted(idle.cpu_s, key=lambda name: -sum(run.costs.cpu_s.get(name, 0.0) for run in runs))
    rows = [
        [
            name,
            *(f"{run.costs.cpu_s.get(name, 0.0) / _orders(run) * 1000:.1f}" for run in runs),
            f"{idle.cpu_s[name] / idle.seconds * 100:.1f} %",
        ]
        for name in names
    ]
    totals = [f"{sum(run.costs.cpu_s.values()) / _orders(run) * 1000:.1f}" for run in runs]
    rows.append(["**all**", *totals, f"{sum(idle.cpu_s.values()) / idle.seconds * 100:.1f} %"])
    return markdown(["process", *(f"{run.rate:g}/s" for run in runs), "idle"], rows)


def written(idle: Costs, runs: Sequence[Run]) -> str:
    """Return the table of what Kafka and JetStream wrote."""
    rows = [
        *_counted("Kafka records", lambda costs: _without_groups(costs.records), idle, runs),
        *_counted("Kafka produce batches", lambda costs: _without_groups(costs.batches), idle, runs, by_name=False),
        *_counted(f"records of `{GROUPS}`", _of_groups, idle, runs, by_name=False),
        *_counted("JetStream messages stored", lambda costs: costs.stored, idle, runs),
    ]
    return markdown(["", *(f"an order at {run.rate:g}/s" for run in runs), "a second, idle"], rows)


def _counted(title: str, of: Counts, idle: Costs, runs: Sequence[Run], *, by_name: bool = True) -> list[list[str]]:
    lines = [_line(f"**{title}**", lambda costs: sum(of(costs).values()), idle, runs)]
    shown = {name for run in runs for name, count in of(run.costs).items() if count / _orders(run) >= LEAST_SHOWN}
    names = sorted(shown) if by_name else ()
    return lines + [_line(f"`{name}`", partial(_count_of, name, of), idle, runs) for name in names]


def _count_of(name: str, of: Counts, costs: Costs) -> int:
    return of(costs).get(name, 0)


def _line(title: str, count: Callable[[Costs], int], idle: Costs, runs: Sequence[Run]) -> list[str]:
    a_second = count(idle) / idle.seconds
    beyond = [max(0.0, count(run.costs) - a_second * run.costs.seconds) / _orders(run) for run in runs]
    return [title, *(f"{one:.1f}" for one in beyond), f"{a_second:.1f}"]


def _sustained(found: Sustained) -> str:
    tried = ", ".join(f"{rate:g}" for rate in sorted(found.tried))
    best = f"{found.rate:g} signals/s" if found.rate else "none of these"
    return (
        f"Highest rate that drains: **{best}** (tried: {tried}; {found.hold_s:g} s each, every order filled within "
        f"{found.within_s:g} s after the last signal)."
    )


def _orders(run: Run) -> int:
    return max(1, len(run.heard.filled))


def _without_groups(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if name != GROUPS}


def _of_groups(costs: Costs) -> dict[str, int]:
    return {GROUPS: costs.records.get(GROUPS, 0)}
