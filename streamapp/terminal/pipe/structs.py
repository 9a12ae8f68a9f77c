"""Structs of MetaTrader 5's module as they cross the pipe: the fields that somebody reads, by the module's names."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from pydantic import ConfigDict
from typing_extensions import TypedDict


class Model:
    """Whatever crosses: frozen dataclasses, compared with their annotations when they are read from a frame.

    Both processes make some for every order, and a :class:`~pydantic.BaseModel` takes twice as long.
    """

    __slots__ = ()
    # What the module shows is not ours to judge here: a NaN crosses as it is.
    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")


def number(value: float) -> Decimal:
    """Return the decimal that a float of the module stands for: its noise begins behind the tenth digit."""
    return Decimal(repr(round(float(value), 10)))


@dataclass(frozen=True, slots=True)
class TerminalInfo(Model):
    """The terminal program: its connection and its permissions."""

    connected: bool
    trade_allowed: bool
    tradeapi_disabled: bool
    path: str


@dataclass(frozen=True, slots=True)
class AccountInfo(Model):
    """The account that the terminal is logged in to."""

    login: int
    server: str
    trade_allowed: bool
    trade_expert: bool
    currency: str
    margin_mode: int
    leverage: int
    balance: float
    credit: float
    profit: float
    equity: float
    margin: float
    margin_free: float
    margin_level: float
    margin_so_call: float
    margin_so_so: float
    limit_orders: int
    trade_mode: int
    name: str
    company: str


@dataclass(frozen=True, slots=True)
class SymbolInfo(Model):
    """What an order is judged by; the other 80 fields would only be carried through the pipe."""

    trade_mode: int
    order_mode: int
    filling_mode: int
    trade_exemode: int
    trade_stops_level: int
    trade_freeze_level: int
    trade_contract_size: float
    trade_tick_size: float
    point: float
    volume_min: float
    volume_max: float
    volume_step: float
    volume_limit: float
    expiration_mode: int
    order_gtc_mode: int


@dataclass(frozen=True, slots=True)
class SymbolDetails(SymbolInfo):
    """The same with what a person asks for."""

    name: str
    description: str
    path: str
    digits: int
    spread: int
    spread_float: bool
    select: bool
    currency_base: str
    currency_profit: str
    currency_margin: str
    margin_initial: float
    trade_tick_value: float
    swap_long: float
    swap_short: float
    bid: float
    ask: float


@dataclass(frozen=True, slots=True)
class Tick(Model):
    """A symbol's last quote, by the server's clock."""

    bid: float
    ask: float
    last: float
    volume_real: float
    time: int
    time_msc: int


@dataclass(frozen=True, slots=True)
class TradePosition(Model):
    """An open position."""

    ticket: int
    identifier: int
    symbol: str
    type: int
    magic: int
    reason: int
    comment: str
    volume: float
    price_open: float
    price_current: float
    sl: float
    tp: float
    profit: float
    swap: float
    time: int
    time_msc: int
    time_update_msc: int


@dataclass(frozen=True, slots=True)
class TradeOrder(Model):
    """An order, working or in history."""

    ticket: int
    symbol: str
    state: int
    type: int
    type_filling: int
    type_time: int
    time_expiration: int
    time_setup_msc: int
    reason: int
    magic: int
    comment: str
    position_id: int
    volume_initial: float
    volume_current: float
    price_open: float
    price_stoplimit: float
    sl: float
    tp: float


@dataclass(frozen=True, slots=True)
class TradeDeal(Model):
    """A deal."""

    ticket: int
    order: int
    position_id: int
    symbol: str
    type: int
    entry: int
    reason: int
    magic: int
    comment: str
    volume: float
    price: float
    commission: float
    swap: float
    fee: float
    profit: float
    time_msc: int


class TradeRequest(TypedDict, total=False):
    """A request of ``order_check`` and ``order_send``: the keys that they know, each with its type (mt5 §1.4)."""

    action: int
    magic: int
    order: int
    symbol: str
    volume: float
    price: float
    stoplimit: float
    sl: float
    tp: float
    deviation: int
    type: int
    type_filling: int
    type_time: int
    expiration: int
    comment: str
    position: int
    position_by: int
