"""The page of figures that the benchmark prints, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench.costs import GROUPS, Costs
from tests.bench.figures import markdown, p50_and_p99
from tests.bench.load import Heard
from tests.bench.requests import COUNTED, Requests

Counts = Callable[[Costs], Mapping[str, int]]
LEAST_SHOWN = 0.05
"""An order: what is less is left out of the lines by topic and stream, and stays in the sums."""
WRITTEN = (
    "Written for one order, beyond what is written in the same time anyway, and each second while no signal comes. A "
    "produce batch is what one produce request brings to one partition: there are as many requests or fewer. Every "
    "message that JetStream stores is one fsync (`sync_interval: always`):"
)

ASKED = (
    "Requests that Kafka answered for one order, beyond those of the same time while no signal comes, and each second "
    "of such a time (counted apart, by the broker's own log of them):"
)
BESIDE = (
    "Times of seven accounts, in milliseconds p50 / p99, and the same while the eighth account's terminal stands still "
    "(SIGSTOP) with its share of the orders on the road:"
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
class Asked:
    """What Kafka was asked while ``orders`` were filled at a rate."""

    rate: float
    orders: int
    requests: Requests


@dataclass(frozen=True)
class Beside:
    """The orders of the other accounts, before and while one account's terminal stood still."""

    rate: float
    running: Heard
    still: Heard
    drained: bool


@dataclass(frozen=True)
class Sustained:
    """The highest of ``tried`` that was kept up (signals a second; 0: none), and what that means."""

    rate: float
    tried: Sequence[float]
    hold_s: float
    within_s: float


def page(
    machine: str,
    idle: Costs,
    runs: Sequence[Run],
    *,
    asked_idle: Requests,
    asked: Sequence[Asked],
    beside: Sequence[Beside],
    sustained: Sustained | None,
) -> str:
    """Return all of it; ``sustained`` None: it was not searched for."""
    parts = [machine, latency(runs)]
    if sustained is not None:
        parts.append(_sustained(sustained))
    parts += [
        "CPU of each process, its children included: milliseconds an order, and of one core while no signal comes:"
    ]
    parts += [cpu(idle, runs), WRITTEN, written(idle, runs)]
    parts += [ASKED, requests(asked_idle, asked), BESIDE, frozen(beside)]
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


def requests(idle: Requests, asked: Sequence[Asked]) -> str:
    """Return the table of what Kafka was asked."""
    rows = []
    for kind in COUNTED:
        a_second = idle.by_kind.get(kind, 0) / idle.seconds
        beyond = [
            _beyond(one.requests.by_kind.get(kind, 0), a_second, one.requests.seconds, one.orders) for one in asked
        ]
        rows.append([f"`{kind}`", *(f"{one:.1f}" for one in beyond), f"{a_second:.1f}"])
    return markdown(["", *(f"an order at {one.rate:g}/s" for one in asked), "a second, idle"], rows)


def _beyond(count: int, a_second: float, seconds: float, orders: int) -> float:
    """Return how many there were for an order, without those that come in the same time anyway."""
    return max(0.0, count - a_second * seconds) / max(1, orders)


def frozen(beside: Sequence[Beside]) -> str:
    """Return the table of what an account that stands still costs the others."""
    head = ["signals/s", "publish → order_send", "beside it", "publish → orders.filled", "beside it"]
    rows = [
        [
            f"{one.rate:g}" if one.drained else f"{one.rate:g}, not kept up",
            p50_and_p99(one.running.to_order_send()),
            p50_and_p99(one.still.to_order_send()),
            p50_and_p99(one.running.to_filled()),
            p50_and_p99(one.still.to_filled()),
        ]
        for one in beside
    ]
    return markdown(head, rows)


def _counted(title: str, of: Counts, idle: Costs, runs: Sequence[Run], *, by_name: bool = True) -> list[list[str]]:
    lines = [_line(f"**{title}**", lambda costs: sum(of(costs).values()), idle, runs)]
    shown = {name for run in runs for name, count in of(run.costs).items() if count / _orders(run) >= LEAST_SHOWN}
    names = sorted(shown) if by_name else ()
    return lines + [_line(f"`{name}`", partial(_count_of, name, of), idle, runs) for name in names]


def _count_of(name: str, of: Counts, costs: Costs) -> int:
    return of(costs).get(name, 0)


def _line(title: str, count: Callable[[Costs], int], idle: Costs, runs: Sequence[Run]) -> list[str]:
    a_second = count(idle) / idle.seconds
    beyond = [_beyond(count(run.costs), a_second, run.costs.seconds, _orders(run)) for run in runs]
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
