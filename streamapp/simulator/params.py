"""What the params of a fault may be: whoever sets one hears of a mistake, not the market in the middle of an order."""

import math
from decimal import Decimal, InvalidOperation
from typing import Any

# Whole numbers, and amounts. What else there is are words.
_WHOLE = (
    "ms", "after_ms", "after_login_ms", "steps", "extra", "retcode", "code", "length", "position", "order", "deal",
    "orders", "positions", "hist_orders", "hist_deals", "history_orders", "history_deals",
)  # fmt: skip
_AMOUNTS = ("price", "volume", "share", "sl", "tp")
_REWRITINGS = ("truncate", "append", "replace", "empty")
# Years in milliseconds; no price and no volume is that large either.
_MOST = 1 << 50
_LARGEST_AMOUNT = Decimal(10**9)


def checked(params: Any) -> dict[str, Any]:
    """The params of a fault, as they are.

    Raises:
        ValueError: one is not what its name wants; the message says what that is.
    """
    if not isinstance(params, dict):
        raise ValueError(f"expected params to be an object, got {params!r}"[:200])  # noqa: TRY004  # as all others
    for name in _WHOLE:
        value = params.get(name, 0)
        if not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > _MOST:
            raise ValueError(f"expected params.{name} to be a number, got {value!r}"[:200])
    for name in _AMOUNTS:
        _check_amount(name, params.get(name, 0))
    if params.get("how", "empty") not in _REWRITINGS:
        raise ValueError(f"expected params.how to be one of {_REWRITINGS}, got {params['how']!r}"[:200])
    return dict(params)


def _check_amount(name: str, value: Any) -> None:
    try:
        amount = Decimal(str(value))
        good = 0 <= amount < _LARGEST_AMOUNT and (name != "share" or amount <= 1)
    except InvalidOperation:
        good = False
    if not good:
        raise ValueError(f"expected params.{name} to be a positive number or its text, got {value!r}"[:200])
