"""Where the prices of an order may be, measured from the live quote (reference mt5 §2.3).

``trade_stops_level`` is in points. Every price is compared as it will be sent: on the symbol's grid.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from streamapp.domain.parameters import OrderParameters
from streamapp.domain.vocabulary import Side
from streamapp.terminal.account.request import RefusedError, to_tick
from streamapp.terminal.pipe.answers import Prepared
from streamapp.terminal.pipe.structs import SymbolInfo, number

PRICES = ("price", "stop_limit_price", "stop_loss", "take_profit")


def refuse_prices(wanted: OrderParameters, seen: Prepared) -> None:
    """Return if price, stop-limit price and protective levels of an order may be placed as the market is now.

    Raises:
        RefusedError: reason invalid, naming the first price that may not.
    """
    assert seen.symbol is not None
    at_once = wanted.order_type == "market"
    base = seen.closing(wanted.side) if at_once else _refuse_entry(wanted, seen, seen.symbol)
    refuse_protection(wanted.side, base, wanted.stop_loss, wanted.take_profit, seen.symbol)


def _refuse_entry(wanted: OrderParameters, seen: Prepared, symbol: SymbolInfo) -> Decimal:
    """Return the price that a pending order's protective levels are measured from: its limit, or else its stop."""
    level, market = stops_level(symbol), seen.market(wanted.side)
    price = _placed("price", wanted.price, symbol)
    below = (wanted.side == "buy") == (wanted.order_type == "limit")
    _refuse_nearer("price", price, market, level, below=below)
    if price == market:
        raise RefusedError("invalid", f"expected price {'below' if below else 'above'} {market}, got {price}")
    if wanted.order_type != "stop_limit":
        return price
    limit = _placed("stop_limit_price", wanted.stop_limit_price, symbol)
    _refuse_nearer("stop_limit_price", limit, price, level, below=wanted.side == "buy")
    return limit


def refuse_protection(
    side: Side, base: Decimal, stop_loss: Decimal | None, take_profit: Decimal | None, symbol: SymbolInfo
) -> None:
    """Return if the protective levels of an order or position of ``side`` are far enough from ``base``; 0 is none.

    Raises:
        RefusedError: reason invalid, naming the first level that is not.
    """
    level = stops_level(symbol)
    for name, value, below in (
        ("stop_loss", stop_loss, side == "buy"),
        ("take_profit", take_profit, side == "sell"),
    ):
        if not value:
            continue
        price = _placed(name, value, symbol)
        _refuse_nearer(name, price, base, level, below=below)
        if price == base:
            raise RefusedError("invalid", f"expected {name} {'below' if below else 'above'} {base}, got {price}")


def refuse_implausible(wanted: Any, market: Decimal, furthest: Decimal) -> None:
    """Return if no price or level of a request is further from the market than the share ``furthest`` of it.

    A distance in points, or another symbol's price, is a price too, and the broker takes it: a stop loss 500 points
    away, said as 0.005, protects nothing.

    Raises:
        RefusedError: reason guard.
    """
    most = abs(market) * furthest
    for name in PRICES:
        price = getattr(wanted, name, None)
        if price and most and abs(price - market) > most:  # none and 0 are no prices
            raise RefusedError(
                "guard",
                f"expected {name} within {float(furthest * 100):g} % of the market at {market}, got {price}, which is "
                "implausible (guards.max_level_distance)",
            )


def refuse_frozen(name: str, price: Decimal, market: Decimal, symbol: SymbolInfo) -> None:
    """Return if ``price``, of an order or a level that is to be changed, is not about to trigger.

    Raises:
        RefusedError: reason invalid; the broker would answer 10029.
    """
    freeze = symbol.trade_freeze_level * number(symbol.point)
    if freeze and abs(price - market) <= freeze:
        raise RefusedError("invalid", f"expected {name} further than {freeze} from {market}, got {price}: it is frozen")


def stops_level(symbol: SymbolInfo) -> Decimal:
    """Return the least distance between prices of an order and the market, as a price."""
    return Decimal(symbol.trade_stops_level) * number(symbol.point)


def _placed(name: str, price: Decimal | None, symbol: SymbolInfo) -> Decimal:
    placed = to_tick(price, symbol)
    if not placed:  # sent, it would mean that there is none
        raise RefusedError("invalid", f"expected {name} of at least one tick, got {price}")
    return placed


def _refuse_nearer(name: str, price: Decimal, base: Decimal, level: Decimal, *, below: bool) -> None:
    distance = base - price if below else price - base
    if distance < level:
        raise RefusedError(
            "invalid", f"expected {name} at least {level} {'below' if below else 'above'} {base}, got {price}"
        )
