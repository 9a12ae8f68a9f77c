"""What our processes count, for Prometheus; one object a process, made by its composition root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from streamapp.domain.steps import STEPS, Step
from streamapp.messages.account import AccountMessage

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Finest around the 10 ms that a signal should need to the terminal, up to the longest deadline on the way."""


class _Metrics:
    """A registry of its own, so that two apps in one test process don't count together."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"streamapp_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"streamapp_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"streamapp_{name}", text, labels, registry=self.registry, buckets=LATENCY_BUCKETS_S)

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()


class TradingMetrics(_Metrics):
    """What the trading worker counts."""

    def __init__(self) -> None:
        super().__init__()
        self.decisions = self._counter("decisions", "Messages of signals by decision.", "decision", "reason")
        self._web_signals = self._counter("web_signals", "Messages to POST /signals by answer.", "source", "answer")
        self.dead_letters = self._counter("dead_letters", "Records nobody could use.", "topic", "reason")
        self.bindings = self._counter("bindings", "Incomplete signals and orders by outcome.", "outcome")
        self.foreign_orders = self._counter("foreign_orders", "Orders of somebody else's execution service.", "outcome")
        self.submits = self._counter("submits", "Submit requests to terminals by answer.", "answer")
        seconds = self._histogram("step_seconds", "The steps of an order on its way (docs/operations.md).", "step")
        self._steps = {step: seconds.labels(step) for step in STEPS}
        self.submissions = self._gauge("submissions", "Rows that wait for a terminal's answer.", "account", "state")
        self.unknown = self._counter("outcome_unknown", "Doubts that the broker agent declared.", "why")
        self.breaker_open = self._gauge("breaker_open", "1 while nothing new is claimed for an account.", "account")
        self.clock_skew_seconds = self._gauge("clock_skew_seconds", "The terminal's clock minus ours.", "account")
        self.reports = self._counter("reports", "Reports of terminals by kind.", "kind")
        self.facts = self._counter("facts_folded", "Facts folded into orders.", "fact")
        self.guards = self._counter("guard_refusals", "Signals that a guard of the desk refused.", "guard")
        self.day_steps = self._counter("day_steps", "Steps that a day's loss or drawdown led to.", "step")
        self.alarms = self._counter("alarms", "What a person should look at.", "alarm")
        self.breaks = self._counter("breaks", "Differences with the broker's books that were found.", "kind")
        self.pruned = self._counter("pruned_rows", "Rows of what is over: put away, or ended.", "step")
        self.published = self._counter("published", "Messages that JetStream acknowledged.", "schema")
        self.publish_retries = self._counter("publish_retries", "Publications that had to be tried again.")
        self.left_out = self._counter("left_out", "Messages that were not published, by why.", "reason")
        self.unsaid_bytes = self._gauge(
            "unsaid_bytes", "What an account has not said to archive and NATS yet.", "account"
        )
        money = ("account", "currency")
        self._money = {
            "equity": self._gauge("account_equity", "What an account would be worth if it were closed now.", *money),
            "balance": self._gauge("account_balance", "What is booked at an account.", *money),
            "margin": self._gauge("account_margin", "What its positions bind.", *money),
            "margin_free": self._gauge("account_margin_free", "What is left for new positions.", *money),
            "profit": self._gauge("account_floating_profit", "What its open positions have made so far.", *money),
        }
        self._trading = self._gauge(
            "account_trading", "1 for whether we open orders on an account, by state.", "account", "state"
        )
        self._counted = {
            "orders": self._counter("orders", "Orders by each status that they came to.", "status"),
            "decisions": self.decisions,
            "dead_letters": self.dead_letters,
            "foreign_orders": self.foreign_orders,
            "reports": self.reports,
            "facts": self.facts,
            "unknown": self.unknown,
            "guards": self.guards,
            "day_steps": self.day_steps,
            "breaks": self.breaks,
            "pruned": self.pruned,
        }

    def count(self, name: str, labels: Sequence[str], count: int) -> None:
        """Add to a counter of the desk's; a name that is no counter is for tests alone."""
        if (counter := self._counted.get(name)) is not None:
            counter.labels(*labels).inc(count)

    def came_by_web(self, source: str, answer: str) -> None:
        """Count a message to the webhook."""
        self._web_signals.labels(source, answer).inc()

    def took(self, step: Step, took: timedelta) -> None:
        """Note how long a step of an order took; below zero, two machines' clocks differ, and it counts as zero."""
        self._steps[step].observe(max(0.0, took.total_seconds()))

    def show_accounts(self, accounts: Iterable[AccountMessage]) -> None:
        """Show this worker's accounts as they were said last, and no others."""
        for gauge in (*self._money.values(), self._trading):
            gauge.clear()
        for state in accounts:
            self._trading.labels(state.account, state.trading).set(1)
            floating = None
            if state.equity is not None and state.balance is not None:
                floating = state.equity - state.balance - (state.credit or 0)
            amounts = {"profit": floating} | {name: getattr(state, name) for name in self._money if name != "profit"}
            for name, amount in amounts.items():
                if amount is not None:
                    self._money[name].labels(state.account, state.currency or "").set(float(amount))


class SinkMetrics(_Metrics):
    """What the warehouse counts."""

    def __init__(self) -> None:
        super().__init__()
        self.dead_letters = self._counter("dead_letters", "Records nobody could use.", "topic", "reason")
        self.rows = self._counter("rows_inserted", "Rows that ClickHouse took.", "table")
        self.insert_seconds = self._histogram("insert_seconds", "One insert.", "table")
        self.lag_seconds = self._gauge("lag_seconds", "Age of the oldest record not delivered.", "topic")
