"""The argument rules of the module: what it accepts, and the words with which it refuses the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from streamapp.simulator.wire import FIELDS

T = TypeVar("T")

U32 = ("action", "type", "type_filling", "type_time")
U64 = ("magic", "order", "deviation", "position", "position_by")
TEXTS = ("symbol", "comment")
# The original copies both texts into fixed buffers of 30 UTF-16 units, the closing zero among them.
MAX_TEXT_UNITS = 29
# Where the original leaves a date uninitialised (value 0), the fake is unlucky on purpose: nothing is found.
UNLUCKY_DATE = 2**31 - 1

NOT_UNNAMED = "Unnamed arguments not allowed"
WRONG_COUNT = "Invalid number of arguments"
INVALID = "Invalid arguments"


class BadArgument(Exception):  # noqa: N818  # it reads as what it is
    """The call is refused by the module itself: nothing was sent. Its words are those of last_error()."""


def field_error(name: str) -> BadArgument:
    """Return the refusal of one named field."""
    return BadArgument(f'Invalid "{name}" argument')


def utf16_units(text: str) -> int:
    """Return length of a text as Windows counts it."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _integer(function: str, name: str, value: Any, low: int, high: int) -> int:
    if not isinstance(value, int):
        raise field_error(name)
    if not low <= value <= high:
        # The original returns a result with a Python exception pending.
        problem = OverflowError(f"expected {name} from {low} to {high}, got {value}")
        raise SystemError(f"<built-in function {function}> returned a result with an exception set") from problem
    return int(value)


def _field(function: str, name: str, kind: str, value: Any) -> Any:
    if kind == "s":
        if not isinstance(value, str) or utf16_units(value) > MAX_TEXT_UNITS:
            raise field_error(name)
        return str(value)
    if kind == "f":
        if not isinstance(value, float):
            raise field_error(name)
        return float(value)
    if name in U32:
        return _integer(function, name, value, 0, 2**32 - 1)
    if name in U64:
        return _integer(function, name, value, 0, 2**64 - 1)
    return _integer(function, name, value, -(2**63), 2**63 - 1)


_ZEROS = {"i": 0, "f": 0.0, "s": ""}


def trade_request(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the 17 values of a TradeRequest, given as a dict or as keywords; unknown keys are ignored."""
    if args and kwargs:
        raise BadArgument(NOT_UNNAMED)
    if len(args) > 1 or not (args or kwargs):
        raise BadArgument(WRONG_COUNT)
    given = args[0] if args else kwargs
    if not isinstance(given, dict):
        raise BadArgument("Invalid 1st unnamed argument")
    return [
        _field(function, name, kind, given[name]) if name in given else _ZEROS[kind]
        for name, kind in FIELDS["TradeRequest"]
    ]


def positional(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], *kinds: type | tuple[type, ...]) -> None:
    """Hold a positional-only call to its types; a float parameter also takes an int, as in the original."""
    if kwargs:
        raise TypeError(f"{function}() takes no keyword arguments")
    if len(args) != len(kinds):
        raise BadArgument(INVALID)
    ordinals = ("1st", "2nd", "3rd", "4th", "5th")
    for ordinal, value, kind in zip(ordinals, args, kinds, strict=False):
        if not isinstance(value, kind):
            raise BadArgument(f"Invalid {ordinal} unnamed argument")


def keyword(name: str, value: Any, kind: type[T]) -> T:
    """Return a keyword of one type."""
    if not isinstance(value, kind):
        raise field_error(name)
    return value


def seconds(value: Any, ordinal: str) -> int:
    """Return a date as seconds, cut to 32 bits: a naive datetime means the machine's own zone, 0 means trouble."""
    if isinstance(value, datetime):
        value = value.timestamp()
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise BadArgument(f"Invalid {ordinal} unnamed argument")
    cut = int(value) & 0xFFFFFFFF
    cut = cut - 2**32 if cut >= 2**31 else cut
    return cut or UNLUCKY_DATE


def in_group(name: str, group: str) -> bool:
    """Return whether a symbol is in a group such as "*USD*, !EUR*": some mask has it and no mask with "!" does."""
    masks = [mask.strip() for mask in group.split(",")]
    wanted = any(_fits(name, mask) for mask in masks if mask and not mask.startswith("!"))
    return wanted and not any(_fits(name, mask[1:]) for mask in masks if mask.startswith("!"))


def _fits(name: str, mask: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in mask.split("*")), name) is not None


def of_group(rows: Iterable[T], group: str | None, field: str) -> tuple[T, ...]:
    """Return the rows whose symbol is in the group; all without one."""
    if group is None:
        return tuple(rows)
    return tuple(row for row in rows if in_group(getattr(row, field), group))
