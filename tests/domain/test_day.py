"""A trading day: examples of its steps, and what holds for every way in which an account's money can move."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.day import (
    MOST_BOOKED,
    STEPS,
    Cash,
    Funds,
    Step,
    Taken,
    TradingDay,
    day_at,
    observed,
    uses,
    with_operation,
)
from streamapp.domain.facts import AccountOperation
from streamapp.domain.limits import Limits
from streamapp.domain.trading import TradingState

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LOSS = Limits(max_daily_loss=Decimal(1000))
FALL = Limits(max_drawdown=Decimal(1000))


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def payment(deal: int, amount: int, seconds: float, **changes: Any) -> AccountOperation:
    values = {"type": "balance", "revision": 0, **changes}
    return AccountOperation(deal=deal, amount=Decimal(amount), currency="USD", at=at(seconds), **values)


@dataclass
class Account:
    """An account whose terminal says a snapshot every 2 s, and what its day has come to."""

    limits: Limits = LOSS
    offset_s: int | None = 7200
    balance: Decimal = Decimal(10_000)
    floating: Decimal = Decimal(0)
    credit: Decimal = Decimal(0)
    second: float = 0
    day: TradingDay = field(init=False)
    recent: tuple[Cash, ...] = ()
    taken: list[Taken] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.day = day_at(None, NOON, self.offset_s)

    @property
    def steps(self) -> list[Step]:
        return [each.step for each in self.taken]

    def snapshot(self, count: int = 1) -> Account:
        for _ in range(count):
            self.second += 2
            now = at(self.second)
            self.day = day_at(self.day, now, self.offset_s)
            funds = Funds(now, self.balance, self.balance + self.credit + self.floating, self.credit, "USD")
            result = observed(self.day, self.recent, funds, self.limits)
            self.day, self.recent = TradingDay.model_validate_json(result.day.model_dump_json()), result.recent
            self.taken += result.taken
        return self

    def lose(self, amount: int) -> Account:
        """Let the open positions move."""
        self.floating -= amount
        return self

    def book(self, deal: int, amount: int, **changes: Any) -> Account:
        """Let the broker's booking of a payment be known."""
        self.day = with_operation(self.day, payment(deal, amount, self.second, **changes))
        return self

    def pay(self, amount: int) -> Account:
        """Let the money of a payment be there."""
        self.balance += amount
        return self

    def restart(self) -> Account:
        self.recent = ()
        return self


def trading(limits: Limits = LOSS, **known: Any) -> Account:
    """Return an account whose day has begun and is watched."""
    return Account(limits, **known).snapshot(8)


# --- the steps


def test_a_loss_is_an_alarm_at_80_percent_then_reduces_and_then_locks_and_each_once() -> None:
    account = trading()
    for lost, steps in ((799, 0), (1, 1), (99, 1), (1, 2), (99, 2), (1, 3), (500, 3)):
        account.lose(lost).snapshot(3)
        assert account.steps == list(STEPS[:steps])
    account.lose(-1500).snapshot(3).lose(1400).snapshot(3)
    assert account.steps == list(STEPS)


def test_a_step_says_its_guard_the_limit_and_the_value() -> None:
    [warned] = trading().lose(812).snapshot(3).taken
    said = "max_daily_loss: expected a loss of 1000 USD at most since the broker's midnight, got 812"
    assert warned == Taken("warned", "max_daily_loss", said)


def test_a_fall_through_all_steps_takes_them_all_in_their_order() -> None:
    assert trading().lose(5000).snapshot().steps == list(STEPS)


def test_a_realised_loss_counts_as_one_that_is_open_does() -> None:
    account = trading().lose(950).snapshot(3)
    account.balance, account.floating = account.balance - 950, Decimal(0)
    assert account.snapshot(5).steps == ["warned", "reducing"]
    account.balance -= 50
    assert account.snapshot(5).steps == list(STEPS)


