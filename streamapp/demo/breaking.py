"""The broker changes a position without a deal: a break is found in seconds, and is over when the broker undoes it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from nats.aio.client import Client

from streamapp import subjects
from streamapp.messages.breaks import BreakMessage
from streamapp.settings import Settings

_WITHIN_S = 60.0
_PAUSE_S = 0.1
_RATIO, _BACK = 4, "0.25"


class Breaking:
    """The scene.

    Args:
        settings: Where the market is.
        nats: Connected.
        newest: The newest order/1 of each order, as it is heard.
        show: Gets the break, each time it is told.
    """

    def __init__(
        self,
        settings: Settings,
        nats: Client,
        newest: Mapping[str, dict[str, Any]],
        show: Callable[[BreakMessage], None],
    ) -> None:
        self._market = settings.market_address
        self._nats = nats
        self._newest = newest
        self._show = show

    async def play(self, signal_id: str, account: str) -> None:
        """Play it with the position that a signal opened.

        Raises:
            TimeoutError: the signal was not filled, or the break not found or not over, within a minute.
        """
        breaks = await self._nats.subscribe(subjects.reconciliation_break(account))
        try:
            async with asyncio.timeout(_WITHIN_S):
                position_id = await self._opened(signal_id)
                for ratio, disposition in ((_RATIO, "open"), (_BACK, "resolved")):
                    await self._split(account, position_id, ratio)
                    while (told := await self._next(breaks)).position_id != position_id:
                        pass
                    assert told.disposition == disposition
                    self._show(told)
        finally:
            await breaks.unsubscribe()

    async def _opened(self, signal_id: str) -> int:
        while True:
            for order in list(self._newest.values()):
                if order["signal_id"] == signal_id and order["status"] == "filled":
                    return int(order["position_id"])
            await asyncio.sleep(_PAUSE_S)

    async def _next(self, breaks: Any) -> BreakMessage:
        return BreakMessage.model_validate(json.loads((await breaks.next_msg(timeout=_WITHIN_S)).data))

    async def _split(self, account: str, position_id: int, ratio: int | str) -> None:
        deed = {"action": "split", "position": position_id, "ratio": ratio}
        fault = {"kind": "foreign_activity", "account": account, "params": deed}
        async with aiohttp.ClientSession() as http, http.post(f"http://{self._market}/faults", json=fault) as answer:
            answer.raise_for_status()
