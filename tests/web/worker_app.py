"""A worker that has nothing but the store and the views: ``faust -A tests.web.worker_app worker``.

Each record of the archive topic is an order to make: ``{"order_id": ..., "account": ...}``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

from streamapp import topics
from streamapp.clickhouse.reader import Reader
from streamapp.desk.policy import Policy
from streamapp.desk.state import Comparing
from streamapp.kafka.application import build_app
from streamapp.kafka.assignment import refuse_taken_address
from streamapp.messages.account import AccountMessage
from streamapp.nats.commands import NatsCommands
from streamapp.nats.feed import NatsFeed
from streamapp.nats.signals import NatsSignals
from streamapp.settings import NatsSettings, load_settings
from streamapp.web import register
from streamapp.web.access import Access
from streamapp.web.indexes import OpenPositions, RecentFacts, StandingAlarms, StandingBreaks
from streamapp.web.signals import SignalView
from tables.orders import ORDER, OrderIndex, OrderRow, order_key
from tables.store import Store
from tests.web.group import NoLetters, order_row

settings = load_settings()
app = build_app(
    topics.app_id(settings.deployment, "trading"),
    bootstrap=settings.kafka_bootstrap,
    data_dir=settings.local.data,
    partitions=settings.kafka.partitions,
    replication_factor=1,
    session_timeout_s=settings.kafka.session_timeout_s,
    web_host=settings.web.bind,
    web_port=settings.ports.trading(settings.worker_of_machine),
    advertised_url=settings.web.advertised_url,
    check=refuse_taken_address,
)
store: Store = app.Table(topics.TABLES[0])


class Known:
    """What the views need of a desk."""

    def __init__(self) -> None:
        self.recovered = asyncio.Event()
        self.index = OrderIndex()

    def states(self) -> dict[str, AccountMessage]:
        return {}

    def comparings(self) -> dict[str, Comparing]:
        return {}

    def revoked(self, partitions: Iterable[int]) -> None:
        self.recovered.clear()
        self.index.drop(frozenset(partitions))

    def rebuild(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            for _, value in store.scan(partition, ORDER):
                self.index.put(OrderRow.decode(value), partition)
        self.recovered.set()


class Listener:
    """Passes the store's word on: the event and the method of its name can't be one."""

    def revoked(self, partitions: Iterable[int]) -> None:
        known.revoked(partitions)

    def recovered(self, partitions: Iterable[int]) -> None:
        known.rebuild(partitions)


known = Known()
store.attach(Listener())


def health() -> tuple[int, dict[str, Any]]:
    ready = known.recovered.is_set() and not app.rebalancing
    return (200 if ready else 503), {"status": "ok" if ready else "starting", "reasons": []}


access = Access(None, time.monotonic)
register(
    app,
    store=store,
    desk=known,
    policy=Policy.of(settings),
    clock_skew=lambda _: None,
    positions=OpenPositions(),
    facts=RecentFacts(),
    breaks=StandingBreaks(),
    alarms=StandingAlarms(),
    letters=NoLetters(),
    reader=Reader.of(settings),
    health=health,
    ready=health,
    metrics=lambda: "",
    commands=NatsCommands(lambda: None, NatsSettings(publish_timeout_s=1)),
    feed=NatsFeed(lambda: None, NatsSettings()),
    access=access,
    signals=SignalView(
        NatsSignals(lambda: None, NatsSettings()), {}, access, settings.web, time.monotonic, count=lambda *_: None
    ),
)


@app.agent(app.raw_topic(topics.ARCHIVE), isolated_partitions=True)
async def make(stream: Any) -> None:
    async for event in stream.noack().events():
        asked = json.loads(event.message.value)
        row = order_row(asked["order_id"], asked["account"])
        await store.commit(event.message.partition, {order_key(row.order_id): row.encode()})
        known.index.put(row, event.message.partition)
        await stream.ack(event)
