"""What the archive keeps of an account and its positions as the broker showed them; nothing of it goes to NATS.

Both are said at every change of the positions, and once a minute.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import Money, Side, UtcTime
from streamapp.messages.envelope import Message


class AccountHistoryMessage(Message):
    """account_history/1: an account's money, in ``currency``, at one moment.

    ``positions`` counts all that are open, whose ``floating_profit`` and ``floating_swap`` are sums.
    """

    schema_: Literal["account_history/1"] = Field("account_history/1", alias="schema")
    account: str
    balance: Money | None = None
    equity: Money | None = None
    margin: Money | None = None
    margin_free: Money | None = None
    margin_level: Money | None = None
    currency: str | None = None
    positions: int = 0
    floating_profit: Money = Decimal(0)
    floating_swap: Money = Decimal(0)
    at: UtcTime


class PositionHistoryMessage(Message):
    """position_history/1: a position at the broker at one moment; ``side`` None and ``volume`` 0: it is closed by then.

    ``profit`` and ``swap`` float. ``order_id`` is None for a position that is not ours.
    """

    schema_: Literal["position_history/1"] = Field("position_history/1", alias="schema")
    account: str
    position_id: int
    symbol: str
    side: Side | None = None
    volume: Money = Decimal(0)
    open_price: Money | None = None
    stop_loss: Money | None = None
    take_profit: Money | None = None
    profit: Money = Decimal(0)
    swap: Money = Decimal(0)
    order_id: str | None = None
    at: UtcTime
