"""(a) What the module consists of: constants, functions, struct types, and columns of arrays."""

from __future__ import annotations

import time
from typing import Any

from streamapp.conformance.run import Run
from streamapp.conformance.wire import Array, ShownStruct
from streamapp.mt5 import constants
from streamapp.simulator.wire import FIELDS

FUNCTIONS = [
    "initialize", "login", "shutdown", "version", "last_error", "terminal_info", "account_info", "symbols_total",
    "symbols_get", "symbol_info", "symbol_info_tick", "symbol_select", "market_book_add", "market_book_get",
    "market_book_release", "copy_rates_from", "copy_rates_from_pos", "copy_rates_range", "copy_ticks_from",
    "copy_ticks_range", "orders_total", "orders_get", "order_calc_margin", "order_calc_profit", "order_check",
    "order_send", "positions_total", "positions_get", "history_orders_total", "history_orders_get",
    "history_deals_total", "history_deals_get", "Buy", "Sell", "Close",
]  # fmt: skip
RATES = [["time", "i8"], ["open", "f8"], ["high", "f8"], ["low", "f8"], ["close", "f8"], ["tick_volume", "u8"],
         ["spread", "i4"], ["real_volume", "u8"]]  # fmt: skip
TICKS = [["time", "i8"], ["bid", "f8"], ["ask", "f8"], ["last", "f8"], ["volume", "u8"], ["time_msc", "i8"],
         ["flags", "u4"], ["volume_real", "f8"]]  # fmt: skip

_TYPES = {"b": "bool", "i": "int", "f": "float", "s": "str", "r": "TradeRequest"}
_CONSTANTS = "§1.2: the package's constants with their values [PY]"
_STRUCT = "§1.5: fields, and their order [BIN]"
_TUPLE = "§1.3: PyStructSequence: _asdict, counts of fields, no _fields/_replace/_make, not picklable [BIN]"
_KINDS = "§1.5: types of the fields' values [BIN]"


def check_module(run: Run) -> None:
    """What can be seen without a connection."""
    told = run.caller.surface(FUNCTIONS, sorted(FIELDS))
    known = {
        name: value
        for name, value in vars(constants).items()
        if name.isupper() and "_" in name and isinstance(value, int | float)
    }
    found = told["constants"]
    for name in sorted(known.keys() | found.keys()):
        if known.get(name) != found.get(name):
            run.equal(f"constant {name}", _CONSTANTS, known.get(name), found.get(name))
    run.equal("constants", _CONSTANTS, known, found, f"{len(found)} constants")
    run.equal("functions", "§1.3: 32 functions and three helpers [BIN][PY]", FUNCTIONS, told["functions"])
    for name, fields in FIELDS.items():
        _check_struct(run, name, [field for field, _ in fields], told["structs"][name])


def _check_struct(run: Run, name: str, fields: list[str], told: dict[str, Any] | None) -> None:
    if told is None:
        run.equal(f"{name} fields", _STRUCT, fields, None)
        return
    run.equal(f"{name} fields", _STRUCT, fields, told["fields"])
    form = {"counts": [len(fields), len(fields), 0], "is_tuple": True, "methods": ["_asdict"], "pickles": False}
    run.equal(f"{name} form", _TUPLE, form, {part: told[part] for part in form})


def check_types(run: Run, row: ShownStruct | None, name: str) -> None:
    """The types of the values of a struct that a call gave; the first of its kind is enough."""
    if any(check.name == f"{name} types" for check in run.checks):
        return
    if row is None:
        run.skipped(f"{name} types", _KINDS, "nothing of this type was given")
        return
    expected = [_TYPES[kind] for _, kind in FIELDS[name]]
    run.equal(f"{name} types", _KINDS, expected, row.types)


def check_connected(run: Run, symbol: str) -> None:
    """Types of what a connected terminal tells."""
    reads: list[tuple[str, str, tuple[Any, ...]]] = [
        ("TerminalInfo", "terminal_info", ()),
        ("AccountInfo", "account_info", ()),
        ("SymbolInfo", "symbol_info", (symbol,)),
        ("Tick", "symbol_info_tick", (symbol,)),
    ]
    for name, function, args in reads:
        check_types(run, run.caller.call(function, *args).result, name)
    version = run.caller.call("version").result
    kinds = [type(part).__name__ for part in version] if isinstance(version, tuple) else None
    run.equal("version form", "§1.3: version() is (500, build, date) [BIN]", ["int", "int", "str"], kinds)
    _check_book(run, symbol)
    claim = "§1.5: columns of the numpy arrays [BIN]"
    for name, columns, function, args in (
        ("rates", RATES, "copy_rates_from_pos", (symbol, 1, 0, 10)),
        ("ticks", TICKS, "copy_ticks_from", (symbol, int(time.time()) - 86_400, 10, -1)),
    ):
        array = run.caller.call(function, *args).result
        run.equal(f"{name} columns", claim, columns, array.columns if isinstance(array, Array) else None)


def _check_book(run: Run, symbol: str) -> None:
    run.caller.call("market_book_add", symbol)
    levels = run.caller.call("market_book_get", symbol).result
    run.caller.call("market_book_release", symbol)
    check_types(run, levels[0] if levels else None, "BookInfo")
