"""What a terminal can be asked to read: request/reply on ``mt5.{account}.account|positions|orders|symbols|quote``.

Every reply has either its content or an ``error``, a sentence that says what to do: what is not known is never shown as
empty. Lists come in pages, so that no reply nears the 1 MB that NATS takes: ask again with ``after = next`` until
``next`` is null.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from streamapp.domain.vocabulary import (
    Connection,
    DealReason,
    FillPolicy,
    Frozen,
    Magic,
    Money,
    OrderType,
    Side,
    UtcTime,
)
from streamapp.messages.envelope import Message

LARGEST_PAGE = 500
"""Rows in one reply: a symbol's is the largest, about 1,000 bytes, and descriptions may be long."""

MarginMode = Literal["netting", "exchange", "hedging"]
PendingType = Literal["market", "limit", "stop", "stop_limit", "close_by"]
WorkingState = Literal["started", "placed", "partial", "being_placed", "being_modified", "being_cancelled", "other"]
TradeMode = Literal["disabled", "long_only", "short_only", "close_only", "full", "other"]
ExecutionMode = Literal["request", "instant", "market", "exchange", "other"]
Lifetime = Literal["gtc", "day", "until", "until_day", "other"]


class ReadRequest(Message):
    """account: nothing need be said. An empty payload is taken as ``{}``."""


class ListRequest(ReadRequest):
    """positions, orders, symbols: all, those of one ``symbol``, or of a ``group`` of names (``*USD*,!EUR*``)."""

    symbol: str | None = Field(None, max_length=64)
    group: str | None = Field(None, max_length=256)
    after: str | None = Field(None, max_length=64)
    limit: int = Field(LARGEST_PAGE, ge=1, le=LARGEST_PAGE)


class QuoteRequest(ReadRequest):
    """quote: of one symbol."""

    symbol: str = Field(min_length=1, max_length=64)


class ReadReply(Message):
    """What every answer carries; ``error`` where there is no content."""

    account: str
    at: UtcTime
    error: str | None = None


class Account(Frozen):
    """An account as the terminal shows it now; money in ``currency``, ``margin_level`` in percent (0 without margin).

    ``trade_allowed``, ``experts_allowed``: the broker lets this login trade, and programs trade. ``terminal_allows``:
    Algo Trading is on in the terminal and its Python API may trade. ``halted``: why nothing new is opened.
    """

    login: int
    server: str
    name: str
    company: str
    currency: str
    leverage: int
    margin_mode: MarginMode
    kind: Literal["demo", "contest", "real", "other"]
    balance: Money
    credit: Money
    profit: Money
    equity: Money
    margin: Money
    margin_free: Money
    margin_level: Money
    margin_call_level: Money
    stop_out_level: Money
    most_orders: int
    trade_allowed: bool
    experts_allowed: bool
    terminal_allows: bool
    connection: Connection
    halted: str | None = None


class AccountReply(ReadReply):
    """account."""

    content: Account | None = None


class OpenPosition(Frozen):
    """One position; ``position_id`` names it for life (the ticket may change). ``order_id``: of ours that opened it."""

    position_id: int
    ticket: int
    order_id: str | None
    symbol: str
    side: Side
    volume: Money
    open_price: Money
    price: Money
    stop_loss: Money | None
    take_profit: Money | None
    profit: Money
    swap: Money
    reason: DealReason
    magic: Magic
    comment: str
    opened_at: UtcTime
    updated_at: UtcTime


class PositionsReply(ReadReply):
    """positions, by ticket."""

    content: tuple[OpenPosition, ...] | None = None
    next: str | None = None


class WorkingOrder(Frozen):
    """One order that works at the broker; ``order_id`` if it is ours; ``price`` of a stop-limit order is its stop."""

    ticket: int
    order_id: str | None
    symbol: str
    side: Side | None
    order_type: PendingType
    state: WorkingState
    volume: Money
    remaining_volume: Money
    price: Money
    stop_limit_price: Money | None
    stop_loss: Money | None
    take_profit: Money | None
    time_in_force: Lifetime
    expiration: UtcTime | None
    fill_policy: FillPolicy | Literal["other"]
    position_id: int | None
    reason: DealReason
    magic: Magic
    comment: str
    placed_at: UtcTime


class OrdersReply(ReadReply):
    """orders, by ticket."""

    content: tuple[WorkingOrder, ...] | None = None
    next: str | None = None


class Symbol(Frozen):
    """What a trader needs to know of a symbol. Prices in the quote, volumes in lots, levels in points.

    ``tick_value``: of one tick of one lot, in the account's currency. ``selected``: it is in Market Watch, and quoted.
    """

    name: str
    description: str
    path: str
    selected: bool
    digits: int
    point: Money
    tick_size: Money
    tick_value: Money
    contract_size: Money
    volume_min: Money
    volume_max: Money
    volume_step: Money
    volume_limit: Money
    stops_level: int
    freeze_level: int
    spread: int
    spread_floats: bool
    trade_mode: TradeMode
    execution: ExecutionMode
    order_types: tuple[OrderType, ...]
    fill_policies: tuple[FillPolicy, ...]
    lifetimes: tuple[Lifetime, ...]
    allows_stop_loss: bool
    allows_take_profit: bool
    allows_close_by: bool
    currency_base: str
    currency_profit: str
    currency_margin: str
    margin_initial: Money
    swap_long: Money
    swap_short: Money
    bid: Money
    ask: Money


class SymbolsReply(ReadReply):
    """symbols, by name."""

    content: tuple[Symbol, ...] | None = None
    next: str | None = None


class Quote(Frozen):
    """The last tick of a symbol, and when the server made it."""

    symbol: str
    bid: Money
    ask: Money
    last: Money
    volume: Money
    spread_points: Money
    time: UtcTime


class QuoteReply(ReadReply):
    """quote."""

    content: Quote | None = None
