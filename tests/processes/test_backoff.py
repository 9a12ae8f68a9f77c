from __future__ import annotations

from itertools import pairwise

from streamapp.processes.backoff import Backoff


def test_waits_double_up_to_the_longest_one() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.failures == 5


def test_what_fails_for_months_goes_on_being_tried() -> None:
    backoff = Backoff(0.5, 15.0)
    assert {backoff.next_s() for _ in range(5000)} == {0.5, 1.0, 2.0, 4.0, 8.0, 15.0}


def test_a_failure_after_a_healthy_life_is_a_new_story() -> None:
    backoff = Backoff(0.5, 15.0, healthy_after_s=60.0)
    assert [backoff.next_s(ran_s) for ran_s in (1.0, 1.0, 61.0, 1.0)] == [0.5, 1.0, 0.5, 1.0]
    assert backoff.failures == 2


def test_a_success_is_a_new_story() -> None:
    backoff = Backoff(0.5, 15.0)
    backoff.next_s()
    backoff.reset()
    assert (backoff.next_s(), backoff.failures) == (0.5, 1)


def test_jitter_only_shortens_a_wait() -> None:
    waits = [Backoff(8.0, 8.0, jitter=0.5).next_s() for _ in range(100)]
    assert all(4.0 <= wait_s <= 8.0 for wait_s in waits)
    assert any(one != other for one, other in pairwise(waits))
