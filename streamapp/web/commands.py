"""``POST /commands/{name}``: a command/1 from whoever has a token for it, answered when its stream has it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from streamapp.domain.vocabulary import time_text
from streamapp.errors import Transient, Unusable
from streamapp.messages.command import CommandRequest, CommandResultMessage, read_command
from streamapp.messages.envelope import REPEATED, json_object
from streamapp.nats.commands import AskedCommand, StoredCommand
from streamapp.tokens import Token
from streamapp.web.access import CALLER, COMMAND_PATH
from streamapp.web.responses import json_response, refusal

logger = logging.getLogger(__name__)

MOST_BODY_BYTES = 16384
"""The longest command that can be meant is a tenth of it."""
LONGEST_WAIT_S = 30.0
"""A request that waits holds a connection; proxies end one that is silent for longer."""
JSON = "application/json"
SCHEMA = "command/1"

_FIELDS = frozenset(CommandRequest.model_fields) | {"schema"}


class Commands(Protocol):
    """Where commands go.

    Raises (both methods):
        Transient: Nobody said that it is stored, which it may be; it may be sent again with the same request_id.
    """

    async def publish(self, name: str, command: CommandRequest) -> StoredCommand:
        """Return when the command is stored; what is the same as a command of the last minutes is stored once."""
        ...

    def asked(self, name: str, command: CommandRequest) -> AbstractAsyncContextManager[AskedCommand]:
        """Do the same, and hear what becomes of it for as long as the block; of a repeat what is known already."""
        ...


class CommandView:
    """The handler.

    Args:
        commands: Where commands go.
        clock: Returns the time, in UTC.
        make_id: Returns a request_id for a command that came without.
    """

    def __init__(self, commands: Commands, *, clock: Callable[[], datetime], make_id: Callable[[], str]) -> None:
        self._commands = commands
        self._clock = clock
        self._make_id = make_id

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.post(COMMAND_PATH, self._command)]

    async def _command(self, request: web.Request) -> web.Response:
        name, token = request.match_info["name"], request[CALLER]
        if request.content_type != JSON:
            return refusal(415, "content_type", f"expected Content-Type: {JSON}, got {request.content_type:.80}")
        try:
            # Its own limit, not that of the app: nobody should send a megabyte to hear that it is too much.
            body = await request.clone(client_max_size=MOST_BODY_BYTES).read()
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, "too_long", f"expected {MOST_BODY_BYTES} bytes at most")
        try:
            wait_s, is_end = _waiting(request)
            command = self._read(name, body, token)
        except Unusable as error:
            return refusal(400, error.reason, error.detail)
        try:
            stored, result = await self._sent(name, command, wait_s, is_end=is_end)
        except Transient as error:
            body_of_503 = {"error": str(error), "reason": "not_stored", "request_id": command.request_id}
            return json_response(body_of_503, status=503, headers={"Retry-After": "1"})
        said = (name, command.request_id, stored.stream_seq, token.name, request.remote)
        logger.info("%s (%s, stream sequence %d) by %s from %s", *said)
        if result is not None:
            return web.Response(body=result.encode(), content_type=JSON)
        place = {"request_id": command.request_id, "stream_seq": stored.stream_seq, "subject": stored.subject}
        return json_response(place, status=202)

    def _read(self, name: str, body: bytes, token: Token) -> CommandRequest:
        payload = json_object(body)
        for key, value in payload.items():
            if key not in _FIELDS:
                raise Unusable("invalid", f"expected none but {', '.join(sorted(_FIELDS))}, got {key!r:.80}")
            if value is REPEATED:
                raise Unusable("invalid", f"{key}: {value}")
        if (schema := payload.pop("schema", SCHEMA)) != SCHEMA:
            raise Unusable("invalid", f"schema: expected {SCHEMA}, got {schema!r:.80}")
        if payload.get("request_id") is None:
            payload["request_id"] = self._make_id()
        # Whoever shows the token answers for it, whatever the body says.
        return read_command(name, payload | {"issued_by": token.name, "issued_at": time_text(self._clock())})

    async def _sent(
        self, name: str, command: CommandRequest, wait_s: float, *, is_end: bool
    ) -> tuple[StoredCommand, CommandResultMessage | None]:
        if not wait_s:
            return await self._commands.publish(name, command), None
        async with self._commands.asked(name, command) as asked:
            try:
                async with asyncio.timeout(wait_s):
                    async for result in asked.results:
                        if not is_end or result.state != "accepted":
                            return asked.stored, result
            except TimeoutError:
                pass  # it is stored, and that is all that is known
            return asked.stored, None


def _waiting(request: web.Request) -> tuple[float, bool]:
    """Return for how long, and whether for the end rather than for the answer."""
    query: dict[str, Any] = dict(request.query)
    wait, wait_for = query.pop("wait", "0"), query.pop("wait_for", "answer")
    if query:
        raise Unusable("bad_query", f"expected wait, wait_for, got {', '.join(sorted(query))}"[:300])
    try:
        wait_s = float(wait)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= LONGEST_WAIT_S:
        raise Unusable("bad_query", f"wait: expected 0 to {LONGEST_WAIT_S:g} seconds, got {wait!r:.80}")
    if wait_for not in {"answer", "end"}:
        raise Unusable("bad_query", f"wait_for: expected answer or end, got {wait_for!r:.80}")
    return wait_s, wait_for == "end"
