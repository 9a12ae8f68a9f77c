"""From messages to rows: pure, exact, and the same whenever the message comes again.

A column is named as the field is; fields of nested objects are joined with ``_`` (``slippage.touch.bps`` is
``slippage_touch_bps``), and what has no fixed shape is JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from streamapp import topics
from streamapp.errors import Unusable
from streamapp.messages.account import AccountMessage
from streamapp.messages.decision import DecisionMessage
from streamapp.messages.envelope import Message, json_object
from streamapp.messages.fact import FactMessage
from streamapp.messages.fill import FillMessage
from streamapp.messages.log import BrokerLogEntry
from streamapp.messages.order import OrderMessage
from streamapp.messages.position import PositionMessage
from streamapp.settings import Role

_PLACES = Decimal("1E-10")  # Decimal(38, 10); the driver would cut what is behind it, and not round
_LARGEST = Decimal(10) ** 28
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
# DateTime64's own range. A risk engine's "never" (year 9999) is kept as the last moment of it.
_FIRST_YEAR, _LAST_YEAR = 1900, 2299


@dataclass(frozen=True)
class Record:
    """A Kafka record as the warehouse reads it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it stands: topic, partition, offset."""
        return self.topic, self.partition, self.offset


@dataclass(frozen=True)
class Row:
    """One row: the table, its values in the order of :func:`columns`, and the record it came from."""

    table: str
    values: tuple[Any, ...]
    record: Record


@dataclass(frozen=True)
class Column:
    """A column and the way to its value in the message."""

    name: str
    path: tuple[str, ...]


MODELS: dict[str, type[Message]] = {
    "orders": OrderMessage,
    "order_events": OrderMessage,
    "executions": FillMessage,
    "positions": PositionMessage,
    "accounts": AccountMessage,
    "signals": DecisionMessage,
    "facts": FactMessage,
    "broker_log": BrokerLogEntry,
}
_SCHEMAS: dict[str, tuple[str, ...]] = {
    "order/1": ("orders", "order_events"),
    "fill/1": ("executions",),
    "position/1": ("positions",),
    "account/1": ("accounts",),
    "signal/1": ("signals",),
    "fact/1": ("facts",),
    "log/1": ("broker_log",),
    "error/1": (),  # what it says is in the facts
    "refused/1": (),  # and of this in signals
}
# Of no fixed shape.
JSON_COLUMNS = frozenset({"body", "request", "response", "last_error"})
_PLACE = ("archive_partition", "archive_offset")
# A connector keeps no orders: they are the execution service's, and so are positions, accounts, decisions and facts.
_CONNECTOR_TABLES = frozenset({"executions", "broker_log"})


def rows_of(record: Record, role: Role) -> tuple[Row, ...]:
    """Return the rows of one record; none for what has no table, or none in this role.

    Raises:
        Unusable: the record is no message of ours, or a number or time in it fits no column.
    """
    tables = _tables_of(record)
    if role == "connector":
        tables = tuple(table for table in tables if table in _CONNECTOR_TABLES)
    if not tables:
        return ()
    # Tables of one schema have the same columns.
    values = _values(tables[0], MODELS[tables[0]].decode(record.value), record)
    return tuple(Row(table, values, record) for table in tables)


@cache
def columns(table: str) -> tuple[str, ...]:
    """Return the columns that are written, in the order of a row's values."""
    names = tuple(column.name for column in columns_of(MODELS[table]))
    return (*names, *_PLACE) if table == "facts" else names


@cache
def columns_of(model: type[BaseModel]) -> tuple[Column, ...]:
    """Return the columns of a message's fields, without its schema."""
    return tuple(_columns(model, ()))


def _tables_of(record: Record) -> tuple[str, ...]:
    schema = json_object(record.value).get("schema")
    if not isinstance(schema, str) or schema not in _SCHEMAS:
        raise Unusable("unknown_schema", f"expected one of {', '.join(_SCHEMAS)}, got {schema!r:.80}")
    tables = _SCHEMAS[schema]
    if (schema == "fact/1") != (record.topic == topics.ARCHIVE):
        raise Unusable("wrong_topic", f"expected facts in {topics.ARCHIVE} alone, got {schema} in {record.topic}")
    return tables


def _columns(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[Column]:
    for name, field in model.model_fields.items():
        if name == "schema_":
            continue
        if nested := nested_model(field.annotation):
            yield from _columns(nested, (*path, name))
        else:
            yield Column("_".join((*path, name)), (*path, name))


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a field that is one object of fixed shape (or None), otherwise None."""
    parts = (annotation, *get_args(annotation))
    models = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
    return models[0] if len(models) == 1 else None


def _values(table: str, message: Message, record: Record) -> tuple[Any, ...]:
    values = tuple(_value(message, column) for column in columns_of(type(message)))
    if table != "facts":
        return values
    # A sorting key holds no NULL.
    order_id = columns(table).index("order_id")
    return (*values[:order_id], values[order_id] or "", *values[order_id + 1 :], record.partition, record.offset)


def _value(message: Any, column: Column) -> Any:
    value = message
    for name in column.path:
        if value is None:
            return None
        value = getattr(value, name)
    if column.name in JSON_COLUMNS:
        return None if value is None else _json_text(value)
    convert = _CONVERSIONS.get(type(value))
    return convert(value, column.name) if convert else value


def _json_text(value: Any) -> str:
    if isinstance(value, BaseModel):
        return value.model_dump_json()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _quantized(value: Decimal, name: str) -> Decimal:
    if abs(value) >= _LARGEST:
        raise Unusable("out_of_range", f"{name}: expected at most 28 digits before the point, got {value:.3E}")
    return value.quantize(_PLACES, context=_EXACT)


def _in_range(value: datetime, name: str) -> datetime:
    if value.year < _FIRST_YEAR:
        raise Unusable("out_of_range", f"{name}: expected a time from {_FIRST_YEAR} on, got {value.isoformat()}")
    if value.year > _LAST_YEAR:
        return value.replace(year=_LAST_YEAR, month=12, day=31, hour=23, minute=59, second=59, microsecond=999999)
    return value


_CONVERSIONS: dict[type, Callable[[Any, str], Any]] = {Decimal: _quantized, datetime: _in_range}
