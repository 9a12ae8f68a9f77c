"""Rows ``a/``: how far an account's reports are durable with us, what it looked like last, and its outbox.

The outbox, the commits that are not known to be in the archive and on NATS yet, stands behind the account's own fields
as the very bytes that they are said in: a commit is never written anew, whoever says it again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import datetime
from typing import Self

from pydantic import Field

from streamapp.domain.day import TradingDay
from streamapp.domain.limits import NO_OVERRIDES, LimitOverrides
from streamapp.domain.trading import TRADING, TradingState
from streamapp.domain.vocabulary import Frozen, UtcTime, time_text
from streamapp.messages.account import AccountMessage
from tables.row import Row

ACCOUNT = b"a/"
_LENGTH = struct.Struct(">I")


class RebuildNote(Row):
    """When a row was made of the archive (design: rebuild), and the journal that had the account's orders before.

    ``epoch`` is empty where the archive names none.
    """

    at: UtcTime
    epoch: str = ""

    def is_after(self, at: datetime) -> bool:
        """Return whether something that came ``at`` may have been handled by the store that was lost."""
        return at <= self.at


class StandingAlarm(Frozen):
    """An alarm that nobody has acknowledged; ``count``: how often it has rung since ``first_at``.

    ``text`` and ``order_id`` are of the last time, ``at``.
    """

    name: str
    text: str
    order_id: str | None = None
    count: int = Field(1, ge=1)
    first_at: UtcTime
    at: UtcTime

    @property
    def alarm_id(self) -> str:
        """Names it as it stands among its account's: when it rings again, it has another id."""
        return f"{self.name}:{time_text(self.at)}"


class AccountRow(Row):
    """An account.

    ``number`` is that of its last commit. Every report of ``epoch`` up to ``watermark`` is in the rows; ``earlier``
    journals are over. ``state`` is the account as its terminal saw it at ``state_at``, kept once a minute. ``goals``
    are the signal_ids of its exits that are not done (``tables/signals.py`` has them), ``commands`` the request_ids of
    its commands that are not over (``tables/commands.py``). ``lifted``: what orders showed, by order_id, that a person
    has resumed the account after: more of it halts the account again. ``breaks`` are the places where its books and
    the broker's differ (``tables/breaks.py``). ``day`` is the trading day that it is in, with what it has opened and
    made since its midnight; ``limits`` is what persons have set in place of the settings'. ``alarms`` are those that
    stand, the one that rang last at the end. ``rebuilt``: the row was made of the archive.
    """

    account: str
    number: int = Field(0, ge=0)
    epoch: str = ""
    watermark: int = Field(0, ge=0)
    earlier: tuple[str, ...] = ()
    state: AccountMessage | None = None
    state_at: UtcTime | None = None
    trading: TradingState = TRADING
    lifted: dict[str, str] = Field(default_factory=dict)
    goals: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    day: TradingDay | None = None
    limits: LimitOverrides = NO_OVERRIDES
    breaks: tuple[str, ...] = ()
    alarms: tuple[StandingAlarm, ...] = ()
    rebuilt: RebuildNote | None = None

    def encode(self) -> bytes:
        """Return the row with an empty outbox."""
        return self.with_outbox(())

    def with_outbox(self, commits: Iterable[bytes]) -> bytes:
        """Return the row as it is stored, with the commits that are not known to be said, oldest first."""
        parts = (super().encode(), *commits)
        return b"".join(_LENGTH.pack(len(part)) + part for part in parts)

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Return the row in ``value`` without its outbox (:func:`outbox_of`)."""
        (length,) = _LENGTH.unpack_from(value)
        return super().decode(value[_LENGTH.size : _LENGTH.size + length])


def outbox_of(value: bytes) -> list[bytes]:
    """Return the unsaid commits in an account's stored row, oldest first."""
    parts, at = [], 0
    while at < len(value):
        (length,) = _LENGTH.unpack_from(value, at)
        at += _LENGTH.size
        parts.append(value[at : at + length])
        at += length
    return parts[1:]


def account_key(account: str) -> bytes:
    """Return the row's key."""
    return ACCOUNT + account.encode()
