"""What became of the stream, as a table a person reads."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from streamapp.audit.agreement import disagreements, doubts, unsettled
from streamapp.audit.evidence import Evidence

CLOSED = {"sl": "stop-loss", "tp": "take-profit", "so": "stop-out"}
"""The reasons of deals that the broker made by itself."""


def show(console: Console, evidence: Evidence, orders: Sequence[Mapping[str, Any]]) -> list[str]:
    """Print the summary; return the differences between the witnesses (empty: all agree).

    Args:
        console: where to print.
        evidence: what all witnesses say, and what was sent.
        orders: the newest order/1 message of each order that was published.
    """
    console.rule("summary")
    _counts(console, "sent", Counter(sent.kind for sent in evidence.sent))
    _counts(console, "decisions", Counter(decision.decision for decision in evidence.decisions))
    refusals = Counter(
        decision.reason for decision in evidence.decisions if decision.decision in {"refused", "conflict"}
    )
    _counts(console, "refused because", {str(reason): count for reason, count in refusals.items()})
    console.print(f"{'dead letters':<20} {len(evidence.dead_letters)}")
    _counts(console, "orders", Counter(order.status for order in evidence.archive.orders.values()))
    _counts(console, "of type", Counter(order["order_type"] for order in orders))
    _counts(console, "of intent", Counter(order["intent"] for order in orders))
    _counts(console, "exits", _answers(evidence, "exit"))
    closing = Counter(f"{order['intent']} {order['status']}" for order in orders if order["intent"] != "open")
    _counts(console, "orders of exits", closing)
    _counts(console, "weighted copies", _answers(evidence, "weighted"))
    closings = Counter(
        entry.reason for entry in evidence.ledger or () if entry.kind == "deal" and entry.reason in CLOSED
    )
    _counts(console, "closed by", {CLOSED[reason]: count for reason, count in closings.items()})
    _figures(console, orders)
    console.print(f"{'open doubts':<20} {len(doubts(evidence))}")
    found = disagreements(evidence)
    found += [
        f"order {order.order_id} has no final status: {order.status}/{order.detail}" for order in unsettled(evidence)
    ]
    _verdict(console, evidence, found)
    return found


def _answers(evidence: Evidence, kind: str) -> Counter[str]:
    """Return what signals of a kind came to: orders, or none (nothing was open, or levels), or a refusal's reason."""
    sent = {view.stream_seq for view in evidence.sent if view.kind == kind}
    decided = [decision for decision in evidence.decisions if decision.stream_seq in sent]
    return Counter(
        decision.reason or ("with orders" if decision.order_id is not None else "without") for decision in decided
    )


def _counts(console: Console, title: str, counts: Mapping[str, int]) -> None:
    line = f"{title:<20} {'  '.join(f'{name} {count}' for name, count in sorted(counts.items())) or '0'}"
    console.print(line, soft_wrap=True)


def _figures(console: Console, orders: Sequence[Mapping[str, Any]]) -> None:
    table = Table("", "p50", "p90", "p99", "max", box=None)
    filled = [order for order in orders if order["status"] == "filled"]
    slippages = [
        float(order["slippage"]["expected"]["points"]) for order in filled if (order["slippage"] or {}).get("expected")
    ]
    _row(table, "slippage, points", slippages)
    _row(
        table, "signal to send, ms", [_between(o["signal_at"], o["submitted_at"]) for o in filled if o["submitted_at"]]
    )
    # What waits for its price says nothing about the road.
    at_once = [order for order in filled if order["order_type"] == "market"]
    _row(
        table, "market: signal to filled, ms", [_between(order["signal_at"], order["updated_at"]) for order in at_once]
    )
    console.print(table)


def _between(first: str, last: str) -> float:
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() * 1000


def _row(table: Table, title: str, values: Sequence[float]) -> None:
    if len(values) > 1:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        table.add_row(title, *(f"{value:.1f}" for value in (cuts[49], cuts[89], cuts[98], max(values))))


def _verdict(console: Console, evidence: Evidence, found: Sequence[str]) -> None:
    names = "archive, tables, NATS, ClickHouse" + (
        " and the broker's own ledger" if evidence.ledger is not None else ""
    )
    if not found:
        console.print(f"[green]✓ {names} agree")
        return
    console.print(f"[red]✗ {names} do not agree: {len(found)} differences")
    for sentence in found[:20]:
        console.print(f"  {sentence}", soft_wrap=True, highlight=False)
