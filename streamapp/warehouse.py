"""The warehouse: ``faust -A streamapp.warehouse worker``, a consumer group of its own, without tables.

A slow or absent ClickHouse stops this worker and no other.
"""

from __future__ import annotations

import asyncio

from agents.warehouse import Warehouse
from streamapp import crashpoints, topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.rows import MODELS
from streamapp.clock import utc_now
from streamapp.errors import Transient
from streamapp.kafka.application import StreamApp
from streamapp.metrics import SinkMetrics
from streamapp.settings import Settings, load_settings
from streamapp.wiring.applications import register_sink_views, sink_of

TOPICS = (topics.UPDATES, topics.ARCHIVE, topics.BROKER_LOG)
_PROBE_S = 2.0  # how old the health's word about an idle ClickHouse may be


def build(settings: Settings) -> StreamApp:
    """Return the app, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    clickhouse, metrics = ClickHouse.of(settings), SinkMetrics()
    app = sink_of(settings, "warehouse", web_port=settings.ports.warehouse, troubles=lambda: warehouse.troubles)
    warehouse = Warehouse(clickhouse, settings, producer=app.sends, clock=utc_now, metrics=metrics)
    schema = _Schema(clickhouse, app)
    for topic in TOPICS:
        app.agent(app.raw_topic(topic), isolated_partitions=True, name=f"warehouse_{topic}")(warehouse.run)
    app.on_before_shutdown.connect(lambda *_, **__: clickhouse.close())

    def numbers() -> str:
        warehouse.measure_lag()
        return metrics.text()

    register_sink_views(app, lambda: (*schema.troubles, *warehouse.troubles), numbers)
    return app


class _Schema:
    """Whether ClickHouse answers and has our tables; asked by itself, so that an idle warehouse knows too."""

    def __init__(self, clickhouse: ClickHouse, app: StreamApp) -> None:
        self._clickhouse = clickhouse
        self.troubles: tuple[str, ...] = ("ClickHouse has not answered yet",)
        app.task(self._watch)

    async def _watch(self) -> None:
        while True:
            self.troubles = await self._look()
            await asyncio.sleep(_PROBE_S)

    async def _look(self) -> tuple[str, ...]:
        try:
            rows = await self._clickhouse.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
        except Transient as error:
            return (str(error),)
        missing = MODELS.keys() - {row["name"] for row in rows}
        return (f"ClickHouse has no table {', '.join(sorted(missing))}: run `streamapp init`",) if missing else ()


app = build(load_settings())
