"""How every view writes its answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return ``body`` as JSON, in UTF-8 as it is."""
    return web.json_response(body, status=status, headers=headers, dumps=_text)


def refusal(status: int, reason: str, error: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return why something is not done: ``reason`` is one of a small set of words, ``error`` a sentence."""
    return json_response({"error": error, "reason": reason}, status=status, headers=headers)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
