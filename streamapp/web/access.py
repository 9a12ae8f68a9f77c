"""Who may ask and command: the one place that every request passes before it comes to a view.

Whoever asks from this machine may read without a token; whoever asks from elsewhere needs one of role ``read``, and
every command needs one of the role in :data:`ROLE_OF`, every decision about a dead letter one of that in
:data:`ROLE_OF_DEED`, and every signal one of its source's. Without ``web.tokens_file`` everybody may read and nobody
may do anything.

A browser shows its token in the cookie of a login. It sends a cookie with whatever any page makes it send, so what
changes something must come with the header :data:`CSRF` as well, whose value only our own page can read.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import hdrs, web

from streamapp.errors import ConfigurationError
from streamapp.health import LIVE, READY
from streamapp.messages.command import CommandName
from streamapp.tokens import Token, TokenRole, Tokens, includes
from streamapp.web.peers import AUTHORIZATION
from streamapp.web.responses import refusal

logger = logging.getLogger(__name__)

ROLE_OF: Mapping[CommandName, TokenRole] = {
    "order.cancel": "trade",
    "order.modify": "trade",
    "position.close": "trade",
    "position.modify": "trade",
    "account.halt": "trade",
    "account.reduce": "trade",
    "account.resume": "admin",
    "account.cancel_all": "trade",
    "account.flatten": "trade",
    "account.limits": "admin",
    "break.settle": "trade",
    "alarm.acknowledge": "trade",
}
"""Whoever trades may make an account safer, at any time; that it opens again, or more, is another person's decision."""
ROLE_OF_DEED: Mapping[str, TokenRole] = {"redrive": "admin", "acknowledge": "trade"}
"""What is done about a dead letter. One that is sent again may become an order: it opens, so it is an admin's."""
COMMAND_PATH, LETTER_PATH = "/commands/{name}", "/dead-letters/{letter_id}/{deed}"
SIGNALS_PATH = "/signals/{source}"
LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
CALLER = web.RequestKey("caller", Token)
"""Of a request: the token it came with. Not there where none was needed."""
MAY_STAY = web.RequestKey("may_stay", object)
"""Of a request: a function without arguments that says whether it would still be let in; for answers without end."""
COOKIE = "streamapp_token"
CSRF = "X-CSRF-Token"
PUBLIC = frozenset({"/", "/static", "/session", "/login", SIGNALS_PATH})
"""The page without anything that it shows, how one logs in, and signals. The last three judge by themselves."""

TRIES = 10
TRY_EVERY_S = 6.0
"""Wrong tokens of one address: so many at once, and one more every so often. That is a person's typing, or a client
with yesterday's token for a minute; it bounds what a client in a loop writes into the log."""
MOST_NAMES = 1000
"""Addresses whose wrong tokens are counted; the one that was wrong longest ago is forgotten first."""

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="streamapp"'}
_WRONG = {"WWW-Authenticate": 'Bearer realm="streamapp", error="invalid_token"'}
_READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})


@dataclass(frozen=True)
class Denial:
    """Why a request comes to no view."""

    status: int
    reason: str
    error: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Buckets:
    """A bucket of tries for each name: whoever tries takes one out, and time puts them back.

    Args:
        clock: Seconds that never go back.
        most: Tries in a full bucket.
        every_s: How long it takes until there is another one.
    """

    def __init__(self, clock: Callable[[], float], most: int, every_s: float) -> None:
        self._clock = clock
        self._most = float(most)
        self._every_s = every_s
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> float:
        """Take a try; return 0, or how many seconds there will be none."""
        now = self._clock()
        left, at = self._buckets.pop(name, (self._most, now))
        left = min(self._most, left + (now - at) / self._every_s)
        wait_s = 0.0 if left >= 1 else (1 - left) * self._every_s
        self._buckets[name] = (left if wait_s else left - 1), now
        if len(self._buckets) > MOST_NAMES:
            self._buckets.popitem(last=False)
        return wait_s

    def __len__(self) -> int:
        """Return how many names are remembered."""
        return len(self._buckets)


