"""The warehouse: ``faust -A streamapp.warehouse worker``, a consumer group of its own, without tables.

A slow or absent ClickHouse stops this worker and no other.
"""

from __future__ import annotations

import asyncio
from typing import Any

from agents.warehouse import Warehouse
from streamapp import crashpoints, topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.rows import MODELS
from streamapp.clock import utc_now
from streamapp.errors import Transient
from streamapp.kafka.application import StreamApp, build_app
from streamapp.metrics import SinkMetrics
from streamapp.settings import Settings, load_settings

TOPICS = (topics.UPDATES, topics.ARCHIVE, topics.BROKER_LOG)
_PROBE_S = 2.0  # how old the health's word about an idle ClickHouse may be


def build(settings: Settings) -> StreamApp:
    """Return the app, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    app = build_app(
        topics.app_id(settings.deployment, "warehouse"),
        bootstrap=settings.kafka_bootstrap,
        data_dir=settings.local.data / "warehouse",
        partitions=settings.kafka.partitions,
        replication_factor=settings.kafka.replication_factor,
        session_timeout_s=settings.kafka.session_timeout_s,
        web_port=settings.ports.warehouse,
        web_host=settings.web.bind,
    )
    # A rebalance must not wait for ClickHouse. Safe here: every acknowledgement is explicit, and follows the insert.
    app.conf.stream_wait_empty = False
    clickhouse = ClickHouse.of(settings)
    metrics = SinkMetrics()
    warehouse = Warehouse(clickhouse, settings, producer=app.sends, clock=utc_now, metrics=metrics)
    app.waits = lambda: bool(warehouse.troubles)
    for topic in TOPICS:
        app.agent(app.raw_topic(topic), isolated_partitions=True, name=f"warehouse_{topic}")(warehouse.run)
    app.on_before_shutdown.connect(lambda *_, **__: clickhouse.close())
    _register_views(app, warehouse, _Schema(clickhouse, app), metrics)
    return app


class _Schema:
    """Whether ClickHouse answers and has our tables; asked by itself, so that an idle warehouse knows too."""

    def __init__(self, clickhouse: ClickHouse, app: StreamApp) -> None:
        self._clickhouse = clickhouse
        self.trouble: str | None = "ClickHouse has not answered yet"
        app.task(self._watch)

    async def _watch(self) -> None:
        while True:
            self.trouble = await self._look()
            await asyncio.sleep(_PROBE_S)

    async def _look(self) -> str | None:
        try:
            rows = await self._clickhouse.query("SELECT name FROM system.tables WHERE database = currentDatabase()")
        except Transient as error:
            return str(error)
        missing = MODELS.keys() - {row["name"] for row in rows}
        return f"ClickHouse has no table {', '.join(sorted(missing))}: run `streamapp init`" if missing else None


def _register_views(app: StreamApp, warehouse: Warehouse, schema: _Schema, metrics: SinkMetrics) -> None:
    @app.page("/health")
    async def health(view: Any, _request: Any) -> Any:
        reasons = [text for text in (schema.trouble, *warehouse.troubles) if text]
        starting = app.rebalancing or not app.rebalancing_count
        if starting:
            reasons.append("partitions are being assigned")
        status = "starting" if starting else "waiting" if reasons else "ok"
        return view.json({"status": status, "reasons": reasons}, status=503 if reasons else 200)

    @app.page("/metrics")
    async def numbers(view: Any, _request: Any) -> Any:
        warehouse.measure_lag()
        return view.text(metrics.text(), content_type="text/plain")


app = build(load_settings())
