"""The publisher: ``faust -A streamapp.publisher worker``, a consumer group of its own, without tables.

A slow or absent NATS stops this worker and no other.
"""

from __future__ import annotations

from typing import Any

from agents.publisher import Publisher
from streamapp import crashpoints, topics
from streamapp.clock import utc_now
from streamapp.kafka.application import StreamApp, build_app
from streamapp.metrics import SinkMetrics
from streamapp.nats.outlet import Outlet
from streamapp.settings import Settings, load_settings


def build(settings: Settings) -> StreamApp:
    """Return the app, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    app = build_app(
        topics.app_id(settings.deployment, "publisher"),
        bootstrap=settings.kafka_bootstrap,
        data_dir=settings.local.data / "publisher",
        partitions=settings.kafka.partitions,
        replication_factor=settings.kafka.replication_factor,
        session_timeout_s=settings.kafka.session_timeout_s,
        web_port=settings.ports.publisher,
        web_host=settings.web.bind,
    )
    # A rebalance must not wait for NATS. Safe here: every acknowledgement is explicit, and follows JetStream's.
    app.conf.stream_wait_empty = False
    outlet, metrics = Outlet(settings, "publisher"), SinkMetrics()
    publisher = Publisher(outlet, settings, producer=app.sends, clock=utc_now, metrics=metrics)
    app.waits = lambda: bool(publisher.troubles)
    app.agent(app.raw_topic(topics.UPDATES), isolated_partitions=True, name="publisher")(publisher.run)
    app.task(outlet.keep)
    app.on_before_shutdown.connect(lambda *_, **__: outlet.close())
    _register_views(app, publisher, outlet, metrics)
    return app


def _register_views(app: StreamApp, publisher: Publisher, outlet: Outlet, metrics: SinkMetrics) -> None:
    @app.page("/health")
    async def health(view: Any, _request: Any) -> Any:
        reasons = list(dict.fromkeys((*outlet.reasons, *publisher.troubles)))
        starting = app.rebalancing or not app.rebalancing_count
        if starting:
            reasons.append("partitions are being assigned")
        status = "starting" if starting else "waiting" if reasons else "ok"
        return view.json({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    @app.page("/metrics")
    async def numbers(view: Any, _request: Any) -> Any:
        metrics.lag_seconds.labels(topics.UPDATES).set(publisher.lag_s())
        return view.text(metrics.text(), content_type="text/plain")


app = build(load_settings())
