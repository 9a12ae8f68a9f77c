"""The module: a stand-in for ``import MetaTrader5 as mt5`` that talks to a simulated market.

Functions, constants, struct types, argument rules, results and ``last_error`` are those of MetaTrader5 5.0.6231. Like
the original it is one connection a process, not for threads, and a call blocks for as long as the other side takes,
with the GIL held. The market is found at the address in STREAMAPP_SIMULATOR_ADDRESS, by default 127.0.0.1:6080.
"""

from __future__ import annotations

from streamapp.mt5.constants import *  # noqa: F403
from streamapp.simulator.module import calls as _calls
from streamapp.simulator.module import reads as _reads
from streamapp.simulator.module import trades as _trades
from streamapp.simulator.module.structs import STRUCTS as _STRUCTS

__version__ = "5.0.6231"
__author__ = "streamapp (simulated)"

last_error = _calls.last_error

initialize = _calls.initialize
login = _calls.login
shutdown = _calls.shutdown
version = _calls.version
terminal_info = _calls.terminal_info
account_info = _calls.account_info

symbols_total = _reads.symbols_total
symbols_get = _reads.symbols_get
symbol_info = _reads.symbol_info
symbol_info_tick = _reads.symbol_info_tick
symbol_select = _reads.symbol_select
market_book_add = _reads.market_book_add
market_book_get = _reads.market_book_get
market_book_release = _reads.market_book_release

copy_rates_from = _reads.copy_rates_from
copy_rates_from_pos = _reads.copy_rates_from_pos
copy_rates_range = _reads.copy_rates_range
copy_ticks_from = _reads.copy_ticks_from
copy_ticks_range = _reads.copy_ticks_range

orders_total = _reads.orders_total
orders_get = _reads.orders_get
positions_total = _reads.positions_total
positions_get = _reads.positions_get
history_orders_total = _reads.history_orders_total
history_orders_get = _reads.history_orders_get
history_deals_total = _reads.history_deals_total
history_deals_get = _reads.history_deals_get

order_calc_margin = _trades.order_calc_margin
order_calc_profit = _trades.order_calc_profit
order_check = _trades.order_check
order_send = _trades.order_send

Buy = _trades.Buy
Sell = _trades.Sell
Close = _trades.Close
_RawOrder = _trades._RawOrder  # noqa: SLF001  # the package exposes it under this name

TradePosition = _STRUCTS["TradePosition"]
TradeOrder = _STRUCTS["TradeOrder"]
TradeDeal = _STRUCTS["TradeDeal"]
TradeRequest = _STRUCTS["TradeRequest"]
SymbolInfo = _STRUCTS["SymbolInfo"]
OrderCheckResult = _STRUCTS["OrderCheckResult"]
OrderSendResult = _STRUCTS["OrderSendResult"]
Tick = _STRUCTS["Tick"]
TerminalInfo = _STRUCTS["TerminalInfo"]
AccountInfo = _STRUCTS["AccountInfo"]
BookInfo = _STRUCTS["BookInfo"]
