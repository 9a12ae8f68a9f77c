"""The trading worker: ``faust -A streamapp.trading worker``. Decides, submits, and folds what comes back.

The app is built here at import and connected to nothing; everything happens when the worker starts. The parts are put
together in :mod:`streamapp.wiring`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agents.breakers import Breakers
from agents.outboxes import Outboxes
from agents.terminals import NatsTerminals
from streamapp import crashpoints, topics
from streamapp.clickhouse.reader import Reader
from streamapp.clock import utc_now
from streamapp.kafka.application import StreamApp
from streamapp.metrics import TradingMetrics
from streamapp.settings import Settings, load_settings
from streamapp.web.registration import register
from streamapp.wiring.applications import app_of
from streamapp.wiring.holdings import Holdings, open_holdings
from streamapp.wiring.messaging import Messaging
from streamapp.wiring.readiness import Readiness
from streamapp.wiring.timers import Timers
from streamapp.wiring.workers import Surroundings, checks_of, register_agents, reports_of


@dataclass(frozen=True)
class Trading:
    """The worker's parts, for the web views and tests."""

    app: StreamApp
    settings: Settings
    holdings: Holdings
    breakers: Breakers
    messaging: Messaging
    readiness: Readiness
    reader: Reader
    metrics: TradingMetrics


def build(settings: Settings) -> Trading:
    """Return the worker of ``settings``, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    app = _app(settings)
    metrics, reader = TradingMetrics(), Reader.of(settings)
    messaging = Messaging(settings, f"trading-{settings.worker}")
    terminals = NatsTerminals(messaging)
    breakers = Breakers(
        terminals,
        utc_now,
        deadline_s=settings.broker.submit_deadline_s,
        max_skew_s=settings.execution.max_clock_skew_s,
        metrics=metrics,
    )
    holdings = open_holdings(app)
    readiness = Readiness(app, settings, holdings, messaging, breakers)
    house = Surroundings(
        app=app,
        settings=settings,
        clock=utc_now,
        metrics=metrics,
        holdings=holdings,
        terminals=terminals,
        breakers=breakers,
        signal_rows=reader,
        order_rows=reader,
    )
    outboxes = Outboxes(terminals)
    reports = reports_of(house, outboxes)
    register_agents(house, reports)
    app.add_dependency(messaging)
    app.add_dependency(Timers(app, checks_of(house), reports, outboxes, readiness=readiness, settings=settings))
    register(
        app,
        orders=holdings.orders,
        order_index=holdings.open_orders,
        positions=holdings.positions,
        accounts=holdings.accounts,
        reader=reader,
        health=readiness.health,
        metrics=metrics.text,
    )
    return Trading(app, settings, holdings, breakers, messaging, readiness, reader, metrics)


def _app(settings: Settings) -> StreamApp:
    return app_of(
        settings,
        "trading",
        folder="trading" if settings.worker == 1 else f"trading-{settings.worker}",
        web_port=settings.ports.trading(settings.worker),
        reads="|".join((settings.role, *(spec.name for spec in topics.TOPICS), *topics.TABLES)),
    )


trading = build(load_settings())
app = trading.app
