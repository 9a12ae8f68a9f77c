"""(b) Bad calls: what the module says to each, before anything is sent. A table; the suite only walks it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from streamapp.conformance.run import Run
from streamapp.conformance.wire import Array, ShownStruct, Special

FORMS = "§1.3: accepted call forms [BIN]"
FORMS_GUESSED = "§1.3: accepted call forms [BIN], these words [UNV]"
FIELDS = "§1.4: types of the request's fields [BIN]"
RANGES = "§1.4: a number out of range leaves an exception pending [UNV]"
TEXTS = "§1.4: at most 29 UTF-16 units [BIN]"
NONES = "§1.4: None is rejected [BIN]"
DATES = "§1.3: dates are datetime or numbers [BIN], these words [UNV]"
UNFOUND = "§1.3: no match is (), not None [BIN]"
UNKNOWN = "§1.2: unknown symbol: -4 [BIN]"
NO_PIPE = "§1.2: without a connection -10004 [BIN]"
NO_ARGS = "§1.3: METH_NOARGS and METH_VARARGS refuse what they do not take [BIN]"

OK = [1, "Success"]
_NO_PIPE = (-10004, "No IPC connection")
_DAY = 1_700_000_000

Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BadCall:
    """A call, and what it is claimed to give: a result with an error tuple, or an exception."""

    claim: str
    function: str
    expected: Outcome
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def none(code: int, text: str) -> Outcome:
    """None, with an error."""
    return {"returned": "None", "error": [code, text]}


def false(text: str) -> Outcome:
    """False, with an error of arguments."""
    return {"returned": "False", "error": [-2, text]}


def raises(kind: str) -> Outcome:
    """An exception; its words are Python's own and differ from version to version."""
    return {"raised": kind}


EMPTY: Outcome = {"returned": "()", "error": OK}
_TYPE_ERROR = raises("TypeError")
_PENDING = raises("SystemError")
_UNNAMED = none(-2, "Unnamed arguments not allowed")
_COUNT = none(-2, "Invalid number of arguments")
_ARGUMENTS = none(-2, "Invalid arguments")
_FIRST = none(-2, "Invalid 1st unnamed argument")
_NOT_FOUND = none(-4, "Terminal: Not found")


def _of(name: str) -> Outcome:
    return none(-2, f'Invalid "{name}" argument')


def request(symbol: str) -> dict[str, Any]:
    """A whole request with an action that does not exist: were it ever sent, it would do nothing."""
    return {"action": 0, "symbol": symbol, "volume": 0.01, "type": 0, "price": 1.0, "type_filling": 0}


def before_initialize() -> list[BadCall]:
    """Calls of a module that was never connected."""
    calls = [
        BadCall(NO_PIPE, name, none(*_NO_PIPE), args)
        for name, args in (
            ("terminal_info", ()), ("account_info", ()), ("symbols_total", ()), ("symbols_get", ()),
            ("symbol_info", ("EURUSD",)), ("symbol_info_tick", ("EURUSD",)), ("orders_total", ()), ("orders_get", ()),
            ("positions_total", ()), ("positions_get", ()), ("history_deals_get", (_DAY, _DAY + 1)),
            ("history_orders_total", (_DAY, _DAY + 1)), ("order_send", (request("EURUSD"),)),
            ("order_check", (request("EURUSD"),)), ("order_calc_margin", (0, "EURUSD", 0.1, 1.0)),
            ("copy_rates_from_pos", ("EURUSD", 1, 0, 1)), ("market_book_get", ("EURUSD",)),
        )
    ]  # fmt: skip
    calls += [
        BadCall(NO_PIPE, name, {"returned": "False", "error": list(_NO_PIPE)}, ("EURUSD",))
        for name in ("symbol_select", "market_book_add", "market_book_release")
    ]
    calls += [
        BadCall("§1.3: version() without a connection is (0, 0, '') [BIN]", "version",
                {"returned": "(0, 0, '')", "error": list(_NO_PIPE)}),
        BadCall("§1.3: shutdown() is True, connected or not [BIN]", "shutdown", {"returned": "True", "error": OK}),
        BadCall(FORMS_GUESSED, "initialize", false("Unnamed arguments not allowed"), ("a", "b")),
        BadCall(FORMS_GUESSED, "initialize", false('Invalid "login" argument'), kwargs={"login": "5"}),
        BadCall(FORMS_GUESSED, "initialize", false('Invalid "password" argument'), kwargs={"password": 5}),
        BadCall(FORMS_GUESSED, "initialize", false('Invalid "server" argument'), kwargs={"server": 5}),
        BadCall(FORMS_GUESSED, "initialize", false('Invalid "timeout" argument'), kwargs={"timeout": "5"}),
    ]  # fmt: skip
    return calls


