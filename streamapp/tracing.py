"""Spans of OpenTelemetry for an order's way, joined by the traceparent that its signal brought.

Off unless ``tracing.endpoint`` is set; then nothing of OpenTelemetry is imported. Spans are handed to a thread of its
own by a bounded queue: where the endpoint is slow or away they are dropped, one sentence says so, and nobody waits.
A signal without a traceparent has no spans. What the terminal did is told by the trading worker, from its reports.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from streamapp.domain.facts import Fact, OrderCreated, SubmitReturned
from streamapp.domain.orders import OrderState
from streamapp.parts import missing_part
from streamapp.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

MOST_ORDERS = 5000
"""Orders whose trace is remembered, some 1 MB: what comes later of an older one has no spans."""
QUEUE, EVERY_S, DEADLINE_S = 4096, 2.0, 5.0
"""Spans that may wait, how often they are sent, and how long that may take."""
LAST_S = 2.0
"""How long a process that ends waits for its last spans to be taken."""


class Spans:
    """What this process tells of the orders and messages that pass through it."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("streamapp")
        self._extract: Callable[[dict[str, str]], Any] = TraceContextTextMapPropagator().extract
        self._traces: OrderedDict[str, str] = OrderedDict()

    @classmethod
    def of(cls, settings: Settings, process: str) -> Spans | None:
        """Return what sends the spans of ``process``; None: they are off.

        Raises:
            ConfigurationError: they are on, and OpenTelemetry is not installed.
        """
        endpoint = settings.tracing.endpoint
        if endpoint is None:
            return None
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ModuleNotFoundError as error:
            raise missing_part(error) from None
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it says the same thing with every batch
        resource = Resource({"service.name": f"streamapp-{process}", "service.namespace": settings.deployment})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        sending = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=DEADLINE_S)
        provider.add_span_processor(
            BatchSpanProcessor(
                _reporting(sending, endpoint),
                max_queue_size=QUEUE,
                schedule_delay_millis=EVERY_S * 1000,
                max_export_batch_size=512,
            )
        )
        return cls(provider)

    def took(self, name: str, trace: str | None, began: datetime, ended: datetime, **names: str) -> None:
        """Tell of something that took from ``began`` to ``ended``; nothing without a traceparent."""
        if trace is None:
            return
        context = self._extract({"traceparent": trace})
        if not context:
            return  # it is none
        attributes = {f"streamapp.{key}": value for key, value in names.items()}
        span = self._tracer.start_span(name, context, start_time=_ns(began), attributes=attributes)
        span.end(max(_ns(began), _ns(ended)))

    def committed(
        self,
        fact: Fact,
        order: OrderState,
        traces: Mapping[str, str | None],
        *,
        decided_at: datetime,
        durable_at: datetime,
    ) -> None:
        """Tell of what a durable fact of an order ends; ``traces`` are the traceparents of signals in its commit."""
        assert fact.order_id is not None
        names = {"account": fact.account, "order_id": fact.order_id}
        match fact.body:
            case OrderCreated(signal_id=signal_id):
                if (trace := traces.get(signal_id)) is not None:
                    self._remember(fact.order_id, trace)
                self.took("decide", trace, fact.at, decided_at, **names, signal_id=signal_id)
                self.took("commit", trace, decided_at, durable_at, **names)
            case SubmitReturned(attempt=attempt, returned_at=returned_at, retcode_name=retcode):
                trace, started = self._traces.get(fact.order_id), order.attempts[attempt].started
                if started is not None:
                    self.took("order_send", trace, started.sent_at, returned_at, **names, retcode=retcode)
                self.took("report", trace, returned_at, durable_at, **names)

    def submitted(self, account: str, order_id: str, began: datetime, ended: datetime) -> None:
        """Tell of an order that its terminal has recorded."""
        self.took("submit", self._traces.get(order_id), began, ended, account=account, order_id=order_id)

    def close(self) -> None:
        """Send what is left, for a moment at most."""
        # The flush itself takes as long as its requests do; a daemon's thread holds up no process that ends.
        last = threading.Thread(target=self._provider.force_flush, daemon=True, name="spans")
        last.start()
        last.join(LAST_S)

    def _remember(self, order_id: str, trace: str) -> None:
        self._traces[order_id] = trace
        while len(self._traces) > MOST_ORDERS:
            self._traces.popitem(last=False)


def _ns(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


def _reporting(exporter: SpanExporter, endpoint: str) -> SpanExporter:
    """Return ``exporter``, which says once that it can't send, and once that it can again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    place = urlsplit(endpoint).netloc.rpartition("@")[2]  # before the @ stands a password

    class Reporting(SpanExporter):
        works = True

        def export(self, spans: Sequence[Any]) -> SpanExportResult:
            try:
                result = exporter.export(spans)
            except Exception:  # noqa: BLE001  whatever its HTTP client raises
                result = SpanExportResult.FAILURE
            works = result is SpanExportResult.SUCCESS
            if works != self.works:
                self.works = works
                log = logger.info if works else logger.warning
                log("tracing: %s %s", place, "takes spans again" if works else "takes no spans: they are dropped")
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Reporting()
