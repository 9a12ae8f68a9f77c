"""Whether an account may open: its trading state, which a person, a guard or a fault sets, and a person may lift."""

from __future__ import annotations

from typing import Literal

from streamapp.domain.vocabulary import Frozen, UtcTime, time_text

TradingWord = Literal["trading", "reducing", "halted"]
"""trading: it opens. reducing, halted: it opens nothing; what closes, and what cancels, passes. They differ in what a
person means by them: an account that is reducing is being got out of, one that is halted is to be looked at."""


class TradingState(Frozen):
    """An account's trading state.

    Attributes:
        cause: Why, in words; empty while it trades.
        by: Who: a person, a token's name, ``guard …``, or ``streamapp`` where a rule of ours broke.
        since: When it became so; None for one that has always been trading.
        until: When it ends by itself, None if only a person ends it.
    """

    state: TradingWord = "trading"
    cause: str = ""
    by: str = ""
    since: UtcTime | None = None
    until: UtcTime | None = None

    @property
    def refusal(self) -> str | None:
        """Why the account opens nothing, in a sentence; None if it may."""
        if self.state == "trading":
            return None
        since = "" if self.since is None else f" since {time_text(self.since)}"
        until = "" if self.until is None else f", until {time_text(self.until)}"
        return f"{self.state}{since} by {self.by or 'nobody named'}{until}: {self.cause or 'no reason was given'}"


TRADING = TradingState()
