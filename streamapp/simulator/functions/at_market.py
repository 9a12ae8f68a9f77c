"""The package's own functions in Python: they send again and again, so a gateway must not use them."""

# ruff: noqa: N802  # the names are the original's
from typing import Any

from streamapp.mt5.constants import (
    ORDER_TYPE_BUY,
    ORDER_TYPE_SELL,
    TRADE_ACTION_DEAL,
    TRADE_RETCODE_DONE,
    TRADE_RETCODE_PRICE_OFF,
    TRADE_RETCODE_REQUOTE,
)
from streamapp.simulator.functions.symbols import symbol_info_tick
from streamapp.simulator.functions.tables import positions_get
from streamapp.simulator.functions.trading import order_send

_TRIES = 10
_AGAIN = (TRADE_RETCODE_REQUOTE, TRADE_RETCODE_PRICE_OFF)


def _send_at(kind: int, symbol: str, volume: float, price: float, *, comment: str | None, ticket: int | None) -> Any:
    request: dict[str, Any] = {"action": TRADE_ACTION_DEAL, "symbol": symbol, "volume": volume, "type": kind}
    request.update(price=price, deviation=10)
    if comment is not None:
        request["comment"] = comment
    if ticket is not None:
        request["position"] = ticket
    return order_send(request)


def _send_at_market(kind: int, symbol: str, volume: float, *, comment: str | None, ticket: int | None) -> Any:
    """Sends up to ten times while the answer is a requote: the reason why a gateway must not use these helpers."""
    result = None
    for _ in range(_TRIES):
        tick = symbol_info_tick(symbol)
        if tick is None:
            return None
        price = tick.ask if kind == ORDER_TYPE_BUY else tick.bid
        result = _send_at(kind, symbol, volume, price, comment=comment, ticket=ticket)
        if result is None or result.retcode not in _AGAIN:
            break
    return result


def Buy(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Buys at a price, or at the market's."""
    if price is not None:
        return _send_at(ORDER_TYPE_BUY, symbol, volume, price, comment=comment, ticket=ticket)
    return _send_at_market(ORDER_TYPE_BUY, symbol, volume, comment=comment, ticket=ticket)


def Sell(
    symbol: str, volume: float, price: float | None = None, *, comment: str | None = None, ticket: int | None = None
) -> Any:
    """Sells at a price, or at the market's."""
    if price is not None:
        return _send_at(ORDER_TYPE_SELL, symbol, volume, price, comment=comment, ticket=ticket)
    return _send_at_market(ORDER_TYPE_SELL, symbol, volume, comment=comment, ticket=ticket)


def Close(symbol: str, *, comment: str | None = None, ticket: int | None = None) -> bool | str | None:
    """Closes the positions of a symbol, or one: True, "Partially", False, or None after a failed call."""
    positions = positions_get(ticket=ticket) if ticket is not None else positions_get(symbol=symbol)
    done = 0
    for position in positions:
        kind = ORDER_TYPE_SELL if position.type == ORDER_TYPE_BUY else ORDER_TYPE_BUY
        result = _send_at_market(kind, symbol, position.volume, comment=comment, ticket=position.ticket)
        if result is None:
            return None
        done += result.retcode == TRADE_RETCODE_DONE
    if not done:
        return False
    return True if done == len(positions) else "Partially"