class Access:
    """Judges requests.

    Args:
        tokens: Those of ``web.tokens_file``; None without one.
        clock: Seconds that never go back.
    """

    def __init__(self, tokens: Tokens | None, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._tries = Buckets(clock, TRIES, TRY_EVERY_S)

    @property
    def troubles(self) -> list[str]:
        """What is wrong, for ``/health``."""
        fault = None if self._tokens is None else self._tokens.fault
        return [] if fault is None else [f"web: {fault}. Until then nobody has a token"]

    @property
    def has_tokens(self) -> bool:
        """Whether there is a tokens file, without which nobody commands."""
        return self._tokens is not None

    def judge(self, address: str | None, authorization: str | None, needed: str) -> Token | Denial | None:
        """Return whose request it is, why it is denied, or None where no token is needed."""
        free = needed == "read" and (self._tokens is None or is_loopback(address))
        if self._tokens is None:
            return None if free else _NO_TOKENS
        secret = _bearer(authorization)
        if secret is None:
            return None if free else _MISSING
        try:
            token = self._tokens.find(secret)
        except ConfigurationError:
            return None if free else _BROKEN
        if token is None:
            return self._wrong(address or "unknown")
        if not includes(token.role, needed):
            logger.warning("%s, of role %s, asked from %s for what needs %s", token.name, token.role, address, needed)
            return Denial(403, "role", f"expected a token of role {needed}, got {token.name}'s of role {token.role}")
        return token

    def _wrong(self, address: str) -> Denial:
        # A right token is served however many wrong ones came from its address: nobody guesses 256 bits, and behind a
        # proxy a client in a loop must not keep the person away who halts an account.
        if wait_s := self._tries.take(_network(address)):
            return Denial(
                429,
                "too_many_tries",
                f"too many wrong tokens from {address}: expected the next try in {math.ceil(wait_s)} s",
                {"Retry-After": str(math.ceil(wait_s))},
            )
        logger.warning("a token that is none, or is revoked, from %s", address)
        return Denial(401, "wrong_token", "the token is none of ours, or was revoked", _WRONG)

    @property
    def middleware(self) -> Any:
        """For aiohttp's ``web.Application``."""

        @web.middleware
        async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
            if request.path in {LIVE, READY} and request.method in _READING:
                probed: web.StreamResponse = await handler(request)
                return probed
            if _resource(request) in PUBLIC:
                public: web.StreamResponse = await handler(request)
                return public
            authorization = shown_by(request)
            needed = _needed(request)
            found = self.judge(request.remote, authorization, needed)
            if found is not None and not isinstance(found, Denial) and _is_forged(request, authorization):
                found = _FORGED
            if isinstance(found, Denial):
                return refusal(found.status, found.reason, found.error, found.headers)
            if found is not None:
                request[CALLER] = found
            request[MAY_STAY] = lambda: not isinstance(self.judge(request.remote, authorization, needed), Denial)
            passed_on = AUTHORIZATION.set(None if found is None else authorization)
            try:
                answer: web.StreamResponse = await handler(request)
                return answer
            finally:
                AUTHORIZATION.reset(passed_on)

        return guard


_NO_TOKENS = Denial(
    403,
    "no_tokens_file",
    "no commands and no signals over HTTP here: set web.tokens_file and make a token with `streamapp token add` "
    "(docs/control.md), or use `streamapp command` and `streamapp signal`",
)
_FORGED = Denial(
    403, "csrf", f"expected the header {CSRF} that /session says, since the token came in a cookie; nothing was done"
)
_MISSING = Denial(401, "no_token", "expected the header `Authorization: Bearer TOKEN`", _CHALLENGE)
_BROKEN = Denial(
    503, "tokens_unusable", "this worker can't read its tokens file, so nobody has a token: its /health says why"
)


def is_loopback(address: str | None) -> bool:
    """Return whether an address is this machine's own, as the connection has it: no header says so."""
    found = _address(address or "")
    return found is not None and found.is_loopback


def shown_by(request: web.Request) -> str | None:
    """Return what a request shows as ``Authorization``: its header, or else the token of its cookie."""
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is not None:
        return header
    secret = request.cookies.get(COOKIE)
    return None if secret is None else f"Bearer {secret}"


def csrf_of(secret: str) -> str:
    """Return what a request must say that shows ``secret`` in a cookie and changes something."""
    return hmac.new(secret.encode(errors="backslashreplace"), b"streamapp csrf", hashlib.sha256).hexdigest()


def _is_forged(request: web.Request, authorization: str | None) -> bool:
    if request.method in _READING or hdrs.AUTHORIZATION in request.headers:
        return False
    said = request.headers.get(CSRF, "").encode(errors="backslashreplace")
    return not hmac.compare_digest(said, csrf_of(_bearer(authorization) or "").encode())


def _resource(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def _needed(request: web.Request) -> TokenRole:
    if request.method in _READING or request.match_info.http_exception is not None:  # nothing is there to be done
        return "read"
    resource = _resource(request)
    if resource == LOGOUT_PATH:
        return "read"
    if resource == LETTER_PATH:
        return ROLE_OF_DEED.get(request.match_info["deed"], "trade")  # what is no deed is told so by the view
    if resource != COMMAND_PATH:
        return "admin"  # nobody has said who may
    name: Any = request.match_info["name"]
    return ROLE_OF.get(name, "trade")  # a name that is none gets the list of names from the view


def _bearer(authorization: str | None) -> str | None:
    scheme, _, secret = (authorization or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def _network(address: str) -> str:
    """Return what one caller can't change at will: an IPv4 address, the first half of an IPv6 address."""
    found = _address(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found or address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address without its zone; one of IPv4 that came in over IPv6 as what it is."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
