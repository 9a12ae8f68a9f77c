"""Records of Kafka → what persons are told: which event, how urgent, under which id, in which words.

An id comes from the event alone, so a record that is read or written twice makes the same one twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from streamapp.domain.day import day_at
from streamapp.domain.notification import URGENCIES, NotificationEvent, Urgency
from streamapp.domain.vocabulary import decimal_text, time_text
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.breaks import BreakMessage
from streamapp.messages.envelope import reason_and_detail
from streamapp.messages.error import ErrorKind, ErrorMessage
from streamapp.messages.fill import FillMessage

MOST_CHARACTERS = 300
"""Of any one text that came from outside."""
MOST_LINES = 15
"""Of a message that sums up; SMS and the like cut anyway."""
_GUARD, _WARNING = "guard ", "warning: "
_STOPPED = frozenset({"halted", "reducing"})
_REFUSED: frozenset[ErrorKind] = frozenset({"rejected", "invalid", "not_connected"})
_TO_DO: dict[NotificationEvent, str] = {
    "doubt": "Nobody knows whether it was executed, and it is not sent again. It is being looked for at the broker; if "
    "it stays in doubt, compare the terminal's history: docs/operations.md, Doubts.",
    "trading": "Look at its cause; `streamapp command account.resume` lets the account open again.",
    "break": "Our books and the broker's differ: compare them, then settle it (docs/reconciliation.md).",
    "rejected": "Nothing of it was executed by this attempt, and it is not tried again. Look at the cause.",
    "stop_out": "The broker closed it for lack of margin: look at the account now.",
    "day_limit": "Nothing to do if that was meant; limits and today's use: `/limits` and docs/guards.md.",
    "disconnected": "Its orders wait until their time is over, then fail. `streamapp status` says which process it is; "
    "look at the terminal and its log.",
    "unprotected": "The position has not the levels that it should have: set them, or close it.",
    "dead_letter": "Somebody sent what nobody can use; `streamapp dead-letters list` shows it (docs/operations.md).",
    "statement": "",
}


@dataclass(frozen=True, slots=True)
class Notice:
    """One event as a person is told it; ``at`` is the event's own time, ``title`` one line, ``body`` plain text."""

    id: str
    event: NotificationEvent
    urgency: Urgency
    at: datetime
    title: str
    body: str


def plain(text: object) -> str:
    """Return a text from outside as one line that no receiver reads as more: no line ends, no mention of anybody."""
    line = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    return (line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}…").replace("@", "@\u200b")


def notice(
    event: NotificationEvent, urgency: Urgency, key: str, at: datetime, title: str, /, *causes: str, **names: object
) -> Notice:
    """Return a notice; ``causes`` are sentences, ``names`` the ids by which it is looked up, None being none."""
    ids = [f"{name}: {plain(value)}" for name, value in names.items() if value not in {None, ""}]
    lines = (*(plain(cause) for cause in causes if cause), *ids, f"at: {time_text(at)}", _TO_DO[event])
    return Notice(f"{event}:{key}", event, urgency, at, plain(title), "\n".join(line for line in lines if line))


def summed_up(notices: Sequence[Notice], *, why: str = "") -> tuple[str, str, Urgency]:
    """Return title, body and urgency of the message that tells these events: of one itself, of several their titles."""
    first = max(notices, key=lambda each: URGENCIES.index(each.urgency))
    if len(notices) == 1 and not why:
        return first.title, first.body, first.urgency
    shown = [f"{time_text(each.at)} {each.title}" for each in notices[:MOST_LINES]]
    if more := len(notices) - len(shown):
        counts = Counter(each.event for each in notices[MOST_LINES:])
        shown.append(f"and {more} more: {', '.join(f'{count} {event}' for event, count in counts.items())}")
    title = why or f"{first.title} and {len(notices) - 1} more"
    return title, "\n".join(shown), first.urgency


