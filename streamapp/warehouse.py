"""The warehouse: ``faust -A streamapp.warehouse worker``, a consumer group of its own, without tables.

A slow or absent ClickHouse stops this worker and no other.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from streamapp.parts import leave_incomplete

try:
    from agents.warehouse import Warehouse
except ModuleNotFoundError as error:  # an installed wheel, and nothing below can be imported either
    leave_incomplete(error)
from streamapp import crashpoints, topics
from streamapp.clickhouse.client import ClickHouse
from streamapp.clickhouse.rows import MODELS
from streamapp.clock import utc_now
from streamapp.errors import Transient
from streamapp.health import LIVE, READY
from streamapp.kafka.application import StreamApp
from streamapp.kafka.layout import refuse_earlier_layout
from streamapp.kafka.security import Cluster
from streamapp.kafka.sensors import FaustSensors
from streamapp.metrics import SinkMetrics
from streamapp.settings import Settings
from streamapp.wiring.applications import app_of, built

TOPICS = (topics.ARCHIVE, topics.BROKER_LOG)
FETCH_WAIT_MS, FETCH_MIN_BYTES = 500, 1 << 20
"""Rare, large fetches: at 50 orders a second that is a third of its CPU. A row is in ClickHouse some 1.6 s after its
commit (this wait, then that of its batch), and in the worst case another wait later."""
_PROBE_S = 2.0  # how old the health's word about an idle ClickHouse may be


def build(settings: Settings) -> StreamApp:
    """Return the app, connected to nothing yet."""
    crashpoints.arm(settings.crash_at)
    clickhouse, metrics = ClickHouse.of(settings), SinkMetrics()
    app = app_of(
        settings,
        "warehouse",
        web_port=settings.ports.warehouse,
        # A rebalance must not wait for ClickHouse. Safe: every acknowledgement is explicit, and follows its answer.
        drain_s=0.0,
        fetch_wait_ms=FETCH_WAIT_MS,
        fetch_min_bytes=FETCH_MIN_BYTES,
        check=partial(_check_start, settings),
    )
    metrics.registry.register(FaustSensors(app))
    app.waits = lambda: bool(warehouse.troubles)
    warehouse = Warehouse(clickhouse, settings, producer=app.sends, clock=utc_now, metrics=metrics)
    schema = _Schema(clickhouse, app)
    for topic in TOPICS:
        app.agent(app.raw_topic(topic), isolated_partitions=True, name=f"warehouse_{topic}")(warehouse.run)
    app.on_before_shutdown.connect(lambda *_, **__: clickhouse.close())

    _register_views(app, warehouse, schema, metrics)
    return app


async def _check_start(settings: Settings, _app: StreamApp) -> None:
    """Return if no state of an earlier version is there: its archive is in another form, and would be dead letters."""
    await refuse_earlier_layout(Cluster.of(settings), settings.kafka_deployment, settings.local.data)


def _register_views(app: StreamApp, warehouse: Warehouse, schema: _Schema, metrics: SinkMetrics) -> None:
    """Add ``/health`` and ``/readyz``, which are 503 with the reasons while there are any, and the others."""

    @app.page("/health")
    async def health(view: Any, _request: Any) -> Any:
        known = list(dict.fromkeys((*schema.troubles, *warehouse.troubles)))
        starting = app.rebalancing or not app.rebalancing_count
        if starting:
            known.append("partitions are being assigned")
        status = "starting" if starting else "waiting" if known else "ok"
        return view.json({"status": status, "reasons": known}, status=503 if known else 200)

    app.page(READY)(health)

    @app.page(LIVE)
    async def alive(view: Any, _request: Any) -> Any:
        return view.json({"status": "ok"})

    @app.page("/metrics")
    async def numbers(view: Any, _request: Any) -> Any:
        warehouse.measure_lag()
        return view.text(metrics.text(), content_type="text/plain")


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


app = built(build)
