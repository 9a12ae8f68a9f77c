"""``execution.require_row``: an approved row in the risk engine's table as a second approval. Fails closed."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from agents.ports import SignalRows
from agents.readings import Reading
from streamapp.clock import Clock
from streamapp.domain.signals import ACCEPTED, Verdict
from streamapp.errors import Transient

LONGEST_WAIT_S = 8.0
"""A lane must not be held longer (agents/lanes.py): a signal that is valid for longer is refused all the same."""
ABSENT_WAIT_S = 2.0
"""How long a row may be behind its message: risk engines write both at once, an insert shows within a second."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0


class RowGate:
    """Asks ClickHouse whether a signal has an approved row.

    Args:
        rows: The table.
        clock: The time.
        needs_approval: Whether the row has to say status approved; otherwise that it is there is enough.
    """

    def __init__(self, rows: SignalRows, clock: Clock, *, needs_approval: bool = True) -> None:
        self._rows = rows
        self._clock = clock
        self._needs_approval = needs_approval

    async def verdict(self, reading: Reading, not_after: datetime) -> Verdict:
        """Return accepted, or refused: ``row_unavailable``, ``no_row`` or ``not_approved``. Waits for 8 s at most."""
        asked_at = self._clock()
        last = min(not_after, asked_at + timedelta(seconds=LONGEST_WAIT_S))
        absent_until = asked_at + timedelta(seconds=ABSENT_WAIT_S)
        pause_s = FIRST_PAUSE_S
        while True:
            verdict, until = await self._look(reading), last
            if verdict == ACCEPTED:
                return verdict
            if verdict.reason != "row_unavailable":
                until = min(last, absent_until)
            if self._clock() + timedelta(seconds=pause_s) >= until:
                return verdict
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _look(self, reading: Reading) -> Verdict:
        try:
            row = await self._rows.signal(reading.signal_id, reading.account)
        except Transient as error:
            return Verdict("refused", "row_unavailable", f"trading_signals could not be read: {error}"[:300])
        if row is None:
            return Verdict(
                "refused", "no_row", "expected an approved row in trading_signals (execution.require_row), got none"
            )
        if self._needs_approval and row.get("status") != "approved":
            got = f"status: expected approved in trading_signals, got {row.get('status')!s:.40}"
            return Verdict("refused", "not_approved", got)
        return ACCEPTED
