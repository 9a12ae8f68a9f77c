"""Rows ``s/``: the one decision on each (account, signal_id); as connector on each (account, order_id)."""

from __future__ import annotations

from datetime import datetime

from streamapp.domain.exits import Goal
from streamapp.domain.signals import Recorded, Verdict
from streamapp.domain.vocabulary import UtcTime
from tables.row import Row


class SignalRow(Row):
    """A decision, accepted or refused: duplicates and conflicts follow from it and are not kept.

    ``stream_seq`` is the message that was decided on: the same one again is a redelivery. ``goal``: an accepted exit
    that is not done yet. ``order_ids`` are an exit's orders, once it is done, and ``order_id`` is then the first.
    """

    stream_seq: int
    verdict: Verdict
    fingerprint: str
    parameters_hash: str | None = None
    order_id: str | None = None
    order_ids: tuple[str, ...] = ()
    decided_at: UtcTime
    goal: Goal | None = None

    @property
    def over_since(self) -> datetime | None:
        """When it was decided, None while it is an exit that is not done."""
        return self.decided_at if self.goal is None else None

    @property
    def recorded(self) -> Recorded:
        """What the domain needs of it."""
        return Recorded(self.verdict, self.fingerprint, self.order_id)


SIGNAL = b"s/"


def signal_key(account: str, signal_id: str) -> bytes:
    """Return the row's key. No account holds a zero byte that a signal_id could be taken for: ids are visible ASCII."""
    return f"s/{account}\x00{signal_id}".encode()
