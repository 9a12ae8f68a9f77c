"""position/1: one position after a deal or a charge to it, on ``positions.{symbol}``."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import Money, Side, UtcTime
from streamapp.messages.envelope import Message


class PositionMessage(Message):
    """position/1.

    ``side`` is None and ``volume`` 0 when it is flat; ``rev`` counts the distinct deals and corrections folded, those
    that only charge it (account_operation/1) included. ``strategy``, ``opening_…`` and ``opened_at`` are of the deal
    that opened what is open, or was open last; the first three are None where no order of ours made it.
    """

    schema_: Literal["position/1"] = Field("position/1", alias="schema")
    account: str
    strategy: str | None = None
    opening_order_id: str | None = None
    opening_signal_id: str | None = None
    symbol: str
    position_id: int
    side: Side | None
    volume: Money
    average_price: Money | None
    realized_profit: Money = Decimal(0)
    currency: str = ""
    rev: int
    opened_at: UtcTime | None = None
    at: UtcTime
