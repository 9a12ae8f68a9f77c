from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamapp.terminal.account.servertime import ServerTime

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def milliseconds(ahead_s: float, at: datetime = NOW) -> int:
    return int((at.timestamp() + ahead_s) * 1000)


@pytest.mark.parametrize("ahead_s", [0, 7200, 10800, -18000, 19800])
def test_one_tick_near_to_a_half_hour_shows_the_offset(ahead_s: int) -> None:
    time = ServerTime()
    assert time.observe(milliseconds(ahead_s - 0.3), NOW)
    assert time.offset_s == ahead_s


def test_a_tick_of_last_friday_shows_nothing() -> None:
    time = ServerTime()
    assert not time.observe(milliseconds(-40 * 3600), NOW)
    assert time.offset_s is None


def test_a_tick_far_from_a_half_hour_is_believed_once_it_moves() -> None:
    time = ServerTime()
    assert not time.observe(milliseconds(7200 - 400), NOW)
    assert time.observe(milliseconds(7200 - 400, NOW + timedelta(seconds=1)), NOW + timedelta(seconds=1))
    assert time.offset_s == 6800  # its quotes are fresh, whatever its clock shows


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [(7200, 10800, [True, False, False]), (10800, 7200, [False, True, False])],
    ids=["summer begins", "summer ends"],
)
def test_summer_time_is_believed_at_once_and_its_end_from_the_second_fresh_tick_on(
    before: int, after: int, changed: list[bool]
) -> None:
    time = ServerTime(before)
    time.observe(milliseconds(before, NOW - timedelta(seconds=1)), NOW - timedelta(seconds=1))
    ticks = (NOW + timedelta(seconds=n) for n in range(3))
    assert [time.observe(milliseconds(after, at), at) for at in ticks] == changed
    assert time.offset_s == after


@pytest.mark.parametrize("change_s", [-86400, -7200, -3600, -1800, -1000, -90, 90, 1000, 5400, 30000, 200000])
@pytest.mark.parametrize("every_s", [0.25, 1.0, 20.0])
def test_a_servers_clock_may_change_by_anything_and_is_followed_within_a_few_ticks(
    change_s: int, every_s: float
) -> None:
    time = ServerTime(7200)
    looks = [NOW + timedelta(seconds=every_s * n) for n in range(7)]
    for at in looks[:4]:
        assert not time.observe(milliseconds(7200 - 0.1, at), at)
    changed = [time.observe(milliseconds(7200 + change_s - 0.1, at), at) for at in looks[4:]]
    assert any(changed)
    assert time.offset_s == pytest.approx(7200 + change_s, abs=1)
    assert abs((time.newest - looks[-1]).total_seconds()) < 2  # no tick of the time before the change


def test_one_wrong_tick_among_good_ones_changes_nothing() -> None:
    time = ServerTime(7200)
    for n, ahead_s in enumerate([7200, 3600, 7200, 3000, 7200, 7200]):
        at = NOW + timedelta(seconds=n)
        assert not time.observe(milliseconds(ahead_s, at), at)


def test_a_tick_that_stands_still_changes_nothing() -> None:
    time = ServerTime(7200)
    still = milliseconds(7200)
    assert not any(time.observe(still, NOW + timedelta(hours=n)) for n in range(5))
    assert time.offset_s == 7200


def test_times_go_there_and_back() -> None:
    time = ServerTime(10800)
    assert time.utc(milliseconds(10800)) == NOW
    assert time.server_s(NOW) == int(NOW.timestamp()) + 10800


@pytest.mark.parametrize("change_s", [-3600, 3600, -1234, 1234])
def test_a_deal_made_just_now_shows_a_clock_that_changed_and_the_last_tick_before_does_not_take_it_back(
    change_s: int,
) -> None:
    time = ServerTime(7200)
    last = milliseconds(7200)
    assert not time.observe(last, NOW)
    assert not time.observe_deal(milliseconds(7200 - 1), NOW)
    assert time.observe_deal(milliseconds(7200 + change_s), NOW)
    assert time.offset_s == 7200 + change_s
    assert not time.observe(last, NOW + timedelta(seconds=1))
    assert time.utc(milliseconds(7200 + change_s)) == NOW


def test_a_deal_shows_no_clock_before_a_tick_has() -> None:
    time = ServerTime()
    assert not time.observe_deal(milliseconds(7200), NOW)
    assert time.offset_s is None
