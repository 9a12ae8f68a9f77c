"""Table ``pins``: which account an incomplete signal or order was given, before anything was done with it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from streamapp.domain.vocabulary import UtcTime
from tables.row import Row

NAME = "pins"


class PinRow(Row):
    """An id's account for ever. ``account`` empty: nothing was found until the deadline, and it was refused.

    ``fields`` is what was read for it in ClickHouse, in our names: only what the payload itself did not say.
    """

    kind: str
    id: str
    account: str
    fields: dict[str, Any] = Field(default_factory=dict)
    detail: str = ""
    pinned_at: UtcTime


def pin_key(kind: str, identifier: str) -> bytes:
    """Return the row's key; ``kind`` is the topic it goes to (a signal and an order may have the same id)."""
    return f"{kind}\x00{identifier}".encode()
