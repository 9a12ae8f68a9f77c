"""Putting the views on an app."""

from __future__ import annotations

from typing import Any

from streamapp.clickhouse.reader import Reader
from streamapp.kafka.application import StreamApp
from streamapp.kafka.assignment import Assignment
from streamapp.web.answers import Answers
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingBreaks
from streamapp.web.local import Known, Local
from streamapp.web.peers import HttpPeers
from streamapp.web.views import HealthView, MetricsView, Views
from tables.store import Store


def register(
    app: StreamApp,
    *,
    store: Store,
    desk: Known,
    positions: OpenPositions,
    facts: RecentFacts,
    breaks: StandingBreaks,
    reader: Reader,
    health: HealthView,
    metrics: MetricsView,
) -> None:
    """Put the views on ``app``; called by the composition root, before the app starts.

    Args:
        app: The trading app. Its web server is the one that answers.
        store: The rows.
        desk: What is kept in memory of them.
        positions: The open positions, which the desk keeps up.
        facts: The facts that were committed last, likewise.
        breaks: The differences with the brokers' books, likewise.
        reader: For what no row holds. Closed with the app.
        health: The status code and body of ``/health``.
        metrics: The text of ``/metrics``.
    """
    peers = HttpPeers(Assignment(app))
    local = Local(store, desk, positions, facts, breaks)
    answers = Answers(local, peers, reader, app.conf.topic_partitions)
    # Here and now, before Faust adds its own pages, of which "/" would be one: the first to name a path has it.
    app.web.web_app.add_routes(Views(local, answers, health, metrics).routes())

    async def close(*_: Any, **__: Any) -> None:
        await peers.close()
        await reader.close()

    app.on_before_shutdown.connect(close)