def after_shutdown() -> list[BadCall]:
    """Calls of a module that was connected and is not any more."""
    reads = ("account_info", "positions_get", "orders_get", "symbols_total")
    calls = [BadCall(NO_PIPE, name, none(*_NO_PIPE)) for name in reads]
    calls.append(BadCall(NO_PIPE, "order_send", none(*_NO_PIPE), (request("EURUSD"),)))
    calls.append(BadCall("§1.4: local validation comes before the connection [UNV]", "order_send", _of("volume"),
                         ({**request("EURUSD"), "volume": 1},), name="volume=1"))  # fmt: skip
    return calls


def _fields() -> list[tuple[str, str, Any, Outcome]]:
    """Claim, field, value, outcome of requests with one bad field."""
    late = Special("datetime", 1_900_000_000)
    rows: list[tuple[str, str, Any]] = [(FIELDS, name, 1) for name in ("volume", "price", "stoplimit", "sl", "tp")]
    rows += [(FIELDS, name, 1.0) for name in ("action", "magic", "order", "type", "type_filling", "type_time",
                                              "deviation", "position", "position_by", "expiration")]  # fmt: skip
    rows += [(NONES, name, None) for name in ("symbol", "volume", "price", "magic", "type", "comment", "expiration")]
    rows += [
        (FIELDS, "type", "buy"), (FIELDS, "volume", "0.01"), (FIELDS, "volume", Special("decimal", "0.01")),
        (FIELDS, "volume", Special("numpy.float32", 0.01)), (FIELDS, "magic", Special("numpy.int64", 1)),
        (FIELDS, "type", Special("numpy.int32", 0)), (FIELDS, "magic", "1"), (FIELDS, "expiration", late),
        (FIELDS, "symbol", 5), (FIELDS, "symbol", Special("bytes", "EURUSD")), (FIELDS, "comment", 5),
        (FIELDS, "comment", Special("bytes", "x")), (TEXTS, "comment", "x" * 30), (TEXTS, "symbol", "x" * 30),
        (TEXTS, "comment", "\U0001f600" * 15), (FIELDS, "volume", [0.01]),
    ]  # fmt: skip
    wrong = [(claim, name, value, _of(name)) for claim, name, value in rows]
    wrong += [
        (RANGES, name, value, _PENDING)
        for name, value in (("magic", -1), ("magic", 2**64), ("type", -1), ("action", 2**32), ("position", -1),
                            ("expiration", 2**63))
    ]  # fmt: skip
    return wrong


def of_requests(symbol: str) -> list[BadCall]:
    """Bad forms and fields of order_send and order_check."""
    whole = request(symbol)
    calls = []
    for function in ("order_send", "order_check"):
        calls += [
            BadCall(FORMS, function, _COUNT),
            BadCall(FORMS, function, _UNNAMED, (whole,), {"volume": 0.1}, "request and keywords"),
            BadCall(FORMS_GUESSED, function, _COUNT, (whole, whole), name="two requests"),
            BadCall(FORMS_GUESSED, function, _FIRST, ([1],), name="a list"),
            BadCall(FORMS_GUESSED, function, _FIRST, (None,), name="None"),
            BadCall(FORMS_GUESSED, function, _FIRST, ("EURUSD",), name="a text"),
        ]
    calls += [
        BadCall(claim, "order_send", outcome, ({**whole, name: value},), name=_named(name, value))
        for claim, name, value, outcome in _fields()
    ]
    calls.append(BadCall(FIELDS, "order_check", _of("volume"), ({**whole, "volume": 1},), name="volume=1"))
    calls.append(BadCall(FIELDS, "order_send", _of("sl"), (), {**whole, "sl": 0}, "keywords, sl=0"))
    return calls


