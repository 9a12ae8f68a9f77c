"""Numbers of the MT5 module that both halves of the terminal know. Imports nothing: the worker stays small."""

from __future__ import annotations

from typing import Literal

SIDES: tuple[Literal["buy"], Literal["sell"]] = ("buy", "sell")
"""By the lowest bit of an order's, deal's or position's type."""
DEAL_TYPES = (0, 1)
"""Buy and sell; the others (balance, credit, ...) are no trades."""
ENTRY_IN, ENTRY_OUT_BY = 0, 3
EXPERT = 3
"""The reason of what a program sent. Everything of ours has it; what a person, a stop or a stop-out does has not."""
VOLUME_DIGITS = 8
"""Volumes are floats; the smallest step of any broker is a thousand times larger than what this rounds away."""
