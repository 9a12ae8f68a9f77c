from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.notification import MINUTE, URGENCIES, QuietHours, allowed, batch_size, held_until

NIGHT = QuietHours(time(22), time(7), ZoneInfo("Europe/Berlin"))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
moments = st.integers(1_577_836_800, 1_893_456_000).map(lambda at: datetime.fromtimestamp(at, UTC))
times = st.times().map(lambda at: at.replace(second=0, microsecond=0))
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]).map(
    ZoneInfo
)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-20T20:59:59+00:00", None),
        ("2026-11-20T21:00:00+00:00", "2026-11-21T06:00:00+00:00"),
        ("2026-11-21T05:59:59+00:00", "2026-11-21T06:00:00+00:00"),
        ("2026-11-21T06:00:00+00:00", None),
        ("2026-03-28T23:00:00+00:00", "2026-03-29T05:00:00+00:00"),  # the clocks go forward in that night
    ],
)
def test_a_night_is_quiet_by_the_clocks_of_its_zone(now: str, until: str | None) -> None:
    found = NIGHT.until(datetime.fromisoformat(now))
    assert found == (None if until is None else datetime.fromisoformat(until))


def test_the_end_in_an_hour_that_comes_twice_is_the_one_to_come() -> None:
    hours = QuietHours(time(1), time(2, 45), ZoneInfo("Europe/Berlin"))
    second = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)  # 02:30 for the second time
    assert hours.until(second) == datetime(2026, 10, 25, 1, 45, tzinfo=UTC)


@given(moments, times, times, zones)
def test_quiet_ends_and_what_waits_is_told_then(now: datetime, begins: time, ends: time, zone: ZoneInfo) -> None:
    hours = QuietHours(begins, ends, zone)
    until = hours.until(now)
    if until is None:
        return
    assert begins != ends
    assert now < until <= now + timedelta(hours=26)


def test_what_is_urgent_enough_does_not_wait() -> None:
    night = datetime(2026, 11, 21, 1, tzinfo=UTC)
    assert [held_until(NIGHT, each, night) is None for each in URGENCIES] == [False, False, True]
    assert held_until(None, "info", night) is None
    assert held_until(NIGHT, "info", NOON) is None


@given(st.lists(st.integers(0, 200), max_size=60), st.integers(1, 5))
def test_however_events_come_no_minute_has_more_messages_and_each_event_is_in_one(
    arrivals: list[int], per_minute: int
) -> None:
    sent: list[datetime] = []
    told, waiting = 0, 0
    for second in range(400):
        now = NOON + timedelta(seconds=second)
        waiting += arrivals.count(second)
        while size := batch_size(waiting, allowed(sent, now, per_minute)):
            sent.append(now)
            told, waiting = told + size, waiting - size
    assert told == len(arrivals)
    assert all(sum(1 for at in sent if begin <= at < begin + MINUTE) <= per_minute for begin in sent)
