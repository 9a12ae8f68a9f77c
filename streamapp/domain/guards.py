"""Guards: limits of the house that refuse an order, whoever approved it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from streamapp.domain.parameters import OrderParameters


@dataclass(frozen=True, slots=True)
class Limits:
    """What no order may exceed. ``max_volume`` in lots, None: any; ``symbols`` empty: all."""

    max_volume: Decimal | None = None
    symbols: frozenset[str] = frozenset()


def broken_guard(parameters: OrderParameters, limits: Limits) -> str | None:
    """Return a sentence about the first limit the order breaks, None if it keeps them all."""
    if limits.symbols and parameters.symbol not in limits.symbols:
        return f"symbol: expected one of guards.symbols, got {parameters.symbol}"
    if limits.max_volume is not None and parameters.volume > limits.max_volume:
        return f"volume: expected {limits.max_volume} lots at most (guards.max_volume), got {parameters.volume}"
    return None
