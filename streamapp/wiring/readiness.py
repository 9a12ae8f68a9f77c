"""Whether the trading worker is ready to trade, and if not, why (design: architecture "The local stack")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agents.breakers import Breakers
from streamapp.settings import Settings
from streamapp.wiring.holdings import Holdings
from streamapp.wiring.messaging import Messaging


class Readiness:
    """Collects the reasons not to be ready; empty means ready.

    Attributes:
        warmed_up: Set by whoever warmed the path up.
    """

    def __init__(
        self, app: Any, settings: Settings, holdings: Holdings, messaging: Messaging, breakers: Breakers
    ) -> None:
        self._app = app
        self._settings = settings
        self._holdings = holdings
        self._messaging = messaging
        self._breakers = breakers
        self.warmed_up = False

    @property
    def recovered(self) -> bool:
        """Whether every row of this worker's partitions may be read and written, and is in its indexes."""
        if self._app.rebalancing:
            return False
        return all(table.recovered.is_set() and table.indexed.is_set() for table in self._holdings.tables)

    @property
    def reasons(self) -> list[str]:
        """Return what is missing, in sentences."""
        return list(self._reasons())

    def _reasons(self) -> Iterator[str]:
        if not self.recovered:
            yield "partitions are being assigned, or their tables recovered"
        yield from self._messaging.reasons
        if self._settings.is_executor:
            for account in self._settings.accounts:
                if (fault := self._breakers.link(account).fault) is not None:
                    yield f"account {account}: {fault}"
        if not self.warmed_up:
            yield "the path of an order is being warmed up"

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status code and body of ``/health``."""
        reasons = self.reasons
        if not reasons:
            return 200, {"status": "ok", "reasons": []}
        return 503, {"status": "not_ready" if self.warmed_up else "starting", "reasons": reasons}
