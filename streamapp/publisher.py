"""The publisher: ``faust -A streamapp.publisher worker``, a consumer group of its own, without tables.

A slow or absent NATS stops this worker and no other.
"""

from __future__ import annotations

from agents.publisher import Publisher
from streamapp import crashpoints, topics
from streamapp.clock import utc_now
from streamapp.kafka.application import StreamApp
from streamapp.metrics import SinkMetrics
from streamapp.nats.outlet import Outlet
from streamapp.settings import Settings, load_settings
from streamapp.wiring.applications import register_sink_views, sink_of


def build(settings: Settings) -> StreamApp:
    """Return the app, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    outlet, metrics = Outlet(settings, "publisher"), SinkMetrics()
    app = sink_of(settings, "publisher", web_port=settings.ports.publisher, troubles=lambda: publisher.troubles)
    publisher = Publisher(outlet, settings, producer=app.sends, clock=utc_now, metrics=metrics)
    app.agent(app.raw_topic(topics.UPDATES), isolated_partitions=True, name="publisher")(publisher.run)
    app.task(outlet.keep)
    app.on_before_shutdown.connect(lambda *_, **__: outlet.close())

    def numbers() -> str:
        metrics.lag_seconds.labels(topics.UPDATES).set(publisher.lag_s())
        return metrics.text()

    register_sink_views(app, lambda: (*outlet.reasons, *publisher.troubles), numbers)
    return app


app = build(load_settings())
