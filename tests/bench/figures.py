"""Figures as text: percentiles, and tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence


def percentiles(values_s: Sequence[float], *, places: int = 1) -> str:
    """Return p50, p90, p99 and the maximum of times in seconds, as milliseconds."""
    if len(values_s) < 2:
        return "too few"
    width = places + 6
    cuts = statistics.quantiles(values_s, n=100, method="inclusive")
    shown = (("p50", cuts[49]), ("p90", cuts[89]), ("p99", cuts[98]), ("max", max(values_s)))
    return "  ".join(f"{name} {value * 1000:{width}.{places}f}" for name, value in shown) + f"  ms   n {len(values_s)}"


def p50_and_p99(values_s: Sequence[float]) -> str:
    """Return both of times in seconds, as milliseconds: ``5.2 / 31.0``."""
    if len(values_s) < 2:
        return "too few"
    cuts = statistics.quantiles(values_s, n=100, method="inclusive")
    return f"{cuts[49] * 1000:,.1f} / {cuts[98] * 1000:,.1f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first hold figures."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
