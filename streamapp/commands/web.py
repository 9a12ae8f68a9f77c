"""Asking an installation's web views from the command line: this machine's own, or those that ``--url`` names."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Annotated, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

import typer

from streamapp.errors import ConfigurationError, StreamappError, Transient
from streamapp.settings import SecuredSection, Settings, secret
from streamapp.tls import context_of, fault

TIMEOUT_S = 10.0
SILENT_S = 15.0
"""A worker beats each 5 s where it has nothing to say."""
AGAIN_S = 1.0

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="URL", help="Ask the installation whose web is there, such as https://host/sub-path."
    ),
]
"""Of every command that asks the views; its token is ``web.token_file`` or ``web.token``, never an argument."""

_TOKEN = "set web.token_file, or STREAMAPP_WEB__TOKEN in the environment, to one of its tokens (docs/control.md)"  # noqa: S105


class _Nowhere(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: a token must not go where its owner has not sent it."""


class Web:
    """The web of a trading worker, which answers for its whole group.

    Args:
        url: Where, as ``--url`` says; None: this machine's own.
        settings: The token and the CA are theirs.
        port: Of another process of this machine, which has no views but ``/health``.

    Raises:
        ConfigurationError: the address is none, or a file of the settings can't be read.
    """

    def __init__(self, url: str | None, settings: Settings, *, port: int | None = None) -> None:
        own = settings.trading_url if port is None else settings.url_at(port)
        self.base = own if url is None else _address(url)
        self._is_own = url is None
        self._headers: dict[str, str] = {}
        self._context: ssl.SSLContext | None = None
        web = settings.web
        if self.base.startswith("https:"):
            self._context = context_of(SecuredSection(ca_file=web.ca_file), "web")
        # Whoever listens on this machine needs no token to be asked, and may be somebody else's process.
        if not (self._is_own and urlsplit(self.base).hostname in {"127.0.0.1", "::1", "localhost"}):
            token = secret(web.token_file) if web.token is None else web.token.get_secret_value()
            if token:
                self._headers["Authorization"] = f"Bearer {_sendable(token.strip())}"

    def ask(self, path: str, *, has: str) -> Any:
        """Return what a view answers.

        Args:
            path: Of the view, with its query.
            has: A name that every answer of this view has.

        Raises:
            Transient: nobody answers there.
            StreamappError: the view answers an error, or it is none of ours; says what to do.
        """
        status, answer = self._get(path)
        if status != 200 or has not in answer:
            self._refuse(path, status, answer)
        return answer

    def _refuse(self, path: str, status: int, answer: dict[str, Any]) -> NoReturn:
        if status == 401:
            got = "one that it does not know" if self._headers else "none"
            raise ConfigurationError(f"expected a token for {self.base}, got {got}: {_TOKEN}")
        if status == 200 or "error" not in answer:
            raise self._stranger(f"status {status}")
        raise StreamappError(f"{path}: {answer['error']}")

    def health(self) -> list[str]:
        """Return why the worker that answers is not healthy; empty where it is.

        Raises:
            StreamappError: as :meth:`ask`.
        """
        status, answer = self._get("/health")
        if status == 503 and "reasons" in answer:
            return [str(reason) for reason in answer["reasons"]]
        if status != 200 or "status" not in answer:
            self._refuse("/health", status, answer)
        return []

    def events(self, on_trouble: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield each message that the house says from now on, without an end, and after a break those of meanwhile too.

        Args:
            on_trouble: Told in a sentence that a connection is lost, and what can't be told any more.

        Raises:
            StreamappError: as :meth:`ask`, where nobody has told anything yet, or we may not hear it any longer.
        """
        place, is_lost = "", False
        while True:
            try:
                for event, identifier, content in self._listened(place):
                    is_lost = False
                    if event == "hello" and place and not content["resumed"]:
                        on_trouble("some of what was said meanwhile is not told again: ask `streamapp orders`")
                    place = identifier or place
                    if event == "said":
                        yield content["message"]
            except Transient as error:
                if not place:
                    raise
                if not is_lost:
                    on_trouble(f"{error}. Trying again")
                is_lost = True
                time.sleep(AGAIN_S)

    def _listened(self, place: str) -> Iterator[tuple[str, str, Any]]:
        """Yield the kind, the id and the content of what /events tells behind a place, until the connection breaks."""
        headers = self._headers | ({"Last-Event-ID": place} if place else {})
        with self._known(), _opened(self.base + "/events", headers, self._context, SILENT_S) as stream:
            if stream.status != 200 or stream.headers.get_content_type() != "text/event-stream":
                answer = _json(stream.read())
                answer = answer if isinstance(answer, dict) else {}
                if stream.status >= 500:  # of a proxy too, whose worker is being started again
                    raise Transient(f"{self.base}/events: {answer.get('error') or f'status {stream.status}'}")
                self._refuse("/events", stream.status, answer)
            fields: dict[str, str] = {}
            while line := stream.readline().decode():
                name, _, value = line.partition(":")
                if name.strip():
                    fields[name] = value.strip()
                    continue
                if "data" in fields:
                    yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
                fields = {}
        raise Transient(f"{self.base}/events ended")

    def _get(self, path: str) -> tuple[int, dict[str, Any]]:
        with self._known():
            status, answer = get_json(self.base + path, self._headers, self._context)
        if not isinstance(answer, dict):
            raise self._stranger(f"status {status}")
        return status, answer

    @contextmanager
    def _known(self) -> Iterator[None]:
        """Say what is wrong with the address where nobody answers there."""
        try:
            yield
        except Transient as error:
            if (words := fault(error, "web")) is not None:
                raise ConfigurationError(f"{self.base}: {words}") from None
            if self._is_own or error.__cause__ is None:  # said by somebody who did answer
                raise
            why = f"got no answer ({_reason(error)}): check --url, and whether it runs"
            raise Transient(f"expected streamapp at {self.base}, {why}") from None

    def _stranger(self, got: str) -> ConfigurationError:
        where = "the port" if self._is_own else "--url, with the path under which a proxy shows it"
        return ConfigurationError(
            f"expected streamapp's web at {self.base}, got another's answer ({got}): check {where}"
        )


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port
        is_address = False
    if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
        # What was given may hold a password: it is not repeated.
        raise ConfigurationError("--url: expected http:// or https://HOST[:PORT][/PATH] with nothing else in it")
    return url.rstrip("/")


def _sendable(token: str) -> str:
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(
            "web.token: expected one line as `streamapp token add` printed it, got other characters"
        )
    return token


def get_json(
    url: str,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, Any]:
    """Return the status and the JSON that a view answers, also where the status is an error's; None: it is no JSON.

    Raises:
        Transient: nobody answers there.
    """
    with _opened(url, headers or {}, context, timeout_s) as answer:
        return answer.status, _json(answer.read())


@contextmanager
def _opened(
    url: str, headers: Mapping[str, str], context: ssl.SSLContext | None, timeout_s: float
) -> Iterator[HTTPResponse]:
    """Yield what is answered, an error's answer too.

    Raises:
        Transient: nobody answers there, or no longer while it is read.
    """
    request = Request(url, headers=dict(headers))  # noqa: S310 -- ours, or of --url, which is http or https
    try:
        try:
            answer = build_opener(_Nowhere, HTTPSHandler(context=context)).open(request, timeout=timeout_s)
        except HTTPError as error:
            answer = error
        with answer:
            yield answer
    except (URLError, OSError, ValueError, HTTPException) as error:
        raise Transient(
            f"nobody answers at {url} ({_reason(error)}). Is the stack up? Start it with `make up`."
        ) from error


def _reason(error: BaseException) -> object:
    cause = error.__cause__ or error
    return getattr(cause, "reason", cause)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
