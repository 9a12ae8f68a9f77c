"""The risk engine's side of ClickHouse: the demonstration writes ``trading_signals`` as a risk engine would."""

from __future__ import annotations

import json
from typing import Any

from streamapp.clickhouse.client import ClickHouse
from streamapp.errors import Unusable
from streamapp.messages.dialect import read_signal
from streamapp.messages.envelope import json_object
from streamapp.messages.signal import AnySignal
from streamapp.settings import Settings

_COLUMNS = (
    "signal_id",
    "status",
    "account",
    "strategy",
    "symbol",
    "side",
    "order_type",
    "volume",
    "price",
    "stop_limit_price",
    "stop_loss",
    "take_profit",
    "time_in_force",
    "expiration",
    "fill_policy",
    "expected_price",
    "approved_at",
)


_UNSAID: dict[str, Any] = {"strategy": "", "side": "", "order_type": "market", "volume": 0, "time_in_force": "gtc"}
"""What a column that can't be empty holds of a signal that says nothing of it."""


class RiskEngineRows:
    """Writes the row of each well-formed signal; what is no signal has no row."""

    def __init__(self, settings: Settings) -> None:
        self._clickhouse = ClickHouse.of(settings)

    async def write(self, payload: bytes) -> None:
        """Write the row of the signal in ``payload``; it is there when this returns.

        Raises:
            Transient: ClickHouse did not answer.
        """
        try:
            signal = read_signal(json_object(payload))
        except Unusable:
            return
        await self._clickhouse.insert("trading_signals", (*_COLUMNS, "metadata"), [_row(signal)])

    async def close(self) -> None:
        """Close the connection."""
        await self._clickhouse.close()


def _row(signal: AnySignal) -> list[Any]:
    said = _UNSAID | {name: value for name, value in signal if value is not None}
    return [*(said.get(name) for name in _COLUMNS), json.dumps(signal.metadata)]
