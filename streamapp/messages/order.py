"""order/1: one revision of an order, on ``orders.{status}.{symbol}``, in the archive and in the web views."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import ExpectedPriceSource, Frozen, Intent, Magic, Money, Status, UtcTime
from streamapp.messages.envelope import Message


class MarketQuote(Frozen):
    """The market at one moment."""

    bid: Money
    ask: Money
    at: UtcTime


class OrderCost(Frozen):
    """A cost against one benchmark; positive is adverse. ``money`` is in the account's currency.

    ``points`` and ``money`` are None from a foreign connector: it shows neither the symbol's point nor a rate.
    """

    points: Money | None = None
    bps: Money
    money: Money | None = None


class Slippage(Frozen):
    """Cost against the expected price and against the touch at sending (ask for a buy, bid for a sell)."""

    expected: OrderCost | None = None
    touch: OrderCost | None = None
    currency: str | None = None


class OrderMessage(OrderParameters, Message):
    """order/1. ``rev`` counts the distinct facts; readers drop a revision that is not newer than the last they saw.

    ``position_id``: the position that it made, or, with an ``intent`` other than open, the one that it closes.
    """

    schema_: Literal["order/1"] = Field("order/1", alias="schema")
    order_id: str
    signal_id: str
    account: str
    strategy: str | None = None
    intent: Intent = "open"
    status: Status
    detail: str
    reason: str | None = None
    rev: int
    filled_volume: Money
    remaining_volume: Money
    average_price: Money | None = None
    expected_price: Money | None = None
    expected_price_source: ExpectedPriceSource | None = None
    quote: MarketQuote | None = None
    slippage: Slippage | None = None
    ticket: int | None = None
    position_id: int | None = None
    magic: Magic
    attempt: int
    executor: str
    not_after: UtcTime
    signal_at: UtcTime
    created_at: UtcTime
    submitted_at: UtcTime | None = None
    updated_at: UtcTime
    causation_id: str | None = None
    facts_digest: str
