"""error/1: something went wrong with an order, on ``broker.error.{symbol}``; ours, or from a connector of others."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import Frozen, UtcTime
from streamapp.messages.envelope import Message

ErrorKind = Literal[
    "rejected",
    "invalid",
    "not_connected",
    "timeout",
    "in_doubt",
    "absent",
    "duplicate",
    "disconnected",
    "cancelled",
    "expired",
    "unprotected",
]
"""``unprotected``: the order is filled, and its position lacks a stop loss or take profit that it should have.
``cancelled`` and ``expired`` are said by a connector only: they end what is left of an order, and whoever gets its
answers from us alone has no ``orders.cancelled`` to see it by."""
ENDING: frozenset[ErrorKind] = frozenset({"rejected", "invalid", "not_connected", "absent", "cancelled", "expired"})
"""The kinds by which an order can be over."""


class ErrorMessage(Message):
    """error/1 as we publish it. ``final``: the order is over."""

    schema_: Literal["error/1"] = Field("error/1", alias="schema")
    error_id: str
    order_id: str | None
    account: str
    symbol: str
    kind: ErrorKind
    retcode: int | None = None
    retcode_name: str | None = None
    message: str = ""
    attempt: int | None = None
    final: bool
    at: UtcTime
    executor: str | None = None


class ForeignError(Frozen):
    """What we need of an error from someone else's connector.

    Only final and rejected, invalid, not_connected, cancelled or expired ends an order; what was filled before stays.
    """

    order_id: str = Field(min_length=1, max_length=128)
    error_id: str | None = None
    account: str | None = None
    symbol: str | None = None
    kind: ErrorKind
    retcode: int | None = None
    retcode_name: str | None = None
    message: str = Field("", max_length=2000)
    attempt: int = 1
    final: bool = False
    at: UtcTime | None = None
