"""Spans of an order's way, as an OTLP receiver gets them; and an endpoint that is not there, which nobody notices."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from streamapp import topics
from streamapp.errors import ConfigurationError
from streamapp.local.ports import free_port
from streamapp.settings import AccountSettings, Settings, TracingSettings
from streamapp.tracing import Spans
from tests.kit.desk import ACCOUNT, SIGNAL, DeskWorld
from tests.kit.examples import accepted, deal, returned, started
from tests.kit.records import NOW

TRACE_ID, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACE = f"00-{TRACE_ID}-{PARENT}-01"


@dataclass
class Receiver:
    """An OTLP collector that keeps what it got."""

    url: str
    requests: list[Any] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    @property
    def spans(self) -> dict[str, Any]:
        """Each span by its name."""
        of_process = (each for request in self.requests for each in request.resource_spans)
        found = [span for each in of_process for scope in each.scope_spans for span in scope.spans]
        return {span.name: span for span in found}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    port = free_port()
    receiver = Receiver(f"http://127.0.0.1:{port}")
    app = web.Application()
    app.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield receiver
    await runner.cleanup()


def spans_to(endpoint: str) -> tuple[Settings, Spans]:
    settings = Settings(accounts={ACCOUNT: AccountSettings(login=1)}, tracing=TracingSettings(endpoint=endpoint))
    spans = Spans.of(settings, "trading")
    assert spans is not None
    return settings, spans


async def trade(world: DeskWorld, trace: str = TRACE) -> str:
    """Let a signal with a traceparent become an order that is answered and filled; return its id."""
    said = {"signal_id": "s-1", "account": ACCOUNT} | SIGNAL
    headers = {topics.MESSAGE_OF: b"s-1", "traceparent": trace.encode()}
    await world.give(json.dumps(said).encode(), topics.SIGNALS_APPROVED, "signal", headers=headers)
    await world.settled()
    [request] = world.terminals.submits
    world.later(2)
    sent, answered = NOW + timedelta(seconds=0.5), NOW + timedelta(seconds=1)
    await world.report(
        ("started", request.order_id, started().body.model_copy(update={"sent_at": sent})),
        ("returned", request.order_id, returned().body.model_copy(update={"returned_at": answered})),
        ("accepted", request.order_id, accepted().body),
        ("deal", request.order_id, deal(9, "0.1")),
    )
    return request.order_id


async def test_every_step_of_an_order_is_a_span_of_its_signals_trace(receiver: Receiver) -> None:
    settings, spans = spans_to(receiver.url)
    order_id = await trade(await DeskWorld(settings, spans=spans).start())
    await asyncio.to_thread(spans.close)
    found = receiver.spans
    assert found.keys() == {"decide", "commit", "submit", "order_send", "report", "publish"}
    for span in found.values():
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT)
        attributes = {each.key: each.value.string_value for each in span.attributes}
        assert attributes["streamapp.account"] == ACCOUNT
        assert attributes.get("streamapp.order_id", order_id) == order_id
    sent = found["order_send"]
    assert sent.end_time_unix_nano - sent.start_time_unix_nano == 500_000_000
    report = found["report"]
    assert report.end_time_unix_nano - report.start_time_unix_nano == 1_000_000_000
    [resource] = {each.resource.SerializeToString() for request in receiver.requests for each in request.resource_spans}
    assert b"streamapp-trading" in resource


@pytest.mark.parametrize("trace", ["", "00-nothing", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE_ID}-{PARENT}-00"])
async def test_without_a_usable_traceparent_or_where_it_asks_for_none_there_are_no_spans(
    receiver: Receiver, trace: str
) -> None:
    settings, spans = spans_to(receiver.url)
    await trade(await DeskWorld(settings, spans=spans).start(), trace)
    await asyncio.to_thread(spans.close)
    assert receiver.spans == {}


async def test_an_endpoint_that_is_not_there_is_one_sentence_and_orders_go_on(caplog: pytest.LogCaptureFixture) -> None:
    settings, spans = spans_to(f"http://somebody:s3cret@127.0.0.1:{free_port()}")
    world = await DeskWorld(settings, spans=spans).start()
    order_id = await trade(world)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            await asyncio.to_thread(spans.close)
            spans.took("again", TRACE, NOW, NOW)
    await asyncio.to_thread(spans.close)
    assert world.failures == []
    assert world.order_row(order_id).status == "filled"
    said = [record.getMessage() for record in caplog.records]
    assert [line.partition(": ")[0] for line in said] == ["tracing"]
    assert "takes no spans" in said[0]
    assert "s3cret" not in said[0]


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom streamapp.settings import Settings\nfrom streamapp.tracing import Spans\n"
        "assert Spans.of(Settings(), 'trading') is None\n"
        "assert not any('opentelemetry' in name for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_usual_variable_names_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    assert Settings().tracing.endpoint == "http://collector:4318"


def test_where_opentelemetry_is_not_installed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigurationError, match="otel"):
        spans_to("http://127.0.0.1:1")
