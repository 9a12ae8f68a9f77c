"""What a test can do to the market over HTTP, as the module sees it."""

from __future__ import annotations

import streamapp.simulator.metatrader5 as mt5
from tests.simulator.conftest import MarketProcess, send

LONG_AGO, FAR_AHEAD = 1000, 2**31 - 1


def test_a_price_below_zero_trades_like_any_other(hedging: MarketProcess) -> None:
    metal = {"symbol": "XAUUSD", "volume": 1.0}
    pending = {"action": mt5.TRADE_ACTION_PENDING, "type": mt5.ORDER_TYPE_BUY_LIMIT, "price": -40.0}
    hedging.pin("XAUUSD", "10.00", "10.10")
    opened = send(**metal)
    assert send(**metal, **pending).retcode == mt5.TRADE_RETCODE_INVALID_PRICE
    hedging.pin("XAUUSD", "-37.66", "-37.56")
    assert mt5.symbol_info_tick("XAUUSD").bid == -37.66
    (position,) = mt5.positions_get(ticket=opened.order)
    assert (position.price_current, position.profit) == (-37.66, -4776.0)
    placed = send(**metal, **pending, sl=-50.0)
    assert placed.retcode == mt5.TRADE_RETCODE_DONE
    closed = send(**metal, type=1, position=opened.order)
    assert (closed.retcode, closed.price) == (mt5.TRADE_RETCODE_DONE, -37.66)
    hedging.pin("XAUUSD", "-40.10", "-40.00")
    assert mt5.positions_get(ticket=placed.order)[0].sl == -50.0
    hedging.pin("XAUUSD", "-50.00", "-49.90")
    assert mt5.history_deals_get(position=placed.order)[-1].comment == "[sl -50.00]"
    hedging.http("DELETE", "/quotes/XAUUSD")
    assert hedging.http("GET", "/health")["status"] == "ok"


def test_money_is_never_converted_at_a_price_of_nothing(hedging: MarketProcess) -> None:
    for bid in ("0", "-1"):
        assert "expected 0 < bid" in hedging.http("POST", "/quotes/EURUSD", {"bid": bid, "ask": "1"})["error"]


def test_a_number_that_no_market_has_is_no_price_below_zero_either(hedging: MarketProcess) -> None:
    hedging.pin("XAUUSD", "-1.00", "-0.90")
    try:
        for sl in (1e300, float("nan"), float("-inf")):
            assert send(symbol="XAUUSD", sl=sl).retcode == mt5.TRADE_RETCODE_INVALID_STOPS
    finally:
        hedging.pin("XAUUSD", "2350.00", "2350.20")
