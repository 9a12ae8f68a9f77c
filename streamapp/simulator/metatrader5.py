"""The module: a stand-in for ``import MetaTrader5 as mt5`` that talks to a simulated market.

Functions, constants, struct types, argument rules, results and `last_error` are those of MetaTrader5 5.0.6231. Like
the original it is one connection a process, not for threads, and a call blocks for as long as the other side takes,
with the GIL held. The market is found at the address in STREAMAPP_SIMULATOR_ADDRESS, by default 127.0.0.1:6080.
"""

from streamapp.mt5.constants import *  # noqa: F403
from streamapp.simulator.functions import at_market as _at_market
from streamapp.simulator.functions import calls as _calls
from streamapp.simulator.functions import connection as _connection
from streamapp.simulator.functions import prices as _prices
from streamapp.simulator.functions import symbols as _symbols
from streamapp.simulator.functions import tables as _tables
from streamapp.simulator.functions import trading as _trading
from streamapp.simulator.structs import STRUCTS as _STRUCTS

__version__ = "5.0.6231"
__author__ = "streamapp (simulated)"

last_error = _calls.last_error

initialize = _connection.initialize
login = _connection.login
shutdown = _connection.shutdown
version = _connection.version
terminal_info = _connection.terminal_info
account_info = _connection.account_info

symbols_total = _symbols.symbols_total
symbols_get = _symbols.symbols_get
symbol_info = _symbols.symbol_info
symbol_info_tick = _symbols.symbol_info_tick
symbol_select = _symbols.symbol_select
market_book_add = _symbols.market_book_add
market_book_get = _symbols.market_book_get
market_book_release = _symbols.market_book_release

copy_rates_from = _prices.copy_rates_from
copy_rates_from_pos = _prices.copy_rates_from_pos
copy_rates_range = _prices.copy_rates_range
copy_ticks_from = _prices.copy_ticks_from
copy_ticks_range = _prices.copy_ticks_range

orders_total = _tables.orders_total
orders_get = _tables.orders_get
positions_total = _tables.positions_total
positions_get = _tables.positions_get
history_orders_total = _tables.history_orders_total
history_orders_get = _tables.history_orders_get
history_deals_total = _tables.history_deals_total
history_deals_get = _tables.history_deals_get

order_calc_margin = _trading.order_calc_margin
order_calc_profit = _trading.order_calc_profit
order_check = _trading.order_check
order_send = _trading.order_send

Buy = _at_market.Buy
Sell = _at_market.Sell
Close = _at_market.Close

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
