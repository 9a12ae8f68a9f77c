"""Positions: a fold of deals, ours or not, keyed by (account, position_id) (design: order-status, "Positions").

What the broker charges to a position by a deal of its own, a commission for one, is part of its profit and of nothing
else.

A deal's side decides what it does: with the position it adds, against it it reduces, beyond it it reverses. ``in``,
``out``, ``inout`` and ``out_by`` all come out right by that, and so does who knows only ``in``. One thing the
entry adds: deals that only close (``out``, ``out_by``) open nothing. What they close beyond what is known was opened
by a split, or before our time, and leaves the position flat; read as a reversal, it would be one that no broker has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal

from pydantic import Field

from streamapp.domain.facts import AccountOperation, Filled
from streamapp.domain.orders import EXACT, Deal, Owner, exact_sum
from streamapp.domain.vocabulary import ONLY_CLOSING, Frozen, Money, Side, UtcTime

_AVERAGE = Decimal("1e-10")  # what the warehouse keeps of a price


class PositionState(Frozen):
    """What deals add up to. ``net`` is signed lots, positive long; ``average_price`` is of what is open, None if flat.

    ``realized_profit`` is what the broker booked: profit, commission, swap and fee of every deal, those that opened
    included, and the operations that name the position, so it is what the position has done to the balance so far.
    ``at`` is the latest time of any of them, None before the first trade: without one, nobody knows what is open.

    ``opened_by`` is whose deal opened what is open, or was open last; None for somebody else's. ``shares`` are the
    signed lots that each strategy's own orders ("" for those without one) have made of it since it was flat: they do
    not add up to ``net`` where others, the broker's stops among them, have traded on it too.

    ``bought`` and ``sold`` are whether a deal that may open did so, ``beyond`` the signed lots that others closed past
    what is known: with ``net`` they are what all deals add up to, in whatever order they come.
    """

    symbol: str = ""
    net: Money = Decimal(0)
    average_price: Money | None = None
    realized_profit: Money = Decimal(0)
    currency: str = ""
    at: UtcTime | None = None
    opened_at: UtcTime | None = None
    opened_by: Owner | None = None
    shares: dict[str, Money] = Field(default_factory=dict)
    bought: bool = False
    sold: bool = False
    beyond: Money = Decimal(0)

    @property
    def side(self) -> Side | None:
        """Long is buy, short is sell, flat is None."""
        return None if self.net == 0 else ("buy" if self.net > 0 else "sell")

    @property
    def volume(self) -> Decimal:
        """The open lots."""
        return abs(self.net)

    def share_of(self, strategies: Iterable[str] | None) -> Decimal:
        """Return the open lots that are these strategies' own, of all of ours for None; never more than is open."""
        own = self.shares.values() if strategies is None else (self.shares.get(name, Decimal(0)) for name in strategies)
        lots = exact_sum(own)
        return min(abs(lots), self.volume) if (lots > 0) == (self.net > 0) else Decimal(0)


def fold_deals(
    deals: Iterable[Deal], base: PositionState | None = None, operations: Iterable[AccountOperation] = ()
) -> PositionState:
    """Return the position that ``deals`` make, in whatever order they are given: they count by time, then deal ticket.

    Args:
        deals: One for each deal ticket, merged with its corrections; what was taken back counts nothing. A position all
            of whose deals were taken back is flat, and still has its symbol and time: its readers must hear of it.
        base: A position to start from, made of deals that come before all of these.
        operations: What was charged to the position without a trade, one for each deal ticket, as it is now.
    """
    known = sorted(
        ((deal.filled, deal) for deal in deals if deal.filled is not None),
        key=lambda one: (one[0].time, one[0].deal),
    )
    state = base or PositionState()
    for filled, deal in known:
        if deal.stands:
            state = _booked(state, filled, deal.owner)
    if state.at is None and known:
        last = known[-1][0]
        state = state.model_copy(update={"symbol": last.symbol, "currency": last.currency, "at": last.time})
    for operation in operations:
        state = _charged(state, operation)
    return state


def symbol_position_id(account: str, symbol: str) -> int:
    """Return the position id for a foreign fill that names none: one net position for each symbol.

    It has 52 bits, so that JSON readers with binary floats keep it exact, and the highest set, which no ticket reaches.
    """
    digest = hashlib.sha256(f"position\x00{account}\x00{symbol}".encode()).digest()
    return 1 << 51 | int.from_bytes(digest[:6], "big")


def _booked(state: PositionState, filled: Filled, owner: Owner | None) -> PositionState:
    signed = filled.volume if filled.side == "buy" else EXACT.minus(filled.volume)
    # What is open was opened, also where the fold that it is in did not keep by whom.
    may_open = filled.entry not in ONLY_CLOSING
    bought = state.bought or state.net > 0 or (may_open and filled.side == "buy")
    sold = state.sold or state.net < 0 or (may_open and filled.side == "sell")
    lots = exact_sum((state.net, state.beyond, signed))
    is_known = bought if lots > 0 else sold
    net, beyond = (lots, Decimal(0)) if is_known else (Decimal(0), lots)
    opens = net != 0 and (state.net == 0 or (net > 0) != (state.net > 0))
    money = exact_sum((state.realized_profit, filled.profit, filled.commission, filled.swap, filled.fee))
    return PositionState.model_construct(
        symbol=filled.symbol,
        net=net,
        average_price=_average(state, filled, net),
        realized_profit=money,
        currency=filled.currency or state.currency,
        at=filled.time if state.at is None else max(state.at, filled.time),
        opened_at=filled.time if opens else state.opened_at,
        opened_by=owner if opens else state.opened_by,
        shares=_shares({} if opens or net == 0 else state.shares, net if opens else signed, owner, net),
        bought=bought,
        sold=sold,
        beyond=beyond,
    )


def _shares(before: dict[str, Decimal], signed: Decimal, owner: Owner | None, net: Decimal) -> dict[str, Decimal]:
    if owner is None or net == 0:
        return before
    name = owner.strategy or ""
    return {**before, name: EXACT.add(before.get(name, Decimal(0)), signed)}


def _charged(state: PositionState, operation: AccountOperation) -> PositionState:
    return state.model_copy(
        update={
            "realized_profit": EXACT.add(state.realized_profit, operation.amount),
            "currency": state.currency or operation.currency,
            "at": None if state.at is None else max(state.at, operation.at),
        }
    )


def _average(state: PositionState, filled: Filled, net: Decimal) -> Decimal | None:
    if net == 0:
        return None
    before = state.average_price
    if before is None or (net > 0) != (state.net > 0):  # opened, or reversed: all that is open is this deal's
        return filled.price
    if abs(net) < abs(state.net) or before == filled.price:  # reducing leaves the average where it was
        return before
    value = EXACT.fma(before, state.volume, EXACT.multiply(filled.price, filled.volume))
    return EXACT.divide(value, abs(net)).quantize(_AVERAGE, context=EXACT)
