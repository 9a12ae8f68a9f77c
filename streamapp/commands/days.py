"""Days as they are given on the command line: UTC, in ``--from`` and ``--to``."""

from __future__ import annotations

from datetime import date
from typing import Any

import typer

from streamapp.errors import StreamappError


def day_option(flag: str, meaning: str) -> Any:
    """Return an option that takes a day, as a datetime."""
    return typer.Option(flag, help=meaning, formats=["%Y-%m-%d"], metavar="DAY")


def require_order(first: date, last: date) -> None:
    """Return if the first day is not after the last.

    Raises:
        StreamappError: it is.
    """
    if first > last:
        raise StreamappError(f"--from, --to: expected a first day that is not after the last, got {first} and {last}")
