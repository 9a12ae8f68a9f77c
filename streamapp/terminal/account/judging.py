"""Whether an order may be sent now: what the market shows, waited for where it comes in a moment, and the request."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from streamapp.clock import Clock
from streamapp.domain.facts import (
    SubmitReturned,
    SubmitStarted,
)
from streamapp.domain.identifiers import magic_of, tag_of
from streamapp.domain.limits import AccountLimits
from streamapp.messages.terminal import SubmitRequest
from streamapp.mt5 import constants as mt5
from streamapp.settings import AccountSettings, TerminalSettings
from streamapp.terminal.account.connection import BrokerConnection
from streamapp.terminal.account.pretrade import judge
from streamapp.terminal.account.request import NotYetError, RefusedError, build, chosen, fillings, protection
from streamapp.terminal.account.synchronisation import FUTURE, OVERLAP
from streamapp.terminal.account.worker_client import ORDER, NotHandedOverError, WorkerLostError
from streamapp.terminal.journal.book import Book
from streamapp.terminal.journal.database import Journal
from streamapp.terminal.operations.close import in_the_way
from streamapp.terminal.pipe.answers import Prepared
from streamapp.terminal.pipe.calls import Prepare, Search, Wanted
from streamapp.terminal.pipe.structs import TradeRequest, number

logger = logging.getLogger(__name__)

QUOTE_WITHIN_S = 2.0
"""How long an order waits for the first tick of a symbol that nobody looked at before, for a server's clock that has
changed to be learned, for a position as its deals left it, or for a read that failed: a subscription takes a second, a
clock two looks. Others go on meanwhile."""
_LOOKS_AT_LEAST = 2
"""How often it is looked at again however long that takes: a process that stood still has not waited."""


@dataclass(frozen=True)
class OrderLimits:
    """What the orders of one account, and the operations on them and their positions, are judged by."""

    account: AccountSettings
    guards: AccountLimits
    terminal: TerminalSettings


@dataclass(frozen=True)
class Judged:
    """An order that may be sent: what the market showed, on which connection, and the request.

    ``levels`` are stop loss and take profit that its position shall have, 0 for none; ``denied`` the filling modes that
    the broker refused to earlier attempts.
    """

    order: SubmitRequest
    started: SubmitStarted
    request: TradeRequest
    levels: tuple[Decimal, Decimal]
    generation: int
    denied: frozenset[int] = frozenset()


@dataclass
class _Aside:
    """An order that waits for what it can be judged by.

    Attributes:
        until_s: Until when, by the loop's time.
        why: What it waits for, in the words of a refusal.
        looks: How often it was looked at again.
        is_last: Whether the look that is being taken decides.
        quote_ms: The time of the last quote that it saw.
        has_moved: Whether that was another one than before.
    """

    until_s: float
    why: str
    looks: int = 0
    is_last: bool = False
    quote_ms: int = 0
    has_moved: bool = False


class Judge:
    """Judges orders as things are now; one that waits is remembered until it is forgotten."""

    def __init__(self, journal: Journal, connection: BrokerConnection, limits: OrderLimits, clock: Clock) -> None:
        self._journal = journal
        self._connection = connection
        self._limits = limits
        self._clock = clock
        self._asides: dict[str, _Aside] = {}

    async def judged(self, order: SubmitRequest, denied: frozenset[int] = frozenset()) -> Judged:
        """Return what the market shows and the request, waiting for a connection as long as the order is valid.

        Raises:
            NotYetError: it may perhaps be sent in a moment.
            RefusedError: it may not be sent.
        """
        while True:
            self._look_again(order.order_id)
            await self._refuse_now(order)
            generation = self._connection.generation
            try:
                look = Prepare(order.parameters.symbol, order.position_id)
                prepared = (await self._connection.ask(look, urgency=ORDER)).value
                judge(
                    order,
                    prepared,
                    self._limits.account,
                    self._limits.guards.of_order(order.parameters.symbol),
                    time=self._connection.time,
                    now=self._clock(),
                    quote_moved=self._has_moved(order, prepared),
                )
                request = await self._request(order, prepared, denied)
                levels = protection(order, prepared)
                return Judged(order, self._started(order, prepared), request, levels, generation, denied)
            except (NotHandedOverError, WorkerLostError) as error:
                logger.warning("order %s: nothing was sent, judging it again: %s", order.order_id, error)
            except (ArithmeticError, ValueError, TypeError) as error:
                # Nothing was sent. Without this, one order that nobody foresaw ends the process in every life.
                logger.exception("order %s can't be judged", order.order_id)
                raise RefusedError("invalid", f"it can't be judged: {type(error).__name__}: {error}"[:500]) from None

    async def judged_again(self, judged: Judged, returned: SubmitReturned) -> Judged:
        """Return the next attempt, judged as things are now.

        Raises:
            RefusedError: it may not be sent; something of the order is at the broker after all.
            NotHandedOverError, WorkerLostError: the broker could not be looked at.
        """
        order = judged.order
        now, time = self._clock(), self._connection.time
        ours = Wanted(
            magic=magic_of(order.order_id),
            tag=tag_of(order.order_id),
            symbol=order.parameters.symbol,
            side=order.parameters.side,
            volume=float(order.parameters.volume),
            alike_from=None,
        )
        since, until = time.server_s(now - OVERLAP), time.server_s(now + FUTURE)
        look = (await self._connection.read_now(Search((ours,), since, until, settled_until=since))).value
        if not look.read or look.matches:
            raise RefusedError("guard", "the broker does not show that there is nothing of it")
        is_denied = returned.retcode == mt5.TRADE_RETCODE_INVALID_FILL
        denied = judged.denied | ({judged.request["type_filling"]} if is_denied else frozenset[int]())
        return await self.judged(order.model_copy(update={"attempt": order.attempt + 1}), denied)

    def may_wait(self, order_id: str, why: str) -> bool:
        """Return whether an order that can't be judged yet may come again in a moment; False: it has, long enough."""
        until_s = asyncio.get_running_loop().time() + QUOTE_WITHIN_S
        aside = self._asides.setdefault(order_id, _Aside(until_s, why))
        aside.why = why
        return not aside.is_last

    def forget(self, order_id: str) -> None:
        """Remember no longer since when an order waits."""
        self._asides.pop(order_id, None)

    def _look_again(self, order_id: str) -> None:
        """Settle whether this look is the last: once, so that no look is refused as late that was judged as early."""
        if (aside := self._asides.get(order_id)) is not None:
            aside.looks += 1
            is_over = asyncio.get_running_loop().time() >= aside.until_s
            aside.is_last = is_over and aside.looks >= _LOOKS_AT_LEAST

    async def _refuse_now(self, order: SubmitRequest) -> None:
        """Return once the account may open or the order closes, in its time, and nothing before it is in its way.

        Raises:
            RefusedError: it never will be so; NotYetError: an order before it changes the same position.
        """
        refuse_halted(self._journal.book, order)
        if self._clock() >= order.not_after:
            aside = self._asides.get(order.order_id)
            why = f": {aside.why}" if aside is not None else ""
            raise RefusedError("stale", f"not after {order.not_after.isoformat()}{why}")
        if not await self._connection.settled(order.not_after):
            health = self._connection.health
            raise RefusedError("stale", f"still {health.connection} at {order.not_after.isoformat()}: {health.detail}")
        if (health := self._connection.health).connection != "ready":
            raise RefusedError("not_connected", f"{health.connection}: {health.detail}")
        if order.position_id is not None:
            before = partial(in_the_way, order=order, hedging=self._connection.hedging)
            if (other := await self._journal.write(before)) is not None:
                raise NotYetError("guard", f"order {other} may still change position {order.position_id}")

    def _has_moved(self, order: SubmitRequest, prepared: Prepared) -> bool:
        """Return whether the quote has become another one since the order was put aside: it is fresh, then.

        Not before the end of its wait: most likely the server's clock has changed, and once that is known the facts of
        the order have the right times.
        """
        aside = self._asides.get(order.order_id)
        if aside is None or prepared.tick is None:
            return False
        before, aside.quote_ms = aside.quote_ms, prepared.tick.time_msc
        aside.has_moved = aside.has_moved or before not in (0, aside.quote_ms)
        return aside.has_moved and aside.is_last

    async def _request(self, order: SubmitRequest, prepared: Prepared, denied: frozenset[int]) -> TradeRequest:
        assert prepared.symbol is not None
        deviation = self._limits.terminal.deviation_points.get(order.parameters.symbol)
        choices, time = fillings(order.parameters, prepared.symbol, denied), self._connection.time
        requests = [build(order, prepared, filling, time, deviation) for filling in choices]
        return await chosen(self._connection, requests, urgency=ORDER)

    def _started(self, order: SubmitRequest, prepared: Prepared) -> SubmitStarted:
        assert prepared.symbol is not None
        assert prepared.tick is not None
        return SubmitStarted(
            attempt=order.attempt,
            bid=prepared.bid,
            ask=prepared.ask,
            quote_at=self._connection.time.utc(prepared.tick.time_msc),
            point=number(prepared.symbol.point),
            contract_size=number(prepared.symbol.trade_contract_size),
            account_rate=number(prepared.rate or 0),
            currency=self._connection.currency,
            sent_at=self._clock(),
        )


def refuse_halted(book: Book, order: SubmitRequest) -> None:
    """Return if the account opens, or if the order closes.

    Raises:
        RefusedError: reason halted.
    """
    if order.position_id is None and (why := book.halted()) is not None:
        raise RefusedError("halted", f"the account opens nothing more until it is resumed: {why}")
