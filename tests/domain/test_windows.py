from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.windows import DAYS, window

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def moment(text: str) -> datetime:
    day, clock = text.split()
    hours, minutes = map(int, clock.split(":"))
    return MONDAY + timedelta(days=DAYS.index(day), hours=hours, minutes=minutes)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("21:55-22:10", ("mon 21:55", "sun 22:09"), ("mon 21:54", "mon 22:10")),
        ("fri 20:00-24:00", ("fri 20:00", "fri 23:59"), ("thu 20:00", "sat 00:00")),
        ("sat,sun 00:00-24:00", ("sat 00:00", "sun 23:59"), ("fri 23:59", "mon 00:00")),
        ("fri-mon 12:00-13:00", ("fri 12:00", "sat 12:59", "mon 12:00"), ("tue 12:00", "thu 12:00")),
        ("fri 23:00-01:00", ("fri 23:00", "sat 00:59"), ("fri 00:30", "sat 01:00", "sat 23:00")),
        ("23:55-00:10 broker", ("mon 21:55", "mon 22:09"), ("mon 23:55", "mon 22:10")),
        ("Mon 00:00-00:30  Broker", ("sun 22:00", "sun 22:29"), ("mon 00:00",)),
    ],
)
def test_a_window_has_its_minutes_on_its_days(text: str, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    assert all(window(text).has(moment(each), 7200) for each in inside)
    assert not any(window(text).has(moment(each), 7200) for each in outside)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "a window like"),
        ("21:55", "a window like"),
        ("21:55-22:10 utc", "a window like"),
        ("9:00-10:00", "a window like"),
        ("25:00-26:00", "times from 00:00 to 24:00"),
        ("10:60-11:00", "times from 00:00 to 24:00"),
        ("10:00-10:00", "a window that lasts"),
        ("24:00-01:00", "a window that lasts"),
        ("fre 10:00-11:00", "days like fri"),
        ("mon-tue-wed 10:00-11:00", "days like fri"),
    ],
)
def test_what_says_no_window_is_refused_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"expected {expected}"):
        window(text)


@given(st.integers(0, 1439), st.integers(1, 1439), st.integers(0, 7 * 1440 - 1))
def test_a_window_and_the_rest_of_the_day_share_out_every_minute(start: int, length: int, at: int) -> None:
    end = (start + length) % 1440

    def clock(minute: int) -> str:
        return f"{minute // 60:02}:{minute % 60:02}"

    inside = window(f"{clock(start)}-{clock(end)}"), window(f"{clock(end)}-{clock(start)}")
    assert sum(each.has(MONDAY + timedelta(minutes=at), 0) for each in inside) == 1
