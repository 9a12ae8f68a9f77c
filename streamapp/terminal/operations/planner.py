"""The next step of an operation: one look at the broker, and what the rules of rules.py make of it."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from streamapp.clock import Clock
from streamapp.messages.operation import CancelRequest, CloseByRequest, CloseRequest, ModifyRequest, ProtectRequest
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.judging import OrderLimits
from streamapp.terminal.account.worker_client import NotHandedOverError
from streamapp.terminal.journal import operation_rows
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.operations import rules
from streamapp.terminal.operations.operation import Operation
from streamapp.terminal.operations.rules import Context, Impossible, Step, Unknown
from streamapp.terminal.pipe.answers import OrderSeen, PositionSeen
from streamapp.terminal.pipe.calls import Call, ReadOrder, ReadPosition

S = TypeVar("S", OrderSeen, PositionSeen)


class Planner:
    """Looks, and says what is to be done next. It sends nothing."""

    def __init__(
        self,
        journal: Journal,
        connection: BrokerConnection,
        limits: OrderLimits,
        *,
        patience_s: float,
        clock: Clock,
    ) -> None:
        """``patience_s``: how long the terminal's tables may disagree before the newest look is believed."""
        self._journal = journal
        self._connection = connection
        self._limits = limits
        self._terminal = limits.terminal
        self._patience_s = patience_s
        self._clock = clock

    async def next_for(self, work: Operation) -> Step:
        """Look, and return what is to be done next.

        Raises:
            RefusedError: as things are, nothing may be sent.
            NotHandedOverError, WorkerLostError, TimeoutError: there was nothing to be seen.
        """
        request = work.request
        if self._connection.health.connection in {"wrong_account", "wrong_password"}:
            raise NotHandedOverError(self._connection.health.detail)
        match request:
            case CancelRequest() | ModifyRequest():
                ticket = await self._ticket(request)
                if not isinstance(ticket, int):
                    work.first_look = work.first_look or asyncio.get_running_loop().time()
                    return ticket
                seen = await self._look(work, ReadOrder(ticket))
                work.ticket = ticket
                if isinstance(request, CancelRequest):
                    return rules.cancel(request, seen, self._context(work))
                return rules.modify(request, seen, self._context(work))
            case ProtectRequest():
                return rules.protect(request, await self._position(work, request.position_id), self._context(work))
            case CloseRequest():
                return rules.close(request, await self._position(work, request.position_id), self._context(work))
            case CloseByRequest():
                one = await self._position(work, request.position_id)
                other = await self._position(work, request.by_position_id)
                work.ticket = request.position_id
                return rules.close_by(request, one, other, self._context(work))
        raise TypeError(f"expected an operation, got {type(request).__name__}")

    async def _position(self, work: Operation, position_id: int) -> PositionSeen:
        work.ticket = position_id
        return await self._look(work, ReadPosition(position_id))

    async def _look(self, work: Operation, call: Call[S]) -> S:
        left_s = (work.request.not_after - self._clock()).total_seconds()
        if work.sendings:
            left_s = max(left_s, self._terminal.settle_window_s)
        async with asyncio.timeout(max(left_s, self._patience_s)):
            answer = await self._connection.read(call)
        if not answer.value.read:
            raise NotHandedOverError(f"a table can't be read: {answer.error[1]} ({answer.error[0]})")
        work.first_look = work.first_look or asyncio.get_running_loop().time()
        return answer.value

    async def _ticket(self, request: CancelRequest | ModifyRequest) -> int | Step:
        """Return the broker's ticket, or what can be said without one."""
        if request.ticket is not None:
            return request.ticket
        order_id = request.order_id or ""
        ticket, row = await self._journal.write(lambda book: operation_rows.ticket_of(book, order_id))
        if ticket is not None:
            return ticket
        if row is None:
            return Impossible(f"expected an order of this terminal's journal, got {order_id}")
        if row.state in {"recorded", "started", "doubt"}:
            return Unknown(f"order {order_id} is {row.state}: the broker is not known to have it. Ask again later")
        return Impossible(f"order {order_id} never worked at the broker: {row.state}, {row.reason}")

    def _context(self, work: Operation) -> Context:
        return Context(
            account=self._limits.account,
            limits=self._limits.guards,
            hedging=self._connection.hedging,
            time=self._connection.time,
            now=self._clock(),
            key=operation_rows.tag_key(work.request.request_id, work.sendings + 1),
            sent=work.sendings > 0,
            within_grace=work.is_within_grace(self._patience_s),
            denied=work.denied,
            deviations=self._terminal.deviation_points,
        )
