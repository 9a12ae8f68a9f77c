"""What the broker agent does next with an order, as a pure function of its row (design: submission steps 2 and 4)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

SubmissionState = Literal["held", "claimed", "recorded", "refused"]
"""held → claimed → recorded, or held → refused; rows move only that way, and only an absent one becomes held."""

Step = Literal["claim", "hold", "wait", "refuse", "ask_again", "examine", "settle", "repeat"]
"""claim: put claimed, say SubmitClaimed, submit. hold: put held. wait: nothing. refuse: put refused, say SubmitRefused.
ask_again: put the claim again, say it again, submit again. examine: submit again with the epoch it was recorded under.
settle: the order is over, remember that its row needs no more looking. repeat: say again what the row says."""


def step_at_submit(state: SubmissionState | None, *, ready: bool, now: datetime, not_after: datetime) -> Step:
    """Return the step for a SubmitOrder, the first time or again.

    Args:
        state: The row's, None if there is none.
        ready: Whether the account's terminal answers and its clock agrees with ours: only then anything new is claimed.
        now: The clock's reading.
        not_after: The order's. A claim past it is allowed, the terminal's journal refuses it and that is proof; a held
            order is not claimed any more.
    """
    if state is None:
        return "claim" if ready else "hold"
    if state == "held":
        return "claim" if ready and now < not_after else "hold"
    return "ask_again" if state == "claimed" else "repeat"


def step_at_check(
    state: SubmissionState | None,
    *,
    ready: bool,
    now: datetime,
    not_after: datetime,
    skew_s: float,
    recorded_elsewhere: bool = False,
    final: bool = False,
) -> Step:
    """Return the step for a CheckSubmission.

    Args:
        state: As above.
        ready: As above.
        now: As above.
        not_after: As above.
        skew_s: How far the terminal's clock may be behind ours: until not_after + skew_s it may still be in time.
        recorded_elsewhere: The row was recorded under another epoch than the terminal has now: its journal was lost.
        final: The order has a final status.
    """
    if state == "held":
        if ready and now < not_after:
            return "claim"
        return "refuse" if now > not_after + timedelta(seconds=skew_s) else "wait"
    if state == "claimed":
        return "ask_again"
    if state == "recorded" and recorded_elsewhere:
        return "settle" if final else "examine"
    return "repeat" if state == "refused" else "wait"
