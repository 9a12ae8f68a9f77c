"""When rows leave the journal (journal/pruning.py says which): in moments in which nobody waits, some at a time."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta
from functools import partial

from streamapp import crashpoints
from streamapp.clock import Clock
from streamapp.settings import RetentionSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.orders import Execution
from streamapp.terminal.account.synchronisation import watermark
from streamapp.terminal.account.worker_client import NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.journal.pruning import Due, PrunePlace, Shown, prune
from streamapp.terminal.pipe.calls import Look

logger = logging.getLogger(__name__)

PAUSE_S = 0.25
"""Between two steps of some milliseconds: 100 rows a second at most."""
HELD_S = 5.0
"""Before the same step again, where something is unfinished or not acknowledged: nothing may leave meanwhile."""
REST_S = 3600.0
"""Between two walks: a day's rows are some minutes' work, the first walk through a million orders eight hours'."""


class JournalPruner:
    """One account's walks through its journal.

    Guarantees:
        Only what a believed connection shows, and only one connection, is a reason for a walk. No step begins while an
        order waits or is being sent.

    Attributes:
        left: How many rows left in this life.
    """

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        execution: Execution,
        retention: RetentionSettings,
        *,
        clock: Clock,
    ) -> None:
        self._journal = journal
        self._connection = connection
        self._execution = execution
        self._kept_for = timedelta(days=retention.journal_days)
        self._clock = clock
        self.left = 0

    async def run(self) -> None:
        """Walk, for ever."""
        while True:
            await self._connection.readable()
            before = self.left
            try:
                await self._walk()
            except (NotHandedOverError, WorkerLostError) as error:
                logger.info("what is over leaves the journal later: %s", error)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:  # what stays is no reason to stop trading
                logger.exception("what is over stays in the journal for now")
            if self.left > before:
                logger.info("%d rows that are over have left the journal", self.left - before)
            await asyncio.sleep(REST_S)

    async def _walk(self) -> None:
        generation, shown, before = self._connection.generation, await self._shown(), await self._before()
        place: PrunePlace | None = PrunePlace()
        while place is not None:
            await self._execution.idle.wait()
            if self._connection.generation != generation or not self._connection.is_readable:
                raise NotHandedOverError("the connection was made again meanwhile")
            due = Due(before, shown, self._journal.released_seq)
            step = await self._journal.write(partial(prune, place=place, due=due))
            crashpoints.reach("terminal.after_prune")
            self.left += step.left
            await asyncio.sleep(HELD_S if step.place is place else PAUSE_S)
            place = step.place

    async def _shown(self) -> Shown:
        seen = await self._connection.ride(Look(positions=True, orders=True))
        if seen.positions is None or seen.positions.value.rows is None:
            raise NotHandedOverError("the positions are not to be seen")
        if seen.orders is None or seen.orders.value.rows is None:
            raise NotHandedOverError("the orders are not to be seen")
        positions, orders = seen.positions.value.rows, seen.orders.value.rows
        tickets = {number for row in positions for number in (row.ticket, row.identifier)} | {
            number for row in orders for number in (row.ticket, row.position_id)
        }
        magics = [row.magic for row in positions] + [row.magic for row in orders]
        return Shown(frozenset(tickets), frozenset(magics))

    async def _before(self) -> datetime:
        complete = await self._journal.write(watermark)
        return min(self._clock(), self._connection.time.newest_shown, complete) - self._kept_for
