"""What an order will be judged by, read while it is being recorded instead of after that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from streamapp.messages.terminal import SubmitRequest
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.worker_client import ORDER, Answer

FRESH_S = 0.1
"""A commit takes a millisecond or a few. What was read longer ago is read again: prices moved."""


@dataclass(frozen=True)
class _Look:
    order_id: str
    asked: dict[str, Any]
    generation: int
    began: float
    answer: asyncio.Task[Answer]


class Foresight:
    """One look ahead, for one order. It only reads: an order that is not recorded after all costs one read."""

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._ahead: _Look | None = None

    def look(self, order: SubmitRequest) -> None:
        """Begin to read for an order that is the next one, if the account can be read now."""
        if self._connection.health.connection != "ready" or (self._ahead and not self._ahead.answer.done()):
            return
        loop = asyncio.get_running_loop()
        asked = about(order)
        answer = loop.create_task(self._connection.ask("prepare", urgency=ORDER, **asked))
        answer.add_done_callback(_heard)
        self._ahead = _Look(order.order_id, asked, self._connection.generation, loop.time(), answer)

    async def take(self, order: SubmitRequest) -> dict[str, Any]:
        """Return what the order is judged by: what was read ahead for it, if that is fresh, or else read now.

        Raises:
            NotHandedOverError, WorkerLostError: as ``BrokerConnection.ask``.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None or not self._is_good(ahead, order):
            answer = await self._connection.ask("prepare", urgency=ORDER, **about(order))
        else:
            answer = await ahead.answer
        value: dict[str, Any] = answer.value
        return value

    def _is_good(self, ahead: _Look, order: SubmitRequest) -> bool:
        is_fresh = asyncio.get_running_loop().time() - ahead.began < FRESH_S
        same = (ahead.order_id, ahead.generation) == (order.order_id, self._connection.generation)
        # One submitted again with other parameters is a conflict; its symbol says nothing about the first.
        return is_fresh and same and ahead.asked == about(order)


def _heard(answer: asyncio.Task[Answer]) -> None:
    """Take note of an error that nobody may ask for: whoever takes the look gets it, too."""
    if not answer.cancelled():
        answer.exception()


def about(order: SubmitRequest) -> dict[str, Any]:
    """Return what the worker is asked about for an order: its symbol, and the position that it closes."""
    closed = {} if order.position_id is None else {"position_id": order.position_id}
    return {"symbol": order.parameters.symbol, **closed}
