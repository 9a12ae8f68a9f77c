"""Exits: what a signal that closes, reduces, reverses or modifies asks for, and which positions bear how much of it.

Pure. What is open and under way is the desk's to say (:mod:`streamapp.desk.exits`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field

from streamapp.domain.orders import EXACT
from streamapp.domain.parameters import plain
from streamapp.domain.vocabulary import BoundedDecimal, FillPolicy, Frozen, Intent, Lots, Money, Side, Ticket, UtcTime

Scope = Literal["strategy", "symbol"]
"""Whose positions of the symbol an exit is about: those of the signal's strategy, or all that our orders opened."""
OPPOSITE: dict[Side, Side] = {"buy": "sell", "sell": "buy"}
MOST_PARTS = 50
"""Orders that one close becomes at most: more would be a wrong volume_max, and too many requests for a broker."""


class ExitParameters(Frozen):
    """The fields that make two exits the same request.

    ``position_id`` names one position; otherwise ``scope`` says which. ``side`` is that of the deal that closes: given,
    positions of the other side are meant alone. ``volume`` None is all. ``stop_loss`` and ``take_profit`` are those to
    be set by modify, 0 takes one away; with reverse they are the new position's.
    """

    symbol: str
    intent: Intent
    position_id: Ticket | None = None
    scope: Scope = "strategy"
    side: Side | None = None
    volume: Lots | None = None
    stop_loss: BoundedDecimal | None = None
    take_profit: BoundedDecimal | None = None
    fill_policy: FillPolicy = "any"


def exit_hash(parameters: ExitParameters) -> str:
    """Return the SHA-256 (hex) over the normalised parameters; equal for 0.10 and 0.1."""
    content = {
        name: plain(value) if isinstance(value, Decimal) else value
        for name in ExitParameters.model_fields
        for value in (getattr(parameters, name),)
    }
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


class Goal(Frozen):
    """An accepted exit that is not done: it is looked at again whenever something happens at its account.

    Attributes:
        payload: What came, as text: the decision that ends it keeps it.
        left: The lots that are still to be closed, None for all there are.
        orders: The ids of the orders it has made, in their order.
        targets: The positions whose levels it changes, and what the terminal answered, None where it has not.
        weight: Set where it is the account's copy of a signal that went to several.
        how: How its lots came about, where they are not what was asked.
    """

    parameters: ExitParameters
    strategy: str | None = None
    expected_price: BoundedDecimal | None = None
    max_slippage_points: int | None = None
    signal_at: UtcTime
    not_after: UtcTime
    metadata: dict[str, Any] = Field(default_factory=dict)
    trace: str | None = None
    payload: str
    left: Money | None = None
    orders: tuple[str, ...] = ()
    targets: dict[int, str | None] = Field(default_factory=dict)
    weight: Lots | None = None
    how: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """An open position as far as an exit may close it: ``lots`` are not another order's to close."""

    position_id: int
    side: Side
    lots: Decimal


@dataclass(frozen=True, slots=True)
class Part:
    """What one order closes."""

    position_id: int
    side: Side
    volume: Decimal


def parts_of(holdings: Iterable[Holding], wanted: Decimal | None) -> list[Part]:
    """Return the closing orders, oldest position first (tickets ascend), ``wanted`` lots together at most.

    None closes more than its position holds: an exit never opens.
    """
    left, parts = wanted, list[Part]()
    for holding in sorted(holdings, key=lambda one: one.position_id):
        volume = holding.lots if left is None else min(holding.lots, left)
        if volume > 0:
            parts.append(Part(holding.position_id, OPPOSITE[holding.side], volume))
            left = None if left is None else EXACT.subtract(left, volume)
    return parts


def in_parts(volume: Decimal, largest: Decimal) -> list[Decimal]:
    """Return the lots of the orders that ``volume`` is where one may have ``largest`` at most; 0 is no limit."""
    left, parts = volume, list[Decimal]()
    while left > 0:
        parts.append(min(left, largest) if largest > 0 else left)
        left = EXACT.subtract(left, parts[-1])
    return parts
