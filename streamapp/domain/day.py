"""A trading day of an account: what it has lost since the broker's midnight, and what that leads to, in steps.

Snapshots show balance, credit and equity; the broker's bookings, by another way, what was paid in and out. A day's
money is counted without what was paid: **net** is equity less payments, **cash** is balance and credit less payments.
A payment leaves cash as it was as soon as snapshot and booking are both known. Until then cash jumps, and which of the
two came first nobody can tell; it jumps as well when a position is closed, and then it stays. So what cash has gained
or lost within the last ``SETTLE_S`` is believed neither way: it makes no new highest equity, and no loss. A payment
whose booking is missing for longer counts as profit or loss: a false lock rather than a loss that is not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple, get_args

from pydantic import ConfigDict, Field

from streamapp.domain.facts import AccountOperation
from streamapp.domain.limits import Limits
from streamapp.domain.parameters import plain
from streamapp.domain.trading import TradingState
from streamapp.domain.vocabulary import Frozen, Money, UtcTime

Step = Literal["warned", "reducing", "locked"]
STEPS: tuple[Step, ...] = get_args(Step)
"""Each is taken once a day, in this order: an alarm; nothing is opened any more; all is closed as well."""
WARN_AT, REDUCE_AT = Decimal("0.8"), Decimal("0.9")
SETTLE_S = 5.0
"""Longer than a booking and a snapshot are apart: a terminal looks every 0.9 s and says snapshots every 2 s, and both
are here some tenths of a second later."""
BEGIN_WITHIN_S = 60.0
"""An account whose cash does not rest, for it closes positions all the time, begins its day after so long as it is."""
MOST_BOOKED = 200
"""Payments that are known one by one, some 15 kB of the account's row: brokers book rebates for each trade."""
_PAYMENTS = frozenset({"balance", "credit", "bonus", "correction"})
"""Commissions, interest, dividends, taxes and charges are what trading costs or brings."""


class Payment(Frozen):
    """Money that was paid in, or out if ``amount`` is less than 0; a correction has a higher ``revision``."""

    model_config = ConfigDict(extra="forbid")

    amount: Money
    revision: int
    at: UtcTime


class TradingDay(Frozen):
    """A day, from one midnight of the broker's server to the next.

    Attributes:
        on: The server's date.
        ends_at: Its next midnight.
        offset_s: What the server's clock is ahead of UTC by; None: not known, and the day is UTC's.
        orders: Opened on this day.
        first_at: Of the first snapshot of the day.
        begun_at: Of the snapshot that the day's money begins with, None before it.
        balance, equity: With which it began, without payments.
        highest: The highest equity since, without payments.
        payments: By the broker's ticket; ``folded`` is the sum of those before ``folded_to``, that ticket included.
        reached: The last step that was taken, and its ``cause``.
        replaced: The trading state that a step has replaced, None where the account was trading.
    """

    model_config = ConfigDict(extra="forbid")

    on: date
    ends_at: UtcTime
    offset_s: int | None = None
    orders: int = 0
    first_at: UtcTime | None = None
    begun_at: UtcTime | None = None
    balance: Money | None = None
    equity: Money | None = None
    highest: Money | None = None
    payments: dict[int, Payment] = Field(default_factory=dict)
    folded: Money = Decimal(0)
    folded_to: int = 0
    reached: Step | None = None
    cause: str = ""
    replaced: TradingState | None = None

    @property
    def paid(self) -> Decimal:
        """What was paid in since the day's money began, less what was paid out."""
        return self.folded + sum((payment.amount for payment in self.payments.values()), Decimal(0))

    @property
    def midnight(self) -> str:
        """Which midnight it began at, in words."""
        return "the broker's midnight" if self.offset_s is not None else "midnight UTC (the server's is not known)"


class Cash(NamedTuple):
    """Balance and credit less payments, as a snapshot of ``at`` showed them."""

    at: datetime
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Funds:
    """An account's money in a snapshot of ``at``."""

    at: datetime
    balance: Decimal
    equity: Decimal
    credit: Decimal = Decimal(0)
    currency: str = ""


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a day's limit is used: ``value`` of ``limit``, both money."""

    guard: str
    limit: Decimal
    value: Decimal

    @property
    def share(self) -> Decimal:
        """1 is all of it; a limit of nothing is used up by the first loss."""
        if self.limit > 0:
            return self.value / self.limit
        return Decimal("Infinity") if self.value > 0 else Decimal(0)


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that is to be taken now, and why, in a sentence."""

    step: Step
    guard: str
    cause: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What a snapshot makes of a day; ``recent`` is the cash of the last seconds, for the next one."""

    day: TradingDay
    recent: tuple[Cash, ...]
    taken: tuple[Taken, ...] = ()


def day_at(known: TradingDay | None, now: datetime, offset_s: int | None) -> TradingDay:
    """Return the day that ``now`` is in: the known one, or a new one where the server's date is a later one.

    A server's clock that is set back or forth, as in spring and autumn, moves the midnight that ends the day; a date
    that comes a second time is the same day. Payments that are not in the new day's money yet are carried over.
    """
    offset_s = known.offset_s if offset_s is None and known is not None else offset_s
    if known is not None and now < known.ends_at and offset_s == known.offset_s:
        return known
    ahead = timedelta(seconds=offset_s or 0)
    on = (now.astimezone(UTC) + ahead).date()
    if known is not None and on <= known.on:
        return known.model_copy(update={"offset_s": offset_s, "ends_at": _end_of(known.on, ahead)})
    fresh = TradingDay(on=on, ends_at=_end_of(on, ahead), offset_s=offset_s)
    if known is None:
        return fresh
    carried = ("payments", "folded", "folded_to", "replaced")
    return fresh.model_copy(update={name: getattr(known, name) for name in carried})


