"""What the trading worker does by the clock: hello to the terminals, checks of what waits, and the warm-up once."""

from __future__ import annotations

from typing import Any

from mode import Service

from agents.checks import Checks
from agents.outboxes import Outboxes
from agents.reports import Reports
from streamapp.clock import utc_now
from streamapp.errors import Ambiguous, Definite
from streamapp.settings import Settings
from streamapp.wiring.readiness import Readiness
from streamapp.wiring.warmup import warm_up

GAPS_S = 5.0
"""Between two looks for reports that are missing; a gap in the middle shows itself sooner, with the next report."""


class Timers(Service):
    """Ticks every ``broker.check_interval_s`` for as long as the app runs. Any unexpected error ends the worker."""

    def __init__(
        self,
        app: Any,
        checks: Checks,
        reports: Reports,
        outboxes: Outboxes,
        *,
        readiness: Readiness,
        settings: Settings,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._app = app
        self._checks = checks
        self._reports = reports
        self._outboxes = outboxes
        self._readiness = readiness
        self._settings = settings

    async def on_stop(self) -> None:
        """Ask the terminals nothing more."""
        await self._outboxes.close()

    @Service.task
    async def _tick(self) -> None:
        while not self.should_stop:
            try:
                await self._once()
            except (Ambiguous, Definite) as error:
                # Only checks and hellos: what was not sent is due again at the next tick.
                self.log.warning("the checks could not be sent: %s", error)
            await self.sleep(self._settings.broker.check_interval_s)

    @Service.task
    async def _look_for_gaps(self) -> None:
        while not self.should_stop and self._settings.is_executor:
            if self._readiness.recovered:
                self._reports.check()
            await self.sleep(GAPS_S)

    async def _once(self) -> None:
        if not self._readiness.recovered:
            await self._checks.greet()
            return
        if not self._readiness.warmed_up:
            await warm_up(self._app, self._app.sends, self._settings, utc_now)
            self._readiness.warmed_up = True
        await self._checks.tick()
