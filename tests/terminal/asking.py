"""How tests ask a terminal to do something to its orders and positions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from streamapp.messages.operation import (
    CancelRequest,
    CloseByRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    ProtectRequest,
)
from streamapp.messages.reading import OpenPosition, OrdersReply, PositionsReply, WorkingOrder
from streamapp.messages.terminal import SubmitRequest
from tests.kit.waiting import eventually
from tests.terminal.conftest import TerminalProcess

REQUESTS = {
    "cancel": CancelRequest,
    "modify": ModifyRequest,
    "protect": ProtectRequest,
    "close": CloseRequest,
    "close_by": CloseByRequest,
}


def operation(kind: str, request_id: str = "r-1", *, account: str, valid_s: float = 30.0, **fields: Any) -> Any:
    not_after = datetime.now(UTC) + timedelta(seconds=valid_s)
    return REQUESTS[kind](request_id=request_id, account=account, not_after=not_after, **fields)


class Desk:
    """A trader at the real terminal process."""

    def __init__(self, terminal: TerminalProcess) -> None:
        self.terminal = terminal
        self.epoch = ""

    async def open(self) -> None:
        self.terminal.start()
        self.epoch = (await self.terminal.ready()).epoch

    async def once(self, kind: str, request_id: str = "r-1", **fields: Any) -> OperationReply:
        if kind == "close":
            fields = {"epoch": self.epoch, **fields}
        request = operation(kind, request_id, account=self.terminal.account, **fields)
        return OperationReply.decode(await self.terminal.request(kind, request.encode()))

    async def ask(self, kind: str, request_id: str = "r-1", **fields: Any) -> OperationReply:
        """Ask until the answer is a final one, as a client does."""

        async def final() -> OperationReply | None:
            reply = await self.once(kind, request_id, **fields)
            return reply if reply.outcome != "unknown" else None

        reply: OperationReply = await eventually(final, f"{kind} {request_id}")
        return reply

    async def positions(self) -> tuple[OpenPosition, ...]:
        reply = PositionsReply.decode(await self.terminal.request("positions"))
        assert reply.content is not None, reply.error
        return reply.content

    async def orders(self) -> tuple[WorkingOrder, ...]:
        reply = OrdersReply.decode(await self.terminal.request("orders"))
        assert reply.content is not None, reply.error
        return reply.content

    async def submit(self, name: str, **changes: Any) -> SubmitRequest:
        order = self.terminal.order(name, self.epoch, **changes)
        await self.terminal.submit(order)
        await eventually(lambda: "accepted" in self.terminal.kinds(order.order_id), f"{name} accepted")
        return order

    async def position(self, name: str, **changes: Any) -> OpenPosition:
        """Open a position and return it once the terminal shows it."""
        order = await self.submit(name, **changes)
        await eventually(lambda: "deal" in self.terminal.kinds(order.order_id), f"{name} filled")

        async def shown() -> OpenPosition | None:
            return next((row for row in await self.positions() if row.order_id == order.order_id), None)

        found: OpenPosition = await eventually(shown, f"position of {name}")
        return found
