"""What the field's cases do with positions: find the one of a symbol, close it, and look at what is left."""

from __future__ import annotations

import os
import time
from typing import Any

from streamapp.messages.reading import OpenPosition
from streamapp.terminal.worker.market import TERMINAL_FRESH_S
from tests.kit.waiting import eventually
from tests.terminal.asking import Desk as Operator
from tests.terminal.desk import Desk


def operator(desk: Desk) -> Operator:
    """Return who asks for operations at a desk's terminal."""
    asking = Operator(desk.terminal)
    asking.epoch = desk.epoch
    return asking


async def change(desk: Desk, symbol: str, **values: Any) -> None:
    """Change fields of a symbol, and wait until the terminal reads it anew."""
    desk.market.change(symbol, **values)
    changed_at = time.monotonic()
    await eventually(lambda: time.monotonic() - changed_at > TERMINAL_FRESH_S, "a symbol that is read anew")


async def position_of(desk: Desk, symbol: str) -> OpenPosition:
    """Return a symbol's only position, once the terminal shows it."""

    async def found() -> OpenPosition | None:
        rows = [row for row in await operator(desk).positions() if row.symbol == symbol]
        return rows[0] if len(rows) == 1 else None

    position: OpenPosition = await eventually(found, f"the position in {symbol}")
    return position


async def closed(desk: Desk, position: OpenPosition, **fields: Any) -> None:
    """Have a position closed, and see that the terminal shows none of its symbol any more."""
    asking = operator(desk)
    reply = await asking.ask("close", os.urandom(4).hex(), position_id=position.position_id, **fields)
    assert reply.outcome in {"done", "recorded"}, reply

    async def is_flat() -> bool:
        return not [row for row in await asking.positions() if row.symbol == position.symbol]

    await eventually(is_flat, f"no position in {position.symbol}")
