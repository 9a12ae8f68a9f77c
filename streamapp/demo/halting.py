"""A person halts an account, a signal that opens is refused, and after the resume another one is traded."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client

from streamapp import subjects
from streamapp.audit.evidence import SentView
from streamapp.demo.rows import RiskEngineRows
from streamapp.domain.vocabulary import FINAL_STATUSES, time_text
from streamapp.messages.command import CommandName, CommandRequest, CommandResultMessage
from streamapp.nats.commands import NatsCommands
from streamapp.nats.signals import NatsSignals
from streamapp.settings import Settings

ACCOUNT, _SYMBOL = "demo-hedging", "EURUSD"
_WITHIN_S = 30.0


class Halting:
    """The scene; ``sent`` are its signals, with the answers that are right; ``show`` gets the commands' results."""

    def __init__(
        self,
        settings: Settings,
        nats: Client,
        rows: RiskEngineRows,
        run: str,
        show: Callable[[CommandResultMessage], None],
    ) -> None:
        self._commands = NatsCommands(lambda: nats, settings.nats)
        self._signals = NatsSignals(lambda: nats, settings.nats)
        self._nats = nats
        self._show = show
        self._rows = rows
        self._run = run
        self.sent: list[SentView] = []

    async def play(self) -> str:
        """Play it; return the signal_id of the one that is traded.

        Raises:
            TimeoutError: a command did not come to its end, or the signal was not refused, within half a minute.
        """
        refusals = await self._nats.subscribe(subjects.signal_refused(_SYMBOL))
        try:
            async with asyncio.timeout(_WITHIN_S):
                await self._command("account.halt", "a person has a look")
                halted = await self._signal("while-halted", "refused")
                # The resume comes by another topic: it must not overtake the signal.
                while json.loads((await refusals.next_msg(timeout=_WITHIN_S)).data)["signal_id"] != halted:
                    pass
                await self._command("account.resume", "nothing was wrong")
                return await self._signal("after-the-resume", "accepted")
        finally:
            await refusals.unsubscribe()

    async def _command(self, name: CommandName, reason: str) -> None:
        request = CommandRequest(request_id=f"{self._run}-{name}", account=ACCOUNT, reason=reason, issued_by="demo")
        async with self._commands.asked(name, request) as asked:
            async for result in asked.results:
                self._show(result)

    async def _signal(self, name: str, answer: str) -> str:
        signal: dict[str, Any] = {
            "signal_id": f"{self._run}-{name}",
            "status": "approved",
            "account": ACCOUNT,
            "symbol": _SYMBOL,
            "side": "buy",
            "order_type": "market",
            "volume": "0.10",
            "approved_at": time_text(datetime.now(UTC)),
        }
        payload = json.dumps(signal).encode()
        await self._rows.write(payload)
        message_id = f"play:{secrets.token_hex(8)}"
        stored = await self._signals.publish(payload, symbol=_SYMBOL, message_id=message_id)
        self.sent.append(SentView(stored.stream_seq, name, signal["signal_id"], frozenset({answer}), FINAL_STATUSES))
        return str(signal["signal_id"])
