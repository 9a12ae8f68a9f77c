"""What Faust itself counts, for Prometheus. Faust counts it anyway: this costs something only when somebody looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from streamapp.kafka.application import StreamApp


class FaustSensors(Collector):
    """The figures of an app's monitor; to be registered on the registry of its process."""

    def __init__(self, app: StreamApp) -> None:
        self._app = app

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Return nothing: to name the families, the registry would have to ask an app that is not running yet."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Return the families as they are now."""
        monitor = self._app.monitor
        yield _by_topic("faust_received", "Records taken from Kafka.", monitor.messages_received_by_topic)
        yield CounterMetricFamily("streamapp_faust_rebalances", "Rebalances.", value=self._app.rebalancing_count)
        yield GaugeMetricFamily(
            "streamapp_faust_unacknowledged", "Records that were taken and not finished.", value=monitor.messages_active
        )
        full = dict.fromkeys((tp.topic for tp in monitor.topic_buffer_full), 0)
        for tp, count in monitor.topic_buffer_full.items():
            full[tp.topic] += count
        yield _by_topic("faust_buffer_full", "How often a topic's buffer was full, and reading waited.", full)
        yield _newest("faust_commit_seconds", "The last commit of offsets.", monitor.commit_latency)
        yield _newest("faust_rebalance_seconds", "The last rebalance.", monitor.rebalance_end_latency)
        yield self._behind()

    def _behind(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "streamapp_faust_behind", "Records of a partition of ours not taken yet.", labels=["topic", "partition"]
        )
        monitor = self._app.monitor
        for tp in list(self._app.consumer._read_offset):  # the monitor forgets no partition that went away, this does
            end, read = monitor.tp_end_offsets.get(tp), monitor.tp_read_offsets.get(tp)
            if end is not None and read is not None:
                family.add_metric([tp.topic, str(tp.partition)], max(0, end - read - 1))
        return family


def _by_topic(name: str, text: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"streamapp_{name}", text, labels=["topic"])
    for topic, count in counts.items():
        family.add_metric([topic], count)
    return family


def _newest(name: str, text: str, seconds: Any) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"streamapp_{name}", text, value=seconds[-1] if seconds else 0.0)
