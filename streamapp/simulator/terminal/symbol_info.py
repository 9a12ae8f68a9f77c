"""The 96 values of a SymbolInfo: the fixed ones are laid out once, the moving ones put in at each call."""

from __future__ import annotations

import json
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount
from streamapp.simulator.books.books import Books
from streamapp.simulator.prices.feed import Tick
from streamapp.simulator.prices.symbols import SymbolSpec
from streamapp.simulator.wire import FIELDS

_INDEX = {name: index for index, (name, _) in enumerate(FIELDS["SymbolInfo"])}
_EMPTY = {"b": False, "i": 0, "f": 0.0, "s": ""}
_MOVING = ("select", "visible", "time", "spread", "bid", "bidhigh", "bidlow", "ask", "askhigh", "asklow",
           "trade_tick_value", "trade_tick_value_profit", "trade_tick_value_loss")  # fmt: skip
_AT = tuple(_INDEX[name] for name in _MOVING)
TICK_FLAGS = mt5.TICK_FLAG_BID | mt5.TICK_FLAG_ASK


class SymbolInfos:
    """Describes symbols as ``symbol_info`` and ``symbol_info_tick`` do."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._fixed: dict[tuple[str, str], tuple[SymbolSpec, list[Any]]] = {}

    def info(self, account: SimulatedAccount, name: str, selected: bool, frozen: Tick | None = None) -> str:
        """Return the values of a SymbolInfo as a JSON array, at the last quote or that which a cut connection left."""
        symbol = account.symbols[name]
        laid_out = self._fixed.get((account.name, name))
        if laid_out is None or laid_out[0] is not symbol:
            laid_out = self._fixed[account.name, name] = symbol, self._lay_out(symbol)
        values = list(laid_out[1])
        quoted = self._books.feed.quotes[symbol.feed]
        server_ms, bid, ask = frozen or quoted.last()
        convert, currency = self._books.conversion.profit, account.entry.currency
        gain = float(convert(symbol.tick_value, symbol.profit, currency))
        loss = -float(convert(-symbol.tick_value, symbol.profit, currency))
        moving = (
            selected, selected, server_ms // 1000, round((ask - bid) / symbol.point),
            float(bid), float(quoted.high[0]), float(quoted.low[0]), float(ask), float(quoted.high[1]),
            float(quoted.low[1]), gain, gain, loss,
        )  # fmt: skip
        for index, value in zip(_AT, moving, strict=True):
            values[index] = value
        return json.dumps(values)

    def tick(self, symbol: SymbolSpec, frozen: Tick | None = None) -> str:
        """Return the values of a Tick as a JSON array: the last one, or the one that a cut connection left."""
        quoted = self._books.feed.quotes[symbol.feed]
        at, bid, ask = frozen or quoted.last()
        traded = symbol.exemode == mt5.SYMBOL_TRADE_EXECUTION_EXCHANGE
        last = float(bid) if traded else 0.0
        return json.dumps([at // 1000, float(bid), float(ask), last, 0, at, TICK_FLAGS, 0.0])

    def _lay_out(self, symbol: SymbolSpec) -> list[Any]:
        known: dict[str, Any] = {
            "digits": symbol.digits, "spread_float": symbol.spread[0] != symbol.spread[1],
            "trade_calc_mode": symbol.calc, "trade_mode": symbol.trade_mode,
            "trade_stops_level": symbol.stops_level, "trade_freeze_level": symbol.freeze_level,
            "trade_exemode": symbol.exemode, "swap_mode": symbol.swap_mode,
            "swap_rollover3days": symbol.rollover3days, "expiration_mode": symbol.expiration_mode,
            "filling_mode": symbol.filling, "order_mode": symbol.order_mode, "order_gtc_mode": symbol.gtc_mode,
            "point": float(symbol.point), "trade_tick_size": float(symbol.tick_size),
            "trade_contract_size": float(symbol.contract), "volume_min": float(symbol.volume_min),
            "volume_max": float(symbol.volume_max), "volume_step": float(symbol.volume_step),
            "volume_limit": float(symbol.volume_limit), "swap_long": float(symbol.swap_long),
            "swap_short": float(symbol.swap_short), "margin_hedged": float(symbol.margin_hedged),
            "margin_initial": float(symbol.margin_initial),
            "currency_base": symbol.base, "currency_profit": symbol.profit, "currency_margin": symbol.margin,
            "description": symbol.description, "exchange": symbol.exchange, "name": symbol.name,
            "path": symbol.path, "ticks_bookdepth": 10,
        }  # fmt: skip
        return [known.get(name, _EMPTY[kind]) for name, kind in FIELDS["SymbolInfo"]]
