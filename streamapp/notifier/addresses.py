"""The receivers: apprise URLs in a secret file, each a secret itself, known to everybody else by their line alone.

One a line, ``URL`` or ``TAG,TAG=URL``; blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamapp.domain.notification import Urgency
from streamapp.errors import ConfigurationError
from streamapp.settings import NotifySettings, secret

_TAGGED = re.compile(r"([A-Za-z0-9_, -]+?)\s*=\s*(?=[A-Za-z0-9]+://)")
_TYPES: dict[Urgency, str] = {"info": "info", "warning": "warning", "critical": "failure"}
_TELLS_SECRETS = ("apprise", "urllib3", "requests", "requests_oauthlib", "oauthlib")
"""Loggers that name URLs, some only at DEBUG."""
_STATUS = re.compile(r"error=(\d{3})\b")
_OTHERS_MAY = stat.S_IWGRP | stat.S_IRWXO
"""A group may read it, as in a volume of Kubernetes; write it, nobody but its owner."""


@dataclass(frozen=True)
class Address:
    """One receiver. ``name`` says which one it is, without anything that is secret: line, service, and host if known.

    ``digest`` is the same for the same URL, and tells nothing of it.
    """

    name: str
    tags: frozenset[str]
    digest: str
    service: Any = field(repr=False)

    def key(self, notice_id: str) -> str:
        """Return under what it is remembered that this receiver was told of an event."""
        return hashlib.sha256(f"{self.digest} {notice_id}".encode()).hexdigest()[:32]

    def send(self, title: str, body: str, urgency: Urgency) -> str:
        """Send a text, and block for as long as that takes; return what went wrong, empty where nothing did."""
        from apprise import Apprise, NotifyFormat, NotifyType

        sender = Apprise()
        sender.add(self.service)
        _answers.status = None
        try:
            told = sender.notify(
                title=title, body=body, notify_type=NotifyType(_TYPES[urgency]), body_format=NotifyFormat.TEXT
            )
        except Exception as error:  # noqa: BLE001 -- whatever a service's plugin raises; its text may name the URL
            return f"the plugin failed with {type(error).__name__}"
        if told:
            return ""
        return _answers.in_words()


def read_addresses(path: Path) -> tuple[Address, ...]:
    """Return the receivers of a file, in its order; from now on this process logs nothing that names a URL.

    Raises:
        ConfigurationError: The file can't be read or has a line that is none, by its number; no URL is ever named.
    """
    keep_secrets_out_of_the_log()
    text = secret(path) or ""
    if os.name == "posix" and path.stat().st_mode & _OTHERS_MAY:
        raise ConfigurationError(
            f"notify.urls_file {path}: expected one that only its owner may write and nobody else read, got more: "
            "`chmod 600`, for whoever has a URL can write to its receiver"
        )
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    found = tuple(_address(path, number, line) for number, line in numbered if line and not line.startswith("#"))
    if not found:
        raise ConfigurationError(f"notify.urls_file {path}: expected one apprise URL a line, got none: write one")
    return found


def _address(path: Path, number: int, line: str) -> Address:
    from apprise import Apprise, AppriseAsset

    tagged = _TAGGED.match(line)
    tags = frozenset(tag.strip() for tag in tagged[1].split(",") if tag.strip()) if tagged else frozenset()
    url = line[tagged.end() :] if tagged else line
    with warnings.catch_warnings():  # of the plugins, all of which are imported now
        warnings.simplefilter("ignore")
        # Without a deadline of its own it sends in the thread that calls it. Its shared pool of a few threads would let
        # one receiver wait for others, and a stop of this process for all of them.
        asset = AppriseAsset(async_mode=False, service_timeout=0, secure_logging=True)
        service = Apprise.instantiate(url, asset=asset)
    if service is None:
        raise ConfigurationError(
            f"notify.urls_file {path}, line {number}: expected a URL that apprise knows, such as json://host:port, or "
            "TAG=URL, got another text: mend or remove the line (https://appriseit.com lists the services)"
        )
    known = service.template_tokens.get("host")  # elsewhere apprise's host is a token of the service
    host = f", {service.host}" if known and not known.get("private") and service.host else ""
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    return Address(f"line {number} ({service.service_name}{host})", tags, digest, service)


def addresses_for(tag: str | None, addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return the receivers of a rule: those with its tag; those without any where it has none."""
    return tuple(each for each in addresses if (tag in each.tags if tag is not None else not each.tags))


def require_receivers(settings: NotifySettings, addresses: tuple[Address, ...]) -> None:
    """Return if every rule that is on has a receiver.

    Raises:
        ConfigurationError: naming one that has none.
    """
    for event in settings.events:
        rule = settings.rule(event)
        if rule.on and not addresses_for(rule.tag, addresses):
            what = "a URL without a tag" if rule.tag is None else f"a URL with the tag {rule.tag}"
            raise ConfigurationError(
                f"notify.rules.{event}: expected {what} in notify.urls_file, got none: add one, give the rule another "
                "tag, or switch it off (on = false)"
            )


class _Answers(threading.local):
    status: str | None = None

    def in_words(self) -> str:
        return "it does not answer as it should" if self.status is None else f"it answers {self.status}"


_answers = _Answers()


class _StatusOnly(logging.Filter):
    """Keeps of what apprise logs the receiver's HTTP status, for the thread that sends; drops everything."""

    def filter(self, record: logging.LogRecord) -> bool:
        if found := _STATUS.search(record.getMessage()):
            _answers.status = found[1]
        return False


def keep_secrets_out_of_the_log() -> None:
    """Silence what would log URLs, for as long as this process lives, whatever ``log.level`` says."""
    for name in _TELLS_SECRETS:
        logger = logging.getLogger(name)
        logger.propagate = False
        if name == "apprise":
            logger.setLevel(logging.WARNING)
            if not any(isinstance(each, _StatusOnly) for each in logger.filters):
                logger.addFilter(_StatusOnly())
        else:
            logger.setLevel(logging.CRITICAL + 1)
