"""The trading worker: ``faust -A streamapp.trading worker``. What happens to an account is decided here, and said.

The app is built here at import and connected to nothing; everything happens when the worker starts. ``broker`` and
``publisher`` are agents on channels in memory: what they have not done is known from the rows, and done at recovery.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from streamapp.parts import leave_incomplete

try:
    from agents.approval import ApprovalGate
    from agents.broker import Broker
    from agents.completion import Completion
    from agents.desk import Desk
    from agents.outbox import Outbox, Unsaid
    from agents.pruning import Pruner
    from agents.publisher import Publisher
except ModuleNotFoundError as error:  # an installed wheel, and nothing below can be imported either
    leave_incomplete(error)
from streamapp import crashpoints, subjects, topics
from streamapp.clickhouse.reader import Reader
from streamapp.clock import utc_now
from streamapp.desk.policy import Policy
from streamapp.kafka.application import StreamApp
from streamapp.kafka.assignment import refuse_taken_address
from streamapp.kafka.channel import MemoryChannel
from streamapp.kafka.layout import refuse_earlier_layout, refuse_other_store, refuse_unmade_store
from streamapp.kafka.producer import ClientProducer, dead_letter_record
from streamapp.kafka.security import Cluster
from streamapp.kafka.sensors import FaustSensors
from streamapp.letters.ledger import LetterLedger
from streamapp.messages.dead_letter import DeadLetter
from streamapp.messages.source import load_sources
from streamapp.metrics import TradingMetrics
from streamapp.nats.commands import NatsCommands
from streamapp.nats.feed import NatsFeed
from streamapp.nats.outlet import JetStreamOutlet
from streamapp.nats.signals import NatsSignals
from streamapp.settings import Settings
from streamapp.tokens import Tokens
from streamapp.tracing import Spans
from streamapp.web.access import Access
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from streamapp.web.registration import register
from streamapp.web.signals import SignalView
from streamapp.wiring.applications import app_of, built
from streamapp.wiring.messaging import Messaging, NatsTerminals
from streamapp.wiring.readiness import Readiness
from streamapp.wiring.services import LastSpans, Opening, Pruning, Timers, Words
from tables.store import Store

ARCHIVE_LINGER_MS = 20
"""How long a commit waits for others on its way to the archive: nobody waits for it, and until then the account's next
commit carries it as unsaid."""


@dataclass(frozen=True)
class Trading:
    """The worker's parts, for tests."""

    app: StreamApp
    settings: Settings
    store: Store
    desk: Desk
    outbox: Outbox
    broker: Broker
    publisher: Publisher
    readiness: Readiness
    metrics: TradingMetrics


