"""What a ClickHouse server has and the engine of the local stack has not: TLS and logins.

A front of the tests' own before the real engine, and no ClickHouse: it ends TLS, asks for name and password as the
server does, with its code and words, and passes everything else on.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.kit.certificates import Authority, Pair

_HOP = frozenset({"host", "content-length", "transfer-encoding", "connection", "authorization"})

_REFUSAL = "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no such user."


@dataclass
class Front:
    """A running front.

    Attributes:
        url: https, for clients that know ``authority``.
        password: Of the only user, ``streamapp``; may be changed while it runs.
        asked: The common names on the certificates that came, "" for none.
    """

    authority: Authority
    password: str
    behind: str
    url: str = ""
    asked: list[str] = field(default_factory=list)

    async def _answer(self, request: web.Request) -> web.Response:
        certificate = request.transport.get_extra_info("peercert") if request.transport else None
        self.asked.append(dict(part[0] for part in certificate["subject"])["commonName"] if certificate else "")
        expected = base64.b64encode(f"streamapp:{self.password}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {expected}":
            return web.Response(status=403, text=_REFUSAL, headers={"X-ClickHouse-Exception-Code": "516"})
        kept = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.behind + request.path_qs, headers=kept, data=await request.read()
            ) as answer,
        ):
            back = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            return web.Response(status=answer.status, headers=back, body=await answer.read())

    async def serve(self, pair: Pair, *, mutual: bool, ready: threading.Event, stop: asyncio.Event) -> None:
        """Listen until ``stop``."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_OPTIONAL
        context.load_cert_chain(pair.certificate, pair.key)
        app = web.Application(client_max_size=1 << 28)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()


@contextmanager
def secured_clickhouse(authority: Authority, behind: str, password: str, *, mutual: bool = False) -> Iterator[Front]:
    """Run a front before the engine at ``behind`` for as long as the block, in a thread of its own."""
    front, ready, stop = Front(authority, password, behind), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    pair = authority.issue("clickhouse")
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(front.serve(pair, mutual=mutual, ready=ready, stop=stop))
    )
    thread.start()
    try:
        assert ready.wait(10)
        yield front
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
