"""Table ``signals``: the one decision on each (account, signal_id). Written by execution, as connector by intake."""

from __future__ import annotations

from streamapp.domain.facts import OrderCreated
from streamapp.domain.signals import Recorded, Verdict
from streamapp.domain.vocabulary import UtcTime
from tables.row import Row

NAME = "signals"


class SignalRow(Row):
    """A decision with everything that was said because of it, so that it is said again in the same words.

    The verdict is accepted or refused: duplicates and conflicts follow from this row and are not kept. ``created`` is
    there for an accepted one. ``stream_seq`` is the message that was decided on; the same one again is a redelivery.
    """

    account: str
    signal_id: str
    stream_seq: int
    verdict: Verdict
    fingerprint: str
    parameters_hash: str | None
    symbol: str
    strategy: str | None
    order_id: str | None = None
    created: OrderCreated | None = None
    decided_at: UtcTime

    @property
    def recorded(self) -> Recorded:
        """What the domain needs of it."""
        return Recorded(self.verdict, self.fingerprint, self.order_id)


def signal_key(account: str, signal_id: str) -> bytes:
    """Return the row's key. No account holds a zero byte that a signal_id could be taken for: ids are visible ASCII."""
    return f"{account}\x00{signal_id}".encode()
