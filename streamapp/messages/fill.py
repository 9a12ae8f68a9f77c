"""fill/1: one deal, on ``broker.fill.{symbol}``; ours, and in from someone else's connector."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from streamapp.domain.vocabulary import (
    BoundedDecimal,
    DealEntry,
    DealReason,
    Frozen,
    Lots,
    Magic,
    Money,
    Side,
    UtcTime,
    WholeNumber,
)
from streamapp.messages.envelope import Message
from streamapp.messages.order import Slippage


class FillMessage(Message):
    """fill/1 as we publish it. ``order_id`` is None for a deal that is no order's of ours.

    Of a deal that closes, wholly or in part, ``opening_…`` are the order and the signal that opened the position, also
    where a stop loss, a take profit, a stop-out or a person closed it; None where no order of ours opened it.
    ``strategy`` is the order's, or else that of the opening. ``magic`` is the deal's, as the broker shows it.
    """

    schema_: Literal["fill/1"] = Field("fill/1", alias="schema")
    fill_id: str
    revision: int = 0
    order_id: str | None
    signal_id: str | None = None
    opening_order_id: str | None = None
    opening_signal_id: str | None = None
    account: str
    strategy: str | None = None
    symbol: str
    side: Side
    entry: DealEntry
    reason: DealReason
    deal: int
    ticket: int
    position_id: int
    magic: Magic = 0
    volume: Lots
    price: Money
    commission: Money = Decimal(0)
    swap: Money = Decimal(0)
    fee: Money = Decimal(0)
    profit: Money = Decimal(0)
    currency: str = ""
    at: UtcTime
    expected_price: Money | None = None
    slippage: Slippage | None = None
    executor: str | None = None
    busted: bool = False


MOST_MONEY = 10**15
"""No market is so large. The sum over all deals of a position still fits what the warehouse keeps (28 digits before the
point), and so no stranger's number can stop the ledger or a sink."""
_Amount = Annotated[BoundedDecimal, Field(ge=-MOST_MONEY, le=MOST_MONEY)]


class ForeignFill(Frozen):
    """What we need of a fill from someone else's connector: order_id, fill_id (or deal), volume and price.

    The rest if it is there; what of ``BESIDE`` can't be used is left out, for the fill counts all the same.
    """

    order_id: str = Field(min_length=1, max_length=128)
    fill_id: str | None = Field(None, min_length=1, max_length=200)
    deal: WholeNumber | None = None
    revision: WholeNumber = 0
    account: str | None = None
    symbol: str | None = None
    side: Side | None = None
    entry: DealEntry = "in"
    reason: DealReason = "expert"
    ticket: WholeNumber | None = None
    position_id: WholeNumber | None = None
    volume: Lots
    price: BoundedDecimal
    commission: _Amount = Decimal(0)
    swap: _Amount = Decimal(0)
    fee: _Amount = Decimal(0)
    profit: _Amount = Decimal(0)
    currency: str = ""
    at: UtcTime | None = None


BESIDE = frozenset({"reason", "ticket", "commission", "swap", "fee", "profit", "currency", "at"})
"""The fields of a foreign fill on which neither the executed volume nor the position depends."""
