"""From the JSON of a message to the values of its row: pure and exact.

A column is named as the field is; fields of nested objects are joined with ``_`` (``slippage.touch.bps`` is
``slippage_touch_bps``), and what has no fixed shape is JSON text.

Which columns there are, and of what kind, comes from the messages' models; the values come straight from parsed JSON,
without a model in between. What a model checks beyond the kind of a value (that a volume is positive, say), the tables
check.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from functools import cache, partial
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from streamapp.domain.vocabulary import in_utc
from streamapp.errors import Unusable

JSON_COLUMNS = frozenset({"body", "request", "response", "last_error", "values", "order_ids"})
"""Of no fixed shape."""
_PLACES = Decimal("1E-10")  # Decimal(38, 10); the driver would cut what is behind it, and not round
_LARGEST = Decimal(10) ** 28
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
# DateTime64's own range. A risk engine's "never" (year 9999) is kept as the last moment of it.
_FIRST_YEAR, _LAST_YEAR = 1900, 2299
_ABSENT: Any = object()


@dataclass(frozen=True)
class Column:
    """A column: its name, the way to its value in a message's JSON, and how that value is converted.

    ``kind`` is the type of its values: Decimal, datetime, int, bool or str. ``default`` is the column's value where the
    field is absent; ``_ABSENT``: it must be there.
    """

    name: str
    path: tuple[str, ...]
    kind: type
    nullable: bool
    convert: Callable[[Any], Any]
    default: Any = _ABSENT

    def value_in(self, content: Any) -> Any:
        """Return the column's value for a message; None below a nested object that is not there.

        Raises:
            ValueError, TypeError, AttributeError: The message has no such value, or one of another kind.
            Unusable: It is a number or a time that no column can hold.
        """
        for name in self.path[:-1]:
            content = content.get(name)
            if content is None:
                return None
        value = content.get(self.path[-1], _ABSENT)
        if value is _ABSENT:
            if self.default is _ABSENT:
                raise ValueError("expected a value, got none")
            return self.default
        if value is None:
            if not self.nullable:
                raise ValueError("expected a value, got null")
            return None
        return self.convert(value)


@cache
def columns_of(model: type[BaseModel]) -> tuple[Column, ...]:
    """Return the columns of a message's fields, without its schema."""
    return tuple(_columns(model, ()))


def values_of(model: type[BaseModel], content: Any) -> list[Any]:
    """Return the values of a message's row, in the order of :func:`columns_of`.

    Args:
        model: The message's model.
        content: The message as parsed JSON, its fractions as floats.

    Raises:
        Unusable: Reason ``invalid`` or ``out_of_range``, naming the first field that does not fit its column.
    """
    values = []
    for column in columns_of(model):
        try:
            values.append(column.value_in(content))
        except (ValueError, TypeError) as error:
            raise Unusable("invalid", f"{'.'.join(column.path)}: {error}"[:500]) from None
        except AttributeError:
            raise Unusable(
                "invalid", f"{'.'.join(column.path)}: expected objects on the way, got something else"
            ) from None
        except Unusable as error:
            raise Unusable(error.reason, f"{'.'.join(column.path)}: {error.detail}") from None
    return values


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a field that is one object of fixed shape (or None), otherwise None."""
    models = [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, BaseModel)]
    return models[0] if len(models) == 1 else None


def json_text(value: Any) -> str:
    """Return parsed JSON as text again."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _columns(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Column]:
    for name, field in model.model_fields.items():
        if name == "schema_":
            continue
        if nested := nested_model(field.annotation):
            yield from _columns(nested, (*path, name))
        else:
            yield _column((*path, name), field)


def _column(path: tuple[str, ...], field: FieldInfo) -> Column:
    parts = _parts(field.annotation)
    name, kind = "_".join(path), str
    if name in JSON_COLUMNS:
        convert: Callable[[Any], Any] = json_text
    elif words := [part for part in parts if isinstance(part, str)]:
        convert = partial(_word, frozenset(words))
    else:
        kind = next(part for part in parts if part in _CONVERSIONS)
        convert = _CONVERSIONS[kind]
    default = _ABSENT if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, Decimal):
        default = convert(str(default))
    elif isinstance(default, dict | tuple):
        default = convert(default)
    return Column(name, path, kind, NoneType in parts or Any in parts, convert, default)


def _parts(annotation: Any) -> list[Any]:
    """Return the types and words that a field may hold."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if hasattr(annotation, "__metadata__"):
        return _parts(get_args(annotation)[0])
    return [part for each in get_args(annotation) for part in _parts(each)] or [annotation]


def _word(words: frozenset[str], value: Any) -> str:
    if value not in words:
        raise ValueError(f"expected one of {', '.join(sorted(words))}, got {value!r:.40}")
    return str(value)


def _of(kind: Any, value: Any) -> Any:
    # Not isinstance: True is an int to it.
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


def _integer(value: Any) -> int:
    # A magic is text: floats have no room for its 63 bits.
    return int(value) if isinstance(value, str) and value.isdecimal() else int(_of(int, value))


def _decimal(value: Any) -> Decimal:
    if type(value) not in {str, int, float}:
        raise TypeError(f"expected a decimal, got {value!r:.40}")
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"expected a decimal, got {value!r:.40}") from None
    if not number.is_finite():
        raise ValueError(f"expected a finite decimal, got {value!r:.40}")
    if abs(number) >= _LARGEST:
        raise Unusable("out_of_range", f"expected at most 28 digits before the point, got {number:.3E}")
    return number.quantize(_PLACES, context=_EXACT)


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is not UTC:
        moment = in_utc(moment)
    if moment.year < _FIRST_YEAR:
        raise Unusable("out_of_range", f"expected a time from {_FIRST_YEAR} on, got {moment.isoformat()}")
    if moment.year > _LAST_YEAR:
        return moment.replace(year=_LAST_YEAR, month=12, day=31, hour=23, minute=59, second=59, microsecond=999999)
    return moment


_CONVERSIONS: dict[Any, Callable[[Any], Any]] = {
    Decimal: _decimal,
    datetime: _time,
    int: _integer,
    **{kind: partial(_of, kind) for kind in (bool, str)},
}
