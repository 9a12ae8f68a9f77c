"""The apps of our workers, as the settings want them."""

from __future__ import annotations

from typing import Any

from streamapp import topics
from streamapp.kafka.application import StreamApp, build_app
from streamapp.settings import Settings


def app_of(
    settings: Settings, part: str, *, web_port: int, folder: str | None = None, reads: str = "", **options: Any
) -> StreamApp:
    """Return the app of a part of the deployment, connected to nothing yet.

    Args:
        settings: Where everything is.
        part: Its consumer group within the deployment.
        web_port: Of its views.
        folder: Where it keeps its state, below ``local.data``; by default its name.
        reads: See :func:`streamapp.kafka.application.build_app`.
        **options: The same.
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
        **options,
    )
