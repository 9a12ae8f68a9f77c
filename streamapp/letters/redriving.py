"""Which dead letters may be sent again, and as what: to where they came in, as what they were then.

A letter that is re-driven takes the way that mirror has for its message: the same topic, the same key, and above all
the same place and time in the stream. So the desk judges its age by when it came first, and knows it as the same
message if it comes twice; nothing else would be safe to repeat.

Only signals that open come in question. Everything else is either sent again by whoever sent it, under an id by which
it counts once, or has its place among others, which is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streamapp.domain.signals import Rules, not_after
from streamapp.domain.vocabulary import time_text
from streamapp.errors import Unusable
from streamapp.kafka.producer import Record
from streamapp.letters.letter import KeptLetter
from streamapp.messages.dead_letter import DETAIL, REASON
from streamapp.messages.dialect import read_signal, renamed, require_known_fields, translated
from streamapp.messages.envelope import json_object
from streamapp.messages.routing import Family
from streamapp.mirror.routing import Arrival, MirrorRecord, RoutingRules, route
from streamapp.settings import Settings

_NEVER: Mapping[Family, str] = {
    "order": "its execution service was told that the order is over, and may have made another: it must send a new one",
    "fill": "its connector was told, and sends it again under its fill_id, by which it counts once",
    "error": "its connector was told, and sends it again",
    "command": "a command is given again by whoever answers for it, with the same request_id: streamapp command",
    "reports": "a terminal's reports count in their order alone, and those behind it have passed it",
    "log": "the broker log is a chain, and what stands behind it has passed it",
    "snapshot": "it shows the account as it was then, and newer ones have been taken",
}


def record_again(letter: KeptLetter, settings: Settings, now: datetime) -> Record:
    """Return the record by which ``letter`` comes in again; what the desk then decides is the desk's.

    Raises:
        Unusable: it must not be, or would only be a dead letter or a refusal again: the word, and why in a sentence.
    """
    _require_signal(letter)
    if not letter.is_whole:
        raise Unusable(
            "cut",
            f"expected the whole message, got the first {len(letter.payload)} of {letter.length} bytes: "
            "its sender must send it anew",
        )
    arrival = Arrival(letter.subject, letter.payload, letter.source, letter.sequence, letter.at)
    found = route(arrival, RoutingRules.of(settings))
    if not isinstance(found, MirrorRecord):
        raise Unusable("not_redrivable", f"it is not sent again: nobody reads signals in the role {settings.role}")
    if REASON in found.headers:
        reason, detail = (found.headers[name].decode("utf-8", "replace") for name in (REASON, DETAIL))
        raise Unusable("still_unusable", f"it would be a dead letter again, {reason}: {detail}")
    _require_use(letter, settings, now)
    return Record(found.topic, found.key, found.value, found.headers, found.partition)


def why_not(letter: KeptLetter, settings: Settings, now: datetime) -> str | None:
    """Return why a letter can't be re-driven, None if it seems that it can; of a long one that shows when it is."""
    try:
        _require_signal(letter)
        if letter.is_whole:
            record_again(letter, settings, now)
    except Unusable as error:
        return error.detail
    return None


def _require_signal(letter: KeptLetter) -> None:
    family = letter.family
    if family == "signal":
        return
    if letter.is_ours:
        why = "nobody sent it: it is a record of ours that ClickHouse or NATS did not take, and the archive has it"
    elif family is None:
        why = f"nobody here reads what comes from {letter.subject or letter.source!r:.100}"
    else:
        why = _NEVER[family]
    raise Unusable("not_redrivable", f"it is not sent again: {why}")


def _require_use(letter: KeptLetter, settings: Settings, now: datetime) -> None:
    """Return if completion and the desk could read it, and it is not too old.

    Raises:
        Unusable: ``still_unusable``, ``place_matters`` or ``stale``.
    """
    payload, execution = json_object(letter.payload), settings.execution
    try:
        require_known_fields(payload, execution)
        named = translated(renamed(payload, execution), execution)
    except Unusable as error:
        raise Unusable("still_unusable", f"it would be refused again, {error.reason}: {error.detail}") from None
    if named.get("intent", "open") != "open":
        raise Unusable(
            "place_matters",
            "it is not sent again: it closes or changes what is open when it comes, and what was opened since was not "
            "meant. Close the position (streamapp command position.close), or have a new one sent",
        )
    _require_freshness(named, letter.at, settings, now)


def _require_freshness(named: dict[str, Any], came_at: datetime, settings: Settings, now: datetime) -> None:
    try:
        signal = read_signal(named | {"account": named.get("account", "-")})
    except Unusable as error:
        if named.get("account") is None:
            return  # completion finds what is missing, or refuses it
        raise Unusable("still_unusable", f"it would be refused, {error.reason}: {error.detail}") from None
    end = not_after(signal, Rules(frozenset(), ttl_s=settings.execution.signal_ttl_s), came_at)
    if end <= now:
        raise Unusable(
            "stale",
            f"it is too old: expected it before {time_text(end)}, until which it held. If it is still wanted, "
            "its sender must send a new one",
        )