def _named(name: str, value: Any) -> str:
    if isinstance(value, Special):
        return f"{name}={value.kind}"
    return f"{name}={value!r}" if not isinstance(value, str) or value.isascii() else f"{name}=30 units of emoji"


def of_tables() -> list[BadCall]:
    """Bad calls of positions, orders and history."""
    calls = []
    for function in ("positions_get", "orders_get"):
        calls += [
            BadCall(FORMS, function, _UNNAMED, ("some text",)),
            BadCall(FORMS, function, _of("ticket"), kwargs={"ticket": "1"}),
            BadCall(FORMS, function, _of("ticket"), kwargs={"ticket": 1.0}),
            BadCall(FORMS_GUESSED, function, _of("ticket"), kwargs={"ticket": None}),
            BadCall(FORMS, function, _of("symbol"), kwargs={"symbol": 1}),
            BadCall(FORMS, function, _of("group"), kwargs={"group": 1}),
            BadCall(UNFOUND, function, EMPTY, kwargs={"ticket": 42}),
            BadCall(UNFOUND, function, EMPTY, kwargs={"symbol": "NOSUCHSYMBOL"}),
            BadCall(UNFOUND, function, EMPTY, kwargs={"group": "NOSUCHGROUP*"}),
        ]
    for function in ("history_deals_get", "history_orders_get"):
        calls += [
            BadCall(FORMS, function, _ARGUMENTS),
            BadCall(FORMS, function, _ARGUMENTS, (_DAY,)),
            BadCall(FORMS, function, _ARGUMENTS, kwargs={"ticket": 1, "position": 1}),
            BadCall(FORMS, function, _ARGUMENTS, (_DAY, _DAY + 1), {"ticket": 1}),
            BadCall(FORMS_GUESSED, function, _ARGUMENTS, (_DAY, _DAY + 1, 3)),
            BadCall(DATES, function, _FIRST, ("2026-01-01", _DAY)),
            BadCall(DATES, function, none(-2, "Invalid 2nd unnamed argument"), (_DAY, None)),
            BadCall(FORMS, function, _of("ticket"), kwargs={"ticket": "1"}),
            BadCall(FORMS, function, _of("position"), kwargs={"position": 1.5}),
            BadCall(UNFOUND, function, EMPTY, kwargs={"position": 42}),
            BadCall(UNFOUND, function, EMPTY, kwargs={"ticket": 42}),
        ]
    for function in ("history_deals_total", "history_orders_total"):
        calls += [
            BadCall(FORMS_GUESSED, function, _ARGUMENTS),
            BadCall(FORMS_GUESSED, function, _ARGUMENTS, (_DAY,)),
        ]
    return calls


