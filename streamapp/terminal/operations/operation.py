"""An operation that is being carried out, and what is known of it so far."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from streamapp.messages.operation import (
    CancelRequest,
    CloseByRequest,
    CloseRequest,
    ModifyRequest,
    OperationReply,
    OperationRequest,
    ProtectRequest,
)
from streamapp.mt5.retcodes import OperationKind, OperationVerdict
from streamapp.processes.backoff import Backoff

FIRST_WAIT_S, LONGEST_WAIT_S = 0.02, 0.5
ASIDE_S = 0.1
"""Whoever waits longer before its next look lets others go first: a doubt takes a settle window, and someone may be
waiting to get out of the market."""


@dataclass(frozen=True)
class Blocked:
    """It is not as wanted, and nothing may be sent as things are."""

    message: str


@dataclass
class Operation:
    """An operation that is being carried out.

    ``sendings``: requests that may have reached the broker; ``verdict``: what is known of the last one; ``doubted``:
    whether one may still come to something. ``barred``: why no other will be sent. ``window``: the connection, and
    since when on it, the last one is looked for. ``first_look``: since when there is something to be seen. ``aside``:
    others need not wait for it any more. ``denied``: filling modes that the broker refused.
    """

    kind: OperationKind
    request: OperationRequest
    order_id: str | None
    sendings: int
    done: asyncio.Future[OperationReply]
    why: str = "it waits for its turn"
    verdict: OperationVerdict | None = None
    doubted: bool = False
    barred: str = ""
    denied: frozenset[int] = frozenset()
    window: tuple[int, float] = (-1, 0.0)
    first_look: float | None = None
    ticket: int | None = None
    backoff: Backoff = field(default_factory=lambda: Backoff(FIRST_WAIT_S, LONGEST_WAIT_S))
    aside: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def targets(self) -> set[int | str]:
        """Positions and orders that it changes: what has one in common is done in order of arrival."""
        match self.request:
            case CancelRequest() | ModifyRequest():
                return {f"order:{self.order_id or self.request.order_id or self.request.ticket}"}
            case CloseByRequest():
                return {self.request.position_id, self.request.by_position_id}
            case CloseRequest() | ProtectRequest():
                return {self.request.position_id}
        raise TypeError(f"expected an operation, got {type(self.request).__name__}")

    async def wait(self) -> None:
        """Wait before the next look; a longer wait is made aside."""
        wait_s = self.backoff.next_s()
        if wait_s > ASIDE_S:
            self.aside.set()
        await asyncio.sleep(wait_s)

    def is_within_grace(self, patience_s: float) -> bool:
        """Return whether what the tables show may still be the lag of one behind the other."""
        now = asyncio.get_running_loop().time()
        return self.first_look is None or now - self.first_look < patience_s
