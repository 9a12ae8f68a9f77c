"""The apps of our workers, as the settings want them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streamapp import topics
from streamapp.kafka.application import StreamApp, build_app
from streamapp.settings import Settings


def app_of(settings: Settings, part: str, *, web_port: int, folder: str | None = None, reads: str = "") -> StreamApp:
    """Return the app of a part of the deployment, connected to nothing yet.

    Args:
        settings: Where everything is.
        part: Its consumer group within the deployment.
        web_port: Of its views.
        folder: Where it keeps its state, below ``local.data``; by default its name.
        reads: See :func:`streamapp.kafka.application.build_app`.
    """
    return build_app(
        topics.app_id(settings.deployment, part),
        bootstrap=settings.kafka_bootstrap,
        data_dir=settings.local.data / (folder or part),
        partitions=settings.kafka.partitions,
        replication_factor=settings.kafka.replication_factor,
        session_timeout_s=settings.kafka.session_timeout_s,
        web_port=web_port,
        web_host=settings.web.bind,
        reads=reads,
    )


def sink_of(settings: Settings, part: str, *, web_port: int, troubles: Callable[[], Iterable[str]]) -> StreamApp:
    """Return the app of a part that only tells the outside world what is in Kafka.

    It waits for that world for as long as it takes: ``troubles`` says why it does now.
    """
    app = app_of(settings, part, web_port=web_port)
    # A rebalance must not wait for the outside world. Safe: every acknowledgement is explicit, and follows its answer.
    app.conf.stream_wait_empty = False
    app.waits = lambda: bool(list(troubles()))
    return app


def register_sink_views(app: StreamApp, reasons: Callable[[], Iterable[str]], numbers: Callable[[], str]) -> None:
    """Add ``/health``, which is 503 with the reasons while there are any, and ``/metrics``."""

    @app.page("/health")
    async def health(view: Any, _request: Any) -> Any:
        known = list(dict.fromkeys(reasons()))
        starting = app.rebalancing or not app.rebalancing_count
        if starting:
            known.append("partitions are being assigned")
        status = "starting" if starting else "waiting" if known else "ok"
        return view.json({"status": status, "reasons": known}, status=503 if known else 200)

    @app.page("/metrics")
    async def metrics(view: Any, _request: Any) -> Any:
        return view.text(numbers(), content_type="text/plain")
