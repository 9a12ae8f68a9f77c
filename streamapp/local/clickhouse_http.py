"""ClickHouse's HTTP protocol over the engine, as far as clickhouse-connect speaks it.

So every process and test uses the production client, from as many processes as it likes. Not covered: logins, temporary
external tables, streamed results, server-side sessions (accepted without effect, as query ids are).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from aiohttp import web

from streamapp.local.engine import Engine, EngineError, QueryResult

_ENGINE = web.AppKey("engine", Engine)
_THREADS = web.AppKey("threads", ThreadPoolExecutor)

# One thread serialises everything; four clients were the best of the figures measured for chdb on two cores.
_PARALLEL = 4

# Parts of the protocol, not settings of the engine.
_NOT_SETTINGS = frozenset(
    {
        "buffer_size", "client_protocol_version", "compress", "database", "decompress", "default_format",
        "enable_http_compression", "http_headers_progress_interval_ms", "password", "query", "query_id", "quota_key",
        "role", "send_progress_in_http_headers", "session_check", "session_id",
        "session_timeout", "user", "wait_end_of_query",
    }
)  # fmt: skip

_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_STATUS = {60: 404, 81: 404, 62: 400, 115: 404, 497: 403}  # as the server maps its codes; the rest is 500


def application(engine: Engine) -> web.Application:
    """Return the HTTP server over an open engine."""
    app = web.Application(client_max_size=256 * 1024 * 1024)
    app[_ENGINE] = engine
    app[_THREADS] = ThreadPoolExecutor(_PARALLEL, "engine")
    app.router.add_get("/ping", _ping)
    app.router.add_get("/", _query)
    app.router.add_post("/", _query)
    return app


async def _ping(_request: web.Request) -> web.Response:
    return web.Response(text="Ok.\n")


async def _query(request: web.Request) -> web.Response:
    started = time.monotonic_ns()
    try:
        fields, body = await _read(request)
        statement = b"\n".join(part for part in (fields.get("query", "").encode(), body) if part)
        if not statement.strip():
            return web.Response(text="Ok.\n")
        settings = {
            name: value for name, value in fields.items() if name not in _NOT_SETTINGS and not name.startswith("param_")
        }
        parameters = {name.removeprefix("param_"): value for name, value in fields.items() if name.startswith("param_")}
        database = fields.get("database") or request.headers.get("X-ClickHouse-Database") or ""
        work = partial(request.app[_ENGINE].run, statement, database, settings, parameters)
        answer = await asyncio.get_running_loop().run_in_executor(request.app[_THREADS], work)
    except EngineError as error:
        return _refused(error, request)
    return _answered(answer, statement, request, time.monotonic_ns() - started)


async def _read(request: web.Request) -> tuple[Mapping[str, str], bytes]:
    fields = dict(request.query)
    if request.content_type == "multipart/form-data":
        fields |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        return fields, b""
    body = await request.read()
    return fields, _unpacked(body, request.headers.get("Content-Encoding", ""))


def _unpacked(body: bytes, encoding: str) -> bytes:
    if not encoding or encoding == "identity":
        return body
    if encoding == "lz4":
        import lz4.frame

        return bytes(lz4.frame.decompress(body))
    if encoding == "zstd":
        return _zstd_unpacked(body)
    if encoding in {"gzip", "deflate"}:
        return zlib.decompress(body, zlib.MAX_WBITS | 32)
    raise EngineError(f"Code: 89. DB::Exception: Unknown compression method {encoding!r}. (UNKNOWN_COMPRESSION_METHOD)")


def _zstd_unpacked(body: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return bytes(zstd.decompress(body))


def _answered(answer: QueryResult, statement: bytes, request: web.Request, elapsed_ns: int) -> web.Response:
    found = _TRAILING_FORMAT.search(statement[-200:])
    summary = {
        "read_rows": answer.read_rows,
        "written_rows": answer.written_rows,
        "result_rows": answer.written_rows,
        "elapsed_ns": elapsed_ns,
    }
    headers = {
        "X-ClickHouse-Summary": json.dumps({name: str(value) for name, value in summary.items()}),
        "X-ClickHouse-Query-Id": request.query.get("query_id", ""),
        "X-ClickHouse-Format": found.group(1).decode() if found else "TabSeparated",
        "X-ClickHouse-Timezone": "UTC",
    }
    return web.Response(body=answer.body, headers=headers, content_type="application/octet-stream")


def _refused(error: EngineError, request: web.Request) -> web.Response:
    headers = {
        "X-ClickHouse-Exception-Code": str(error.code),
        "X-ClickHouse-Query-Id": request.query.get("query_id", ""),
    }
    return web.Response(status=_STATUS.get(error.code, 500), text=f"{error}\n", headers=headers)
