"""Whether the trading worker is ready to trade, and if not, why (design: architecture "The local stack")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from agents.broker import Broker
from agents.desk import Desk
from streamapp.settings import Settings
from streamapp.wiring.messaging import Messaging


class Readiness:
    """Collects the reasons not to be ready; empty means ready.

    Attributes:
        warmed_up: Set by whoever warmed the path up.
    """

    def __init__(
        self,
        app: Any,
        settings: Settings,
        *,
        desk: Desk,
        messaging: Messaging,
        broker: Broker,
        troubles: Callable[[], Iterable[str]],
    ) -> None:
        self._app = app
        self._settings = settings
        self._desk = desk
        self._messaging = messaging
        self._broker = broker
        self._troubles = troubles
        self.warmed_up = False

    @property
    def reasons(self) -> list[str]:
        """Return what is missing, in sentences."""
        return list(dict.fromkeys(self._reasons()))

    def _reasons(self) -> Iterator[str]:
        yield from self._of_the_worker()
        yield from self._of_accounts()

    def _of_the_worker(self) -> Iterator[str]:
        if self._app.rebalancing or not self._desk.recovered.is_set():
            yield "partitions are being assigned, or their rows recovered"
        elif not self._desk.ready.is_set():
            yield "what was not said before the last end is being said again"
        yield from self._messaging.reasons
        yield from self._troubles()
        if not self.warmed_up:
            yield "the path of an order is being warmed up"

    def _of_accounts(self) -> Iterator[str]:
        if self._settings.is_executor:
            for account in self._settings.accounts:
                if (fault := self._broker.link(account).fault) is not None:
                    yield f"account {account}: {fault}"
                elif self._desk.is_unreconciled(account):
                    yield f"account {account}: nothing is opened before its books were compared with the broker's"

    def health(self) -> tuple[int, dict[str, Any]]:
        """Return the status code and body of ``/health``."""
        reasons = self.reasons
        if not reasons:
            return 200, {"status": "ok", "reasons": []}
        return 503, {"status": "not_ready" if self.warmed_up else "starting", "reasons": reasons}

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Return the status code and body of ``/readyz``: this worker alone, whatever accounts' terminals do.

        A terminal that is away is no reason to take a worker out or to stop an update: the worker holds its orders.
        Whoever asks needs no token, so it gives no reasons: those are in ``/health``.
        """
        is_ready = not any(self._of_the_worker())
        body = {"status": "ok" if is_ready else "not_ready", "accounts_not_ready": len(list(self._of_accounts()))}
        return (200 if is_ready else 503), body