def old_ones(notices: Sequence[Notice]) -> tuple[str, str, Urgency]:
    """Return the message for events that are too old to be told one by one: one line, and one for each kind."""
    count = Counter(each.event for each in notices)
    since = time_text(min(each.at for each in notices))
    lines = [f"{number} {event}" for event, number in count.items()]
    urgency = max((each.urgency for each in notices), key=URGENCIES.index)
    title = f"{len(notices)} older events since {since}, met late: {', '.join(lines)}"
    return title, f"{title}\nLook at the page or `streamapp orders`; nothing of them is told again.", urgency


def letter_notice(headers: Iterable[tuple[str, bytes]], at: datetime) -> Notice:
    """Return the notice of a dead letter, by its headers alone: its content is nobody's to show."""
    said = {name: value.decode("utf-8", "replace") for name, value in headers}
    reason = said.get("reason", "unknown")
    names = ("source", "subject", "sequence", "sha256")
    key = ":".join(said.get(name, "") for name in ("sha256", "subject", "sequence", "reason"))
    urgency: Urgency = "critical" if reason == "internal" else "warning"
    kept: Mapping[str, object] = {name: said.get(name) for name in names}
    return notice("dead_letter", urgency, key, at, f"dead letter: {reason}", said.get("detail", ""), **kept)


