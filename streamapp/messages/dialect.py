"""What senders write, in our names, words and units: the only module that knows how others spell a signal.

What has one meaning is used, however it is spelled; what means "no value" is none; what has no meaning here, or
several, is refused in words to its sender, and never guessed or dropped unsaid (docs/signals.md: the rules by field).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, get_args

from pydantic import ValidationError

from streamapp.domain.vocabulary import OrderType, Side, bounded, plain_digits
from streamapp.errors import Unusable
from streamapp.messages.envelope import REPEATED, reason_and_detail
from streamapp.messages.signal import NAMES, AnySignal, ExitSignal, Signal
from streamapp.settings import ExecutionSettings, WordField

# --- names


def renamed(payload: Mapping[str, Any], execution: ExecutionSettings) -> dict[str, Any]:
    """Return the fields of a signal that have a value, under our names (``field_names``), their values as they came.

    An id, account or strategy that is a whole number is its digits. An account that is an empty text stays: it is no
    name, and refused; a signal is routed only where nothing is said. Never raises.
    """
    ours: dict[str, Any] = {}
    for name in NAMES:
        value = payload.get(execution.field_names.get(name, name))
        if not is_blank(value) or (name == "account" and value is not None):
            ours[name] = value
    return with_text_ids(ours)


def with_text_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of any message, its ids, account and strategy as text where they are whole numbers."""
    texts = {
        name: str(fields[name])
        for name in _TEXTS
        if isinstance(fields.get(name), int) and not isinstance(fields[name], bool)
    }
    return {**fields, **texts}


def is_blank(value: object) -> bool:
    """Return whether a value says nothing: null, or a text of nothing but spaces."""
    return value is None or (isinstance(value, str) and not value.strip())


def require_known_fields(payload: Mapping[str, Any], execution: ExecutionSettings) -> None:
    """Return if no field is given twice, and none that is not read looks like one of ours.

    Other unknown fields are the sender's own business, and one that is false says nothing. A signal that says an intent
    is read more strictly: what narrows an exit (a position, a strategy, a part of the lots) and is not understood would
    close more than was meant.

    Raises:
        Unusable: reason ``bad_field``, naming the field and what was expected instead of it.
    """
    for field, value in payload.items():
        if value is REPEATED:
            raise Unusable("bad_field", f"{_shown(field)}: expected once, it is given more than once")
    theirs = tuple((name, execution.field_names.get(name, name)) for name in NAMES)
    read = {field for _, field in theirs}
    given = {name for name, field in theirs if not is_blank(payload.get(field))}
    for field, value in payload.items():
        if field in read or is_blank(value) or value is False:
            continue
        for name, expected, is_spelled_alike in _taken_for(field, theirs, exits="intent" in given):
            if is_spelled_alike or name not in given:
                raise Unusable(
                    "bad_field",
                    f"{_shown(field)}: not read here, expected {expected} (execution.field_names maps others)",
                )


@lru_cache(maxsize=1024)  # a sender's own fields are in each of its signals
def _taken_for(field: str, theirs: tuple[tuple[str, str], ...], *, exits: bool) -> tuple[tuple[str, str, bool], ...]:
    """Return what an unknown field may be meant for: our name, theirs, and whether only case and separators differ.

    Otherwise it is a slip or a synonym, which is the sender's own where the right one is there as well.
    """
    letters = _letters(field)
    synonyms = {
        name: _SYNONYMS.get(name, _NONE) | (_OF_EXITS.get(name, _NONE) if exits else _NONE) for name, _ in theirs
    }
    return tuple(
        (name, expected, letters == _letters(expected))
        for name, expected in theirs
        if letters in {_letters(name), _letters(expected), *synonyms[name]} or _is_slip(letters, _letters(expected))
    )


def _letters(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).casefold()


def _is_slip(word: str, name: str) -> bool:
    """Return whether one letter is wrong, too many or missing, or two have changed places; of long names only."""
    if len(name) < _LONG_NAME or word == name:
        return False
    first = next(
        (at for at, pair in enumerate(zip(word, name, strict=False)) if pair[0] != pair[1]), min(len(word), len(name))
    )
    rest, expected = word[first:], name[first:]
    is_swapped = rest[:2] == expected[1::-1] and rest[2:] == expected[2:]
    return is_swapped or rest[1:] in {expected, expected[1:]} or rest == expected[1:]


