"""Putting the views on an app."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from streamapp.clickhouse.reader import Reader
from streamapp.clock import utc_now
from streamapp.desk.policy import Policy
from streamapp.kafka.application import StreamApp
from streamapp.kafka.assignment import Assignment
from streamapp.web.access import Access
from streamapp.web.answers import Answers
from streamapp.web.commands import Commands, CommandView
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
    policy: Policy,
    positions: OpenPositions,
    facts: RecentFacts,
    breaks: StandingBreaks,
    reader: Reader,
    health: HealthView,
    ready: HealthView,
    metrics: MetricsView,
    commands: Commands,
    access: Access,
) -> None:
    """Put the views on ``app``; called by the composition root, before the app starts.

    Args:
        app: The trading app. Its web server is the one that answers.
        store: The rows.
        desk: What is kept in memory of them.
        policy: The file's limits, and where accounts are.
        positions: The open positions, which the desk keeps up.
        facts: The facts that were committed last, likewise.
        breaks: The differences with the brokers' books, likewise.
        reader: For what no row holds. Closed with the app.
        health: The status code and body of ``/health``.
        ready: Those of ``/readyz``.
        metrics: The text of ``/metrics``.
        commands: Where commands go.
        access: Who may ask and command. It stands before Faust's own pages as well.
    """
    peers = HttpPeers(Assignment(app))
    local = Local(store, desk, positions=positions, facts=facts, breaks=breaks, policy=policy)
    answers = Answers(local, peers, reader, app.conf.topic_partitions)
    # Here and now, before Faust adds its own pages, of which "/" would be one: the first to name a path has it.
    serve(app.web.web_app, Views(local, answers, health=health, ready=ready, metrics=metrics), commands, access)

    async def close(*_: Any, **__: Any) -> None:
        await peers.close()
        await reader.close()

    app.on_before_shutdown.connect(close)


def serve(app: web.Application, views: Views, commands: Commands, access: Access) -> None:
    """Put what is asked and what is commanded on a web application, behind who may."""
    app.middlewares.append(access.middleware)
    command_view = CommandView(commands, clock=utc_now, make_id=lambda: str(uuid.uuid4()))
    app.add_routes([*views.routes(), *command_view.routes()])
