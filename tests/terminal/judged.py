"""What the module shows before an order, and whether the order passes."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from streamapp.settings import AccountSettings, GuardSettings
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.request import RefusedError
from streamapp.terminal.account.servertime import ServerTime
from streamapp.terminal.pipe.answers import Prepared
from tests.terminal.scripted import (
    LOGIN,
    OWNER,
    SERVER,
    SERVER_AHEAD_S,
    SYMBOL,
    TERMINAL,
    prepare,
    submit_request,
    tick,
)

KEYS = {
    "action",
    "symbol",
    "volume",
    "type",
    "price",
    "sl",
    "tp",
    "deviation",
    "type_filling",
    "type_time",
    "magic",
    "comment",
}


PENDING_KEYS = KEYS - {"deviation"}
OPEN = {"ticket": 78, "identifier": 77, "symbol": "EURUSD", "type": 1, "volume": 0.1, "time_update_msc": 0}
"""A sell, which the order of submit_request can close; its broker gave it another ticket."""
TIME = ServerTime(SERVER_AHEAD_S)
BID, ASK = "1.08500", "1.08510"  # of scripted.tick


def seen(
    *,
    terminal: dict[str, Any] | None = None,
    account: dict[str, Any] | None = None,
    symbol: dict[str, Any] | None = None,
    age_s: float = 0.0,
) -> Prepared:
    return prepare(
        terminal=TERMINAL | (terminal or {}),
        account=OWNER | (account or {}),
        symbol=SYMBOL | (symbol or {}),
        tick=tick(age_s),
        rate=1.0,
    )


def refusal(
    prepared: Prepared, guards: GuardSettings | None = None, *, update: dict[str, Any] | None = None, **wanted: Any
) -> tuple[str, str]:
    order = submit_request(epoch="e", **wanted).model_copy(update=update or {})
    account = AccountSettings(login=LOGIN, server=SERVER)
    with pytest.raises(RefusedError) as refused:
        judge(order, prepared, account, guards or GuardSettings(), time=TIME, now=datetime.now(UTC))
    return refused.value.reason, refused.value.message


def passes(
    prepared: Prepared, guards: GuardSettings | None = None, *, update: dict[str, Any] | None = None, **wanted: Any
) -> None:
    order = submit_request(epoch="e", **wanted).model_copy(update=update or {})
    account = AccountSettings(login=LOGIN, server=SERVER)
    judge(order, prepared, account, guards or GuardSettings(), time=TIME, now=datetime.now(UTC))


def pending(kind: str, side: str, price: str, limit: str | None = None, **more: Any) -> dict[str, Any]:
    stop_limit_price = None if limit is None else Decimal(limit)
    return {"order_type": kind, "side": side, "price": Decimal(price), "stop_limit_price": stop_limit_price} | more