def of_symbols(symbol: str) -> list[BadCall]:
    """Bad calls about symbols, prices and reckoning."""
    nosuch, words = "NOSUCHSYMBOL", _FIRST
    return [
        BadCall(FORMS_GUESSED, "symbol_info", _ARGUMENTS),
        BadCall(FORMS_GUESSED, "symbol_info", words, (1,)),
        BadCall(FORMS_GUESSED, "symbol_info_tick", words, (None,)),
        BadCall(UNKNOWN, "symbol_info", _NOT_FOUND, (nosuch,)),
        BadCall(UNKNOWN, "symbol_info_tick", _NOT_FOUND, (nosuch,)),
        BadCall(UNKNOWN, "symbol_select", {"returned": "False", "error": [-4, "Terminal: Not found"]}, (nosuch, True)),
        BadCall(FORMS, "symbol_info", _TYPE_ERROR, kwargs={"symbol": symbol}),
        BadCall(FORMS, "symbol_info_tick", _TYPE_ERROR, kwargs={"symbol": symbol}),
        BadCall(FORMS_GUESSED, "symbols_get", _of("group"), kwargs={"group": 1}),
        BadCall(FORMS_GUESSED, "copy_rates_from_pos", _ARGUMENTS, (symbol,)),
        BadCall(FORMS_GUESSED, "copy_rates_from_pos", none(-2, "Invalid 2nd unnamed argument"), (symbol, "M1", 0, 1)),
        BadCall(UNKNOWN, "copy_rates_from_pos", _NOT_FOUND, (nosuch, 1, 0, 1)),
        BadCall(FORMS_GUESSED, "copy_rates_from_pos", none(-2, "Terminal: Invalid params"), (symbol, 7, 0, 1)),
        BadCall(DATES, "copy_rates_from", none(-2, "Invalid 3rd unnamed argument"), (symbol, 1, "2026-01-01", 1)),
        BadCall(DATES, "copy_ticks_from", none(-2, "Invalid 2nd unnamed argument"), (symbol, None, 1, -1)),
        BadCall(FORMS_GUESSED, "order_calc_margin", _ARGUMENTS),
        BadCall(FORMS_GUESSED, "order_calc_margin", none(-2, "Invalid 3rd unnamed argument"), (0, symbol, "1", 1.0)),
        BadCall(UNKNOWN, "order_calc_margin", _NOT_FOUND, (0, nosuch, 0.1, 1.0)),
        BadCall(FORMS_GUESSED, "order_calc_profit", _ARGUMENTS, (0, symbol, 0.1, 1.0)),
        BadCall(FORMS, "order_calc_margin", _TYPE_ERROR, kwargs={"action": 0}),
        BadCall(NO_ARGS, "account_info", _TYPE_ERROR, (1,)),
        BadCall(NO_ARGS, "terminal_info", _TYPE_ERROR, (1,)),
        BadCall(NO_ARGS, "positions_total", _TYPE_ERROR, (1,)),
        BadCall(NO_ARGS, "orders_total", _TYPE_ERROR, (1,)),
        BadCall(NO_ARGS, "last_error", _TYPE_ERROR, (1,)),
        BadCall(FORMS_GUESSED, "market_book_add", false("Invalid arguments")),
        BadCall(FORMS_GUESSED, "market_book_add", false("Invalid 1st unnamed argument"), (1,)),
        BadCall(FORMS_GUESSED, "login", false("Invalid arguments")),
        BadCall(FORMS_GUESSED, "login", false('Invalid "password" argument'), (1,), {"password": 5}),
        BadCall("§1.3: texts of login have less than 255 characters [BIN]", "login",
                false('Invalid "password" argument'), (1, "x" * 255)),
    ]  # fmt: skip


def walk(run: Run, calls: list[BadCall], when: str = "", symbol: str = "") -> None:
    """Makes each call and compares. `symbol` is called SYMBOL: brokers have names of their own."""
    for bad in calls:
        said = run.caller.call(bad.function, *bad.args, **bad.kwargs)
        if said.raised is not None:
            observed: Outcome = {"raised": said.raised[0]}
        else:
            observed = {"returned": _form(said.result), "error": list(said.error) if said.error else None}
        name = f"{when}{bad.function}({bad.name or _shown(bad)})"
        run.equal(name.replace(repr(symbol), "SYMBOL") if symbol else name, bad.claim, bad.expected, observed)


def _shown(bad: BadCall) -> str:
    parts = ["{…}" if isinstance(value, dict) else _short(value) for value in bad.args]
    return ", ".join(parts + [f"{name}={_short(value)}" for name, value in bad.kwargs.items()])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 20 else f"{len(value)} characters"


def _form(result: Any) -> str:
    """A result as it is compared: what it is, and of rows and arrays only that they are there."""
    if isinstance(result, ShownStruct):
        return result.struct
    if isinstance(result, Array):
        return "array"
    if isinstance(result, tuple) and any(isinstance(item, ShownStruct) for item in result):
        return "rows"
    return repr(result)
