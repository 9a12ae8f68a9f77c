"""What a report is made of: the orders, fills, refusals and profits of a period, as ClickHouse has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple

from streamapp.domain.facts import SubmitStarted
from streamapp.domain.vocabulary import Frozen, Money
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderMessage


class Profit(Frozen):
    """What a strategy ("": none) has made of a symbol: a row of ``pnl_by_strategy``, over some days."""

    account: str
    strategy: str
    symbol: str
    currency: str
    realized_profit: Money
    profit: Money
    commission: Money
    swap: Money
    fee: Money
    fills: int
    volume: Money
    wins: int
    losses: int


class Refusals(Frozen):
    """How many signals were refused, or in conflict, for one reason."""

    reason: str
    count: int


class OrderRecord(NamedTuple):
    """An order, its deals that stand, and the market at its last sending; None where none of ours was shown."""

    order: OrderMessage
    fills: tuple[FillMessage, ...] = ()
    market: SubmitStarted | None = None


class LastPrice(NamedTuple):
    """The last price of an account's symbol that a period shows: of a deal, or the mid at a sending."""

    price: Decimal
    at: datetime


@dataclass(frozen=True)
class Records:
    """All that a period shows. Days are UTC; ``last`` is in it. ``deals``: the last deal of each (account, symbol)."""

    first: date
    last: date
    account: str | None = None
    strategy: str | None = None
    profits: tuple[Profit, ...] = ()
    orders: tuple[OrderRecord, ...] = ()
    refusals: tuple[Refusals, ...] = ()
    deals: Mapping[tuple[str, str], LastPrice] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened."""
        return not (self.profits or self.orders or self.refusals)
