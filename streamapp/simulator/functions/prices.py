"""Bars and ticks of the past, as numpy arrays."""

# ruff: noqa: D402
from typing import Any

from streamapp.simulator import arguments
from streamapp.simulator.functions.calls import api, ask

_RATES = [("time", "i8"), ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("tick_volume", "u8"),
          ("spread", "i4"), ("real_volume", "u8")]  # fmt: skip
_TICKS = [("time", "i8"), ("bid", "f8"), ("ask", "f8"), ("last", "f8"), ("volume", "u8"), ("time_msc", "i8"),
          ("flags", "u4"), ("volume_real", "f8")]  # fmt: skip


def _array(rows: Any, dtype: list[tuple[str, str]]) -> Any:
    if rows is None:
        return None
    import numpy as np  # optional: the rest of the module works without it

    return np.array([tuple(row) for row in rows], dtype=dtype)


@api(None)
def copy_rates_from(*args: Any, **kwargs: Any) -> Any:
    """Bars back from a date: copy_rates_from(symbol, timeframe, date_from, count)."""
    arguments.positional("copy_rates_from", args, kwargs, str, int, object, int)
    at = arguments.seconds(args[2], "3rd")
    return _array(ask("copy_rates_from", args[0], int(args[1]), at, int(args[3])), _RATES)


@api(None)
def copy_rates_from_pos(*args: Any, **kwargs: Any) -> Any:
    """Bars back from a position, 0 being the present bar: copy_rates_from_pos(symbol, timeframe, start, count)."""
    arguments.positional("copy_rates_from_pos", args, kwargs, str, int, int, int)
    return _array(ask("copy_rates_from_pos", args[0], *(int(value) for value in args[1:])), _RATES)


@api(None)
def copy_rates_range(*args: Any, **kwargs: Any) -> Any:
    """Bars of a span: copy_rates_range(symbol, timeframe, date_from, date_to)."""
    arguments.positional("copy_rates_range", args, kwargs, str, int, object, object)
    span = arguments.seconds(args[2], "3rd"), arguments.seconds(args[3], "4th")
    return _array(ask("copy_rates_range", args[0], int(args[1]), *span), _RATES)


@api(None)
def copy_ticks_from(*args: Any, **kwargs: Any) -> Any:
    """Ticks on from a date: copy_ticks_from(symbol, date_from, count, flags)."""
    arguments.positional("copy_ticks_from", args, kwargs, str, object, int, int)
    at = arguments.seconds(args[1], "2nd")
    return _array(ask("copy_ticks_from", args[0], at, int(args[2]), int(args[3])), _TICKS)


@api(None)
def copy_ticks_range(*args: Any, **kwargs: Any) -> Any:
    """Ticks of a span: copy_ticks_range(symbol, date_from, date_to, flags)."""
    arguments.positional("copy_ticks_range", args, kwargs, str, object, object, int)
    span = arguments.seconds(args[1], "2nd"), arguments.seconds(args[2], "3rd")
    return _array(ask("copy_ticks_range", args[0], *span, int(args[3])), _TICKS)
