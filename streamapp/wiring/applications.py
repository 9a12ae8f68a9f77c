"""The apps of our workers, as the settings want them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from streamapp import topics
from streamapp.errors import ConfigurationError
from streamapp.kafka.abort import CONFIGURATION
from streamapp.kafka.application import StreamApp, build_app
from streamapp.kafka.security import Cluster
from streamapp.logs import faust_logging
from streamapp.settings import Settings, load_settings

Built = TypeVar("Built")


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
        topics.app_id(settings.kafka_deployment, part),
        bootstrap=Cluster.of(settings),
        data_dir=settings.local.data / (folder or part),
        partitions=settings.kafka.partitions,
        replication_factor=settings.kafka.replication_factor,
        session_timeout_s=settings.kafka.session_timeout_s,
        web_port=web_port,
        web_host=settings.web.bind,
        stop_grace_s=settings.stop_grace_s,
        reads=reads,
        logging_config=faust_logging(settings.log),
        **options,
    )


def built(build: Callable[[Settings], Built]) -> Built:
    """Return what ``build`` makes of the settings, for a module that Faust imports.

    Raises:
        SystemExit: 78, sysexits' EX_CONFIG, after one sentence in place of Faust's traceback: a setting is wrong.
    """
    try:
        return build(load_settings())
    except ConfigurationError as error:
        sys.stderr.write(f"streamapp: {error}\n")
        sys.exit(CONFIGURATION)
