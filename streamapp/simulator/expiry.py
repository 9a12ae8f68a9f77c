"""When a pending order ends by itself."""

from streamapp.mt5 import constants as mt5
from streamapp.simulator.hours import DAY_MS
from streamapp.simulator.rows import Order


def expires_ms(order: Order) -> int | None:
    """Server time at which the order expires, None for good-till-cancel."""
    if order.type_time == mt5.ORDER_TIME_DAY:
        return (order.time_setup_msc // DAY_MS + 1) * DAY_MS
    if order.type_time == mt5.ORDER_TIME_SPECIFIED:
        return order.expiration * 1000
    if order.type_time == mt5.ORDER_TIME_SPECIFIED_DAY:
        return (order.expiration * 1000 // DAY_MS + 1) * DAY_MS
    return None