def with_operation(day: TradingDay, said: AccountOperation) -> TradingDay:
    """Return the day with what the broker booked; the same day if it is no payment, is known, or was before it."""
    known = day.payments.get(said.deal)
    if said.type not in _PAYMENTS or said.deal <= day.folded_to or (known and known.revision >= said.revision):
        return day
    if day.begun_at is not None and said.at <= day.begun_at - timedelta(seconds=SETTLE_S):
        return day  # the money that the day began with has it
    payments = {**day.payments, said.deal: Payment(amount=said.amount, revision=said.revision, at=said.at)}
    changes: dict[str, object] = {"payments": payments}
    if len(payments) > MOST_BOOKED:
        oldest = min(payments)
        changes |= {"folded": day.folded + payments.pop(oldest).amount, "folded_to": oldest}
    return day.model_copy(update=changes)


def observed(day: TradingDay, recent: tuple[Cash, ...], funds: Funds, limits: Limits) -> Observed:
    """Return what an account's money in a snapshot makes of its day, and the steps that are to be taken.

    Nothing is judged before cash is known for ``SETTLE_S``: after a restart, and while a day begins.
    """
    cash = Cash(funds.at, funds.balance + funds.credit - day.paid)
    recent = _recent((*recent, cash))
    lowest, highest = min(one.amount for one in recent), max(one.amount for one in recent)
    is_known = recent[0].at <= funds.at - timedelta(seconds=SETTLE_S)
    if day.begun_at is None:
        return _begun(day, recent, funds, rests=is_known and lowest == highest)
    if not is_known:
        return Observed(day, recent)
    net = funds.equity - day.paid
    assert day.highest is not None
    if (high := net - (cash.amount - lowest)) > day.highest:
        day = day.model_copy(update={"highest": high})
    taken = _steps(day, uses(day, net + (highest - cash.amount), limits), limits, funds.currency)
    if taken:
        day = day.model_copy(update={"reached": taken[-1].step, "cause": taken[-1].cause})
    return Observed(day, recent, taken)


def uses(day: TradingDay, net: Decimal, limits: Limits) -> tuple[Use, ...]:
    """Return how much of each day's limit is used, at an equity of ``net`` without payments."""
    if day.balance is None or day.equity is None or day.highest is None:
        return ()
    loss, fall = max(day.equity - net, Decimal(0)), max(day.highest - net, Decimal(0))
    several = (
        ("max_daily_loss", limits.max_daily_loss, None, loss),
        ("max_daily_loss_share", limits.max_daily_loss_share, day.balance, loss),
        ("max_drawdown", limits.max_drawdown, None, fall),
        ("max_drawdown_share", limits.max_drawdown_share, day.highest, fall),
    )
    return tuple(
        Use(name, most if of is None else max(most * of, Decimal(0)), value)
        for name, most, of, value in several
        if most is not None
    )


def _begun(day: TradingDay, recent: tuple[Cash, ...], funds: Funds, *, rests: bool) -> Observed:
    """Let the day's money begin where cash rests, so that no payment is half in it."""
    first_at = day.first_at or funds.at
    if not rests and (funds.at - first_at).total_seconds() < BEGIN_WITHIN_S:
        return Observed(day.model_copy(update={"first_at": first_at}), recent)
    since = funds.at - timedelta(seconds=SETTLE_S)
    # What was booked before is in the money; what was booked just now stays known, or it would count when said again.
    payments = {deal: payment for deal, payment in day.payments.items() if payment.at > since}
    changes = {"first_at": first_at, "begun_at": funds.at, "payments": payments, "folded": Decimal(0)}
    begun = day.model_copy(update=changes)
    net = funds.equity - begun.paid
    begun = begun.model_copy(update={"balance": funds.balance - begun.paid, "equity": net, "highest": net})
    return Observed(begun, (Cash(funds.at, funds.balance + funds.credit - begun.paid),))


def _steps(day: TradingDay, used: Iterable[Use], limits: Limits, currency: str) -> tuple[Taken, ...]:
    """Return the steps that are due and were not taken yet, in their order: a fall through all of them takes all."""
    worst = max(used, key=lambda use: use.share, default=None)
    if worst is None:
        return ()
    shares = (limits.warn_at or WARN_AT, limits.reduce_at or REDUCE_AT, Decimal(1))
    due = [step for step, share in zip(STEPS, shares, strict=True) if worst.share >= share]
    first = 0 if day.reached is None else STEPS.index(day.reached) + 1
    what = "fall from the day's highest equity" if worst.guard.startswith("max_drawdown") else "loss"
    cause = (
        f"{worst.guard}: expected a {what} of {plain(worst.limit)} {currency} at most since {day.midnight}, "
        f"got {plain(worst.value)}"
    )
    return tuple(Taken(step, worst.guard, cause) for step in STEPS[first : len(due)])


def _recent(several: tuple[Cash, ...]) -> tuple[Cash, ...]:
    """Return the cash of the last ``SETTLE_S``, and before it that which held when they began."""
    since = several[-1].at - timedelta(seconds=SETTLE_S)
    before = [one for one in several if one.at <= since]
    return (*before[-1:], *(one for one in several if one.at > since))


def _end_of(on: date, ahead: timedelta) -> datetime:
    return datetime.combine(on + timedelta(days=1), time(), UTC) - ahead
