"""What an order asks of the broker, and the hash by which two of them are called the same."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal

from streamapp.domain.vocabulary import (
    BoundedDecimal,
    FillPolicy,
    Frozen,
    Lots,
    OrderType,
    Side,
    TimeInForce,
    UtcTime,
    time_text,
)


class OrderParameters(Frozen):
    """The fields that make two signals the same request; prices in the symbol's quote, volume in lots."""

    symbol: str
    side: Side
    order_type: OrderType
    volume: Lots
    price: BoundedDecimal | None = None
    stop_limit_price: BoundedDecimal | None = None
    stop_loss: BoundedDecimal | None = None
    take_profit: BoundedDecimal | None = None
    time_in_force: TimeInForce = "gtc"
    expiration: UtcTime | None = None
    fill_policy: FillPolicy = "any"


def plain(value: Decimal | None) -> str | None:
    """Return the one spelling of a number: 0.10 and 0.1 are the same, and so are 100 and 1E+2."""
    if value is None:
        return None
    return format(value.normalize(), "f") if value else "0"


def parameters_hash(parameters: OrderParameters, position_id: int | None = None) -> str:
    """Return the SHA-256 (hex) over the normalised parameters (design: order-status); equal for 0.10 and 0.1.

    ``position_id``: the position that the order closes, if it closes one.
    """
    content: dict[str, str | None] = {
        "symbol": parameters.symbol,
        "side": parameters.side,
        "order_type": parameters.order_type,
        "volume": plain(parameters.volume),
        "price": plain(parameters.price),
        "stop_limit_price": plain(parameters.stop_limit_price),
        "stop_loss": plain(parameters.stop_loss),
        "take_profit": plain(parameters.take_profit),
        "time_in_force": parameters.time_in_force,
        "expiration": None if parameters.expiration is None else time_text(parameters.expiration),
        "fill_policy": parameters.fill_policy,
    }
    if position_id is not None:
        content["position_id"] = str(position_id)
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