class CommitReader:
    """Reads commits of the archive; remembers of each account how it traded last, by which a resumption is seen."""

    def __init__(self) -> None:
        self._stopped: dict[str, str] = {}

    def notices(self, commit: bytes) -> Iterator[Notice]:
        """Yield what a commit has to tell.

        Raises:
            Unusable: It is none, or has a message that is none.
        """
        try:
            archived = json.loads(commit)["messages"]
            messages = [each["message"] for each in archived]
            orders = {each["order_id"]: each for each in messages if each["schema"] == "order/1"}
            for each, message in zip(archived, messages, strict=True):
                yield from self._of(message, orders, str(each.get("id") or ""))
        except ValidationError as error:
            raise Unusable(*reason_and_detail(error)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise Unusable("invalid", f"expected commit/1, got {type(error).__name__}") from None

    def _of(self, message: dict[str, Any], orders: dict[str, Any], message_id: str) -> Iterator[Notice]:
        match message["schema"]:
            case "error/1":
                yield from _error(ErrorMessage.model_validate(message), orders)
            case "break/1":
                yield from _break(BreakMessage.model_validate(message))
            case "fill/1":
                yield from _stop_out(FillMessage.model_validate(message))
            case "account/1":
                yield from self._account(AccountMessage.model_validate(message), message_id)

    def _account(self, said: AccountMessage, message_id: str) -> Iterator[Notice]:
        account, was = said.account, self._stopped.get(said.account)
        if said.trading in _STOPPED:
            since = said.trading_since
            key = f"{account}:{said.trading}:{time_text(since) if since else said.trading_cause}"
            self._stopped[account] = key
            is_guard = said.trading_by.startswith(_GUARD)
            urgency: Urgency = "critical" if said.trading == "halted" else "warning"
            title = f"account {account} is {said.trading}: {said.trading_cause or 'no reason was given'}"
            names = {"account": account, "by": said.trading_by}
            yield notice("day_limit" if is_guard else "trading", urgency, key, since or said.at, title, **names)
        elif was is not None or (":trading:" in message_id and message_id.endswith(":trading")):
            self._stopped.pop(account, None)
            key = f"{account}:resumed:{time_text(said.at)}"
            yield notice("trading", "info", key, said.at, f"account {account} may open again", account=account)
        if said.detail.startswith(_WARNING):
            day = day_at(None, said.at, said.server_offset_s).on
            key, title = f"{account}:{day}:{said.detail}", f"account {account}: {said.detail}"
            yield notice("day_limit", "warning", key, said.at, title, account=account)


def _error(said: ErrorMessage, orders: Mapping[str, Any]) -> Iterator[Notice]:
    event: NotificationEvent
    urgency: Urgency
    if said.kind in {"in_doubt", "duplicate"}:
        is_persons = said.kind == "duplicate" or said.error_id.endswith(":suspicion")
        event, urgency = "doubt", "critical" if is_persons else "warning"
    elif said.kind == "unprotected":
        event, urgency = "unprotected", "critical"
    elif said.kind in _REFUSED and said.final:
        event, urgency = "rejected", "warning"
    else:
        return
    what = "order"
    if (order := orders.get(said.order_id or "")) is not None:
        what = f"order, {order['side']} {order['volume']} lots"
    title = f"{said.kind.replace('_', ' ')}: {what} of {said.symbol}, account {said.account}"
    retcode = " ".join(str(each) for each in (said.retcode, said.retcode_name) if each)
    yield notice(
        event, urgency, said.error_id, said.at, title, said.message,
        order_id=said.order_id, account=said.account, symbol=said.symbol, retcode=retcode, attempt=said.attempt,
    )  # fmt: skip


def _break(said: BreakMessage) -> Iterator[Notice]:
    if said.disposition != "open":
        return
    title = f"break of {said.symbol}, account {said.account}: {said.kind}"
    cause = f"ours {said.ours or 'nothing'}, the broker's {said.theirs or 'nothing'}"
    names = {name: getattr(said, name) for name in ("break_id", "account", "order_id", "position_id", "ticket", "deal")}
    yield notice("break", "critical", said.break_id, said.first_seen, title, cause, **names)


def _stop_out(said: FillMessage) -> Iterator[Notice]:
    if said.reason != "so" or said.busted:
        return
    title = f"stop-out: {said.side} {decimal_text(said.volume)} lots of {said.symbol}, account {said.account}"
    cause = f"profit {decimal_text(said.profit)} {said.currency}"
    names = {"account": said.account, "position_id": said.position_id, "deal": said.deal}
    yield notice("stop_out", "critical", said.fill_id, said.at, title, cause, **names)


@dataclass(slots=True)
class _Terminal:
    heard: datetime
    last_at: datetime
    down_since: datetime | None = None
    why: str = ""
    told: str | None = None


class TerminalWatch:
    """Watches the terminals by their snapshots: which one is not ready, or has said nothing, for too long.

    Args:
        after: How long is too long.
    """

    def __init__(self, after: timedelta) -> None:
        self._after = after
        self._known: dict[str, _Terminal] = {}

    def expect(self, accounts: Iterable[str], now: datetime) -> None:
        """Watch these accounts and no others; one that says nothing from now on is away."""
        self._known = {name: self._known.get(name) or _Terminal(now, now) for name in accounts}

    def hear(self, state: AccountMessage, now: datetime) -> None:
        """Take in what a snapshot shows."""
        if (known := self._known.get(state.account)) is None:
            return
        known.heard, known.last_at = now, state.at
        if state.connection == "ready":
            known.down_since = None
        else:
            known.down_since = known.down_since or state.at
            known.why = f"{state.connection.replace('_', ' ')}. {state.detail}"

    def forgive(self, gap: timedelta) -> None:
        """Not count a time in which we heard nobody ourselves."""
        for known in self._known.values():
            known.heard += gap

    def due(self, now: datetime) -> Iterator[Notice]:
        """Yield who is away for too long now, once, and who is back."""
        for account, known in self._known.items():
            is_silent = now - known.heard >= self._after
            since = known.last_at if is_silent else known.down_since
            if since is not None and now - since >= self._after:
                if known.told is None:
                    why = "it says nothing" if is_silent else known.why
                    known.told = f"{account}:{time_text(since)}"
                    title = f"terminal of account {account} is away since {time_text(since)}"
                    yield notice("disconnected", "critical", known.told, since, title, why, account=account)
            elif since is None and known.told is not None:
                key, known.told = f"{known.told}:ready", None
                yield Notice(
                    f"disconnected:{key}", "disconnected", "info", now, f"terminal of account {account} is ready", ""
                )
