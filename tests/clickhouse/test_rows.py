"""Rows straight from bytes are the rows that the models would give, and what fits no table says why, alone."""

from __future__ import annotations

import json
import types
from datetime import UTC, datetime, timedelta, timezone
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel

from streamapp import topics
from streamapp.clickhouse.columns import JSON_COLUMNS
from streamapp.clickhouse.rows import MODELS, SourceRecord, columns, rows_of
from streamapp.domain.facts import BODIES
from streamapp.messages.envelope import Message
from streamapp.messages.fact import FactMessage
from streamapp.messages.log import BrokerLogEntry
from tests.clickhouse import samples

PLACE = {"archive_partition": 3, "archive_offset": 42, "commit_number": 43, "commit_place": 0}
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
INTEGERS = st.integers(-(2**63), 2**70)
ANYTHING = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
BOUNDED = st.decimals("0.0000000001", "1e27", places=10)
KINDS: dict[Any, st.SearchStrategy[Any]] = {
    Decimal: st.decimals("0.0000000001", "1e27", places=12),
    datetime: st.datetimes(
        datetime(1901, 1, 1),  # noqa: DTZ001 -- the strategy adds the zone
        timezones=st.sampled_from((UTC, timezone(timedelta(hours=-7, minutes=-30)))),
    ),
    str: TEXT,
    int: st.integers(1, 2**63 - 1),
    bool: st.booleans(),
    types.NoneType: st.none(),
    Any: ANYTHING,
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """What a field of this type may hold, as its model takes it."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        is_bounded = any(isinstance(part, AfterValidator) for part in parts) and parts[0] is Decimal
        return BOUNDED if is_bounded else values(parts[0])
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, types.UnionType):
        return st.one_of([values(part) for part in parts])
    if origin is dict:
        return st.dictionaries(TEXT, values(parts[1]), max_size=3)
    if origin is tuple:
        of_any_length = parts[1:] == (...,)
        items = [values(part) for part in parts if part is not ...]
        return st.lists(items[0], max_size=3).map(tuple) if of_any_length else st.tuples(*items)
    return messages(annotation) if is_model(annotation) else KINDS[annotation]


def is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def messages(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Messages of a model with any values that fit its columns."""
    if model is FactMessage:
        return st.sampled_from(sorted(BODIES)).flatmap(fact_messages)
    fields = {
        name: values(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)
        for name, field in model.model_fields.items()
        if name != "schema_"
    }
    return st.builds(model.model_construct, **fields)


def fact_messages(kind: str) -> st.SearchStrategy[Any]:
    fields = {name: values(FactMessage.model_fields[name].annotation) for name in ("fact_id", "order_id", "account")}
    return st.builds(
        FactMessage.model_construct,
        fact=st.just(kind),
        body=messages(BODIES[kind]),
        at=values(datetime),
        causation_id=values(str | None),
        **fields,
    )


def row_of_model(table: str, message: Message) -> dict[str, Any]:
    """The row of a message by way of its model: read field by field, converted as the columns are."""
    found: dict[str, Any] = {}

    def collect(model: BaseModel | None, kind: type[BaseModel], prefix: str) -> None:
        for name, field in kind.model_fields.items():
            value = None if model is None else getattr(model, name)
            nested = [part for part in (field.annotation, *get_args(field.annotation)) if is_model(part)]
            if len(nested) == 1:
                collect(value, nested[0], f"{prefix}{name}_")
            elif name != "schema_":
                found[prefix + name] = value_of_column(name, value)

    collect(message, type(message), "")
    if table == "facts":
        found["order_id"] = found["order_id"] or ""
        found |= PLACE
    return found


def value_of_column(name: str, value: Any) -> Any:
    if name in JSON_COLUMNS:
        return json.loads(value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value))
    if isinstance(value, Decimal):
        return value.quantize(Decimal("1E-10"), context=Context(prec=60, rounding=ROUND_HALF_EVEN))
    if isinstance(value, datetime) and value.year > 2299:
        return datetime(2299, 12, 31, 23, 59, 59, 999999, UTC)
    return value


