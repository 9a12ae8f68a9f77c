"""What mirror knows about itself: for ``/health``, ``/metrics`` and the alarms."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from streamapp.metrics import LATENCY_BUCKETS_S
from streamapp.nats.connection import ConnectionState

NOT_STARTED = "not started"
STALE_S = 30.0
"""An unmirrored message older than this makes mirror unhealthy: signals live as long by default."""


class Gauges:
    """Counters and levels of one mirror process, in a registry of its own."""

    def __init__(self, streams: tuple[str, ...]) -> None:
        self.connection = ConnectionState()
        self.troubles: dict[str, str] = dict.fromkeys(streams, NOT_STARTED)
        """What stops each stream's mirror now; empty text when it runs."""
        self.lost: dict[str, int] = dict.fromkeys(streams, 0)
        self.oldest_s: dict[str, float] = dict.fromkeys(streams, 0.0)
        self.registry = CollectorRegistry()
        self.mirrored = self._counter("mirrored", "Records that Kafka acknowledged.", "stream", "topic")
        self.dropped = self._counter("dropped", "Messages acknowledged and left out.", "stream", "reason")
        self.dead_letters = self._counter("dead_letters", "Messages nobody could use.", "stream", "reason")
        self.redelivered = self._counter("redelivered", "Messages that came a second time.", "stream")
        self.resets = self._counter("resets", "How often the consumer was set back to its ack floor.", "stream")
        self.expired = self._counter("expired", "Messages that expired before they were mirrored: lost.", "stream")
        self.seconds = Histogram(
            "streamapp_mirror_seconds",
            "From JetStream's storing of a message to Kafka's acknowledgement.",
            ["stream"],
            registry=self.registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._pending = self._gauge("pending", "Messages not mirrored yet.", "stream")
        self._age = self._gauge("oldest_seconds", "Age of the oldest message that is not mirrored.", "stream")
        self._active = self._gauge("active", "1 for the active mirror, 0 for one that stands by.")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"streamapp_mirror_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"streamapp_mirror_{name}", text, labels, registry=self.registry)

    def lag(self, stream: str, pending: int, oldest_s: float) -> None:
        """Record how many messages of ``stream`` wait, and since when the oldest does."""
        self.oldest_s[stream] = oldest_s
        self._pending.labels(stream).set(pending)
        self._age.labels(stream).set(oldest_s)

    def count_lost(self, stream: str, count: int) -> None:
        """Record that ``count`` messages expired before they were mirrored; kept as long as this process lives."""
        self.lost[stream] += count
        self.expired.labels(stream).inc(count)

    @property
    def is_starting(self) -> bool:
        """Whether a stream has had no session yet."""
        return NOT_STARTED in self.troubles.values()

    def reasons(self) -> list[str]:
        """Return what is wrong with the active mirror; empty when nothing is."""
        troubles = [f"{stream}: {trouble}" for stream, trouble in self.troubles.items() if trouble]
        late = [
            f"{stream}: the oldest message has waited {age:.0f} s for Kafka"
            for stream, age in self.oldest_s.items()
            if age > STALE_S
        ]
        lost = [
            f"{stream}: {count} messages expired before they were mirrored and are lost. "
            "Look why mirror stood still, then restart it"
            for stream, count in self.lost.items()
            if count
        ]
        return [*self.connection.reasons, *troubles, *late, *lost]

    def text(self, *, active: bool) -> str:
        """Return everything in Prometheus' text format."""
        self._active.set(active)
        return generate_latest(self.registry).decode()
