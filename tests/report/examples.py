"""Records for the report: an order with its fills and the market at its sending, by a few figures."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from streamapp.domain.facts import SubmitStarted
from streamapp.messages.fill import FillMessage
from streamapp.messages.order import OrderCost, OrderMessage, Slippage
from streamapp.report.records import OrderRecord
from tests.clickhouse import samples


def at(seconds: float) -> datetime:
    """A moment after the signal."""
    return samples.AT + timedelta(seconds=seconds)


def order(order_id: str = "o-1", **changes: Any) -> OrderMessage:
    """A market order to buy two lots of EURUSD, decided at 100, filled."""
    fields: dict[str, Any] = {
        "order_type": "market",
        "status": "filled",
        "detail": "",
        "volume": Decimal(2),
        "expected_price": Decimal(100),
        "slippage": None,
        "created_at": at(0.010),
        "submitted_at": at(0.015),
    }
    return samples.order(order_id, **(fields | changes))


def fill(price: str, volume: str = "1", deal: int = 11, **changes: Any) -> FillMessage:
    fields: dict[str, Any] = {"price": Decimal(price), "volume": Decimal(volume), "commission": Decimal(-3)}
    return samples.fill(deal, **(fields | {"at": at(0.1)} | changes))


def market(bid: str = "100", ask: str = "102", **changes: Any) -> SubmitStarted:
    """A market in which one unit of price is worth 10 a lot."""
    fields: dict[str, Any] = {
        "attempt": 1,
        "bid": Decimal(bid),
        "ask": Decimal(ask),
        "quote_at": at(0),
        "point": Decimal("0.1"),
        "contract_size": Decimal(5),
        "account_rate": Decimal(2),
        "currency": "USD",
        "sent_at": at(0.015),
    }
    return SubmitStarted(**(fields | changes))


def slipped(
    order_id: str,
    bps: str,
    *,
    points: str | None = "1",
    touch: str | None = None,
    currency: str = "USD",
    **changes: Any,
) -> OrderRecord:
    """A filled order with this slippage against the expected price, in money as in basis points, and the touch."""
    cost = OrderCost(
        points=None if points is None else Decimal(points),
        bps=Decimal(bps),
        money=None if points is None else Decimal(bps),
    )
    against_touch = None if touch is None else OrderCost(bps=Decimal(touch))
    return OrderRecord(
        order(order_id, slippage=Slippage(expected=cost, touch=against_touch, currency=currency), **changes)
    )
