"""A broker in memory for the desk's tests: executes what terminals were asked to submit, and reports it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from streamapp.domain import facts
from streamapp.domain.vocabulary import MarginMode, Side
from streamapp.messages.account import AccountMessage
from streamapp.messages.terminal import SubmitRequest
from tests.kit.desk import ACCOUNT, DeskWorld

Fate = Literal["fill", "half", "reject", "doubt"]
PRICE = Decimal("1.0851")


class Market:
    """One account at a broker.

    Attributes:
        open: The signed lots of each open position.
        largest: The lots of one order, at most.
        netting: Whether a symbol has one position.
        resting: The orders that work at the broker, by id.
        done: The ids of the orders that were executed, in order: each once.
        impossible: The orders that were to close what their position did not hold.
    """

    def __init__(self, world: DeskWorld, *, netting: bool = False) -> None:
        self.world = world
        self.netting = netting
        self.open: dict[int, Decimal] = {}
        self.largest: Decimal | None = None
        self.resting: dict[str, SubmitRequest] = {}
        self.done: list[str] = []
        self.impossible: list[SubmitRequest] = []
        self._taken: set[str] = set()
        self._tickets: dict[str, int] = {}
        self._number = 0
        self._seq = 1

    @property
    def waiting(self) -> list[SubmitRequest]:
        """The orders that were submitted and not executed, in order, each once."""
        new = {each.order_id: each for each in self.world.terminals.submits if each.order_id not in self._taken}
        return list(new.values())

    async def run(self, *fates: Fate) -> None:
        """Execute what waits, and what comes of it, each with the next fate, or as a fill."""
        left = list(fates)
        while waiting := self.waiting:
            await self.execute(waiting[0], left.pop(0) if left else "fill")

    async def execute(self, request: SubmitRequest, fate: Fate = "fill") -> None:
        """Let one order have its fate, and report it."""
        self._taken.add(request.order_id)
        self.resting.pop(request.order_id, None)
        if fate == "doubt":
            await self.report(("unknown", request.order_id, facts.OutcomeUnknown(attempt=1, why="deadline")))
            return
        if self.largest is not None and request.parameters.volume > self.largest:
            body = facts.SubmitRefused(attempt=1, reason="invalid", message="too large", largest=self.largest)
            await self.report(("refused", request.order_id, body))
            return
        if not self._may(request):
            self.impossible.append(request)
        if fate == "reject" or not self._may(request):
            body = facts.SubmitRefused(attempt=1, reason="invalid", message="as told")
            await self.report(("refused", request.order_id, body))
            return
        await self.report(*self._filled(request, half=fate == "half"))

    async def rest(self, order_id: str) -> int:
        """Let an order work at the broker without being filled; return its ticket."""
        self._taken.add(order_id)
        self.resting[order_id] = next(each for each in self.world.terminals.submits if each.order_id == order_id)
        ticket = self._tickets[order_id] = self._next()
        await self.report(("accepted", order_id, facts.BrokerAccepted(ticket=ticket)))
        return ticket

    async def withdraw(self, order_id: str) -> None:
        """Let an order that works at the broker work no longer."""
        self.resting.pop(order_id, None)
        body = facts.BrokerCancelled(ticket=self._tickets[order_id], reason="user")
        await self.report(("cancelled", order_id, body))

    async def trade(self, volume: str, side: Side, position_id: int, *, reason: Any = "client") -> None:
        """Let somebody else, or the broker, trade on a position."""
        deal = self._deal(position_id, Decimal(volume), side, ticket=self._next(), reason=reason)
        await self.report(("deal", None, deal))

    async def report(self, *reports: tuple[str, str | None, Any]) -> None:
        """Report in the journal's order."""
        first, self._seq = self._seq, self._seq + len(reports)
        await self.world.report(*reports, first_seq=first)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _may(self, request: SubmitRequest) -> bool:
        """Return whether the terminal would send it: a position must hold what is to be closed of it."""
        if request.position_id is None:
            return True
        held = self.open.get(request.position_id, Decimal(0))
        side = "sell" if held > 0 else "buy"
        return request.parameters.side == side and request.parameters.volume <= abs(held)

    def _filled(self, request: SubmitRequest, *, half: bool) -> list[tuple[str, str | None, Any]]:
        wanted, ticket = request.parameters, self._tickets.get(request.order_id) or self._next()
        new = next(iter(self.open), ticket) if self.netting else ticket
        volume = wanted.volume / 2 if half else wanted.volume
        self.done.append(request.order_id)
        deal = self._deal(request.position_id or new, volume, wanted.side, ticket=ticket)
        reports: list[tuple[str, str | None, Any]] = [
            ("accepted", request.order_id, facts.BrokerAccepted(ticket=ticket)),
            ("deal", request.order_id, deal),
        ]
        if half:
            cancelled = facts.BrokerCancelled(ticket=ticket, reason="ioc_remainder")
            reports.append(("cancelled", request.order_id, cancelled))
        return reports

    def _deal(
        self, position_id: int, volume: Decimal, side: Side, *, ticket: int, reason: Any = "expert"
    ) -> facts.Filled:
        held = self.open.get(position_id, Decimal(0))
        net = held + (volume if side == "buy" else -volume)
        opens, reverses = not held or (held > 0) == (side == "buy"), volume > abs(held)
        if net:
            self.open[position_id] = net
        else:
            self.open.pop(position_id, None)
        number = self._next()
        return facts.Filled(
            deal=number,
            ticket=ticket,
            position_id=position_id,
            symbol="EURUSD",
            side=side,
            entry="in" if opens else "inout" if reverses else "out",
            reason=reason,
            volume=volume,
            price=PRICE,
            time=self.world.clock.now,
        )


async def market_of(*, netting: bool) -> Market:
    """Return a market whose account's terminal has said whether a symbol has one position."""
    world = await DeskWorld().start()
    mode: MarginMode = "netting" if netting else "hedging"
    await world.snapshot(AccountMessage(account=ACCOUNT, connection="ready", margin_mode=mode, at=world.clock.now))
    return Market(world, netting=netting)
