from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streamapp import health


class Process:
    well = True


@pytest.fixture
async def port() -> AsyncIterator[int]:
    Process.well = True

    def view() -> tuple[bool, dict[str, Any]]:
        return Process.well, {"status": "ok" if Process.well else "starting", "reasons": [] if Process.well else ["no"]}

    server = await health.serve(0, view, lambda: "figure 1\n")
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


async def get(port: int, path: str) -> tuple[int, bytes]:
    return await ask(port, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def test_health_is_200_or_503_with_the_reasons(port: int) -> None:
    status, body = await get(port, "/health")
    assert (status, json.loads(body)["status"]) == (200, "ok")
    Process.well = False
    status, body = await get(port, "/health?verbose")
    assert (status, json.loads(body)["reasons"]) == (503, ["no"])


async def test_a_process_is_alive_whatever_it_is_ready_for(port: int) -> None:
    Process.well = False
    assert [(await get(port, path))[0] for path in ("/livez", "/readyz")] == [200, 503]
    Process.well = True
    assert (await get(port, "/readyz"))[0] == 200


async def test_metrics_are_text(port: int) -> None:
    assert await get(port, "/metrics") == (200, b"figure 1\n")


async def test_anything_else_is_an_error_and_the_server_goes_on(port: int) -> None:
    assert (await get(port, "/"))[0] == 404
    assert (await ask(port, b"POST /health HTTP/1.1\r\n\r\n"))[0] == 405
    assert await ask(port, b"x" * (2 * health.LONGEST_HEAD)) == (0, b"")
    assert (await ask(port, b"\xff\xfe\r\n\r\n"))[0] == 405
    assert (await get(port, "/metrics"))[0] == 200
