"""A worker that has nothing but the tables and the views: ``faust -A tests.web.worker_app worker``.

Each record of the archive topic is an order to make: ``{"order_id": ..., "account": ...}``.
"""

from __future__ import annotations

import json
from typing import Any

from streamapp import topics
from streamapp.clickhouse.reader import Reader
from streamapp.kafka.application import build_app
from streamapp.settings import load_settings
from streamapp.web import register
from tables.accounts import AccountRow
from tables.durable import DurableTable
from tables.orders import OrderIndex, OrderRow, order_key
from tables.positions import PositionRow
from tests.web.group import order_row

settings = load_settings()
app = build_app(
    topics.app_id(settings.deployment, "trading"),
    bootstrap=settings.kafka_bootstrap,
    data_dir=settings.local.data,
    partitions=settings.kafka.partitions,
    replication_factor=1,
    session_timeout_s=settings.kafka.session_timeout_s,
    web_port=settings.ports.trading(settings.worker),
)
orders = DurableTable.of(app, "orders", OrderRow)
positions = DurableTable.of(app, "positions", PositionRow)
accounts = DurableTable.of(app, "accounts", AccountRow)
index = OrderIndex()
orders.watch(index)


def health() -> tuple[int, dict[str, Any]]:
    ready = all(table.indexed.is_set() for table in (orders, positions, accounts)) and not app.rebalancing
    return (200 if ready else 503), {"status": "ok" if ready else "starting", "reasons": []}


register(
    app,
    orders=orders,
    order_index=index,
    positions=positions,
    accounts=accounts,
    reader=Reader.of(settings),
    health=health,
    metrics=lambda: "",
)


@app.agent(app.raw_topic(topics.ARCHIVE), isolated_partitions=True)
async def make(stream: Any) -> None:
    async for event in stream.noack().events():
        asked = json.loads(event.message.value)
        await orders.put(order_key(asked["order_id"]), order_row(asked["order_id"], asked["account"]))
        await stream.ack(event)
