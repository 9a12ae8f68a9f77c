"""Putting the views on an app."""

from __future__ import annotations

from typing import Any

from streamapp.clickhouse.reader import Reader
from streamapp.kafka.application import StreamApp
from streamapp.kafka.assignment import Assignment
from streamapp.web.answers import Answers
from streamapp.web.local import Local
from streamapp.web.peers import HttpPeers
from streamapp.web.views import HealthView, MetricsView, Views
from tables.accounts import AccountRow
from tables.durable import DurableTable
from tables.orders import OrderIndex, OrderRow
from tables.positions import PositionRow


def register(
    app: StreamApp,
    *,
    orders: DurableTable[OrderRow],
    order_index: OrderIndex,
    positions: DurableTable[PositionRow],
    accounts: DurableTable[AccountRow],
    reader: Reader,
    health: HealthView,
    metrics: MetricsView,
) -> None:
    """Put the views on ``app``; called by the composition root, before the app starts.

    Args:
        app: The trading app. Its web server is the one that answers.
        orders: Table ``orders``.
        order_index: Its index, which watches it already.
        positions: Table ``positions``; an index of the views' own is put on it.
        accounts: Table ``accounts``; likewise.
        reader: For what no table holds. Closed with the app.
        health: The status code and body of ``/health``.
        metrics: The text of ``/metrics``.
    """
    peers = HttpPeers(Assignment(app))
    local = Local(orders, order_index, positions, accounts)
    answers = Answers(local, peers, reader, app.conf.topic_partitions)
    # Here and now, before Faust adds its own pages, of which "/" would be one: the first to name a path has it.
    app.web.web_app.add_routes(Views(local, answers, health, metrics).routes())

    async def close(*_: Any, **__: Any) -> None:
        await peers.close()
        await reader.close()

    app.on_before_shutdown.connect(close)