def named(table: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """A row by the names of its columns, JSON read again: 1e16 and 1E+16 are one number."""
    row = dict(zip(columns(table), values, strict=True))
    return {
        name: json.loads(value) if name in JSON_COLUMNS and value is not None else value for name, value in row.items()
    }


@pytest.mark.parametrize("table", MODELS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_from_bytes_is_the_row_from_the_model(table: str, data: st.DataObject) -> None:
    model = MODELS[table]
    payload = data.draw(messages(model)).encode()
    rows, refusals = rows_of(_record(model, payload), "both")
    assert refusals == []
    (row,) = [row for row in rows if row.table == table]
    assert named(table, row.values) == row_of_model(table, model.decode(payload))


@pytest.mark.parametrize("table", MODELS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_field_that_is_left_out_has_its_default(table: str, data: st.DataObject) -> None:
    model = MODELS[table]
    content = json.loads(data.draw(messages(model)).encode())
    for name, field in model.model_fields.items():
        if not field.is_required() and name != "schema_":
            del content[name]
    payload = json.dumps(content).encode()
    rows, _ = rows_of(_record(model, payload), "both")
    (row,) = [row for row in rows if row.table == table]
    assert named(table, row.values) == row_of_model(table, model.decode(payload))


def _record(model: type[Message], payload: bytes) -> SourceRecord:
    if model is BrokerLogEntry:
        return SourceRecord(topics.BROKER_LOG, 3, 42, None, payload)
    facts, rest = (payload, b"") if model is FactMessage else (b"", b'{"message":' + payload + b"}")
    head = b'{"schema":"commit/1","account":"a","number":43,"at":"2026-11-20T12:00:00.000000Z",'
    return SourceRecord(topics.ARCHIVE, 3, 42, None, head + b'"facts":[' + facts + b'],"messages":[' + rest + b"]}")


def test_numbers_are_rounded_and_not_cut() -> None:
    third = samples.order(average_price=Decimal("1.00000000005"), filled_volume=Decimal("1.00000000015"))
    [row, _], _ = rows_of(samples.record(third), "both")
    found = named("orders", row.values)
    assert found["average_price"] == Decimal("1.0000000000")
    assert found["filled_volume"] == Decimal("1.0000000002")


def test_a_commit_has_the_rows_of_its_facts_and_messages_in_their_order() -> None:
    record = samples.record(samples.fact(1), samples.order(), samples.fact(2), samples.fill(), samples.account())
    rows, refusals = rows_of(record, "both")
    assert [row.table for row in rows] == ["facts", "facts", "orders", "order_events", "executions", "accounts"]
    assert [named("facts", row.values)["commit_place"] for row in rows[:2]] == [0, 1]
    assert refusals == []


def broken(message: Message, **fields: Any) -> SourceRecord:
    """A commit with a good fact and this message, some of its fields replaced."""
    good, content = samples.fact().encode(), json.loads(message.encode()) | fields
    head = b'{"schema":"commit/1","account":"a","number":1,"at":"2026-11-20T12:00:00Z","facts":[' + good
    return SourceRecord(
        topics.ARCHIVE, 0, 0, None, head + b'],"messages":[{"message":' + json.dumps(content).encode() + b"}]}"
    )


@pytest.mark.parametrize(
    ("record", "reason", "place"),
    [
        (broken(samples.order(average_price=Decimal("1e28"))), "out_of_range", "average_price"),
        (broken(samples.fill(at=datetime(1899, 12, 31, tzinfo=UTC))), "out_of_range", "at"),
        (broken(samples.fill(), at="2026-11-20T12:00:00"), "invalid", "at"),
        (broken(samples.fill(), at="0001-01-01T00:00:00+14:00"), "invalid", "at"),
        (broken(samples.fill(), at=5), "invalid", "at"),
        (broken(samples.fill(), price="NaN"), "invalid", "price"),
        (broken(samples.fill(), price="dear"), "invalid", "price"),
        (broken(samples.fill(), price=True), "invalid", "price"),
        (broken(samples.fill(), price=None), "invalid", "price"),
        (broken(samples.fill(), side="long"), "invalid", "side"),
        (broken(samples.fill(), deal=1.5), "invalid", "deal"),
        (broken(samples.fill(), deal=True), "invalid", "deal"),
        (broken(samples.fill(), symbol=7), "invalid", "symbol"),
        (broken(samples.fill(), slippage=[]), "invalid", "slippage"),
        (broken(samples.order(), quote={"bid": "1"}), "invalid", "quote.ask"),
        (broken(samples.order(), schema="order/2"), "unknown_schema", "order/1"),
        (broken(samples.order(), schema=["order/1"]), "unknown_schema", "order/1"),
        (broken(samples.order(), schema="fact/1"), "unknown_schema", "order/1"),
    ],
)
def test_a_message_that_fits_no_table_says_why_and_disturbs_no_neighbour(
    record: SourceRecord, reason: str, place: str
) -> None:
    rows, [refusal] = rows_of(record, "both")
    assert [row.table for row in rows] == ["facts"]
    assert (refusal.reason, refusal.entry.path) == (reason, "messages.0")
    assert place in refusal.detail


@pytest.mark.parametrize(
    ("topic", "value", "reason"),
    [
        (topics.ARCHIVE, b"", "not_json"),
        (topics.ARCHIVE, b"{", "not_json"),
        (topics.ARCHIVE, b'{"schema": "commit/1", "number": NaN}', "not_json"),
        (topics.ARCHIVE, b'{"schema": "\\ud800"}', "not_json"),
        (topics.ARCHIVE, b"[]", "not_an_object"),
        (topics.ARCHIVE, samples.fact().encode(), "unknown_schema"),
        (topics.ARCHIVE, samples.log_entry().encode(), "unknown_schema"),
        (topics.BROKER_LOG, samples.commit(samples.fact()), "unknown_schema"),
        (topics.ARCHIVE, b'{"schema": "commit/1"}', "invalid"),
        (topics.ARCHIVE, b'{"schema": "commit/1", "number": true}', "invalid"),
        (topics.ARCHIVE, b'{"schema": "commit/1", "number": 1, "facts": {}}', "invalid"),
        (topics.BROKER_LOG, b'{"schema": "log/1"}', "invalid"),
        (topics.BROKER_LOG, b'{"schema": "log/2"}', "invalid"),
    ],
)
def test_a_record_that_nobody_can_use_is_refused_as_a_whole(topic: str, value: bytes, reason: str) -> None:
    rows, [refusal] = rows_of(SourceRecord(topic, 0, 0, None, value), "both")
    assert (rows, refusal.reason, refusal.entry.payload) == ([], reason, value)


@pytest.mark.parametrize("archived", [b"7", b"{}", b'{"message": 7}', b'{"message": null}'])
def test_what_is_no_message_is_refused_alone(archived: bytes) -> None:
    value = samples.commit(samples.fact()).replace(b'"messages":[', b'"messages":[' + archived)
    rows, [refusal] = rows_of(SourceRecord(topics.ARCHIVE, 0, 0, None, value), "both")
    assert ([row.table for row in rows], refusal.reason, refusal.entry.payload) == (
        ["facts"],
        "unknown_schema",
        archived.replace(b": ", b":"),
    )


@pytest.mark.parametrize("schema", ["accepted/1", "refused/1", "error/1", "copy/1", "answer/1"])
def test_what_other_tables_hold_already_has_no_table(schema: str) -> None:
    value = samples.commit().replace(b'"messages":[', b'"messages":[{"message":{"schema":"%b"}}' % schema.encode())
    assert rows_of(SourceRecord(topics.ARCHIVE, 0, 0, None, value), "both") == ([], [])


def test_each_entry_of_the_broker_log_is_a_row_as_it_was_when_it_came_alone() -> None:
    entries = [samples.log_entry(seq) for seq in (1, 2, 3)]
    rows, refusals = rows_of(samples.record(*entries), "both")
    alone = [rows_of(SourceRecord(topics.BROKER_LOG, 0, 0, None, entry.encode()), "both")[0] for entry in entries]
    assert [row.values for row in rows] == [row.values for (row,) in alone]
    assert refusals == []


def test_an_entry_that_fits_no_table_disturbs_no_neighbour() -> None:
    good = samples.log_entry().encode()
    value = b'{"schema":"log/2","entries":[%b,{"schema":"log/1"},7,%b]}' % (good, good)
    rows, refusals = rows_of(SourceRecord(topics.BROKER_LOG, 0, 0, None, value), "both")
    assert [row.entry.path for row in rows] == ["entries.0", "entries.3"]
    assert [(refusal.reason, refusal.entry.path) for refusal in refusals] == [
        ("invalid", "entries.1"),
        ("invalid", "entries.2"),
    ]


def test_a_connector_writes_executions_and_its_broker_log_alone() -> None:
    everything = samples.record(
        samples.fact(),
        samples.order(),
        samples.fill(),
        samples.position(),
        samples.account(),
        samples.operation(),
        samples.decision(),
    )
    assert [row.table for row in rows_of(everything, "connector")[0]] == ["executions"]
    assert [row.table for row in rows_of(samples.record(samples.log_entry()), "connector")[0]] == ["broker_log"]
