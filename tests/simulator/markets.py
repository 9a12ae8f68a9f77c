"""Markets without a process, on a virtual clock and at pinned prices, and orders sent straight to the server."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from streamapp.mt5 import constants as mt5
from streamapp.simulator.books.accounts import SimulatedAccount, entry_from
from streamapp.simulator.prices.server_clock import VirtualClock
from streamapp.simulator.server.market import Market
from streamapp.simulator.server.requests import OrderRequest, OrderResult

ZERO = Decimal(0)


def new_market(
    mode: str = "hedging", clock: VirtualClock | None = None, **fields: Any
) -> tuple[Market, SimulatedAccount]:
    entry = entry_from({"name": "a", "login": 1, "margin_mode": mode, **fields})
    market = Market([entry], clock=clock or VirtualClock())
    for quoted in market.feed.quotes.values():
        quoted.pinned = True
    return market, market.books.accounts["a"]


def order(market: Market, account: SimulatedAccount, **fields: Any) -> OrderResult:
    values: dict[str, Any] = {
        "action": mt5.TRADE_ACTION_DEAL, "magic": 0, "order": 0, "symbol": "EURUSD", "volume": Decimal("0.10"),
        "price": ZERO, "stoplimit": ZERO, "sl": ZERO, "tp": ZERO, "deviation": 0, "type": 0, "type_filling": 1,
        "type_time": 0, "expiration": 0, "comment": "", "position": 0, "position_by": 0, **fields,
    }  # fmt: skip
    return market.executor.execute(account, OrderRequest(**values))


def pin(market: Market, bid: str, ask: str, symbol: str = "EURUSD") -> None:
    market.feed.pin(symbol, Decimal(bid), Decimal(ask), market.clock.utc_ms())


def last_deal(account: SimulatedAccount) -> Any:
    return list(account.history_deals.live.values())[-1]