_TEXTS = ("signal_id", "order_id", "fill_id", "error_id", "account", "strategy")
_LONG_NAME = 7
"""Letters of a name from which on a slip is told from another word: "size" is no slip of "side"."""
# How other platforms call what we have; by the letters alone. Of a required field the loss is seen anyway, but volume:
# it may be left out where a signal closes.
_NONE: frozenset[str] = frozenset()
_SYNONYMS: dict[str, frozenset[str]] = {
    "intent": frozenset({"positioneffect", "openclose", "closeposition", "reduceonly", "closeonly"}),
    "account": frozenset({"login", "accountid", "accountname", "accountnumber"}),
    "volume": frozenset({"lot", "lots", "lotsize", "qty", "quantity", "size", "contracts"}),
    "price": frozenset({"limitprice", "stopprice", "entry", "entryprice", "openprice"}),
    "stop_limit_price": frozenset({"stoplimit"}),
    "stop_loss": frozenset({"sl", "slprice", "stoplossprice"}),
    "take_profit": frozenset({"tp", "tpprice", "takeprofitprice"}),
    "time_in_force": frozenset({"tif", "typetime"}),
    "expiration": frozenset({"expiry", "expires", "expiresat", "expirationtime"}),
    "fill_policy": frozenset({"filling", "fillingmode", "typefilling"}),
    "max_slippage_points": frozenset({"deviation", "slippage", "maxslippage", "slippagepoints"}),
}
# What an opening signal may call its own, and an exit may not: ignored, it would close all, or another position.
_OF_EXITS: dict[str, frozenset[str]] = {
    "position_id": frozenset({"position", "ticket", "positionticket", "positionnumber", "orderid", "orderticket"}),
    "strategy": frozenset({"strategyid", "strategyname", "magic", "magicnumber"}),
    "volume": frozenset(
        {"amount", "units", "percent", "percentage", "pct", "fraction", "ratio", "part"}
        | {f"{of}{part}" for of in ("close", "qty", "quantity", "volume") for part in ("percent", "pct")}
    ),
}


# --- words


def translated(named: Mapping[str, Any], execution: ExecutionSettings) -> dict[str, Any]:
    """Return renamed fields with our words in them: by ``value_names``, and as MT5, MetaApi and FIX spell them.

    Words are compared without case. One word may say side and order type: ORDER_TYPE_BUY_LIMIT, or 2.

    Raises:
        Unusable: reason ``bad_field``: two fields say different things.
    """
    said: dict[str, tuple[Any, str]] = {}
    for field in get_args(WordField):
        meanings = _meanings(field, named[field], execution) if field in named else {}
        for name, meaning in meanings.items():
            known, by = said.setdefault(name, (meaning, field))
            if known != meaning:
                raise Unusable(
                    "bad_field", f"{name}: expected one, got {_shown(known)} by {by} and {_shown(meaning)} by {field}"
                )
    return {**named, **{name: meaning for name, (meaning, _) in said.items()}}


def _meanings(field: str, value: Any, execution: ExecutionSettings) -> dict[str, Any]:
    """Return what a value says, by field; what is no word says itself, for the field's type to refuse."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return {field: value}
    word = str(value).strip().casefold()
    own, common = execution.value_names.get(field), execution.value_names.get(word)
    meaning = (own.get(word) if isinstance(own, dict) else None) or (common if isinstance(common, str) else word)
    plain = re.sub(r"[\s-]+", "_", meaning.casefold())
    # A side alone, in its own field, says nothing of the type; nor does a number there: FIX counts sides from 1.
    is_side = field == "side" and (plain in get_args(Side) or plain.isdigit())
    if field in {"side", "order_type"} and not is_side and plain in _ORDER_TYPES:
        return _ORDER_TYPES[plain]
    return {field: _WORDS.get(field, {}).get(plain, plain)}


_PAIRS = [(side, kind) for kind in get_args(OrderType) for side in get_args(Side)]
_ORDER_TYPES: dict[str, dict[str, str]] = {
    spelling: {"side": side, "order_type": kind}
    for number, (side, kind) in enumerate(_PAIRS)  # in the order of MT5's ENUM_ORDER_TYPE
    for name in (side if kind == "market" else f"{side}_{kind}",)
    for spelling in (name, name.replace("_", ""), f"order_type_{name}", str(number))
}
"""Words, and MT5's numbers, that say side and order type at once."""
_WORDS: dict[str, dict[str, str]] = {
    "order_type": {"stoplimit": "stop_limit"},
    "time_in_force": {
        "gtd": "until",
        "order_time_gtc": "gtc",
        "order_time_day": "day",
        "order_time_specified": "until",
    },
    "fill_policy": {f"order_filling_{word}": word for word in ("fok", "ioc", "return")},
}


# --- connectors


def connector_fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a foreign connector's fill or error that have a value: ids as text, words in lower case."""
    fields = with_text_ids({name: value for name, value in payload.items() if not is_blank(value)})
    for name in ("side", "entry", "reason", "kind"):
        if isinstance(word := fields.get(name), str):
            fields[name] = word.strip().casefold()
    return fields


