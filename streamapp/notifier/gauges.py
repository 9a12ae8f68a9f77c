"""What the notifier counts, for ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class NotifierGauges:
    """Counters of one notifier, in a registry of its own; a receiver is named by its line, never by its URL."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events = self._counter("events", "Events that a rule tells.", "event")
        self.unreadable = self._counter("unreadable", "Commits of the archive that could not be read.")
        self.sent = self._counter("sent", "Messages that a receiver took.", "receiver")
        self.failed = self._counter("failed", "Tries that failed.", "receiver")
        self.given_up = self._counter("given_up", "Events that a receiver was never told of.", "receiver")
        self.waiting = Gauge(
            "streamapp_notifier_waiting", "Events that wait for a receiver.", ["receiver"], registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"streamapp_notifier_{name}", text, labels, registry=self.registry)

    def text(self) -> str:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry).decode()
