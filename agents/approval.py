"""``execution.require_row``: an approved row in the risk engine's table as a second approval. Fails closed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, Protocol

from streamapp.clock import Clock
from streamapp.desk.inputs import NewSignal
from streamapp.domain.signals import ACCEPTED, Rules, Verdict, not_after
from streamapp.errors import Transient, Unusable

LONGEST_WAIT_S = 8.0
"""A signal that is valid for longer is refused all the same: whoever sent it should hear of it."""
ABSENT_WAIT_S = 2.0
"""How long a row may be behind its message: risk engines write both at once, an insert shows within a second."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class SignalRows(Protocol):
    """The risk engine's table ``trading_signals``."""

    async def signal(self, signal_id: str, account: str | None = None) -> dict[str, Any] | None:
        """Return the newest row of a signal in our names and words, None if there is none.

        Args:
            signal_id: The id.
            account: Only a row of this account, or of none; None: any.

        Raises:
            Transient: ClickHouse did not answer in time.
        """
        ...


class ApprovalGate:
    """Asks ClickHouse whether a signal has an approved row.

    Args:
        rows: The table.
        clock: The time.
        rules: Until when a signal is valid, and whether the row has to say status approved or only to be there.
    """

    def __init__(self, rows: SignalRows, clock: Clock, rules: Rules) -> None:
        self._rows = rows
        self._clock = clock
        self._rules = rules

    async def approve(self, new: NewSignal) -> Verdict:
        """Return accepted, or refused: ``row_unavailable``, ``no_row`` or ``not_approved``. Waits for 8 s at most."""
        assert new.signal is not None
        valid_until = not_after(new.signal, self._rules, new.incoming.at)
        asked_at = self._clock()
        last = min(valid_until, asked_at + timedelta(seconds=LONGEST_WAIT_S))
        absent_until = asked_at + timedelta(seconds=ABSENT_WAIT_S)
        pause_s = FIRST_PAUSE_S
        while True:
            verdict, until = await self._look_up(new), last
            if verdict == ACCEPTED:
                return verdict
            if verdict.reason != "row_unavailable":
                until = min(last, absent_until)
            if self._is_over(pause_s, until):
                return verdict
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _is_over(self, pause_s: float, until: datetime) -> bool:
        return self._clock() + timedelta(seconds=pause_s) >= until

    async def _look_up(self, new: NewSignal) -> Verdict:
        try:
            row = await self._rows.signal(new.signal_id, new.account)
        except (Transient, Unusable) as error:
            return Verdict("refused", "row_unavailable", f"trading_signals could not be read: {error}"[:300])
        if row is None:
            return Verdict(
                "refused", "no_row", "expected an approved row in trading_signals (execution.require_row), got none"
            )
        if self._rules.needs_approval and row.get("status") != "approved":
            got = f"status: expected approved in trading_signals, got {row.get('status')!s:.40}"
            return Verdict("refused", "not_approved", got)
        return ACCEPTED