def build(settings: Settings) -> Trading:
    """Return the worker of ``settings``, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    app, store = _app_and_store(settings)
    policy, metrics, reader = Policy.of(settings), TradingMetrics(), Reader.of(settings)
    spans = Spans.of(settings, "trading")
    messaging = Messaging(settings, f"trading-{settings.worker_number}")
    client_id = f"{settings.kafka_deployment}-trading-{settings.worker_number}-outbox"
    words = ClientProducer(Cluster.of(settings), client_id, linger_ms=ARCHIVE_LINGER_MS)
    broker = Broker(NatsTerminals(messaging) if policy.executes else None, settings, utc_now, metrics, spans=spans)
    effects, saying = MemoryChannel(app), MemoryChannel(app)
    outbox = Outbox(words, saying.feed, lambda *place: desk.tidy(*place))  # noqa: PLW0108  it is made below
    publisher = Publisher(
        JetStreamOutlet(lambda: messaging.client, settings.nats.publish_timeout_s),
        subjects.origin(settings.deployment, settings.role),
        done=outbox.published,
        bury=_burying(words),
        clock=utc_now,
        metrics=metrics,
        spans=spans,
    )
    needs_row = settings.execution.require_row and settings.role != "connector"
    positions, recent, breaks, alarms = OpenPositions(), RecentFacts(), StandingBreaks(), StandingAlarms()
    desk = Desk(
        store,
        outbox,
        carry_out=effects.feed,
        terminal=lambda account: broker.link(account).status,
        policy=policy,
        producer=words,
        clock=utc_now,
        metrics=metrics,
        spans=spans,
        approve=ApprovalGate(reader, utc_now, policy.rules).approve if needs_row else None,
        watchers=(positions, recent, breaks, alarms),
    )
    broker.attach(desk)
    completion = Completion(
        store,
        words,
        outbox,
        settings=settings,
        clock=utc_now,
        metrics=metrics,
        ready=desk.ready,
        signals=reader,
        orders=reader,
    )
    tokens_file = settings.web.tokens_file
    access = Access(None if tokens_file is None else Tokens(tokens_file), time.monotonic)
    readiness = Readiness(
        app,
        settings,
        desk=desk,
        messaging=messaging,
        broker=broker,
        troubles=lambda: (*outbox.troubles, *publisher.troubles, *access.troubles),
    )
    app.waits = lambda: bool(outbox.troubles) or not desk.ready.is_set()
    _register_agents(app, settings, desk, completion)
    app.agent(effects, name="broker")(broker.run)
    app.agent(saying, name="publisher")(publisher.run)
    if spans is not None:
        app.add_dependency(LastSpans(spans))
    app.add_dependency(messaging)
    app.add_dependency(Words(words, outbox.close))
    app.add_dependency(Opening(store, desk, messaging, (publisher.drop, broker.drop)))
    metrics.registry.register(FaustSensors(app))
    measure = _measuring(settings, outbox, desk, metrics)
    app.add_dependency(Timers(broker, desk, readiness=readiness, settings=settings, measure=measure))
    app.add_dependency(Pruning(Pruner(store, desk, policy, utc_now)))
    register(
        app,
        store=store,
        desk=desk,
        policy=policy,
        clock_skew=lambda account: broker.link(account).clock_skew,
        positions=positions,
        facts=recent,
        breaks=breaks,
        alarms=alarms,
        letters=LetterLedger(settings, words, utc_now),
        reader=reader,
        health=readiness.health,
        ready=readiness.ready,
        metrics=metrics.text,
        commands=NatsCommands(lambda: messaging.client, settings.nats),
        feed=NatsFeed(lambda: messaging.client, settings.nats),
        access=access,
        signals=_signal_view(settings, messaging, access, metrics),
    )
    return Trading(app, settings, store, desk, outbox, broker, publisher, readiness, metrics)


def _signal_view(settings: Settings, messaging: Messaging, access: Access, metrics: TradingMetrics) -> SignalView:
    # In role connector nobody here decides on signals: there are no sources.
    takes = settings.role != "connector"
    sources = load_sources(settings.web.sources, settings.execution) if takes else {}
    signals = NatsSignals(lambda: messaging.client, settings.nats)
    return SignalView(signals, sources, access, settings.web, time.monotonic, count=metrics.came_by_web)


def _app_and_store(settings: Settings) -> tuple[StreamApp, Store]:
    name, place = settings.kafka.store, settings.worker_of_machine
    app = app_of(
        settings,
        topics.trading_part(name),
        folder="trading" if place == 1 else f"trading-{place}",
        # The local copy of one store must never be read on from another's changelog.
        tabledir="tables" if name is None else f"tables.{name}",
        web_port=settings.ports.trading(place),
        advertised_url=settings.web.advertised_url,
        standby_replicas=settings.kafka.standby_replicas,
        reads="|".join((settings.role, *(spec.name for spec in topics.TOPICS), *topics.TABLES)),
        check=partial(_check_start, settings),
    )
    store: Store = app.Table(topics.TABLES[0])
    return app, store


async def _check_start(settings: Settings, app: StreamApp) -> None:
    """Return if the store is ours alone, its address too, and no state of an earlier version stands beside it."""
    kafka, deployment, store = Cluster.of(settings), settings.kafka_deployment, settings.kafka.store
    await refuse_earlier_layout(kafka, deployment, settings.local.data)
    await refuse_unmade_store(kafka, deployment, store)
    await refuse_other_store(kafka, deployment, store)
    await refuse_taken_address(app)


def _register_agents(app: StreamApp, settings: Settings, desk: Desk, completion: Completion) -> None:
    """Register the agents of the settings' role."""
    inputs = [topics.SIGNALS_APPROVED if settings.role != "connector" else topics.ORDERS_SUBMITTED]
    of_terminals = [topics.ACCOUNT_SNAPSHOTS, topics.ORDER_COMMANDS] if settings.is_executor else []
    inputs += [topics.BROKER_REPORTS, *of_terminals]
    for topic in inputs:
        _register(app, topic, desk.run)
    _register(app, topics.INCOMPLETE, completion.run)


def _register(app: StreamApp, topic: str, run: Callable[[Any], Awaitable[None]]) -> None:
    async def agent(stream: Any) -> None:
        await run(stream)

    agent.__qualname__ = agent.__name__ = topic  # what Faust calls it in the log
    app.agent(app.raw_topic(topic), isolated_partitions=True, name=topic)(agent)


def _measuring(settings: Settings, outbox: Outbox, desk: Desk, metrics: TradingMetrics) -> Callable[[], None]:
    def measure() -> None:
        for account, size in outbox.unsaid().items():
            metrics.unsaid_bytes.labels(account).set(size)
        counts = desk.index.standings
        for account in settings.accounts:
            for standing in ("held", "unanswered"):
                metrics.submissions.labels(account, standing).set(counts[account, standing])
        metrics.show_accounts(desk.states().values())

    return measure


def _burying(producer: ClientProducer) -> Callable[[DeadLetter, Unsaid], Awaitable[None]]:
    async def bury(letter: DeadLetter, unsaid: Unsaid) -> None:
        await producer.send_all([dead_letter_record(letter, unsaid.account.encode(), unsaid.partition)])

    return bury


trading = built(build)
app = trading.app
