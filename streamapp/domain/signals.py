"""The one decision on a signal (design: order-status "A signal gets one decision"), a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Protocol, TypeVar

from streamapp.domain.exits import ExitParameters
from streamapp.domain.parameters import OrderParameters
from streamapp.domain.sizing import AS_ASKED, ONE, Sized, Sizing, sized
from streamapp.domain.vocabulary import Decision, time_text

Parameters = TypeVar("Parameters", OrderParameters, ExitParameters)

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
Guards = Callable[[OrderParameters, datetime], str | None]
"""Says which guard an order that opens breaks, approved at some time; None: none."""


class ReadableSignal(Protocol):
    """A well-formed signal, as :class:`streamapp.messages.signal.Signal` is."""

    @property
    def status(self) -> str | None: ...  # noqa: D102
    @property
    def account(self) -> str: ...  # noqa: D102
    @property
    def parameters(self) -> OrderParameters | ExitParameters: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def expected_price(self) -> Decimal | None: ...  # noqa: D102
    @property
    def approved_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def valid_until(self) -> datetime | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings a decision depends on; times in seconds, ``sizings`` by account.

    ``remembered_s``: for how long a decision is remembered at least. What is older is refused, whatever it says of
    itself: nobody knows any more whether it is a repetition.
    """

    accounts: frozenset[str]
    needs_approval: bool = True
    ttl_s: float = 30.0
    skew_s: float = 2.0
    remembered_s: float = 400 * 86400.0
    sizings: Mapping[str, Sizing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided on one message of a signal; ``reason`` is one of a small set of words, ``detail`` a sentence.

    The detail of an accepted one says how its volume came about, where it is not what was asked.
    """

    decision: Decision
    reason: str | None = None
    detail: str | None = None


ACCEPTED = Verdict("accepted")


@dataclass(frozen=True, slots=True)
class Recorded:
    """The decision this (account, signal_id) already has. ``fingerprint``: see :func:`judge_again`."""

    verdict: Verdict
    fingerprint: str
    order_id: str | None


def signal_time(signal: ReadableSignal, stream_time: datetime) -> datetime:
    """Return when the signal was approved: what it says, or the stream's time."""
    return signal.approved_at or stream_time


def not_after(signal: ReadableSignal, rules: Rules, stream_time: datetime) -> datetime:
    """Return the last moment at which the signal may reach the broker: a function of the signal alone."""
    if signal.valid_until is not None:
        return signal.valid_until
    return moment_after(signal_time(signal, stream_time), rules.ttl_s)


def moment_after(at: datetime, seconds: float) -> datetime:
    """Return the moment so many seconds after another, or the last one that there is."""
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError:
        return LAST_MOMENT


def is_forgotten(at: datetime, rules: Rules, now: datetime) -> bool:
    """Return whether what was asked for at a moment may have been decided, and its decision forgotten since."""
    return (now - at).total_seconds() >= rules.remembered_s


def fingerprint_of(signal: ReadableSignal | None, payload_hash: str) -> str:
    """Return what makes messages the same: the parameters' hash, or the payload's where no parameters can be read."""
    return f"payload:{payload_hash}" if signal is None else signal.fingerprint


def size_of(signal: ReadableSignal, rules: Rules, weight: Decimal | None = None) -> Sized | None:
    """Return the lots that the account trades of a signal, None for an exit that names none.

    ``weight``: of its copy, None where it has only one.
    """
    asked = signal.parameters.volume
    if asked is None:
        return None
    return sized(asked, rules.sizings.get(signal.account, AS_ASKED), ONE if weight is None else weight)


def traded(asked: Parameters, size: Sized | None) -> Parameters:
    """Return what was asked for with the lots that are traded."""
    if size is None or size.volume == asked.volume:
        return asked
    return asked.model_copy(update={"volume": size.volume})


def judge(
    signal: ReadableSignal,
    rules: Rules,
    *,
    stream_time: datetime,
    now: datetime,
    guards: Guards | None = None,
    halted: str | None = None,
    closes: bool = False,
    weight: Decimal | None = None,
) -> Verdict:
    """Return the decision on the first message of a signal: accepted or refused.

    Args:
        signal: Well formed (one that is not was refused as ``bad_field`` by whoever read it).
        rules: The settings.
        stream_time: When the message entered the stream.
        now: The clock's reading.
        guards: The guards before a quote; asked last, for they may look at what is open.
        halted: Why the account must not open orders now, None if it may. An exit is not held back by it, nor by guards.
        closes: It is an order that was decided elsewhere, and closes.
        weight: Of its copy, where it has several.
    """
    size = size_of(signal, rules, weight)
    asked = signal.parameters
    opening = traded(asked, size) if isinstance(asked, OrderParameters) else None
    checks = (
        ("bad_field", None if opening is None else _wrong_side(opening, signal.expected_price)),
        ("not_approved", _approval(signal, rules)),
        (
            "unknown_account",
            None if signal.account in rules.accounts else f"account: expected a configured one, got {signal.account!r}",
        ),
        ("from_future", _future(signal, rules, stream_time, now)),
        ("stale", _staleness(signal, rules, stream_time, now)),
        ("guard", None if size is None else size.refusal),
        ("halted", None if opening is None or closes else halted),
    )
    refused = next((Verdict("refused", reason, detail) for reason, detail in checks if detail), None)
    if refused is not None:
        return refused
    if opening is not None and not closes and guards is not None:
        broken = guards(opening, signal_time(signal, stream_time))
        if broken is not None:
            return Verdict("refused", "guard", broken)
    return ACCEPTED if size is None else Verdict("accepted", detail=size.how)


def judge_again(recorded: Recorded, fingerprint: str) -> Verdict:
    """Return the decision on another message of a decided signal: duplicate or conflict, and nothing is ever sent.

    A refused signal stays refused: the duplicate carries the recorded reason.
    """
    if fingerprint == recorded.fingerprint:
        return Verdict("duplicate", recorded.verdict.reason, recorded.verdict.detail)
    standing = (
        f"order {recorded.order_id} stands" if recorded.order_id else f"it was refused ({recorded.verdict.reason})"
    )
    return Verdict("conflict", "conflict", f"signal_id was used before with other parameters: {standing}")


def _approval(signal: ReadableSignal, rules: Rules) -> str | None:
    if not rules.needs_approval or signal.status == "approved":
        return None
    return f"status: expected approved, got {signal.status!s:.40}"


def _future(signal: ReadableSignal, rules: Rules, stream_time: datetime, now: datetime) -> str | None:
    at = signal_time(signal, stream_time)
    if (at - now).total_seconds() <= rules.skew_s:
        return None
    return f"approved_at: expected at most {rules.skew_s} s after our clock ({time_text(now)}), got {time_text(at)}"


def _staleness(signal: ReadableSignal, rules: Rules, stream_time: datetime, now: datetime) -> str | None:
    first = min(signal_time(signal, stream_time), stream_time)
    if is_forgotten(first, rules, now):
        return f"it came, or was approved, at {time_text(first)}: longer ago than decisions are remembered"
    expiration = signal.parameters.expiration if isinstance(signal.parameters, OrderParameters) else None
    ends = (("valid_until", not_after(signal, rules, stream_time)), ("expiration", expiration))
    name, end = next(((name, end) for name, end in ends if end is not None and end <= now), ("", None))
    return None if end is None else f"{name}: expected a time after {time_text(now)}, got {time_text(end)}"


def _wrong_side(order: OrderParameters, expected_price: Decimal | None) -> str | None:
    """Say which price is on the wrong side of another, as far as the signal tells; the terminal knows the market."""
    if (limit := order.stop_limit_price) is not None and order.price is not None:
        side = "below" if order.side == "buy" else "above"
        if (limit > order.price) if order.side == "buy" else (limit < order.price):
            return f"stop_limit_price: expected at or {side} the stop price {order.price}, got {limit}"
    low, high = (order.stop_loss, order.take_profit) if order.side == "buy" else (order.take_profit, order.stop_loss)
    low_name, high_name = ("stop_loss", "take_profit") if order.side == "buy" else ("take_profit", "stop_loss")
    if order.order_type == "stop_limit":
        entry = order.stop_limit_price
    else:
        entry = expected_price if order.order_type == "market" else order.price
    if low is not None and high is not None and low >= high:
        return f"{low_name}: expected below {high_name} ({high}) for a {order.side}, got {low}"
    if entry is not None and low is not None and low >= entry:
        return f"{low_name}: expected below the order's price {entry} for a {order.side}, got {low}"
    if entry is not None and high is not None and high <= entry:
        return f"{high_name}: expected above the order's price {entry} for a {order.side}, got {high}"
    return None
