"""``/dead-letters``: what nobody could use, for people, and what they decide about it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Protocol

from aiohttp import web

from streamapp.domain.vocabulary import in_utc, time_text
from streamapp.errors import Ambiguous, StreamappError, Unusable
from streamapp.letters.letter import KeptLetter
from streamapp.messages.envelope import json_object
from streamapp.web.access import CALLER, LETTER_PATH, ROLE_OF_DEED
from streamapp.web.commands import JSON, MOST_BODY_BYTES
from streamapp.web.responses import json_response, refusal
from streamapp.web.wire import MOST_ROWS

logger = logging.getLogger(__name__)

_STATUS_OF = {"bad_id": 400, "invalid": 400, "bad_query": 400, "unknown_letter": 404}
"""Of what is refused; whatever else is refused stands against what is so already: 409."""


class Letters(Protocol):
    """Where dead letters are (:class:`streamapp.letters.ledger.LetterLedger`)."""

    @property
    def is_cut(self) -> bool: ...  # noqa: D102

    async def newest(self) -> list[KeptLetter]: ...  # noqa: D102

    def shown(self, letter: KeptLetter) -> dict[str, Any]: ...  # noqa: D102

    async def redrive(self, identifier: str, *, by: str, reason: str) -> KeptLetter: ...  # noqa: D102

    async def acknowledge(self, identifier: str, *, by: str, reason: str) -> KeptLetter: ...  # noqa: D102


class LetterView:
    """The handlers; every worker answers for all, for the topic is the same."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/dead-letters", self._list), web.post(LETTER_PATH, self._decide)]

    async def _list(self, request: web.Request) -> web.Response:
        try:
            limit, only_open, before = _wanted(dict(request.query))
            letters = await self._letters.newest()
        except Unusable as error:
            return refusal(400, error.reason, error.detail)
        except StreamappError as error:
            return json_response({"error": str(error), "missing": ["kafka"]}, status=503)
        wanted = [
            letter
            for letter in letters
            if not (only_open and letter.settled_by is not None) and (before is None or (letter.at, letter.id) < before)
        ]
        rows, rest = wanted[:limit], wanted[limit:]
        body = {
            "dead_letters": [self._letters.shown(letter) for letter in rows],
            "next": f"{time_text(rows[-1].at)},{rows[-1].id}" if rows and rest else None,
            "more": bool(rest) or self._letters.is_cut,
        }
        return json_response({**body, "incomplete": False, "missing": []})

    async def _decide(self, request: web.Request) -> web.Response:
        letter_id, deed, token = request.match_info["letter_id"], request.match_info["deed"], request[CALLER]
        if deed not in ROLE_OF_DEED:
            return refusal(404, "unknown_deed", f"expected one of {', '.join(ROLE_OF_DEED)}, got {deed!r:.80}")
        if request.content_type != JSON:
            return refusal(415, "content_type", f"expected Content-Type: {JSON}, got {request.content_type:.80}")
        try:
            reason = _reason(await request.clone(client_max_size=MOST_BODY_BYTES).read())
            decide = self._letters.redrive if deed == "redrive" else self._letters.acknowledge
            letter = await decide(letter_id, by=token.name, reason=reason)
        except web.HTTPRequestEntityTooLarge:
            return refusal(413, "too_long", f"expected {MOST_BODY_BYTES} bytes at most")
        except Unusable as error:
            return refusal(_STATUS_OF.get(error.reason, 409), error.reason, error.detail)
        except StreamappError as error:
            # Whatever Kafka has of it: a repeat is the same message, and is done once.
            unknown = ". Nobody knows whether it was done: repeat it" if isinstance(error, Ambiguous) else ""
            return refusal(503, "not_recorded", f"{error}{unknown}", {"Retry-After": "1"})
        logger.info("dead letter %s: %s by %s from %s", letter.id, deed, token.name, request.remote)
        return json_response(self._letters.shown(letter))


def _reason(body: bytes) -> str:
    said = json_object(body)
    reason = said.get("reason")
    if said.keys() != {"reason"} or not isinstance(reason, str) or not reason.strip():
        raise Unusable("invalid", 'expected {"reason": ...} that says why')
    return reason


def _wanted(query: dict[str, str]) -> tuple[int, bool, tuple[datetime, str] | None]:
    limit, is_open, before = query.pop("limit", "100"), query.pop("open", "0"), query.pop("before", None)
    if query:
        raise Unusable("bad_query", f"expected limit, open, before, got {', '.join(sorted(query))}"[:300])
    if not (limit.isascii() and limit.isdigit()) or not 1 <= int(limit[:9]) <= MOST_ROWS:
        raise Unusable("bad_query", f"limit: expected 1 to {MOST_ROWS}, got {limit!r:.140}")
    if is_open not in {"0", "1"}:
        raise Unusable("bad_query", f"open: expected 0 or 1, got {is_open!r:.140}")
    return int(limit), is_open == "1", None if before is None else _before(before)


def _before(text: str) -> tuple[datetime, str]:
    at, _, letter_id = text.partition(",")
    try:
        return in_utc(datetime.fromisoformat(at)), letter_id
    except ValueError:
        raise Unusable("bad_query", f"before: expected what next has said, got {text!r:.140}") from None