def test_a_drawdown_is_measured_from_the_days_highest_equity() -> None:
    account = trading(FALL).lose(-3000).snapshot(3).lose(700).snapshot(3)
    assert account.steps == []
    [warned] = account.lose(100).snapshot(3).taken
    assert warned.cause.startswith("max_drawdown: expected a fall from the day's highest equity of 1000 USD at most")


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_daily_loss_share": "0.05"}, ["warned"]),
        ({"max_daily_loss_share": "0.04"}, list(STEPS)),
        ({"max_drawdown_share": "0.05"}, ["warned"]),
        ({"max_daily_loss": 9000, "max_drawdown_share": "0.04"}, list(STEPS)),
        ({"max_daily_loss": 500, "warn_at": "0.9", "reduce_at": "0.95"}, []),
        ({"max_daily_loss": 500, "warn_at": "0.1", "reduce_at": "0.8"}, ["warned", "reducing"]),
        ({}, []),
    ],
)
def test_limits_are_money_or_shares_and_the_one_used_most_counts(limits: dict[str, Any], steps: list[str]) -> None:
    assert trading(Limits.model_validate(limits)).lose(400).snapshot(3).steps == steps


def test_a_share_of_nothing_is_used_up_by_the_first_loss() -> None:
    account = trading(Limits(max_daily_loss_share=Decimal("0.1")), balance=Decimal(0))
    assert account.steps == []
    assert account.lose(1).snapshot().steps == list(STEPS)


def test_without_its_money_a_day_uses_nothing() -> None:
    assert uses(day_at(None, NOON, 0), Decimal(0), LOSS) == ()


# --- payments


@pytest.mark.parametrize("amount", [5000, -5000])
@pytest.mark.parametrize("first", ["money", "booking"])
@pytest.mark.parametrize("between", [0, 1, 2])
@pytest.mark.parametrize("kind", ["balance", "credit"])
def test_a_payment_is_no_profit_and_no_loss_whichever_of_its_two_words_comes_first(
    amount: int, first: str, between: int, kind: str
) -> None:
    account = trading(Limits(max_daily_loss=Decimal(1000), max_drawdown=Decimal(1000)))

    def money() -> None:
        if kind == "credit":
            account.credit += amount
        else:
            account.pay(amount)

    def booking() -> None:
        account.book(7, amount, type=kind)

    for word in (money, booking) if first == "money" else (booking, money):
        word()
        account.snapshot(between)
    account.snapshot(10)
    assert not account.steps
    assert account.day.highest == 10_000
    assert account.lose(800).snapshot(3).steps == ["warned"]


def test_a_withdrawal_whose_booking_stays_away_counts_as_a_loss_after_some_seconds() -> None:
    account = trading().pay(-5000).snapshot(2)
    assert account.steps == []
    assert account.snapshot(3).steps == list(STEPS)


@pytest.mark.parametrize(
    ("said", "paid"),
    [
        ([payment(7, 50, 20)], 50),
        ([payment(7, 50, 20), payment(7, 50, 20)], 50),
        ([payment(7, 50, 20), payment(7, 40, 20, revision=1), payment(7, 50, 20)], 40),
        ([payment(7, 50, 20), payment(8, -20, 21), payment(9, 3, 21, type="credit")], 33),
        ([payment(7, -5, 20, type="commission"), payment(8, 5, 20, type="interest")], 0),
        ([payment(7, 50, -3600)], 0),
    ],
)
def test_a_payment_counts_once_as_it_is_now_and_costs_and_the_past_do_not(
    said: list[AccountOperation], paid: int
) -> None:
    day = trading().day
    for each in said:
        day = with_operation(day, each)
    assert day.paid == paid


def test_more_payments_than_a_row_has_room_for_are_kept_as_their_sum() -> None:
    day = trading().day
    for number in range(1, MOST_BOOKED + 11):
        day = with_operation(day, payment(number, 1, 20))
    assert len(day.payments) == MOST_BOOKED
    assert [day.folded, day.paid] == [10, MOST_BOOKED + 10]
    assert with_operation(day, payment(3, 1, 20)) is day


# --- days


def test_a_day_begins_with_the_money_that_rests_and_what_was_paid_just_then_is_known() -> None:
    account = Account().snapshot(3).pay(5000).book(7, 5000).snapshot()
    assert (account.day.begun_at, str(account.day.equity), str(account.day.paid)) == (at(8), "10000", "5000")
    account.book(7, 5000).snapshot(6).lose(790).snapshot(3)
    assert account.steps == []
    assert account.lose(10).snapshot(3).steps == ["warned"]


def test_a_day_begins_after_a_minute_though_its_money_never_rests() -> None:
    account = Account()
    for _ in range(31):
        account.pay(1).snapshot()
    assert (account.day.first_at, account.day.begun_at) == (at(2), at(62))


