"""The page at ``/`` and its files, and what a browser is told to refuse in every answer of the worker."""

from __future__ import annotations

from pathlib import Path

from aiohttp import hdrs, web

STATIC = Path(__file__).parent / "static"

_HEADERS = {
    # No script or style but our own files, nothing from elsewhere, and no page of others around ours.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def serve_page(app: web.Application) -> None:
    """Put the page on a web application. All that it fetches is relative to it: a proxy may have it at a sub-path."""
    app.add_routes([web.get("/", _index), web.static("/static", STATIC)])
    app.on_response_prepare.append(_protect)


async def _index(_: web.Request) -> web.FileResponse:
    return web.FileResponse(STATIC / "index.html")


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    # Files are asked for again with what is known of them; answers are never kept.
    kept = request.path == "/" or request.path.startswith("/static/")
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-cache" if kept else "no-store")
