"""Putting the views on an app."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
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
from streamapp.web.events import EventView, Hub, LiveFeed
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from streamapp.web.letters import Letters, LetterView
from streamapp.web.local import Known, Local
from streamapp.web.page import serve_page
from streamapp.web.peers import HttpPeers
from streamapp.web.sessions import SessionView
from streamapp.web.signals import SignalView
from streamapp.web.views import HealthView, MetricsView, Views
from tables.store import Store


def register(
    app: StreamApp,
    *,
    store: Store,
    desk: Known,
    policy: Policy,
    clock_skew: Callable[[str], timedelta | None],
    positions: OpenPositions,
    facts: RecentFacts,
    breaks: StandingBreaks,
    alarms: StandingAlarms,
    letters: Letters,
    reader: Reader,
    health: HealthView,
    ready: HealthView,
    metrics: MetricsView,
    commands: Commands,
    feed: LiveFeed,
    access: Access,
    signals: SignalView,
) -> None:
    """Put the views on ``app``; called by the composition root, before the app starts.

    Args:
        app: The trading app. Its web server is the one that answers.
        store: The rows.
        desk: What is kept in memory of them.
        policy: The file's limits, and where accounts are.
        clock_skew: What the clock of an account's terminal is ahead of ours by, None until it has answered.
        positions: The open positions, which the desk keeps up.
        facts: The facts that were committed last, likewise.
        breaks: The differences with the brokers' books, likewise.
        alarms: The alarms that stand, likewise.
        letters: The dead letters.
        reader: For what no row holds. Closed with the app.
        health: The status code and body of ``/health``.
        ready: Those of ``/readyz``.
        metrics: The text of ``/metrics``.
        commands: Where commands go.
        feed: What the house says, for ``/events``.
        access: Who may ask and command. It stands before Faust's own pages as well.
        signals: Takes the signals.
    """
    peers = HttpPeers(Assignment(app))
    local = Local(
        store,
        desk,
        positions=positions,
        facts=facts,
        breaks=breaks,
        alarms=alarms,
        policy=policy,
        clock_skew=clock_skew,
    )
    answers = Answers(local, peers, reader, app.conf.topic_partitions)
    # Here and now, before Faust adds its own pages, of which "/" would be one: the first to name a path has it.
    hub = Hub(feed)
    views = Views(local, answers, health=health, ready=ready, metrics=metrics)
    serve(app.web.web_app, views, commands=commands, signals=signals, letters=letters, hub=hub, access=access)

    async def close(*_: Any, **__: Any) -> None:
        await hub.close()
        await peers.close()
        await reader.close()

    app.on_before_shutdown.connect(close)


def serve(
    app: web.Application,
    views: Views,
    *,
    commands: Commands,
    signals: SignalView,
    letters: Letters,
    hub: Hub,
    access: Access,
) -> None:
    """Put the page, what is asked, heard, commanded, signalled and decided on a web application, behind who may."""
    app.middlewares.append(access.middleware)
    command_view = CommandView(commands, clock=utc_now, make_id=lambda: str(uuid.uuid4()))
    session_view = SessionView(access, utc_now)
    event_view = EventView(hub, utc_now)
    acting = (command_view, signals, LetterView(letters), session_view)
    app.add_routes([*views.routes(), web.get("/events", event_view.handle)])
    app.add_routes([route for view in acting for route in view.routes()])
    serve_page(app)