# --- values


def read_signal(named: Mapping[str, Any]) -> AnySignal:
    """Return the signal in renamed and translated fields; ``intent`` says which kind it is.

    Of price fields 0 is none, but of levels to be modified, where it takes one away; none as well are the expiration 0
    and the max_slippage_points -1. The price of a market order or an exit, a chart's, is the expected one. A time may
    be a number since 1970 whose size shows its unit.

    Raises:
        Unusable: reason ``bad_field``, naming the field and what was expected.
    """
    opens = is_blank(named.get("intent")) or named["intent"] == "open"
    values = _valued(named, opens=opens)
    if isinstance(values.get("position_id"), bool):
        raise Unusable("bad_field", f"position_id: expected a position's ticket, got {_shown(values['position_id'])}")
    _refuse_strangers(values, ("position_id", "scope") if opens else ("stop_limit_price", "expiration"))
    try:
        return (Signal if opens else ExitSignal).model_validate(values)
    except ValidationError as error:
        raise Unusable("bad_field", reason_and_detail(error)[1]) from None


def _refuse_strangers(values: Mapping[str, Any], strangers: tuple[str, ...]) -> None:
    """Return if no field is set that means nothing with this intent: what was asked for is never dropped."""
    found = next((name for name in strangers if name in values), None)
    if found is not None:
        raise Unusable("bad_field", f"{found}: expected none with intent {values.get('intent', 'open')!s:.40}")


def _valued(named: Mapping[str, Any], *, opens: bool) -> dict[str, Any]:
    values = {name: value for name, value in named.items() if name == "account" or not is_blank(value)}
    kept = {"stop_loss", "take_profit"} if named.get("intent") == "modify" else set()
    for name in (_PRICES & values.keys()) - kept:
        if _number(values[name]) == 0:
            del values[name]
    if _number(values.get("expiration")) == 0:
        del values["expiration"]
    _read_slippage(values)
    for name in _TIMES:
        if name in values:
            values[name] = _time(name, values[name])
    if isinstance(symbol := values.get("symbol"), str):
        values["symbol"] = _symbol(symbol)
    if "price" in values and (values.get("order_type") == "market" or not opens):
        _take_chart_price(values)
    return values


def _number(value: object) -> Decimal | None:
    """Return a number as far as a column holds it, None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    try:
        return bounded(Decimal(plain_digits(value) if isinstance(value, str) else str(value)))
    except (ValueError, InvalidOperation):
        return None


def _read_slippage(values: dict[str, Any]) -> None:
    points = values.get("max_slippage_points")
    if points is None:
        return
    number = _number(points)
    if number is None or number != number.to_integral_value():
        raise Unusable("bad_field", f"max_slippage_points: expected a whole number, got {_shown(points)}")
    if number == -1:
        del values["max_slippage_points"]
    else:
        values["max_slippage_points"] = int(number)


def _time(name: str, value: Any) -> Any:
    number = _number(value)
    if number is None and isinstance(value, (str, datetime)):
        return value
    for per_second in _UNITS:
        if number is not None and _EARLIEST_S * per_second <= number < _LATEST_S * per_second:
            return _EPOCH + timedelta(microseconds=int(number * 1_000_000 / per_second))
    raise Unusable(
        "bad_field",
        f"{name}: expected RFC 3339 text, or the seconds, milliseconds, microseconds or nanoseconds since 1970 of a "
        f"time after {_EPOCH + timedelta(seconds=_EARLIEST_S):%Y-%m-%d}, got {_shown(value)}",
    )


def _symbol(symbol: str) -> str:
    stripped = symbol.strip()
    if not stripped.isprintable():
        raise Unusable("bad_field", f"symbol: expected characters that can be seen, got {stripped!a:.80}")
    return stripped


def _take_chart_price(values: dict[str, Any]) -> None:
    price, expected = values.pop("price"), values.get("expected_price")
    if expected is None:
        values["expected_price"] = price
    elif _number(price) != _number(expected):
        raise Unusable(
            "bad_field",
            f"price: expected none at a market order beside expected_price {_shown(expected)}, got {_shown(price)}",
        )


def _shown(value: object) -> str:
    return f"{value!r:.40}" if isinstance(value, str) else f"{value!s:.40}"


_PRICES = frozenset({"price", "stop_limit_price", "stop_loss", "take_profit", "expected_price"})
_TIMES = ("expiration", "approved_at", "valid_until")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (1, 1_000, 1_000_000, 1_000_000_000)
_EARLIEST_S, _LATEST_S = 10**9, 10**10
"""From 2001 to 2286 the number of digits alone tells the unit."""
