"""MetaTrader 5's numbers in our words, and the numbers that its package has no names for.

A broker's build may send a number that is in no table: whoever looks one up chooses what to make of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from streamapp.mt5 import constants as mt5

if TYPE_CHECKING:  # the process that holds the module imports this, and stays small
    from streamapp.domain.vocabulary import AccountOperationType, DealEntry, DealReason, FillPolicy, OrderType, Side

# -- numbers without a name in the package; the names are those of MQL5

# Bits of symbol_info().filling_mode: another number space than ORDER_FILLING_*.
SYMBOL_FILLING_FOK, SYMBOL_FILLING_IOC, SYMBOL_FILLING_BOC = 1, 2, 4
# Bits of symbol_info().order_mode. Those of symbol_info().expiration_mode are 1 << ORDER_TIME_*.
SYMBOL_ORDER_MARKET, SYMBOL_ORDER_LIMIT, SYMBOL_ORDER_STOP, SYMBOL_ORDER_STOP_LIMIT = 1, 2, 4, 8
SYMBOL_ORDER_SL, SYMBOL_ORDER_TP, SYMBOL_ORDER_CLOSEBY = 16, 32, 64

# -- orders

SIDES: tuple[Literal["buy"], Literal["sell"]] = ("buy", "sell")
"""By the lowest bit of the type of an order, of a deal that trades, or of a position."""
MARKET_ORDERS = (mt5.ORDER_TYPE_BUY, mt5.ORDER_TYPE_SELL)
ORDER_TYPES: dict[int, tuple[OrderType, Side]] = {
    mt5.ORDER_TYPE_BUY: ("market", "buy"),
    mt5.ORDER_TYPE_SELL: ("market", "sell"),
    mt5.ORDER_TYPE_BUY_LIMIT: ("limit", "buy"),
    mt5.ORDER_TYPE_SELL_LIMIT: ("limit", "sell"),
    mt5.ORDER_TYPE_BUY_STOP: ("stop", "buy"),
    mt5.ORDER_TYPE_SELL_STOP: ("stop", "sell"),
    mt5.ORDER_TYPE_BUY_STOP_LIMIT: ("stop_limit", "buy"),
    mt5.ORDER_TYPE_SELL_STOP_LIMIT: ("stop_limit", "sell"),
}
"""The types that have a side; a close-by has none."""
ORDER_TYPE_NUMBERS = {words: number for number, words in ORDER_TYPES.items()}
ORDER_MODES: dict[OrderType, int] = {
    "market": SYMBOL_ORDER_MARKET,
    "limit": SYMBOL_ORDER_LIMIT,
    "stop": SYMBOL_ORDER_STOP,
    "stop_limit": SYMBOL_ORDER_STOP_LIMIT,
}
WORKING_STATES = {
    mt5.ORDER_STATE_STARTED: "started",
    mt5.ORDER_STATE_PLACED: "placed",
    mt5.ORDER_STATE_PARTIAL: "partial",
    mt5.ORDER_STATE_REQUEST_ADD: "being_placed",
    mt5.ORDER_STATE_REQUEST_MODIFY: "being_modified",
    mt5.ORDER_STATE_REQUEST_CANCEL: "being_cancelled",
}
ENDED_STATES = {
    mt5.ORDER_STATE_CANCELED: "cancelled",
    mt5.ORDER_STATE_PARTIAL: "filled in part",
    mt5.ORDER_STATE_FILLED: "filled",
    mt5.ORDER_STATE_REJECTED: "rejected",
    mt5.ORDER_STATE_EXPIRED: "expired",
}
"""Of an order in history that is over, for a person. Whatever else history shows of an order, it has not ended."""
FILL_POLICIES: dict[int, FillPolicy] = {
    mt5.ORDER_FILLING_FOK: "fok",
    mt5.ORDER_FILLING_IOC: "ioc",
    mt5.ORDER_FILLING_RETURN: "return",
}
LIFETIMES = {
    mt5.ORDER_TIME_GTC: "gtc",
    mt5.ORDER_TIME_DAY: "day",
    mt5.ORDER_TIME_SPECIFIED: "until",
    mt5.ORDER_TIME_SPECIFIED_DAY: "until_day",
}
LIFETIME_NUMBERS = {word: number for number, word in LIFETIMES.items()}

# -- deals

TRADES = (mt5.DEAL_TYPE_BUY, mt5.DEAL_TYPE_SELL)
"""The deals that trade; the others (balance, credit, ...) do not, and have no side."""
BUSTED_TRADES = (mt5.DEAL_TYPE_BUY_CANCELED, mt5.DEAL_TYPE_SELL_CANCELED)
"""What they become when the broker busts them."""
ACCOUNT_OPERATIONS: dict[int, AccountOperationType] = {
    mt5.DEAL_TYPE_BALANCE: "balance",
    mt5.DEAL_TYPE_CREDIT: "credit",
    mt5.DEAL_TYPE_CHARGE: "charge",
    mt5.DEAL_TYPE_CORRECTION: "correction",
    mt5.DEAL_TYPE_BONUS: "bonus",
    mt5.DEAL_TYPE_COMMISSION: "commission",
    mt5.DEAL_TYPE_COMMISSION_DAILY: "commission_daily",
    mt5.DEAL_TYPE_COMMISSION_MONTHLY: "commission_monthly",
    mt5.DEAL_TYPE_COMMISSION_AGENT_DAILY: "commission_agent_daily",
    mt5.DEAL_TYPE_COMMISSION_AGENT_MONTHLY: "commission_agent_monthly",
    mt5.DEAL_TYPE_INTEREST: "interest",
    mt5.DEAL_DIVIDEND: "dividend",
    mt5.DEAL_DIVIDEND_FRANKED: "dividend_franked",
    mt5.DEAL_TAX: "tax",
}
"""The deals that book money without a trade."""
ACCOUNT_OPERATION_NUMBERS = {word: number for number, word in ACCOUNT_OPERATIONS.items()}
ENTRIES: dict[int, DealEntry] = {
    mt5.DEAL_ENTRY_IN: "in",
    mt5.DEAL_ENTRY_OUT: "out",
    mt5.DEAL_ENTRY_INOUT: "inout",
    mt5.DEAL_ENTRY_OUT_BY: "out_by",
}
REASONS: dict[int, DealReason] = {
    mt5.DEAL_REASON_CLIENT: "client",
    mt5.DEAL_REASON_MOBILE: "mobile",
    mt5.DEAL_REASON_WEB: "web",
    mt5.DEAL_REASON_EXPERT: "expert",
    mt5.DEAL_REASON_SL: "sl",
    mt5.DEAL_REASON_TP: "tp",
    mt5.DEAL_REASON_SO: "so",
    mt5.DEAL_REASON_ROLLOVER: "rollover",
    mt5.DEAL_REASON_VMARGIN: "vmargin",
    mt5.DEAL_REASON_SPLIT: "split",
}
"""Of deals; the reasons of orders and positions have the same numbers."""

# -- accounts and symbols

MARGIN_MODES = {
    mt5.ACCOUNT_MARGIN_MODE_RETAIL_NETTING: "netting",
    mt5.ACCOUNT_MARGIN_MODE_EXCHANGE: "exchange",
    mt5.ACCOUNT_MARGIN_MODE_RETAIL_HEDGING: "hedging",
}
ACCOUNT_KINDS = {
    mt5.ACCOUNT_TRADE_MODE_DEMO: "demo",
    mt5.ACCOUNT_TRADE_MODE_CONTEST: "contest",
    mt5.ACCOUNT_TRADE_MODE_REAL: "real",
}
TRADE_MODES = {
    mt5.SYMBOL_TRADE_MODE_DISABLED: "disabled",
    mt5.SYMBOL_TRADE_MODE_LONGONLY: "long_only",
    mt5.SYMBOL_TRADE_MODE_SHORTONLY: "short_only",
    mt5.SYMBOL_TRADE_MODE_CLOSEONLY: "close_only",
    mt5.SYMBOL_TRADE_MODE_FULL: "full",
}
EXECUTIONS = {
    mt5.SYMBOL_TRADE_EXECUTION_REQUEST: "request",
    mt5.SYMBOL_TRADE_EXECUTION_INSTANT: "instant",
    mt5.SYMBOL_TRADE_EXECUTION_MARKET: "market",
    mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE: "exchange",
}