def test_a_new_day_begins_at_the_brokers_midnight_and_forgets_what_the_last_one_came_to() -> None:
    account = trading().lose(900).snapshot()
    account.day = account.day.model_copy(update={"replaced": TradingState(state="reducing")})
    account.second = 10 * 3600 - 3
    assert account.snapshot().day.reached == "reducing"
    new = account.snapshot().day
    assert (new.on, new.ends_at) == (date(2026, 11, 21), datetime(2026, 11, 21, 22, tzinfo=UTC))
    assert (new.reached, new.orders, new.replaced) == (None, 0, TradingState(state="reducing"))
    assert account.snapshot(5).day.equity == 9100


def test_an_unknown_clock_is_utcs_until_it_is_known() -> None:
    day = day_at(None, NOON, None)
    assert (day.on, day.ends_at, "UTC" in day.midnight) == (NOON.date(), datetime(2026, 11, 21, tzinfo=UTC), True)
    known = day_at(day.model_copy(update={"orders": 5}), NOON, 7200)
    assert (known.on, known.ends_at, known.orders) == (NOON.date(), datetime(2026, 11, 20, 22, tzinfo=UTC), 5)
    assert day_at(known, NOON, None) is known


@pytest.mark.parametrize(("before", "after"), [(7200, 10_800), (10_800, 7200)])
def test_a_servers_clock_that_is_set_moves_the_midnight_and_no_date_comes_twice(before: int, after: int) -> None:
    midnight = datetime(2026, 11, 21, tzinfo=UTC) - timedelta(seconds=before)
    day = day_at(None, midnight - timedelta(hours=5), before)
    dates = [day.on]
    for minutes in range(-240, 240, 10):
        now = midnight + timedelta(minutes=minutes)
        day = day_at(day, now, before if minutes < 5 else after)
        dates.append(day.on)
        assert now < day.ends_at
        assert day.ends_at == datetime.combine(day.on + timedelta(days=1), datetime.min.time(), UTC) - timedelta(
            seconds=before if minutes < 5 else after
        )
    assert dates == sorted(dates)
    assert len(set(dates)) == 2


moves = st.lists(
    st.one_of(
        st.tuples(st.just("market"), st.integers(-600, 400)),
        st.tuples(st.just("close"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("midnight"), st.just(0)),
        st.tuples(st.just("clock"), st.sampled_from([3600, 7200, 10_800])),
        st.tuples(st.just("pay"), st.integers(-3000, 3000)),
    ),
    max_size=25,
)


@given(moves, st.sampled_from([LOSS, FALL, Limits(max_daily_loss=Decimal(1000), max_drawdown=Decimal(700))]))
def test_however_money_moves_steps_are_taken_once_a_day_in_order_and_never_without_their_loss(
    several: list[tuple[str, int]], limits: Limits
) -> None:
    account = trading(limits)
    highest = equity = begun = account.balance
    taken: dict[date, list[Step]] = {}
    for number, (what, amount) in enumerate(several, start=1):
        before = account.day.on
        if what == "market":
            account.lose(-amount)
        elif what == "close":
            account.balance, account.floating = account.balance + account.floating, Decimal(0)
        elif what == "restart":
            account.restart()
        elif what == "midnight":
            account.second += 86_400
        elif what == "clock":
            account.offset_s = amount
        else:
            account.pay(amount).book(number, amount).snapshot(0)
            begun, highest = begun + amount, highest + amount
        # Long enough to be judged by, and for the day to begin with, whatever came before.
        known = len(account.taken)
        account.snapshot(5)
        equity = account.balance + account.floating
        if account.day.on > before:
            begun = highest = equity
            account.snapshot(4)
        highest = max(highest, equity)
        taken.setdefault(account.day.on, []).extend(account.steps[known:])
        used = [Decimal(0)]
        if limits.max_daily_loss is not None:
            used.append((begun - equity) / limits.max_daily_loss)
        if limits.max_drawdown is not None:
            used.append((highest - equity) / limits.max_drawdown)
        reached = account.day.reached
        at_least = sum(max(used) >= share for share in (Decimal("0.8"), Decimal("0.9"), Decimal(1)))
        assert (0 if reached is None else STEPS.index(reached) + 1) >= at_least
        for step, share in zip(STEPS, (Decimal("0.8"), Decimal("0.9"), Decimal(1)), strict=True):
            assert step not in account.steps[known:] or max(used) >= share
    for steps in taken.values():
        assert steps == list(STEPS[: len(steps)])
