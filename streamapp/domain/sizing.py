"""From the volume that a signal asks for to the one that an account trades: weight, factor, step and smallest."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Context, Decimal

from streamapp.domain.parameters import plain

ONE = Decimal(1)
_PRODUCTS = Context(prec=160, rounding=ROUND_DOWN)
"""Holds the product of three decimals of 38 digits, as whole multiples of the smallest step, without rounding."""
SMALLEST_STEP, LARGEST = Decimal("1e-10"), Decimal("1e27")
"""What the warehouse can keep of a volume, as of every decimal."""


@dataclass(frozen=True, slots=True)
class Sizing:
    """How an account changes volumes, in lots: by ``factor``, down to a multiple of ``step``, at least ``smallest``."""

    factor: Decimal = ONE
    step: Decimal | None = None
    smallest: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Sized:
    """The lots to trade.

    Attributes:
        volume: How many; 0 where they round to nothing.
        how: How they came about, in words; None where they are what was asked.
        refusal: Why they can't be traded; None if they can.
    """

    volume: Decimal
    how: str | None = None
    refusal: str | None = None


AS_ASKED = Sizing()


def sized(asked: Decimal, sizing: Sizing, weight: Decimal = ONE) -> Sized:
    """Return the volume for ``asked`` lots at an account whose copy of the signal has this weight.

    ``asked`` times ``weight`` times ``factor``, rounded down once, at the end.
    """
    if weight == ONE and sizing == AS_ASKED:
        return Sized(asked)
    step = sizing.step or SMALLEST_STEP
    product = _PRODUCTS.multiply(_PRODUCTS.multiply(asked, weight), sizing.factor)
    volume = _PRODUCTS.multiply(_PRODUCTS.divide(product, step).to_integral_value(ROUND_DOWN), step).normalize(
        _PRODUCTS
    )
    least = max(sizing.smallest or step, step)
    if least <= volume < LARGEST:
        return (
            Sized(asked) if volume == asked else Sized(volume, f"volume {plain(volume)}: {_how(asked, sizing, weight)}")
        )
    expected = f"at least {plain(least)}" if volume < least else f"less than {plain(LARGEST)}"
    return Sized(
        volume, refusal=f"volume: expected {expected} lots, got {plain(volume)}: {_how(asked, sizing, weight)}"
    )


def _how(asked: Decimal, sizing: Sizing, weight: Decimal) -> str:
    by = {"weight": weight, "volume_factor": sizing.factor, "volume_step": sizing.step, "volume_min": sizing.smallest}
    return ", ".join((f"{plain(asked)} asked", *(f"{name} {plain(value)}" for name, value in by.items() if value)))
