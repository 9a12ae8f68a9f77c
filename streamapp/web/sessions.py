"""Logging in to the page: a token becomes a cookie that no script can read, the same for every worker.

The cookie holds the token itself, so that any worker knows it, a revoked one is none at once, and nothing is kept here.
It ends with the browser. It has no ``Path``: behind a proxy at a sub-path the browser takes the path that it sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.messages.envelope import json_object
from streamapp.tokens import Token, includes
from streamapp.web.access import (
    COOKIE,
    LOGIN_PATH,
    LOGOUT_PATH,
    ROLE_OF,
    ROLE_OF_DEED,
    Access,
    Denial,
    csrf_of,
    shown_by,
)
from streamapp.web.commands import JSON
from streamapp.web.responses import json_response, refusal

MOST_LOGIN_BYTES = 1024
_WRITABLE = re.compile(r"[!#-+\--:<-\[\]-~]{1,256}")
"""What a cookie may hold."""
_NO_TOKENS = "nobody can log in here: set web.tokens_file and make a token with `streamapp token add` (docs/control.md)"
_NONE = Denial(401, "wrong_token", "the token is none of ours, or was revoked")


class SessionView:
    """The handlers.

    Args:
        access: Who has which token.
        clock: Returns the time, in UTC.
    """

    def __init__(self, access: Access, clock: Callable[[], datetime]) -> None:
        self._access = access
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/session", self._session),
            web.post(LOGIN_PATH, self._login),
            web.post(LOGOUT_PATH, self._logout),
        ]

    async def _session(self, request: web.Request) -> web.Response:
        """Say who asks, what they may, and what their commands must come with."""
        found = self._access.judge(request.remote, shown_by(request), "read")
        if not isinstance(found, Denial):
            return json_response(self._said(found, request.cookies.get(COOKIE), reads=True))
        if COOKIE not in request.cookies:
            return json_response(self._said(None, None, reads=False))
        if found.status != 401:  # nobody can say now whose it is; it may be right
            return refusal(found.status, found.reason, found.error, found.headers)
        free = not isinstance(self._access.judge(request.remote, None, "read"), Denial)
        return _without_cookie(json_response(self._said(None, None, reads=free)))

    async def _login(self, request: web.Request) -> web.Response:
        try:
            secret = await _secret(request)
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, "too_long", f"expected {MOST_LOGIN_BYTES} bytes at most")
        except Unusable as error:
            return refusal(400, error.reason, error.detail)
        if not self._access.has_tokens:
            return refusal(403, "no_tokens_file", _NO_TOKENS)
        found = self._access.judge(request.remote, f"Bearer {secret}", "read")
        if not isinstance(found, Token):
            denial = found or _NONE
            return refusal(denial.status, denial.reason, denial.error, denial.headers)
        answer = json_response(self._said(found, secret, reads=True))
        # A proxy that speaks TLS says so in a header. Whoever forges it has a stricter cookie, and no more.
        secure = request.secure or request.headers.get("X-Forwarded-Proto", "").lower() == "https"
        answer.set_cookie(COOKIE, secret, path="", httponly=True, samesite="Strict", secure=secure or None)
        return answer

    async def _logout(self, _: web.Request) -> web.Response:
        return _without_cookie(json_response(self._said(None, None, reads=False)))

    def _said(self, token: Token | None, secret: str | None, *, reads: bool) -> dict[str, Any]:
        deeds = [(f"dead_letter.{deed}", role) for deed, role in ROLE_OF_DEED.items()]
        asked = [*ROLE_OF.items(), *deeds]
        may = [] if token is None else [name for name, role in asked if includes(token.role, role)]
        return {
            "name": None if token is None else token.name,
            "role": None if token is None else token.role,
            "reads": reads,
            "may": may,
            "csrf": None if token is None or secret is None else csrf_of(secret),
            "login": self._access.has_tokens,
            "at": time_text(self._clock()),
        }


async def _secret(request: web.Request) -> str:
    # A form of another site can't have this type, so nobody is logged in as somebody else by one.
    if request.content_type != JSON:
        raise Unusable("content_type", f"expected Content-Type: {JSON}, got {request.content_type:.80}")
    body = json_object(await request.clone(client_max_size=MOST_LOGIN_BYTES).read())
    secret = body.get("token")
    if body.keys() != {"token"} or not isinstance(secret, str) or not secret.strip():
        raise Unusable("invalid", 'expected {"token": ...} with what `streamapp token add` printed')
    # Whatever a cookie can't hold is no token of ours.
    return secret.strip() if _WRITABLE.fullmatch(secret.strip()) else "-"


def _without_cookie(answer: web.Response) -> web.Response:
    answer.set_cookie(COOKIE, "", path="", httponly=True, samesite="Strict", max_age=0)
    return answer
