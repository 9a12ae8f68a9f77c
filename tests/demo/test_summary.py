"""What the demonstration says in the end, line by line."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

from rich.console import Console

from streamapp.audit.evidence import DecisionView, Evidence, SentView, Witness
from streamapp.demo.summary import show

NOBODY = Witness("nobody", {}, {}, {})
EMPTY = Evidence(NOBODY, NOBODY, NOBODY, NOBODY, (), 0, 0, (), None)


def sent(seq: int, kind: str) -> SentView:
    return SentView(seq, kind, f"s-{seq}", frozenset({"accepted", "refused"}), frozenset())


def decided(seq: int, account: str, reason: str | None, order_id: str | None) -> DecisionView:
    return DecisionView(account, f"s-{seq}", seq, "refused" if reason else "accepted", reason, order_id)


def order(intent: str, status: str) -> dict[str, Any]:
    return {"intent": intent, "status": status, "order_type": "market", "signal_at": None, "submitted_at": None}


def test_it_says_what_became_of_exits_and_of_the_copies_of_weighted_signals() -> None:
    evidence = replace(
        EMPTY,
        sent=(sent(1, "exit"), sent(2, "exit"), sent(3, "exit"), sent(4, "weighted"), sent(5, "good")),
        decisions=(
            decided(1, "a", None, "o-1"),
            decided(2, "a", None, None),
            decided(3, "a", "not_closed", "o-3"),
            decided(4, "a", None, "o-4"),
            decided(4, "b", "guard", None),
            decided(5, "a", None, "o-5"),
        ),
    )
    console = Console(file=StringIO(), record=True, width=200)
    show(console, evidence, [order("close", "rejected"), order("reverse", "cancelled"), order("open", "rejected")])
    lines = {line[:20].strip(): line[20:].strip() for line in console.export_text().splitlines()}
    assert lines["exits"] == "not_closed 1  with orders 1  without 1"
    assert lines["orders of exits"] == "close rejected 1  reverse cancelled 1"
    assert lines["weighted copies"] == "guard 1  with orders 1"
