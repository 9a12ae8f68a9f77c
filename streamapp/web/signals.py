"""``POST /signals/{source}``: a signal from whoever has a token for its source, answered with the desk's decision.

The token stands in ``Authorization``, or in the field that the source's mapping names: never in a cookie, which a
browser sends with whatever any page makes it send, and never in the path, which proxies log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

from aiohttp import hdrs, web

from streamapp.errors import Ambiguous, Transient, Unusable
from streamapp.messages.decision import AcceptedMessage, RefusedMessage
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.outgoing import OutgoingSignal
from streamapp.messages.source import Source, SourceSignal
from streamapp.nats.signals import NatsSignals
from streamapp.settings import WebSettings
from streamapp.tokens import SOURCE_NAME, Token, sender_of
from streamapp.web.access import SIGNALS_PATH, Access, Buckets, Denial
from streamapp.web.commands import JSON
from streamapp.web.responses import json_response, refusal

logger = logging.getLogger(__name__)

TYPES = (JSON, "text/plain")
"""TradingView calls a message text that it does not take for JSON itself."""


@dataclass(frozen=True)
class _Admitted:
    sender: Token
    source: Source
    body: dict[str, Any]
    secret: str = field(repr=False)


class _Answer(NamedTuple):
    """What is answered, and its name among what is counted."""

    name: str
    response: web.Response


_NAMES: Mapping[type[Message], str] = {AcceptedMessage: "accepted", RefusedMessage: "refused"}
"""Of decisions; the answer for several accounts is ``split``."""
UNKNOWN = "unknown"
"""Counted for a source that there is none of: a name of somebody's making would be a label of its own each time."""


class SignalView:
    """The handler.

    Args:
        signals: Where signals go.
        sources: Who sends them, by name.
        access: Who has which token.
        settings: How long a decision is waited for, and how much is taken.
        clock: Seconds that never go back.
        count: Told a source and its answer, once for each message: ``accepted``, ``refused``, ``split``, ``undecided``
            (202), or the reason for which it was not looked at or not stored.
    """

    def __init__(
        self,
        signals: NatsSignals,
        sources: Mapping[str, Source],
        access: Access,
        settings: WebSettings,
        clock: Callable[[], float],
        *,
        count: Callable[[str, str], None],
    ) -> None:
        self._signals = signals
        self._sources = sources
        self._access = access
        self._settings = settings
        self._count = count
        self._rates = Buckets(clock, settings.signals_per_minute, 60 / settings.signals_per_minute)

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(SIGNALS_PATH, self._signal)]

    async def _signal(self, request: web.Request) -> web.Response:
        answer = await self._judged(request)
        source = request.match_info["source"]
        self._count(source if source in self._sources else UNKNOWN, answer.name)
        return answer.response

    async def _judged(self, request: web.Request) -> _Answer:
        try:
            admitted = await self._admitted(request)
            if isinstance(admitted, _Answer):
                return admitted
            meant = admitted.source.signal(admitted.body, admitted.sender.name)
            signal = OutgoingSignal.of(meant.fields, admitted.source.execution.field_names)
            _require_no_secret(signal, admitted.secret)
            return await self._answered(request, admitted.sender, signal, meant)
        except web.HTTPRequestEntityTooLarge:
            return _refused(413, "too_long", f"expected {self._settings.max_body_bytes} bytes at most")
        except Unusable as error:
            status = {"content_type": 415, "too_long": 413}.get(error.reason, 400)
            return _refused(status, error.reason, error.detail)

    async def _admitted(self, request: web.Request) -> _Admitted | _Answer:
        """Return what came and whose it is, or why it is not looked at. A header is judged before the body is read."""
        name, shown = request.match_info["source"], request.headers.get(hdrs.AUTHORIZATION)
        source, found = self._sources.get(name), None
        # What can be no source's name is said to nobody and logged nowhere: it is whatever somebody put into a path.
        needed = sender_of(name) if SOURCE_NAME.fullmatch(name) else "admin"
        if shown is not None or source is None or source.mapping.secret is None:
            found = self._access.judge(request.remote, shown, needed)
            if not isinstance(found, Token):
                return _denied(found)
        if source is None:
            known = ", ".join(self._sources) or "none in this role"
            return _refused(404, "unknown_source", f"expected a source of {known}, got {name!r:.80}")
        body = await self._body(request)
        secret = source.secret_in(body)
        if found is None:
            shown = None if secret is None else f"Bearer {secret}"
            found = self._access.judge(request.remote, shown, needed)
        if not isinstance(found, Token):
            return _denied(found, f", or a token in the field {source.mapping.secret}")
        if wait_s := self._rates.take(found.name):
            return _too_many(self._settings.signals_per_minute, wait_s)
        return _Admitted(found, source, body, (shown or "").rpartition(" ")[2])

    async def _body(self, request: web.Request) -> dict[str, Any]:
        if request.content_type not in TYPES:
            raise Unusable(
                "content_type", f"expected Content-Type: {' or '.join(TYPES)}, got {request.content_type:.80}"
            )
        return json_object(await request.clone(client_max_size=self._settings.max_body_bytes).read())

    async def _answered(
        self, request: web.Request, sender: Token, signal: OutgoingSignal, meant: SourceSignal
    ) -> _Answer:
        ask = self._signals.decisions if meant.is_split else self._signals.decision
        place = {"signal_id": signal.signal_id}
        try:
            answer: Message = await ask(signal, self._settings.answer_s)
        except Ambiguous:
            logger.info("signal %s by %s from %s: not answered yet", signal.signal_id, sender.name, request.remote)
            # Relative to the path of the request: a proxy may have us at a sub-path.
            where = f"../orders?signal_id={quote(signal.signal_id, safe='')}"
            said = (
                f"stored, and not decided within {self._settings.answer_s:g} s. That is no outcome: send the same "
                "again for the decision, which trades it once"
            )
            body = place | {"detail": said, "orders": where}
            return _Answer("undecided", json_response(body, status=202, headers={hdrs.LOCATION: where}))
        except Transient as error:
            told = {"error": str(error), "reason": "not_stored", **place}
            return _Answer("not_stored", json_response(told, status=503, headers={hdrs.RETRY_AFTER: "1"}))
        logger.info("signal %s by %s from %s: answered", signal.signal_id, sender.name, request.remote)
        return _Answer(_NAMES.get(type(answer), "split"), web.Response(body=answer.encode(), content_type=JSON))


def _refused(status: int, reason: str, error: str, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(reason, refusal(status, reason, error, headers))


def _denied(found: Denial | None, instead: str = "") -> _Answer:
    assert found is not None  # reading alone needs no token
    error = found.error + instead if found.reason == "no_token" else found.error
    return _refused(found.status, found.reason, error, found.headers)


def _too_many(most: int, wait_s: float) -> _Answer:
    error = f"too many signals with this token: expected {most} a minute at most, the next in {math.ceil(wait_s)} s"
    return _refused(429, "too_many", error, {hdrs.RETRY_AFTER: str(math.ceil(wait_s))})


def _require_no_secret(signal: OutgoingSignal, secret: str) -> None:
    """Return if no field that is sent on, and so archived, holds the token as well."""
    if secret.encode(errors="backslashreplace") in signal.payload:
        raise Unusable("bad_field", "expected the token in its place alone, got it in another field as well")
