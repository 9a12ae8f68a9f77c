"""Who answers signals on a real NATS in the trading worker's place."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from streamapp import subjects
from streamapp.messages.answer import AnswerMessage, CopyDecision
from streamapp.messages.decision import AcceptedMessage, RefusedMessage

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
GOLDEN = Path(__file__).parents[1] / "golden"


class PlayedDesk:
    """Answers signals as a trading worker does: accepts each, or refuses it with ``reason``.

    Attributes:
        silent: It answers nothing until :meth:`wake`.
        reason: Why it refuses each signal, None where it accepts it.
        copies: Of how many accounts it answers, beside the one.
    """

    def __init__(self, client: NatsClient) -> None:
        self.client = client
        self.js = client.jetstream()
        self.heard: list[dict[str, Any]] = []
        self.unanswered: list[Msg] = []
        self.silent = False
        self.reason: str | None = None
        self.copies = 0

    async def listen(self) -> None:
        begin = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE)
        await self.js.subscribe(f"{subjects.SIGNALS_APPROVED}.>", cb=self._take, config=begin)

    async def _take(self, message: Msg) -> None:
        self.heard.append(json.loads(message.data))
        self.unanswered.append(message)
        if not self.silent:
            await self.wake()

    async def wake(self) -> None:
        while self.unanswered:
            message = self.unanswered.pop()
            await self.answer(json.loads(message.data), message.metadata.sequence.stream)

    async def answer(self, signal: dict[str, Any], sequence: int) -> None:
        said = {"signal_id": signal["signal_id"], "symbol": signal["symbol"], "at": NOW}
        account = {"account": signal.get("account") or "a", "stream_seq": sequence}
        if self.reason is not None:
            refused = RefusedMessage(**said, **account, reason=self.reason)
            await self.js.publish(subjects.signal_refused(signal["symbol"]), refused.encode())
            return
        accepted = AcceptedMessage(**said, **account, order_id="o-1", order_ids=("o-1",))
        await self.js.publish(subjects.signal_accepted(signal["symbol"]), accepted.encode())
        if self.copies:
            copies = [CopyDecision(account=f"a{n}", weight=Decimal(1), decision="accepted") for n in range(self.copies)]
            answer = AnswerMessage(**said, copies=tuple(copies))
            await self.js.publish(subjects.signal_answered(signal["symbol"]), answer.encode())

    async def say(self, subject: str, golden: str, **changes: Any) -> None:
        """Publish a message of tests/golden with other values."""
        content = json.loads((GOLDEN / f"{golden}.json").read_text())[0]
        message = next(iter(content.values())) if "schema" not in content else content
        await self.js.publish(subject, json.dumps(message | changes).encode())
