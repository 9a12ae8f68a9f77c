"""Rows ``d/``: where our books and the broker's differ, or did last; one row a place."""

from __future__ import annotations

from datetime import datetime

from streamapp import subjects
from streamapp.domain.vocabulary import UtcTime, time_text
from streamapp.messages.breaks import BreakMessage
from tables.row import Row

BREAK = b"d/"


class BreakRow(Row):
    """The last break of a place, as it was published last. ``stands``: the books still differ there, settled or not."""

    message: BreakMessage
    stands: bool = True

    @property
    def over_since(self) -> datetime | None:
        """When it was told of last, None while the books differ."""
        return None if self.stands else self.message.at


def break_key(account: str, place: str) -> bytes:
    """Return the row's key; an account's token has no ``/``, so that no name can be taken for part of a place."""
    return BREAK + f"{subjects.token(account)}/{place}".encode()


def break_id_of(account: str, place: str, first_seen: UtcTime) -> str:
    """Return a break's id, the same for the same finding."""
    return f"{account}:{place}:{time_text(first_seen)}"


def place_of(account: str, break_id: str) -> str | None:
    """Return the place that an id of one of the account's breaks names; None for any other text."""
    named = break_id.removeprefix(f"{account}:")
    parts = named.split(":", 2)
    return ":".join(parts[:2]) if named != break_id and len(parts) == 3 else None
