from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from streamapp.domain.submission import SubmissionState, step_at_check, step_at_submit

NOT_AFTER = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SKEW_S = 2.0
states: st.SearchStrategy[SubmissionState] = st.sampled_from(["held", "claimed", "recorded", "refused"])
moments = st.floats(-100, 100).map(lambda seconds: NOT_AFTER + timedelta(seconds=seconds))


@given(st.none() | states, st.booleans(), moments)
def test_a_submit_claims_only_with_a_ready_terminal_and_never_a_second_time(
    state: SubmissionState | None, ready: bool, now: datetime
) -> None:
    step = step_at_submit(state, ready=ready, now=now, not_after=NOT_AFTER)
    if step == "claim":
        assert ready
        assert state in {None, "held"}
    if state in {"claimed", "recorded", "refused"}:
        assert step == ("ask_again" if state == "claimed" else "repeat")
    if state is None and not ready:
        assert step == "hold"


@given(st.none() | states, st.booleans(), moments, st.booleans(), st.booleans())
def test_a_check_refuses_only_what_was_never_claimed_and_only_when_its_time_is_surely_over(
    state: SubmissionState | None, ready: bool, now: datetime, elsewhere: bool, final: bool
) -> None:
    step = step_at_check(
        state, ready=ready, now=now, not_after=NOT_AFTER, skew_s=SKEW_S, recorded_elsewhere=elsewhere, final=final
    )
    if step == "refuse":
        assert state == "held"
        assert now > NOT_AFTER + timedelta(seconds=SKEW_S)
    if step == "claim":
        assert (state, ready) == ("held", True)
        assert now < NOT_AFTER
    if state == "claimed":
        assert step == "ask_again"
    if state is None:
        assert step == "wait"
    if step in {"examine", "settle"}:
        assert (state, elsewhere, final) == ("recorded", True, step == "settle")
