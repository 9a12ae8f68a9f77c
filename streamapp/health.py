"""Health, probes and metrics without a web framework: GET only, one answer a connection, loopback by default.

``/livez`` is 200 while the process's loop turns, ``/readyz`` 200 or 503 for whether the process itself can work, and
``/health`` 200 or 503 with everything that is wrong, also at what it serves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

HealthView = Callable[[], tuple[bool, dict[str, Any]]]
"""Returns whether all is well, and what ``/health`` says: ``{"status": "ok" | "starting" | ..., "reasons": [...]}``."""
MetricsView = Callable[[], str]
"""Returns the text of ``/metrics`` (Prometheus, version 0.0.4)."""

LIVE, READY = "/livez", "/readyz"
"""For whatever starts and restarts processes, which has no token."""
REQUEST_DEADLINE_S = 5.0
"""A client that has not sent its request by then is gone; nobody here types by hand."""
LONGEST_HEAD = 16384


async def serve(
    port: int,
    health: HealthView,
    metrics: MetricsView,
    *,
    host: str = "127.0.0.1",
    ready: HealthView | None = None,
) -> asyncio.Server:
    """Return a server that answers /health, /livez, /readyz and /metrics; its owner closes it.

    Args:
        port: To listen on.
        health: What ``/health`` says.
        metrics: What ``/metrics`` says.
        host: To listen on.
        ready: What ``/readyz`` says where that is not the same as ``/health``.

    Raises:
        OSError: the port is in use.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, {"/health": health, READY: ready or health, LIVE: _alive}, metrics))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return  # a client that does not speak HTTP, or left: nothing to tell it
        finally:
            writer.close()

    return await asyncio.start_server(answer, host, port, limit=LONGEST_HEAD)


def _alive() -> tuple[bool, dict[str, Any]]:
    return True, {"status": "ok"}


def _response(head: bytes, views: dict[str, HealthView], metrics: MetricsView) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method != "GET":
        return _message(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "application/json",
            json.dumps({"error": f"expected GET, got {method}"[:100]}),
        )
    if path in views:
        well, body = views[path]()
        return _message(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, "application/json", json.dumps(body))
    if path == "/metrics":
        return _message(HTTPStatus.OK, "text/plain; version=0.0.4; charset=utf-8", metrics())
    expected = ", ".join((*views, "/metrics"))
    return _message(HTTPStatus.NOT_FOUND, "application/json", json.dumps({"error": f"expected one of {expected}"}))


def _message(status: HTTPStatus, content_type: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
